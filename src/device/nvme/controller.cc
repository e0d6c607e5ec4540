// The registers of the controller (NVM Express 1.4, 3.1): what a driver reads and writes. What follows from it is in
// life.cc.
#include "device/nvme/controller.h"

#include <algorithm>

#include "spec/pci.h"
#include "support/check.h"

namespace bulkhead::device::nvme {

using namespace spec::nvme;

namespace {

constexpr uint32_t kAreaSize = 0x1000;
constexpr uint32_t kReadyTimeout = 40;  // half seconds: a reset waits for the disk

constexpr uint64_t kCapabilityValue = (Controller::kMaximumQueueSize - 1) | kCapContiguousQueues |
                                      uint64_t{kReadyTimeout} << kCapTimeoutShift | kCapNvmCommandSet |
                                      uint64_t{Controller::kMaximumPageShift} << kCapMaximumPageShift;

}  // namespace

Result<std::unique_ptr<Controller>> Controller::create(Naming naming, std::vector<Namespace> namespaces,
                                                       memory::GuestMemory& memory, MessageSink& messages,
                                                       std::unique_ptr<Worker> worker) {
  if (namespaces.empty() || namespaces.size() > kMaximumNamespaces) {
    return fail("{}: {} namespaces; allowed: 1 to {}", naming.name, namespaces.size(), kMaximumNamespaces);
  }
  std::unique_ptr<Controller> controller(
      new Controller(std::move(naming), std::move(namespaces), memory, messages, std::move(worker)));
  TRY_IN(controller->naming_.name, controller->connect_worker());
  return controller;
}

// The identity under which guests know a virtual controller; drivers go by the class.
Controller::Controller(Naming naming, std::vector<Namespace> namespaces, memory::GuestMemory& memory,
                       MessageSink& messages, std::unique_ptr<Worker> worker)
    : Function({.vendor_id = 0x1B36,
                .device_id = 0x0010,
                .revision = 1,
                .class_code = spec::pci::kClassStorageNvme,
                .subsystem_vendor_id = 0x1AF4,
                .subsystem_id = 0x1100,
                .interrupt_pin = 1}),
      naming_(std::move(naming)),
      namespaces_(std::move(namespaces)),
      memory_(memory),
      worker_(std::move(worker)) {
  add_memory_bar(kBar, kBarSize, pci::BarKind::kMemory64, false, *this);
  add_msix(messages, kQueueCount, kBar, kTableOffset, kPendingOffset);
  for (uint32_t slot = 0; slot < kMaximumInFlight; ++slot) {
    commands_.emplace_back(memory);
    free_slots_.push_back(slot);
  }
}

Result<> Controller::connect_worker() {
  control_event_ = std::make_unique<EventFd>(TRY(EventFd::create()));
  bell_event_ = std::make_unique<EventFd>(TRY(EventFd::create()));
  wake_event_ = std::make_unique<EventFd>(TRY(EventFd::create()));
  TRY(worker_->watch(*control_event_, [this] { on_control(); }));
  TRY(worker_->watch(*bell_event_, [this] { on_bells(); }));
  TRY(worker_->watch(*wake_event_, [this] { on_wake(); }));
  worker_->start();
  connected_ = true;
  return {};
}

void Controller::read_mmio(uint64_t offset, MutableByteSpan out) {
  std::ranges::fill(out, uint8_t{0});
  const uint64_t place = offset % kAreaSize;
  switch (offset - place) {
    case 0:
      for (size_t i = 0; i < out.size(); ++i) {
        const uint64_t at = place + i;
        out[i] = static_cast<uint8_t>(read_register(align_down(at, 4)) >> (at % 4 * 8));
      }
      break;
    case kTableOffset:
      msix()->read_table(place, out);
      break;
    case kPendingOffset:
      msix()->read_pending(place, out);
      break;
    default:  // doorbells read as zero
      break;
  }
}

uint32_t Controller::read_register(uint64_t offset) {
  const LockGuard lock(mutex_);
  switch (offset) {
    case kCapabilities:
      return static_cast<uint32_t>(kCapabilityValue);
    case kCapabilities + 4:
      return static_cast<uint32_t>(kCapabilityValue >> 32);
    case kVersion:
      return kVersion14;
    case kInterruptMaskSet:
    case kInterruptMaskClear:
      return registers_.interrupt_mask;
    case kConfiguration:
      return registers_.configuration;
    case kControllerStatus:
      return registers_.status;
    case kAdminQueueAttributes:
      return registers_.admin_attributes;
    case kAdminSubmissionBase:
      return static_cast<uint32_t>(registers_.admin_submission_base);
    case kAdminSubmissionBase + 4:
      return static_cast<uint32_t>(registers_.admin_submission_base >> 32);
    case kAdminCompletionBase:
      return static_cast<uint32_t>(registers_.admin_completion_base);
    case kAdminCompletionBase + 4:
      return static_cast<uint32_t>(registers_.admin_completion_base >> 32);
    default:
      return 0;
  }
}

// A register is written by whole doublewords or not at all.
void Controller::write_mmio(uint64_t offset, ByteSpan in) {
  const uint64_t place = offset % kAreaSize;
  const uint64_t area = offset - place;
  if (area == kTableOffset) {
    msix()->write_table(place, in.first(std::min<uint64_t>(in.size(), kAreaSize - place)));
    return;
  }
  if (area == kPendingOffset || offset % 4 != 0) return;
  for (size_t i = 0; i + 4 <= in.size() && offset + i < kTableOffset; i += 4) {
    const uint32_t value = load<uint32_t>(&in[i]);
    if (offset + i < kDoorbells) {
      write_register(offset + i, value);
    } else {
      ring((offset + i - kDoorbells) / 4, value);
    }
  }
}

void Controller::write_register(uint64_t offset, uint32_t value) {
  const auto set_low = [value](uint64_t& target) { target = (target >> 32 << 32) | (value & ~0xFFFu); };
  const auto set_high = [value](uint64_t& target) { target = (target & UINT32_MAX) | uint64_t{value} << 32; };
  bool pin = false;
  {
    const LockGuard lock(mutex_);
    switch (offset) {
      case kInterruptMaskSet:
        registers_.interrupt_mask |= value;
        pin = true;
        break;
      case kInterruptMaskClear:
        registers_.interrupt_mask &= ~value;
        pin = true;
        break;
      case kConfiguration:
        write_configuration(value);
        break;
      case kAdminQueueAttributes:
        registers_.admin_attributes = value & 0x0FFF'0FFF;
        break;
      case kAdminSubmissionBase:
        set_low(registers_.admin_submission_base);
        break;
      case kAdminSubmissionBase + 4:
        set_high(registers_.admin_submission_base);
        break;
      case kAdminCompletionBase:
        set_low(registers_.admin_completion_base);
        break;
      case kAdminCompletionBase + 4:
        set_high(registers_.admin_completion_base);
        break;
      default:
        return;
    }
  }
  if (offset == kConfiguration) control_event_->signal();
  // A masked pin has fallen when the write ends, or the guest is interrupted once more for nothing.
  if (pin && !msix_enabled()) worker_->run_and_wait([this] { update_pin(); });
}

void Controller::write_configuration(uint32_t value) {
  const uint32_t before = registers_.configuration;
  registers_.configuration = value & kConfigWritable;
  if ((before & ~value & kConfigEnable) != 0) reset_requested_ = true;
  const bool shutdown = (value >> kConfigShutdownShift & 3) != 0;
  if (shutdown && (registers_.status & kStatusShutdownMask) == 0) {
    registers_.status |= kStatusShutdownOccurring;
    shutdown_requested_ = true;
  }
}

void Controller::ring(uint64_t index, uint32_t value) {
  {
    const LockGuard lock(mutex_);
    if (index < bells_.size()) {
      bells_[index] = {value, true};
    } else {
      stray_bell_ = true;
    }
  }
  if (index % 2 == 1 && !msix_enabled()) {
    // As above: the driver has taken its entries, and the pin falls before it looks again.
    worker_->run_and_wait([this] { on_bells(); });
  } else {
    bell_event_->signal();
  }
}

// A driver that grants bus mastering late finds its queues worked on.
void Controller::after_config_write(uint16_t offset, size_t size) {
  if (offset < spec::pci::kStatus && offset + size > spec::pci::kCommand && bus_master_enabled()) bell_event_->signal();
}

}  // namespace bulkhead::device::nvme
