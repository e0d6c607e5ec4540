// The registers of the adapter (AHCI 1.3.1, chapter 3): what a driver reads and writes. What follows from it is in
// port.cc.
#include "device/ahci/controller.h"

#include <algorithm>

#include "spec/pci.h"
#include "support/check.h"

namespace bulkhead::device::ahci {

using namespace spec::ahci;

namespace {

constexpr uint32_t kPortCommandWritable =
    kCommandStart | kCommandSpinUp | kCommandPowerOn | kCommandFisReceive | 1u << 27 | 1u << 26 | 1u << 25;

}  // namespace

Result<std::unique_ptr<Controller>> Controller::create(std::string name, std::vector<Drive> drives,
                                                       memory::GuestMemory& memory, MessageSink& messages,
                                                       std::unique_ptr<Worker> worker) {
  CHECK(!drives.empty() && drives.size() <= kMaximumPorts, "an adapter has 1 to 32 ports");
  std::unique_ptr<Controller> controller(
      new Controller(std::move(name), std::move(drives), memory, messages, std::move(worker)));
  TRY_IN(controller->name_, controller->connect_worker());
  return controller;
}

// The identity of a chipset's adapter that every system has a driver for.
Controller::Controller(std::string name, std::vector<Drive> drives, memory::GuestMemory& memory, MessageSink& messages,
                       std::unique_ptr<Worker> worker)
    : Function({.vendor_id = 0x8086,
                .device_id = 0x2922,
                .revision = 2,
                .class_code = spec::pci::kClassStorageSata,
                .subsystem_vendor_id = 0x1AF4,
                .subsystem_id = 0x1100,
                .interrupt_pin = 1}),
      name_(std::move(name)),
      memory_(memory),
      worker_(std::move(worker)) {
  add_memory_bar(kBar, kBarSize, pci::BarKind::kMemory32, false, *this);
  add_msi(messages, 1);
  for (const Drive& drive : drives) ports_.emplace_back(memory, drive);
  const LockGuard lock(mutex_);
  registers_.resize(ports_.size());
  requests_.resize(ports_.size());
  for (uint32_t i = 0; i < ports_.size(); ++i) power_on_port(i);
}

Controller::Port::Port(memory::GuestMemory& memory, const Drive& port_drive)
    : drive(port_drive), cdrom(port_drive.disk.geometry().size) {
  for (unsigned slot = 0; slot < kSlotCount; ++slot) commands.emplace_back(memory);
}

Result<> Controller::connect_worker() {
  kick_event_ = std::make_unique<EventFd>(TRY(EventFd::create()));
  wake_event_ = std::make_unique<EventFd>(TRY(EventFd::create()));
  TRY(worker_->watch(*kick_event_, [this] { on_kick(); }));
  TRY(worker_->watch(*wake_event_, [this] { on_wake(); }));
  worker_->start();
  connected_ = true;
  return {};
}

// Only the drive's own part: what the driver set up stays through a COMRESET (10.4.2).
void Controller::power_on_port(uint32_t index) {
  PortRegisters& port = registers_[index];
  const bool is_cd = ports_[index].drive.kind == DriveKind::kCdrom;
  port.task_file = 0x0100 | (is_cd ? 0 : kStatusReady | kStatusSeekComplete);
  port.sata_status = kLinkUp;
  port.sata_error |= kErrorExchanged;
  if (is_cd) port.command |= kCommandAtapi;
}

void Controller::read_mmio(uint64_t offset, MutableByteSpan out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const uint64_t at = offset + i;
    out[i] = static_cast<uint8_t>(read_register(align_down(at, 4)) >> (at % 4 * 8));
  }
}

uint32_t Controller::read_register(uint64_t offset) {
  const LockGuard lock(mutex_);
  switch (offset) {
    case kCapabilities:
      return static_cast<uint32_t>(registers_.size() - 1) | kCapSlots | kCapAhciOnly | kCapThirdGeneration |
             kCapCommandListOverride | kCapNativeQueueing | kCap64Bit;
    case kControl:
      return control_;
    case kInterruptStatus:
      return interrupt_status_;
    case kPortsImplemented:
      return static_cast<uint32_t>((uint64_t{1} << registers_.size()) - 1);
    case kVersion:
      return kVersion131;
    default:
      break;
  }
  if (offset < kPorts || (offset - kPorts) / kPortSize >= registers_.size()) return 0;
  const auto index = static_cast<uint32_t>((offset - kPorts) / kPortSize);
  return read_port(registers_[index], index, (offset - kPorts) % kPortSize);
}

uint32_t Controller::read_port(const PortRegisters& port, uint32_t index, uint64_t offset) const {
  switch (offset) {
    case kListBase:
      return static_cast<uint32_t>(port.list);
    case kListBaseHigh:
      return static_cast<uint32_t>(port.list >> 32);
    case kFisBase:
      return static_cast<uint32_t>(port.received);
    case kFisBaseHigh:
      return static_cast<uint32_t>(port.received >> 32);
    case kPortInterruptStatus:
      return port.interrupt_status | ((port.sata_error & kErrorExchanged) != 0 ? kInterruptConnectChange : 0);
    case kPortInterruptEnable:
      return port.interrupt_enable;
    case kPortCommand:
      return port.command;
    case kTaskFile:
      return port.task_file;
    case kSignature:
      return ports_[index].drive.kind == DriveKind::kCdrom ? kAtapiSignature : kDiskSignature;
    case kSataStatus:
      return port.sata_status;
    case kSataControl:
      return port.sata_control;
    case kSataError:
      return port.sata_error;
    case kSataActive:
      return port.active;
    case kCommandIssue:
      return port.issue;
    default:
      return 0;
  }
}

// A register is written by whole doublewords or not at all.
void Controller::write_mmio(uint64_t offset, ByteSpan in) {
  if (offset % 4 != 0) return;
  for (size_t i = 0; i + 4 <= in.size(); i += 4) write_register(offset + i, load<uint32_t>(&in[i]));
}

void Controller::write_register(uint64_t offset, uint32_t value) {
  {
    const LockGuard lock(mutex_);
    if (offset == kControl) {
      control_ = kControlAhci | (value & kControlInterrupts) | (control_ & kControlReset);
      if ((value & kControlReset) != 0) {
        control_ |= kControlReset;
        for (Request& request : requests_) request.reset = request.stop = true;
      }
    } else if (offset == kInterruptStatus) {
      interrupt_status_ &= ~value;
    } else if (offset >= kPorts && (offset - kPorts) / kPortSize < registers_.size()) {
      write_port(static_cast<uint32_t>((offset - kPorts) / kPortSize), (offset - kPorts) % kPortSize, value);
    } else {
      return;
    }
  }
  settle_interrupts();
  kick_event_->signal();
}

void Controller::write_port(uint32_t index, uint64_t offset, uint32_t value) {
  PortRegisters& port = registers_[index];
  const bool started = (port.command & kCommandStart) != 0;
  switch (offset) {
    case kListBase:
      port.list = (port.list >> 32 << 32) | (value & ~0x3FFu);
      break;
    case kListBaseHigh:
      port.list = (port.list & UINT32_MAX) | uint64_t{value} << 32;
      break;
    case kFisBase:
      port.received = (port.received >> 32 << 32) | (value & ~0xFFu);
      break;
    case kFisBaseHigh:
      port.received = (port.received & UINT32_MAX) | uint64_t{value} << 32;
      break;
    case kPortInterruptStatus:
      port.interrupt_status &= ~value;
      break;
    case kPortInterruptEnable:
      port.interrupt_enable = value & (kInterruptWritable | kInterruptConnectChange);
      break;
    case kPortCommand:
      write_command(index, value);
      break;
    case kSataControl: {
      // COMRESET: from 1 to 0 of the field the drive is looked for again (3.3.11).
      if ((port.sata_control & 0xF) == 1 && (value & 0xF) == 0) requests_[index].reset = true;
      if ((value & 0xF) == 1) {
        port.sata_status = 0;
        port.task_file = 0x7F;
        requests_[index].stop = true;
      }
      port.sata_control = value & 0xFFF;
      break;
    }
    case kSataError:
      port.sata_error &= ~value;
      break;
    case kSataActive:
      if (started) port.active |= value;
      break;
    case kCommandIssue:
      if (started) port.issue |= value;
      break;
    default:
      break;
  }
}

void Controller::write_command(uint32_t index, uint32_t value) {
  PortRegisters& port = registers_[index];
  const uint32_t before = port.command;
  uint32_t after = (before & ~kPortCommandWritable) | (value & kPortCommandWritable);
  if ((value & kCommandListOverride) != 0 && (before & kCommandStart) == 0) {
    port.task_file &= ~uint32_t{kStatusBusy | kStatusDataRequest};
  }
  after = (after & ~kCommandFisRunning) | ((after & kCommandFisReceive) != 0 ? kCommandFisRunning : 0);
  if ((after & kCommandStart) != 0) after |= kCommandListRunning;
  port.command = after;
  if ((before & ~after & kCommandStart) != 0) {
    requests_[index].stop = true;
    port.issue = 0;
    port.active = 0;
  }
}

// ---- Interrupts (AHCI 1.3.1, 10.6.2) ----

// True when one of the ports has something new to say.
bool Controller::collect_interrupts() {
  const uint32_t before = interrupt_status_;
  for (size_t i = 0; i < registers_.size(); ++i) {
    const PortRegisters& port = registers_[i];
    const uint32_t status =
        port.interrupt_status | ((port.sata_error & kErrorExchanged) != 0 ? kInterruptConnectChange : 0);
    if ((status & port.interrupt_enable) != 0) interrupt_status_ |= 1u << i;
  }
  const bool enabled = (control_ & kControlInterrupts) != 0;
  want_interrupt_pin_level(enabled && interrupt_status_ != 0);
  return enabled && (interrupt_status_ & ~before) != 0;
}

void Controller::settle_interrupts() {
  bool news = false;
  {
    const LockGuard lock(mutex_);
    news = collect_interrupts();
  }
  settle_interrupt_pin();
  if (news) notify_msi(0);
}

void Controller::after_config_write(uint16_t offset, size_t size) {
  if (offset < spec::pci::kStatus && offset + size > spec::pci::kCommand && bus_master_enabled()) kick_event_->signal();
}

}  // namespace bulkhead::device::ahci
