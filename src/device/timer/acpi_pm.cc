#include "device/timer/acpi_pm.h"

namespace bulkhead::device::timer {
namespace {

constexpr uint16_t kTimerStatus = 1 << 0, kGlobalStatus = 1 << 5, kPowerButton = 1 << 8, kRtcStatus = 1 << 10,
                   kWakeStatus = 1 << 15;
constexpr uint16_t kStatusBits = kTimerStatus | kGlobalStatus | kPowerButton | kRtcStatus | kWakeStatus;
constexpr uint16_t kEnableBits = kTimerStatus | kGlobalStatus | kPowerButton | kRtcStatus;

constexpr uint16_t kSciEnable = 1 << 0, kSleepEnable = 1 << 13;
constexpr unsigned kSleepTypeShift = 10;
constexpr uint16_t kControlBits = 1 << 1 | 7 << kSleepTypeShift;  // BM_RLD, SLP_TYP

enum Offset : uint16_t {
  kStatus = AcpiPm::kEventOffset,
  kEnable = AcpiPm::kEventOffset + 2,
  kControl = AcpiPm::kControlOffset,
  kTimer = AcpiPm::kTimerOffset,
  kGeneralStatus = AcpiPm::kGeneralEventOffset,
  kGeneralEnable = AcpiPm::kGeneralEventOffset + 2,
};

uint16_t with_byte(uint16_t value, unsigned index, uint8_t byte) {
  return static_cast<uint16_t>((value & ~(0xFFu << (8 * index))) | unsigned{byte} << (8 * index));
}

}  // namespace

AcpiPm::AcpiPm(Clock& clock, IrqLine sci, PowerControl& power, TimerWidth width)
    : clock_(clock),
      power_(power),
      width_bits_(width == TimerWidth::k24Bits ? 24 : 32),
      sci_(sci),
      timer_(clock.make_timer("acpi-pm", [this] { on_timer(); })) {
  registers_.half_turns_seen = half_turns();
}

void AcpiPm::reset() {
  Action action;
  {
    LockGuard lock(mutex_);
    registers_ = Registers{};
    registers_.half_turns_seen = half_turns();
    update(action);
    schedule();
  }
  perform(action);
}

void AcpiPm::perform(const Action& action) {
  if (action.sci_changed) sci_.settle();
  if (action.power_off) power_.request_power_off();
}

void AcpiPm::update(Action& action) {
  const bool asserted = (registers_.status & registers_.enable & kEnableBits) != 0 ||
                        (registers_.general_status & registers_.general_enable) != 0;
  action.sci_changed |= sci_.want(asserted);
}

// TMR_STS tells each change of the timer's highest bit.
void AcpiPm::note_half_turns() {
  const uint64_t now = half_turns();
  if (now == registers_.half_turns_seen) return;
  registers_.half_turns_seen = now;
  registers_.status |= kTimerStatus;
}

// The timer is needed only while its event would interrupt and has not yet.
void AcpiPm::schedule() {
  if ((registers_.enable & kTimerStatus) == 0 || (registers_.status & kTimerStatus) != 0) {
    timer_->disarm();
    return;
  }
  const uint64_t next_tick = (registers_.half_turns_seen + 1) << (width_bits_ - 1);
  timer_->arm(Clock::scale(next_tick, Clock::kNanosecondsPerSecond, kFrequencyHz) + 1);
}

void AcpiPm::on_timer() {
  Action action;
  {
    LockGuard lock(mutex_);
    note_half_turns();
    update(action);
    schedule();
  }
  perform(action);
}

void AcpiPm::press_power_button() {
  Action action;
  {
    LockGuard lock(mutex_);
    registers_.status |= kPowerButton;
    update(action);
  }
  perform(action);
}

void AcpiPm::raise_general_event(unsigned event) {
  if (event >= 16) return;
  Action action;
  {
    LockGuard lock(mutex_);
    registers_.general_status |= static_cast<uint16_t>(1u << event);
    update(action);
  }
  perform(action);
}

uint32_t AcpiPm::read_port(uint16_t offset, unsigned size) {
  LockGuard lock(mutex_);
  // All bytes of the timer are of one moment.
  if (offset == kTimer && size == 4) return static_cast<uint32_t>(ticks() & ((uint64_t{1} << width_bits_) - 1));
  note_half_turns();
  uint32_t value = 0;
  for (unsigned i = 0; i < size && i < 4; ++i)
    value |= uint32_t{read_byte(static_cast<uint16_t>(offset + i))} << (8 * i);
  return value;
}

uint8_t AcpiPm::read_byte(uint16_t offset) const {
  const uint64_t timer = ticks() & ((uint64_t{1} << width_bits_) - 1);
  switch (offset) {
    case kStatus:
    case kStatus + 1:
      return static_cast<uint8_t>(registers_.status >> (8 * (offset - kStatus)));
    case kEnable:
    case kEnable + 1:
      return static_cast<uint8_t>(registers_.enable >> (8 * (offset - kEnable)));
    case kControl:
    case kControl + 1:
      return static_cast<uint8_t>((registers_.control | kSciEnable) >> (8 * (offset - kControl)));
    case kTimer:
    case kTimer + 1:
    case kTimer + 2:
    case kTimer + 3:
      return static_cast<uint8_t>(timer >> (8 * (offset - kTimer)));
    case kGeneralStatus:
    case kGeneralStatus + 1:
      return static_cast<uint8_t>(registers_.general_status >> (8 * (offset - kGeneralStatus)));
    case kGeneralEnable:
    case kGeneralEnable + 1:
      return static_cast<uint8_t>(registers_.general_enable >> (8 * (offset - kGeneralEnable)));
    default:
      return 0;
  }
}

void AcpiPm::write_port(uint16_t offset, unsigned size, uint32_t value) {
  Action action;
  {
    LockGuard lock(mutex_);
    note_half_turns();
    for (unsigned i = 0; i < size && i < 4; ++i) {
      write_byte(static_cast<uint16_t>(offset + i), static_cast<uint8_t>(value >> (8 * i)), action);
    }
    update(action);
    schedule();
  }
  perform(action);
}

void AcpiPm::write_byte(uint16_t offset, uint8_t value, Action& action) {
  Registers& r = registers_;
  switch (offset) {
    case kStatus:
    case kStatus + 1:
      r.status &= static_cast<uint16_t>(~(value << (8 * (offset - kStatus))));
      break;
    case kEnable:
    case kEnable + 1:
      r.enable = with_byte(r.enable, offset - kEnable, value) & kEnableBits;
      break;
    case kControl:
      r.control = with_byte(r.control, 0, value) & kControlBits;
      break;
    case kControl + 1:
      r.control = with_byte(r.control, 1, value) & kControlBits;
      // Only soft-off is offered; other sleep types do nothing.
      action.power_off |= (value << 8 & kSleepEnable) != 0 && r.control >> kSleepTypeShift == kSleepTypeOff;
      break;
    case kGeneralStatus:
    case kGeneralStatus + 1:
      r.general_status &= static_cast<uint16_t>(~(value << (8 * (offset - kGeneralStatus))));
      break;
    case kGeneralEnable:
    case kGeneralEnable + 1:
      r.general_enable = with_byte(r.general_enable, offset - kGeneralEnable, value);
      break;
    default:
      break;
  }
}

void AcpiPm::save_state(StateWriter& writer) const {
  LockGuard lock(mutex_);
  writer.put("status", registers_.status).put("enable", registers_.enable).put("control", registers_.control);
  writer.put("general_status", registers_.general_status).put("general_enable", registers_.general_enable);
  writer.put("half_turns_seen", registers_.half_turns_seen);
}

Result<> AcpiPm::restore_state(const StateReader& reader) {
  Registers restored;
  restored.status = static_cast<uint16_t>(TRY(reader.get("status", 0xFFFF)) & kStatusBits);
  restored.enable = static_cast<uint16_t>(TRY(reader.get("enable", 0xFFFF)) & kEnableBits);
  restored.control = static_cast<uint16_t>(TRY(reader.get("control", 0xFFFF)) & kControlBits);
  restored.general_status = static_cast<uint16_t>(TRY(reader.get("general_status", 0xFFFF)));
  restored.general_enable = static_cast<uint16_t>(TRY(reader.get("general_enable", 0xFFFF)));
  restored.half_turns_seen = TRY(reader.get("half_turns_seen", half_turns()));
  Action action;
  {
    LockGuard lock(mutex_);
    registers_ = restored;
    update(action);
    schedule();
  }
  perform(action);
  return {};
}

}  // namespace bulkhead::device::timer
