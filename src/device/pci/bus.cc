#include "device/pci/bus.h"

#include <algorithm>

#include "support/check.h"

namespace bulkhead::device::pci {
namespace {

using namespace spec::pci;

constexpr uint32_t kAddressEnable = 1u << 31;
constexpr uint8_t kResetCpu = 1 << 2;
constexpr uint8_t kResetWritable = 0x0E;  // full reset, reset CPU, system reset

constexpr unsigned index_of(unsigned slot, unsigned number) {
  return slot * kFunctionCount + number;
}

}  // namespace

Bus::Bus(Board* board, const std::array<IrqLine, kInterruptLineCount>& lines) : board_(board) {
  for (unsigned i = 0; i < kInterruptLineCount; ++i) lines_[i].connect(lines[i]);
}

void Bus::add(Function& function, unsigned slot, unsigned number) {
  CHECK(slot < kSlotCount && number < kFunctionCount, "no such slot on a PCI bus");
  CHECK(functions_[index_of(slot, number)] == nullptr, "two functions in one place of a PCI bus");
  CHECK(number == 0 || functions_[index_of(slot, 0)] != nullptr, "a slot without function 0 is empty for the guest");
  functions_[index_of(slot, number)] = &function;
  if (number != 0) functions_[index_of(slot, 0)]->set_multi_function();
  function.attach(board_, IrqLine(*this, index_of(slot, number)));
}

Function* Bus::find(unsigned slot, unsigned number) const {
  return slot < kSlotCount && number < kFunctionCount ? functions_[index_of(slot, number)] : nullptr;
}

void Bus::read_config(unsigned slot, unsigned number, uint16_t offset, MutableByteSpan out) {
  Function* function = find(slot, number);
  if (function == nullptr) {
    std::fill(out.begin(), out.end(), uint8_t{0xFF});
    return;
  }
  function->read_config(offset, out);
}

void Bus::write_config(unsigned slot, unsigned number, uint16_t offset, ByteSpan in) {
  Function* function = find(slot, number);
  if (function != nullptr) function->write_config(offset, in);
}

// The line is the OR of the pins that are wired to it.
void Bus::set_irq(uint32_t input, bool asserted) {
  const Function* function = functions_[input];
  const unsigned line = line_of(input / kFunctionCount, function->interrupt_pin());
  {
    const LockGuard lock(mutex_);
    asserted_.set(input, asserted);
    bool level = false;
    for (unsigned other = 0; other < asserted_.size() && !level; ++other) {
      level = asserted_.test(other) && line_of(other / kFunctionCount, functions_[other]->interrupt_pin()) == line;
    }
    lines_[line].want(level);
  }
  lines_[line].settle();
}

// ---- ConfigPorts ----

void ConfigPorts::reset() {
  const LockGuard lock(mutex_);
  address_ = 0;
  reset_control_ = 0;
}

uint32_t ConfigPorts::read_port(uint16_t offset, unsigned size) {
  uint32_t value = ~0u >> (32 - 8 * size);
  uint32_t address = 0;
  {
    const LockGuard lock(mutex_);
    if (offset == 0 && size == 4) return address_;
    if (offset == kResetControlPort - kFirstPort && size == 1) return reset_control_;
    address = address_;
  }
  if (offset < 4 || offset + size > kPortCount || (address & kAddressEnable) == 0) return value;
  if (((address >> 16) & 0xFF) != 0) return value;
  const auto place = static_cast<uint16_t>((address & 0xFC) + (offset - 4));
  bus_.read_config((address >> 11) & 31, (address >> 8) & 7, place, as_mutable_bytes(value).first(size));
  return value;
}

void ConfigPorts::write_port(uint16_t offset, unsigned size, uint32_t value) {
  uint32_t address = 0;
  bool resets = false;
  {
    const LockGuard lock(mutex_);
    if (offset == 0 && size == 4) {
      address_ = value & 0x80FF'FFFC;
      return;
    }
    if (offset == kResetControlPort - kFirstPort && size == 1) {
      resets = (value & kResetCpu) != 0 && (reset_control_ & kResetCpu) == 0;
      reset_control_ = static_cast<uint8_t>(value & kResetWritable);
    }
    address = address_;
  }
  if (resets) power_.request_reset();
  if (offset < 4 || offset + size > kPortCount || (address & kAddressEnable) == 0) return;
  if (((address >> 16) & 0xFF) != 0) return;
  const auto place = static_cast<uint16_t>((address & 0xFC) + (offset - 4));
  bus_.write_config((address >> 11) & 31, (address >> 8) & 7, place, as_bytes(value).first(size));
}

void ConfigPorts::save_state(StateWriter& writer) const {
  const LockGuard lock(mutex_);
  writer.put("address", address_).put("reset_control", reset_control_);
}

Result<> ConfigPorts::restore_state(const StateReader& reader) {
  const auto address = static_cast<uint32_t>(TRY(reader.get("address", UINT32_MAX)));
  if ((address & ~0x80FF'FFFCu) != 0) return fail("{}: address {:#x} has reserved bits set", reader.path(), address);
  const auto control = static_cast<uint8_t>(TRY(reader.get("reset_control", 0xFF)));
  if ((control & ~kResetWritable) != 0)
    return fail("{}: reset control {:#x} has reserved bits set", reader.path(), control);
  const LockGuard lock(mutex_);
  address_ = address;
  reset_control_ = control;
  return {};
}

// ---- EcamWindow ----

EcamWindow::EcamWindow(Bus& bus, unsigned bus_count) : bus_(bus), bus_count_(bus_count) {
  CHECK(bus_count >= 1 && bus_count <= 256, "ECAM has 1 to 256 buses");
}

void EcamWindow::read_mmio(uint64_t offset, MutableByteSpan out) {
  while (!out.empty()) {
    const uint64_t place = offset % kEcamFunctionSize;
    const size_t count = std::min<uint64_t>(out.size(), kEcamFunctionSize - place);
    const MutableByteSpan piece = out.first(count);
    if (offset < kBusSize) {
      bus_.read_config((offset >> 15) & 31, (offset >> 12) & 7, static_cast<uint16_t>(place), piece);
    } else {
      std::fill(piece.begin(), piece.end(), uint8_t{0xFF});
    }
    out = out.subspan(count);
    offset += count;
  }
}

void EcamWindow::write_mmio(uint64_t offset, ByteSpan in) {
  while (!in.empty() && offset < kBusSize) {
    const uint64_t place = offset % kEcamFunctionSize;
    const size_t count = std::min<uint64_t>(in.size(), kEcamFunctionSize - place);
    bus_.write_config((offset >> 15) & 31, (offset >> 12) & 7, static_cast<uint16_t>(place), in.first(count));
    in = in.subspan(count);
    offset += count;
  }
}

}  // namespace bulkhead::device::pci
