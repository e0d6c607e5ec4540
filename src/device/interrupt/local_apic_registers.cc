// What the guest reads and writes: the xAPIC page, the x2APIC MSRs and IA32_APIC_BASE.
#include "device/interrupt/local_apic_registers.h"

#include <algorithm>

#include "device/interrupt/local_apic.h"

namespace bulkhead::device::interrupt {

bool LocalApic::is_enabled_locked() const {
  return (registers_.base & kBaseEnable) != 0;
}
bool LocalApic::is_x2apic() const {
  return (registers_.base & (kBaseEnable | kBaseX2Apic)) == (kBaseEnable | kBaseX2Apic);
}

// In x2APIC mode derived from the id: cluster in the upper half, bit in the lower (SDM 3, 11.12.10.2).
uint32_t LocalApic::logical_id() const {
  return is_x2apic() ? (id_ >> 4) << 16 | 1u << (id_ & 0xF) : registers_.logical_id;
}

// The xAPIC page

void LocalApic::read_mmio(uint64_t offset, MutableByteSpan out) {
  LockGuard lock(mutex_);
  std::ranges::fill(out, is_enabled_locked() && !is_x2apic() ? 0x00 : 0xFF);
  // Four bytes in each sixteen hold a register; an access beyond them is undefined and reads zeros here.
  const uint64_t within = offset % 16;
  if (!is_enabled_locked() || is_x2apic() || within >= 4 || offset >= kPageSize) return;
  const std::optional<uint32_t> value = read_register(static_cast<uint32_t>(offset / 16));
  if (!value) {
    registers_.error_collected |= kErrorIllegalRegister;
    return;
  }
  const uint32_t shifted = *value >> (within * 8);
  std::copy_n(as_bytes(shifted).begin(), std::min<uint64_t>(out.size(), 4 - within), out.begin());
}

void LocalApic::write_mmio(uint64_t offset, ByteSpan in) {
  if (offset % 16 != 0 || in.size() != 4 || offset >= kPageSize) return;
  Action action;
  {
    LockGuard lock(mutex_);
    if (!is_enabled_locked() || is_x2apic()) return;
    const auto index = static_cast<uint32_t>(offset / 16);
    const bool absent = index == kRegisterSelfIpi || !write_register(index, load<uint32_t>(in.data()), action);
    if (absent) collect_error(kErrorIllegalRegister, action);
  }
  perform(action);
}

// MSRs

std::optional<uint64_t> LocalApic::read_msr(uint32_t index) const {
  LockGuard lock(mutex_);
  if (index == kMsrApicBase) return registers_.base;
  if (index == kMsrTscDeadline) return timer_mode() == TimerMode::kTscDeadline ? registers_.tsc_deadline : 0;
  if (!is_x2apic() || index < kMsrX2ApicFirst || index - kMsrX2ApicFirst >= kRegisterCount) return std::nullopt;
  const uint32_t number = index - kMsrX2ApicFirst;
  switch (number) {
    case kRegisterCommand:
      return registers_.interrupt_command;
    case kRegisterArbitrationPriority:
    case kRegisterEndOfInterrupt:
    case kRegisterRemoteRead:
    case kRegisterDestinationFormat:
    case kRegisterCommandHigh:
    case kRegisterSelfIpi:
      return std::nullopt;
    default:
      return read_register(number);
  }
}

bool LocalApic::write_msr(uint32_t index, uint64_t value) {
  Action action;
  bool accepted = false;
  {
    LockGuard lock(mutex_);
    if (index == kMsrApicBase) {
      accepted = write_base(value, action);
    } else if (index == kMsrTscDeadline) {
      write_tsc_deadline(value, action);
      accepted = true;
    } else if (is_x2apic() && index >= kMsrX2ApicFirst && index - kMsrX2ApicFirst < kRegisterCount) {
      accepted = write_x2apic(index - kMsrX2ApicFirst, value, action);
    }
  }
  perform(action);
  return accepted;
}

// Disabled, xAPIC and x2APIC: only disabled -> xAPIC -> x2APIC -> disabled and xAPIC -> disabled are legal
// (SDM 3, 11.12.5).
bool LocalApic::write_base(uint64_t value, Action& action) {
  constexpr uint64_t kAddressMask = ((uint64_t{1} << kPhysicalAddressBits) - 1) & ~(kPageSize - 1);
  if ((value & ~(kAddressMask | kBaseBootstrap | kBaseX2Apic | kBaseEnable)) != 0) return false;
  constexpr uint64_t kModeMask = kBaseX2Apic | kBaseEnable;
  const uint64_t old_mode = registers_.base & kModeMask;
  const uint64_t new_mode = value & kModeMask;
  if (new_mode == kBaseX2Apic) return false;
  if (old_mode == 0 && new_mode == kModeMask) return false;
  if (old_mode == kModeMask && new_mode == kBaseEnable) return false;
  registers_.base = value;
  if (new_mode == 0 && old_mode != 0) {
    clear_registers();
  } else {
    publish();
  }
  update(action);
  return true;
}

bool LocalApic::write_x2apic(uint32_t index, uint64_t value, Action& action) {
  const auto writable = [index]() -> uint64_t {
    switch (index) {
      case kRegisterTaskPriority:
        return 0xFF;
      case kRegisterSpurious:
        return kSpuriousWritable;
      case kRegisterCommand:
        return 0xFFFFFFFF00000000 | kCommandWritable | kCommandStatus;
      case kRegisterInitialCount:
        return 0xFFFFFFFF;
      case kRegisterDivide:
        return kDivideWritable;
      case kRegisterSelfIpi:
        return 0xFF;
      default:
        break;
    }
    const uint32_t entry = index - kRegisterLocalVectors;
    return index >= kRegisterLocalVectors && entry < kLocalVectorCount ? kLvtWritable[entry] | kLvtReadOnly : 0;
  };
  if ((value & ~writable()) != 0) return false;
  switch (index) {
    case kRegisterCommand:
      registers_.interrupt_command = value & ~uint64_t{kCommandStatus};
      send_command(action);
      return true;
    case kRegisterLogicalDestination:
    case kRegisterDestinationFormat:
    case kRegisterCommandHigh:
      return false;
    default:
      return write_register(index, static_cast<uint32_t>(value), action);
  }
}

// Registers of both interfaces

std::optional<uint32_t> LocalApic::read_register(uint32_t index) const {
  switch (index) {
    case kRegisterId:
      return is_x2apic() ? id_ : id_ << 24;
    case kRegisterVersion:
      return kVersionValue;
    case kRegisterTaskPriority:
      return registers_.task_priority;
    case kRegisterArbitrationPriority:
    case kRegisterRemoteRead:
    case kRegisterEndOfInterrupt:
      return 0;
    case kRegisterProcessorPriority:
      return priority();
    case kRegisterLogicalDestination:
      return is_x2apic() ? logical_id() : logical_id() << 24;
    case kRegisterDestinationFormat:
      return uint32_t{registers_.destination_format} << 28 | 0x0FFFFFFF;
    case kRegisterSpurious:
      return registers_.spurious;
    case kRegisterErrorStatus:
      return registers_.error_status;
    case kRegisterCommand:
      return static_cast<uint32_t>(registers_.interrupt_command);
    case kRegisterCommandHigh:
      return static_cast<uint32_t>(registers_.interrupt_command >> 32);
    case kRegisterInitialCount:
      return registers_.timer_initial_count;
    case kRegisterCurrentCount:
      return timer_current_count();
    case kRegisterDivide:
      return registers_.timer_divide;
    default:
      break;
  }
  if (index >= kRegisterInService && index < kRegisterErrorStatus) {
    const unsigned word = index % 8;
    if (index < kRegisterTriggerMode) return registers_.in_service.register_value(word);
    if (index < kRegisterRequested) return registers_.level_triggered.register_value(word);
    return registers_.requested.register_value(word);
  }
  if (index >= kRegisterLocalVectors && index - kRegisterLocalVectors < kLocalVectorCount) {
    const uint32_t entry = index - kRegisterLocalVectors;
    const bool is_pin = entry == kLintPin0 || entry == kLintPin1;
    const bool remote_irr = is_pin && registers_.lint_remote_irr[entry - kLintPin0];
    return registers_.local_vectors[entry] | (remote_irr ? kLvtRemoteIrr : 0);
  }
  return std::nullopt;
}

// False: there is no such register to write.
bool LocalApic::write_register(uint32_t index, uint32_t value, Action& action) {
  switch (index) {
    case kRegisterId:
      return !is_x2apic();  // fixed, as on every recent processor
    case kRegisterTaskPriority:
      registers_.task_priority = static_cast<uint8_t>(value);
      update(action);
      return true;
    case kRegisterEndOfInterrupt:
      end_interrupt(action);
      return true;
    case kRegisterLogicalDestination:
      registers_.logical_id = static_cast<uint8_t>(value >> 24);
      publish();
      return true;
    case kRegisterDestinationFormat:
      registers_.destination_format = static_cast<uint8_t>(value >> 28);
      publish();
      return true;
    case kRegisterSpurious:
      write_spurious(value);
      return true;
    case kRegisterErrorStatus:
      registers_.error_status = registers_.error_collected;
      registers_.error_collected = 0;
      return true;
    case kRegisterCommand:
      registers_.interrupt_command =
          (registers_.interrupt_command & ~uint64_t{0xFFFFFFFF}) | (value & kCommandWritable);
      send_command(action);
      return true;
    case kRegisterCommandHigh:
      registers_.interrupt_command =
          uint64_t{value & 0xFF000000} << 32 | static_cast<uint32_t>(registers_.interrupt_command);
      return true;
    case kRegisterInitialCount:
      start_timer(value);
      return true;
    case kRegisterDivide:
      change_timer_divide(static_cast<uint8_t>(value & kDivideWritable));
      return true;
    case kRegisterSelfIpi:
      accept_fixed(static_cast<uint8_t>(value), TriggerMode::kEdge, action);
      return true;
    default:
      break;
  }
  if (index < kRegisterLocalVectors || index - kRegisterLocalVectors >= kLocalVectorCount) return false;
  write_local_vector(static_cast<LocalVector>(index - kRegisterLocalVectors), value, action);
  return true;
}

// Software-disabling masks every local vector; what was accepted before stays pending (SDM 3, 11.4.7.2).
void LocalApic::write_spurious(uint32_t value) {
  registers_.spurious = value & kSpuriousWritable;
  if ((value & kSpuriousEnable) == 0) {
    for (uint32_t& entry : registers_.local_vectors) entry |= kLvtMasked;
  }
  publish();
}

void LocalApic::write_local_vector(LocalVector entry, uint32_t value, Action& action) {
  const uint32_t old = registers_.local_vectors[entry];
  value &= kLvtWritable[entry];
  if ((registers_.spurious & kSpuriousEnable) == 0) value |= kLvtMasked;
  registers_.local_vectors[entry] = value;
  if (entry == kTimer) change_timer_mode(old);
  if (entry == kLintPin0 || entry == kLintPin1) {
    const unsigned pin = entry - kLintPin0;
    if ((value & kLvtLevel) == 0) registers_.lint_remote_irr[pin] = false;
    raise_lint_level(pin, action);
  }
  update(action);
}

void LocalApic::send_command(Action& action) {
  const uint64_t command = registers_.interrupt_command;
  const auto mode = static_cast<DeliveryMode>(command >> 8 & 7);
  const auto vector = static_cast<uint8_t>(command);
  const auto shorthand = static_cast<Shorthand>(command >> 18 & 3);
  const bool has_vector = mode == DeliveryMode::kFixed || mode == DeliveryMode::kLowestPriority;
  if (has_vector && vector < kFirstLegalVector) {
    collect_error(kErrorSentIllegalVector, action);
    return;
  }
  // The de-assert that ended an INIT on the oldest processors means nothing on later ones.
  if (mode == DeliveryMode::kInit && (command & kCommandAssert) == 0) return;
  if (mode == DeliveryMode::kFixed && shorthand == Shorthand::kSelf) {
    accept_fixed(vector, TriggerMode::kEdge, action);
    return;
  }
  uint32_t id = is_x2apic() ? static_cast<uint32_t>(command >> 32) : static_cast<uint32_t>(command >> 56);
  if (!is_x2apic() && id == 0xFF) id = Destination::kBroadcast;
  action.ipi =
      InterprocessorInterrupt{.interrupt = {.vector = vector, .mode = mode, .trigger = TriggerMode::kEdge},
                              .destination = {.id = id, .mode = static_cast<DestinationMode>(command >> 11 & 1)},
                              .shorthand = shorthand,
                              .sender_id = id_};
}

}  // namespace bulkhead::device::interrupt
