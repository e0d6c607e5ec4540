#include "device/pci/function.h"

#include <algorithm>
#include <bit>

#include "support/check.h"

namespace bulkhead::device::pci {
namespace {

using namespace spec::pci;

// In decoded_: the BAR answers nowhere. No BAR can begin here, for each is aligned to its size.
constexpr uint64_t kNotDecoded = UINT64_MAX;

constexpr uint16_t bar_offset(unsigned index) {
  return static_cast<uint16_t>(kBar0 + 4 * index);
}

template <size_t kSize>
void put_little(std::array<uint8_t, kSize>& bytes, uint16_t offset, unsigned size, uint64_t value) {
  std::memcpy(&bytes[offset], &value, size);
}

}  // namespace

Function::Function(const Identity& identity) : identity_(identity) {
  const auto fixed = [this](uint8_t offset, unsigned size, uint32_t value) { set_register(offset, size, value, 0); };
  fixed(kVendorId, 2, identity.vendor_id);
  fixed(kDeviceId, 2, identity.device_id);
  fixed(kRevisionId, 1, identity.revision);
  fixed(kClassCode, 3, identity.class_code);
  fixed(kSubsystemVendorId, 2, identity.subsystem_vendor_id);
  fixed(kSubsystemId, 2, identity.subsystem_id);
  fixed(kInterruptPin, 1, identity.interrupt_pin);
  uint16_t command = kCommandBusMaster | kCommandParity | kCommandSerr;
  if (identity.interrupt_pin != 0) command |= kCommandInterruptDisable;
  set_register(kCommand, 2, 0, command);
  set_register(kCacheLineSize, 1, 0, 0xFF);
  set_register(kLatencyTimer, 1, 0, 0xFF);
  set_register(kInterruptLine, 1, 0, 0xFF);
  const LockGuard lock(mutex_);
  decoded_.fill(kNotDecoded);
}

Function::~Function() = default;

void Function::attach(Board* board, IrqLine interrupt_line) {
  board_ = board;
  interrupt_.connect(interrupt_line);
}

void Function::set_multi_function() {
  const LockGuard lock(mutex_);
  bytes_[kHeaderType] |= kHeaderMultiFunction;
  at_reset_[kHeaderType] |= kHeaderMultiFunction;
}

// ---- What the function has ----

void Function::set_register(uint16_t offset, unsigned size, uint32_t value, uint32_t writable) {
  CHECK(size <= 4 && range_fits(offset, size, kConfigSize), "a register outside configuration space");
  const LockGuard lock(mutex_);
  put_little(bytes_, offset, size, value);
  put_little(at_reset_, offset, size, value);
  put_little(writable_, offset, size, writable);
}

void Function::add_memory_bar(uint8_t index, uint64_t size, BarKind kind, bool prefetchable, Mmio& target) {
  const bool is_64_bit = kind == BarKind::kMemory64;
  CHECK(is_64_bit || kind == BarKind::kMemory32, "a memory BAR is 32 or 64 bits wide");
  CHECK(index + (is_64_bit ? 1 : 0) < static_cast<int>(kBarCount) && bars_[index].kind == BarKind::kNone,
        "no such BAR is free");
  CHECK(std::has_single_bit(size) && size >= 16 && (is_64_bit || size <= (1u << 31)), "a BAR's size is a power of two");
  bars_[index] = {.kind = kind, .index = index, .prefetchable = prefetchable, .size = size, .mmio = &target};
  const uint64_t writable = ~(size - 1);
  const uint32_t flags = (is_64_bit ? kBarMemory64 : 0) | (prefetchable ? kBarPrefetchable : 0);
  set_register(bar_offset(index), 4, flags, static_cast<uint32_t>(writable));
  if (is_64_bit) set_register(bar_offset(index + 1u), 4, 0, static_cast<uint32_t>(writable >> 32));
  writable_[kCommand] |= kCommandMemory;
}

void Function::add_io_bar(uint8_t index, uint64_t size, PortIo& target) {
  CHECK(index < kBarCount && bars_[index].kind == BarKind::kNone, "no such BAR is free");
  CHECK(std::has_single_bit(size) && size >= 4 && size <= 256, "an I/O BAR has 4 to 256 ports");
  bars_[index] = {.kind = BarKind::kIo, .index = index, .size = size, .ports = &target};
  // A port is 16 bits wide, so the upper half is fixed at zero (PCI 3.0, 6.2.5.1).
  set_register(bar_offset(index), 4, kBarIo, static_cast<uint16_t>(~(size - 1)));
  writable_[kCommand] |= kCommandIo;
}

uint8_t Function::add_capability(uint8_t id, ByteSpan body, ByteSpan writable) {
  CHECK(body.size() == writable.size(), "a capability has a write mask for each byte");
  const uint16_t size = static_cast<uint16_t>(align_up(2 + body.size(), 4));
  CHECK(free_config_ + size <= kConfigSize, "no room for a capability in configuration space");
  const auto offset = static_cast<uint8_t>(free_config_);
  free_config_ += size;
  set_register(offset, 2, id, 0);
  for (size_t i = 0; i < body.size(); ++i) {
    set_register(static_cast<uint16_t>(offset + 2 + i), 1, body[i], writable[i]);
  }
  const uint8_t link = last_capability_ == 0 ? kCapabilityPointer : static_cast<uint8_t>(last_capability_ + 1);
  set_register(link, 1, offset, 0);
  set_register(kStatus, 2, kStatusCapabilities, 0);
  last_capability_ = offset;
  return offset;
}

void Function::add_msix(MessageSink& sink, unsigned vector_count, uint8_t bar_index, uint32_t table_offset,
                        uint32_t pending_offset) {
  CHECK(msix_ == nullptr, "MSI-X is added once");
  msix_ = std::make_unique<Msix>(sink, vector_count);
  sink_ = &sink;
  CHECK(bar_index < kBarCount && bars_[bar_index].mmio != nullptr, "MSI-X lies in a memory BAR");
  CHECK(range_fits(table_offset, msix_->table_size(), bars_[bar_index].size) && table_offset % 8 == 0,
        "table outside the BAR");
  CHECK(range_fits(pending_offset, msix_->pending_size(), bars_[bar_index].size) && pending_offset % 8 == 0,
        "pending bits outside the BAR");
  std::array<uint8_t, kMsixSize> capability{};
  std::array<uint8_t, kMsixSize> writable{};
  put_little(capability, kMsixControl, 2, vector_count - 1);
  put_little(capability, kMsixTable, 4, table_offset | bar_index);
  put_little(capability, kMsixPending, 4, pending_offset | bar_index);
  put_little(writable, kMsixControl, 2, kMsixEnable | kMsixFunctionMask);
  msix_capability_ = add_capability(kCapabilityMsix, ByteSpan(capability).subspan(2), ByteSpan(writable).subspan(2));
}

void Function::add_msi(MessageSink& sink, unsigned vector_count) {
  CHECK(msi_capability_ == 0, "MSI is added once");
  CHECK(std::has_single_bit(vector_count) && vector_count <= 32, "MSI has 1, 2, 4, 8, 16 or 32 vectors");
  sink_ = &sink;
  std::array<uint8_t, kMsiSize> capability{};
  std::array<uint8_t, kMsiSize> writable{};
  const auto multiple = static_cast<uint16_t>(std::countr_zero(vector_count) << 1);
  put_little(capability, kMsiControl, 2, kMsi64Bit | kMsiPerVectorMask | multiple);
  put_little(writable, kMsiControl, 2, kMsiEnable | 0x70u);
  put_little(writable, kMsiAddressLow, 4, 0xFFFF'FFFC);
  put_little(writable, kMsiAddressHigh, 4, 0xFFFF'FFFF);
  put_little(writable, kMsiData, 2, 0xFFFF);
  put_little(writable, kMsiMask, 4, vector_count == 32 ? 0xFFFF'FFFF : (1u << vector_count) - 1);
  msi_capability_ = add_capability(kCapabilityMsi, ByteSpan(capability).subspan(2), ByteSpan(writable).subspan(2));
}

// ---- What the guest does ----

void Function::read_config(uint16_t offset, MutableByteSpan out) {
  before_config_read(offset, out.size());
  const LockGuard lock(mutex_);
  for (size_t i = 0; i < out.size(); ++i) out[i] = offset + i < kConfigSize ? bytes_[offset + i] : uint8_t{0xFF};
}

void Function::write_config(uint16_t offset, ByteSpan in) {
  Actions actions;
  {
    const LockGuard lock(mutex_);
    for (size_t i = 0; i < in.size() && offset + i < kConfigSize; ++i) {
      const uint8_t writable = writable_[offset + i];
      bytes_[offset + i] = static_cast<uint8_t>((bytes_[offset + i] & ~writable) | (in[i] & writable));
    }
    actions = apply_config();
  }
  perform(actions);
  after_config_write(offset, in.size());
}

uint32_t Function::config_value(uint16_t offset, unsigned size) const {
  const LockGuard lock(mutex_);
  return static_cast<uint32_t>(register_value(offset, size));
}

void Function::set_config_value(uint16_t offset, unsigned size, uint32_t value) {
  CHECK(size <= 4 && range_fits(offset, size, kConfigSize), "a register outside configuration space");
  const LockGuard lock(mutex_);
  put_little(bytes_, offset, size, value);
}

uint64_t Function::register_value(uint16_t offset, unsigned size) const {
  CHECK(size <= 8 && range_fits(offset, size, kConfigSize), "a register outside configuration space");
  uint64_t value = 0;
  std::memcpy(&value, &bytes_[offset], size);
  return value;
}

// ---- Base address registers ----

std::vector<const Bar*> Function::bars() const {
  std::vector<const Bar*> found;
  for (const Bar& bar : bars_) {
    if (bar.kind != BarKind::kNone) found.push_back(&bar);
  }
  return found;
}

std::vector<BarMapping> Function::mappings() const {
  const LockGuard lock(mutex_);
  std::vector<BarMapping> found;
  for (const Bar& bar : bars_) {
    if (decoded_[bar.index] != kNotDecoded && bar.kind != BarKind::kNone) {
      found.push_back({.bar = &bar, .address = decoded_[bar.index]});
    }
  }
  return found;
}

std::optional<uint64_t> Function::bar_address(const Bar& bar) const {
  if (bar.kind == BarKind::kNone) return std::nullopt;
  const uint16_t decode = bar.kind == BarKind::kIo ? kCommandIo : kCommandMemory;
  if ((register_value(kCommand, 2) & decode) == 0) return std::nullopt;
  const unsigned width = bar.kind == BarKind::kMemory64 ? 8 : 4;
  const uint64_t address = align_down(register_value(bar_offset(bar.index), width), bar.size);
  // Zero is what a BAR holds that nobody has placed.
  if (address == 0) return std::nullopt;
  const uint64_t limit = bar.kind == BarKind::kIo         ? 1ull << 16
                         : bar.kind == BarKind::kMemory32 ? 1ull << 32
                                                          : 1ull << 52;
  if (!range_fits(address, bar.size, limit)) return std::nullopt;
  return address;
}

std::array<uint64_t, kBarCount> Function::decoded_addresses() const {
  std::array<uint64_t, kBarCount> addresses;
  for (unsigned i = 0; i < kBarCount; ++i) addresses[i] = bar_address(bars_[i]).value_or(kNotDecoded);
  return addresses;
}

// ---- Interrupts ----

bool Function::msix_enabled() const {
  if (msix_capability_ == 0) return false;
  const LockGuard lock(mutex_);
  return (register_value(msix_capability_ + kMsixControl, 2) & kMsixEnable) != 0;
}

bool Function::bus_master_enabled() const {
  const LockGuard lock(mutex_);
  return (register_value(kCommand, 2) & kCommandBusMaster) != 0;
}

void Function::set_interrupt_pin_level(bool asserted) {
  want_interrupt_pin_level(asserted);
  settle_interrupt_pin();
}

void Function::want_interrupt_pin_level(bool asserted) {
  const LockGuard lock(mutex_);
  pin_level_ = asserted && identity_.interrupt_pin != 0;
  apply_interrupt_pin();
}

void Function::apply_interrupt_pin() {
  bytes_[kStatus] = static_cast<uint8_t>((bytes_[kStatus] & ~kStatusInterrupt) | (pin_level_ ? kStatusInterrupt : 0));
  bool silent = (register_value(kCommand, 2) & kCommandInterruptDisable) != 0;
  if (msix_capability_ != 0) silent |= (register_value(msix_capability_ + kMsixControl, 2) & kMsixEnable) != 0;
  if (msi_capability_ != 0) silent |= (register_value(msi_capability_ + kMsiControl, 2) & kMsiEnable) != 0;
  interrupt_.want(pin_level_ && !silent);
}

void Function::notify_msi(unsigned vector) {
  CHECK(msi_capability_ != 0, "the function has no MSI");
  Actions actions;
  {
    const LockGuard lock(mutex_);
    const auto control = static_cast<uint16_t>(register_value(msi_capability_ + kMsiControl, 2));
    if ((control & kMsiEnable) == 0) return;
    // The guest may grant fewer vectors than there are: the device then shares them.
    const unsigned granted = 1u << std::min((control >> 4) & 7, (control >> 1) & 7);
    const uint64_t pending = register_value(msi_capability_ + kMsiPending, 4) | (1u << (vector & (granted - 1)));
    put_little(bytes_, msi_capability_ + kMsiPending, 4, pending);
    take_msi(actions.messages);
  }
  perform(actions);
}

void Function::take_msi(std::vector<InterruptMessage>& messages) {
  const auto control = static_cast<uint16_t>(register_value(msi_capability_ + kMsiControl, 2));
  if ((control & kMsiEnable) == 0 || (register_value(kCommand, 2) & kCommandBusMaster) == 0) return;
  const auto mask = static_cast<uint32_t>(register_value(msi_capability_ + kMsiMask, 4));
  const auto pending = static_cast<uint32_t>(register_value(msi_capability_ + kMsiPending, 4));
  const unsigned granted = 1u << std::min((control >> 4) & 7, (control >> 1) & 7);
  const uint64_t address = register_value(msi_capability_ + kMsiAddressLow, 8);
  const auto data = static_cast<uint32_t>(register_value(msi_capability_ + kMsiData, 2)) & ~(granted - 1);
  for (unsigned vector = 0; vector < granted; ++vector) {
    if ((pending & ~mask & (1u << vector)) != 0) messages.push_back({.address = address, .data = data | vector});
  }
  put_little(bytes_, msi_capability_ + kMsiPending, 4, pending & mask);
}

// ---- What follows from the registers ----

Function::Actions Function::apply_config() {
  Actions actions;
  const auto decoded = decoded_addresses();
  actions.bars_moved = decoded != decoded_;
  decoded_ = decoded;
  if (msix_capability_ != 0) {
    const auto control = static_cast<uint16_t>(register_value(msix_capability_ + kMsixControl, 2));
    // A function that may not master the bus can send no message; it keeps them pending.
    const bool may_send = (register_value(kCommand, 2) & kCommandBusMaster) != 0;
    actions.messages =
        msix_->set_control((control & kMsixEnable) != 0, (control & kMsixFunctionMask) != 0 || !may_send);
  }
  if (msi_capability_ != 0) take_msi(actions.messages);
  apply_interrupt_pin();
  return actions;
}

void Function::perform(const Actions& actions) {
  interrupt_.settle();
  for (const InterruptMessage& message : actions.messages) sink_->send_message(message);
  if (actions.bars_moved && board_ != nullptr) board_->on_bars_moved(*this);
}

void Function::reset_config() {
  Actions actions;
  if (msix_ != nullptr) msix_->reset();
  {
    const LockGuard lock(mutex_);
    bytes_ = at_reset_;
    pin_level_ = false;
    actions = apply_config();
  }
  perform(actions);
}

void Function::save_config(StateWriter& writer) const {
  StateWriter child = writer.child("pci", 1);
  {
    const LockGuard lock(mutex_);
    child.put_bytes("config", bytes_).put("pin_level", pin_level_);
  }
  if (msix_ != nullptr) {
    StateWriter table = child.child("msix", 1);
    msix_->save_state(table);
  }
}

Result<> Function::restore_config(const StateReader& reader) {
  const StateReader child = TRY(reader.child("pci"));
  const ByteSpan saved = TRY(child.get_bytes("config", kConfigSize));
  const bool pin_level = TRY(child.get_flag("pin_level"));
  if (pin_level && identity_.interrupt_pin == 0) return fail("{}: the function has no interrupt pin", child.path());
  // Only what the guest can write may differ from what this function is; the MSI pending bits are set by the device.
  for (uint16_t i = 0; i < kConfigSize; ++i) {
    uint8_t variable = writable_[i];
    if (i == kStatus) variable |= kStatusInterrupt;
    if (msi_capability_ != 0 && i >= msi_capability_ + kMsiPending && i < msi_capability_ + kMsiSize) {
      variable |= writable_[i - kMsiPending + kMsiMask];
    }
    if (((saved[i] ^ at_reset_[i]) & ~variable) != 0) {
      return fail("{}: byte {:#x} of configuration space is {:#x}, the device has {:#x}", child.path(), i, saved[i],
                  at_reset_[i]);
    }
  }
  if (msix_ != nullptr) TRY(msix_->restore_state(TRY(child.child("msix"))));
  Actions actions;
  {
    const LockGuard lock(mutex_);
    std::copy(saved.begin(), saved.end(), bytes_.begin());
    pin_level_ = pin_level;
    actions = apply_config();
  }
  perform(actions);
  return {};
}

}  // namespace bulkhead::device::pci
