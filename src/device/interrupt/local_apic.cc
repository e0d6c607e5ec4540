#include "device/interrupt/local_apic.h"

#include <algorithm>

#include <fmt/format.h>

#include "device/interrupt/local_apic_registers.h"

namespace bulkhead::device::interrupt {

LocalApic::LocalApic(uint32_t id, Role role, ApicBus& bus, CpuPins& pins, Clock& clock, ExternalVectorSource* pic)
    : id_(id),
      name_(fmt::format("local-apic{}", id)),
      role_(role),
      bus_(bus),
      pins_(pins),
      clock_(clock),
      pic_(pic),
      request_(RequestPin{&pins}),
      timer_(clock.make_timer(name_, [this] { on_timer(); })) {
  LocalApic::reset();
  bus_.attach(*this);
}

LocalApic::~LocalApic() {
  bus_.detach(*this);
}

void LocalApic::reset() {
  Action action;
  {
    LockGuard lock(mutex_);
    registers_.base = kDefaultBase | kBaseEnable | (role_ == Role::kBootstrap ? kBaseBootstrap : 0);
    clear_registers();
    update(action);
  }
  perform(action);
}

// What INIT leaves: everything but the base MSR, the id and what the pins show. The bootstrap processor's firmware
// would connect the PIC (virtual wire mode, MultiProcessor Specification 3.6.2.2), so that is how LINT0 begins.
void LocalApic::clear_registers() {
  Registers cleared;
  cleared.base = registers_.base;
  cleared.lint_asserted = registers_.lint_asserted;
  cleared.local_vectors.fill(kLvtMasked);
  if (role_ == Role::kBootstrap) {
    cleared.local_vectors[kLintPin0] = static_cast<uint32_t>(DeliveryMode::kExtInt) << kLvtModeShift;
  }
  registers_ = cleared;
  timer_->disarm();
  publish();
}

void LocalApic::publish() {
  addressing_.store({.logical_id = logical_id(),
                     .enabled = is_enabled_locked(),
                     .x2apic = is_x2apic(),
                     .cluster = registers_.destination_format == 0,
                     .accepts_fixed = is_enabled_locked() && (registers_.spurious & kSpuriousEnable) != 0},
                    std::memory_order_release);
  const bool has_page = is_enabled_locked() && !is_x2apic();
  page_base_.store(has_page ? registers_.base & ~(kPageSize - 1) : kNoPage, std::memory_order_release);
}

void LocalApic::perform(const Action& action) {
  if (action.request_changed) request_.settle();
  if (action.nmi) pins_.raise_nmi();
  if (action.init) pins_.raise_init();
  if (action.start_up_vector) pins_.raise_sipi(*action.start_up_vector);
  if (action.end_of_interrupt) bus_.broadcast_end_of_interrupt(*action.end_of_interrupt);
  if (action.ipi) bus_.send(*action.ipi);
}

// The processor's side

std::optional<uint8_t> LocalApic::acknowledge() {
  Action action;
  std::optional<uint8_t> vector;
  bool external = false;
  {
    LockGuard lock(mutex_);
    vector = deliverable();
    if (vector) {
      registers_.requested.erase(*vector);
      registers_.in_service.insert(*vector);
      update(action);
    } else {
      external = external_interrupt();
    }
  }
  perform(action);
  if (external && pic_ != nullptr) return pic_->acknowledge();
  return vector;
}

uint8_t LocalApic::read_task_priority() const {
  LockGuard lock(mutex_);
  return registers_.task_priority >> 4;
}

void LocalApic::write_task_priority(uint8_t priority) {
  Action action;
  {
    LockGuard lock(mutex_);
    registers_.task_priority = static_cast<uint8_t>(priority << 4);
    update(action);
  }
  perform(action);
}

// Priorities

uint8_t LocalApic::priority() const {
  const uint8_t in_service = registers_.in_service.highest().value_or(0);
  return registers_.task_priority >> 4 >= in_service >> 4 ? registers_.task_priority
                                                          : static_cast<uint8_t>(in_service & 0xF0);
}

std::optional<uint8_t> LocalApic::deliverable() const {
  const std::optional<uint8_t> highest = registers_.requested.highest();
  return highest && *highest >> 4 > priority() >> 4 ? highest : std::nullopt;
}

// A disabled APIC connects LINT0 straight to the processor's INTR.
bool LocalApic::external_interrupt() const {
  if (!registers_.lint_asserted[kLint0]) return false;
  if (!is_enabled_locked()) return true;
  const uint32_t entry = registers_.local_vectors[kLintPin0];
  return (entry & kLvtMasked) == 0 && lvt_mode(entry) == DeliveryMode::kExtInt;
}

void LocalApic::update(Action& action) {
  const bool asserted = external_interrupt() || (is_enabled_locked() && deliverable().has_value());
  action.request_changed |= request_.want(asserted);
}

uint8_t LocalApic::processor_priority() const {
  LockGuard lock(mutex_);
  return priority();
}

bool LocalApic::accepts_fixed() const {
  return addressing_.load(std::memory_order_acquire).accepts_fixed;
}

// Logical destinations: a bit mask in the flat model, cluster number and bit mask in the others (SDM 3, 11.6.2 and
// 11.12.10).
bool LocalApic::is_addressed_by(const Destination& destination) const {
  const Addressing self = addressing_.load(std::memory_order_acquire);
  if (!self.enabled) return false;
  if (destination.id == Destination::kBroadcast) return true;
  if (destination.mode == DestinationMode::kPhysical) return destination.id == id_;
  if (self.x2apic) {
    return destination.id >> 16 == self.logical_id >> 16 && (destination.id & self.logical_id & 0xFFFF) != 0;
  }
  if (destination.id > 0xFF) return false;
  if (!self.cluster) return (destination.id & self.logical_id) != 0;
  const bool same_cluster = destination.id >> 4 == 0xF || destination.id >> 4 == self.logical_id >> 4;
  return same_cluster && (destination.id & self.logical_id & 0xF) != 0;
}

// Acceptance

void LocalApic::accept(const Interrupt& interrupt) {
  Action action;
  {
    LockGuard lock(mutex_);
    if (!is_enabled_locked()) return;
    switch (interrupt.mode) {
      case DeliveryMode::kFixed:
      case DeliveryMode::kLowestPriority:
        accept_fixed(interrupt.vector, interrupt.trigger, action);
        break;
      case DeliveryMode::kNmi:
        action.nmi = true;
        break;
      case DeliveryMode::kInit:
        clear_registers();
        update(action);
        action.init = true;
        break;
      case DeliveryMode::kStartUp:
        action.start_up_vector = interrupt.vector;
        break;
      // There is no SMM, and an ExtINT message has no wire to take its vector from.
      case DeliveryMode::kSmi:
      case DeliveryMode::kExtInt:
      case DeliveryMode::kReserved:
        break;
    }
  }
  perform(action);
}

void LocalApic::accept_fixed(uint8_t vector, TriggerMode trigger, Action& action) {
  if ((registers_.spurious & kSpuriousEnable) == 0) return;
  if (vector < kFirstLegalVector) {
    collect_error(kErrorReceivedIllegalVector, action);
    return;
  }
  registers_.requested.insert(vector);
  if (trigger == TriggerMode::kLevel) {
    registers_.level_triggered.insert(vector);
  } else {
    registers_.level_triggered.erase(vector);
  }
  update(action);
}

void LocalApic::fire_local_vector(LocalVector entry, Action& action) {
  const uint32_t value = registers_.local_vectors[entry];
  if ((value & kLvtMasked) != 0) return;
  const bool has_mode = entry != kTimer && entry != kError;
  switch (has_mode ? lvt_mode(value) : DeliveryMode::kFixed) {
    case DeliveryMode::kFixed:
      accept_fixed(static_cast<uint8_t>(value), TriggerMode::kEdge, action);
      break;
    case DeliveryMode::kNmi:
      action.nmi = true;
      break;
    case DeliveryMode::kInit:
      clear_registers();
      update(action);
      action.init = true;
      break;
    default:
      break;
  }
}

// Errors gather until a write to the ESR makes them visible; a new kind raises the error interrupt. An error entry with
// an illegal vector would raise itself, so that one only sets its bit.
void LocalApic::collect_error(uint8_t bit, Action& action) {
  if ((registers_.error_collected & bit) != 0) return;
  registers_.error_collected |= bit;
  if (static_cast<uint8_t>(registers_.local_vectors[kError]) >= kFirstLegalVector) fire_local_vector(kError, action);
}

void LocalApic::end_interrupt(Action& action) {
  const std::optional<uint8_t> vector = registers_.in_service.highest();
  if (!vector) return;
  registers_.in_service.erase(*vector);
  if (registers_.level_triggered.contains(*vector)) {
    action.end_of_interrupt = *vector;
    for (unsigned pin = 0; pin < 2; ++pin) {
      if (static_cast<uint8_t>(registers_.local_vectors[kLintPin0 + pin]) != *vector) continue;
      registers_.lint_remote_irr[pin] = false;
      raise_lint_level(pin, action);
    }
  }
  update(action);
}

// LINT pins

void LocalApic::set_irq(uint32_t input, bool asserted) {
  if (input > kLint1) return;
  Action action;
  {
    LockGuard lock(mutex_);
    const bool edge = asserted && !registers_.lint_asserted[input];
    registers_.lint_asserted[input] = asserted;
    const auto entry = static_cast<LocalVector>(kLintPin0 + input);
    const uint32_t value = registers_.local_vectors[entry];
    if (!is_enabled_locked()) {
      action.nmi = edge && input == kLint1;
    } else if (lvt_mode(value) == DeliveryMode::kFixed && (value & kLvtLevel) != 0) {
      raise_lint_level(input, action);
    } else if (edge) {
      fire_local_vector(entry, action);
    }
    update(action);
  }
  perform(action);
}

void LocalApic::raise_lint_level(unsigned pin, Action& action) {
  const uint32_t value = registers_.local_vectors[kLintPin0 + pin];
  if (!registers_.lint_asserted[pin] || registers_.lint_remote_irr[pin]) return;
  if ((value & kLvtMasked) != 0 || (value & kLvtLevel) == 0 || lvt_mode(value) != DeliveryMode::kFixed) return;
  const auto vector = static_cast<uint8_t>(value);
  registers_.lint_remote_irr[pin] = vector >= kFirstLegalVector;
  accept_fixed(vector, TriggerMode::kLevel, action);
}

}  // namespace bulkhead::device::interrupt
