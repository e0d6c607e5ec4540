#include "device/legacy/rtc/rtc.h"

#include <algorithm>

namespace bulkhead::device::legacy {
namespace {

enum Index : uint8_t {
  kSecond = 0x00,
  kSecondAlarm = 0x01,
  kMinute = 0x02,
  kMinuteAlarm = 0x03,
  kHour = 0x04,
  kHourAlarm = 0x05,
  kWeekday = 0x06,
  kDay = 0x07,
  kMonth = 0x08,
  kYear = 0x09,
  kRegisterA = 0x0A,
  kRegisterB = 0x0B,
  kRegisterC = 0x0C,
  kRegisterD = 0x0D,
  kCentury = Rtc::kCenturyIndex,
};

// Register A: update in progress, divider, rate.
constexpr uint8_t kUpdateInProgress = 0x80, kDividerShift = 4, kRateMask = 0x0F;
constexpr uint8_t kRegisterAAtPowerOn = 0x26;
// Register B, whose upper three enables stand where register C has the flags.
constexpr uint8_t kSet = 0x80, kPeriodic = 0x40, kAlarm = 0x20, kUpdate = 0x10, kSquareWave = 0x08, kBinary = 0x04,
                  k24Hours = 0x02;
constexpr uint8_t kEvents = kPeriodic | kAlarm | kUpdate;
constexpr uint8_t kInterrupt = 0x80;
constexpr uint8_t kValid = 0x80;
constexpr uint8_t kAfternoon = 0x80;
constexpr uint8_t kAnyAlarm = 0xC0;

// An update takes 1984 us, and the flag announces it 244 us before.
constexpr uint64_t kUpdateNs = 2'228'000;
constexpr uint64_t kHalfSecondNs = Clock::kNanosecondsPerSecond / 2;
constexpr uint64_t kBaseFrequencyHz = 32'768;

bool is_time(uint8_t index) {
  return index == kSecond || index == kMinute || index == kHour || (index >= kWeekday && index <= kYear) ||
         index == kCentury;
}

}  // namespace

Rtc::Rtc(Clock& clock, IrqLine irq)
    : clock_(clock), irq_(irq), timer_(clock.make_timer("rtc", [this] { on_timer(); })) {
  LockGuard lock(mutex_);
  memory_[kRegisterA] = kRegisterAAtPowerOn;
  memory_[kRegisterB] = k24Hours;
  seen_second_ = second_now();
}

void Rtc::reset() {
  bool changed = false;
  {
    LockGuard lock(mutex_);
    index_ = 0;
    memory_[kRegisterB] &= static_cast<uint8_t>(~(kEvents | kSquareWave));
    memory_[kRegisterC] = 0;
    changed = update();
  }
  if (changed) irq_.settle();
}

void Rtc::set_memory(uint8_t index, uint8_t value) {
  LockGuard lock(mutex_);
  if (index > kRegisterD && index < kMemorySize && index != kCentury) memory_[index] = value;
}

void Rtc::set_irq(uint32_t, bool asserted) {
  bool changed = false;
  {
    LockGuard lock(mutex_);
    cut_off_ = asserted;
    changed = update();
  }
  if (changed) irq_.settle();
}

// Time

int64_t Rtc::second_now() const {
  return static_cast<int64_t>((clock_.wall_ns() + phase_ns_) / Clock::kNanosecondsPerSecond) + offset_s_;
}

uint64_t Rtc::nanosecond_now() const {
  return (clock_.wall_ns() + phase_ns_) % Clock::kNanosecondsPerSecond;
}

void Rtc::set_time(int64_t second, uint64_t nanosecond) {
  const uint64_t wall_part = clock_.wall_ns() % Clock::kNanosecondsPerSecond;
  phase_ns_ = (nanosecond + Clock::kNanosecondsPerSecond - wall_part) % Clock::kNanosecondsPerSecond;
  offset_s_ = 0;
  offset_s_ = second - second_now();
  seen_second_ = second;
}

bool Rtc::is_divider_reset() const {
  return (memory_[kRegisterA] >> kDividerShift & 6) == 6;
}
bool Rtc::is_stopped() const {
  return (memory_[kRegisterB] & kSet) != 0;
}

uint8_t Rtc::encode(uint32_t value) const {
  if ((memory_[kRegisterB] & kBinary) != 0) return static_cast<uint8_t>(value);
  return static_cast<uint8_t>(value / 10 % 10 << 4 | value % 10);
}

uint32_t Rtc::decode(uint8_t value) const {
  return (memory_[kRegisterB] & kBinary) != 0 ? value : (value >> 4) * 10u + (value & 15u);
}

uint8_t Rtc::encode_hour(uint32_t hour) const {
  if ((memory_[kRegisterB] & k24Hours) != 0) return encode(hour);
  return encode((hour + 11) % 12 + 1) | (hour >= 12 ? kAfternoon : 0);
}

uint32_t Rtc::decode_hour(uint8_t value) const {
  if ((memory_[kRegisterB] & k24Hours) != 0) return decode(value);
  return decode(value & ~kAfternoon) % 12 + ((value & kAfternoon) != 0 ? 12 : 0);
}

void Rtc::show_time(int64_t second) {
  const CalendarTime time = calendar_of(second);
  memory_[kSecond] = encode(time.second);
  memory_[kMinute] = encode(time.minute);
  memory_[kHour] = encode_hour(time.hour);
  memory_[kWeekday] = encode(time.weekday);
  memory_[kDay] = encode(time.day);
  memory_[kMonth] = encode(time.month);
  memory_[kYear] = encode(static_cast<uint32_t>(time.year) % 100);
  memory_[kCentury] = encode(static_cast<uint32_t>(time.year) / 100 % 100);
}

int64_t Rtc::shown_time() const {
  return seconds_of({.year = static_cast<int32_t>(decode(memory_[kCentury]) * 100 + decode(memory_[kYear])),
                     .month = decode(memory_[kMonth]),
                     .day = decode(memory_[kDay]),
                     .hour = decode_hour(memory_[kHour]),
                     .minute = decode(memory_[kMinute]),
                     .second = decode(memory_[kSecond])});
}

// Alarm

Rtc::Alarm Rtc::alarm() const {
  Alarm alarm;
  const auto field = [&alarm](uint8_t raw, uint32_t value, uint32_t limit) -> std::optional<uint32_t> {
    if (raw >= kAnyAlarm) return std::nullopt;
    if (value >= limit) alarm.possible = false;
    return value;
  };
  alarm.second = field(memory_[kSecondAlarm], decode(memory_[kSecondAlarm]), 60);
  alarm.minute = field(memory_[kMinuteAlarm], decode(memory_[kMinuteAlarm]), 60);
  alarm.hour = field(memory_[kHourAlarm], decode_hour(memory_[kHourAlarm]), 24);
  return alarm;
}

// At most a day ahead, found by passing over hours and minutes that do not match.
std::optional<int64_t> Rtc::Alarm::next_after(int64_t last) const {
  if (!possible) return std::nullopt;
  const CalendarTime start = calendar_of(last);
  const auto start_in_day = int64_t{start.hour} * 3600 + int64_t{start.minute} * 60 + start.second;
  const int64_t midnight = last - start_in_day;
  for (int64_t at = start_in_day + 1; at <= start_in_day + kSecondsPerDay;) {
    const auto in_day = static_cast<uint32_t>(at % kSecondsPerDay);
    if (hour && in_day / 3600 != *hour) {
      at += 3600 - in_day % 3600;
    } else if (minute && in_day / 60 % 60 != *minute) {
      at += 60 - in_day % 60;
    } else if (second && in_day % 60 != *second) {
      ++at;
    } else {
      return midnight + at;
    }
  }
  return std::nullopt;
}

// Interrupts

// A period is 2^shift ticks of 32768 Hz. Rates 1 and 2 are those of 8 and 9 (data sheet, table 5); 0: none.
std::optional<unsigned> Rtc::period_shift() const {
  const unsigned rate = memory_[kRegisterA] & kRateMask;
  if (rate == 0 || is_divider_reset()) return std::nullopt;
  return (rate < 3 ? rate + 7 : rate) - 1;
}

uint64_t Rtc::period_count() const {
  const std::optional<unsigned> shift = period_shift();
  return shift ? Clock::scale(clock_.now_ns(), kBaseFrequencyHz, Clock::kNanosecondsPerSecond) >> *shift : 0;
}

void Rtc::collect() {
  uint8_t& flags = memory_[kRegisterC];
  const uint64_t period = period_count();
  if (period != seen_period_) flags |= kPeriodic;
  seen_period_ = period;
  if (is_stopped() || is_divider_reset()) return;
  const int64_t second = second_now();
  if (second > seen_second_) {
    flags |= kUpdate;
    const std::optional<int64_t> due = alarm().next_after(seen_second_);
    if (due && *due <= second) flags |= kAlarm;
  }
  seen_second_ = second;
}

bool Rtc::update() {
  uint8_t& flags = memory_[kRegisterC];
  const bool interrupt = (flags & memory_[kRegisterB] & kEvents) != 0;
  flags = static_cast<uint8_t>((flags & kEvents) | (interrupt ? kInterrupt : 0));
  schedule();
  return irq_.want(interrupt && !cut_off_);
}

// The earliest event that is enabled and whose flag is still clear.
void Rtc::schedule() {
  const auto awaited = static_cast<uint8_t>(memory_[kRegisterB] & ~memory_[kRegisterC] & kEvents);
  const uint64_t now_ns = clock_.now_ns();
  uint64_t due_ns = UINT64_MAX;
  if (const std::optional<unsigned> shift = period_shift(); (awaited & kPeriodic) != 0 && shift) {
    const uint64_t next_tick = (period_count() + 1) << *shift;
    due_ns = Clock::scale(next_tick, Clock::kNanosecondsPerSecond, kBaseFrequencyHz) + 1;
  }
  if (!is_stopped() && !is_divider_reset()) {
    const uint64_t to_second_ns = Clock::kNanosecondsPerSecond - nanosecond_now();
    if ((awaited & kUpdate) != 0) due_ns = std::min(due_ns, now_ns + to_second_ns);
    if ((awaited & kAlarm) != 0) {
      const int64_t second = second_now();
      if (const std::optional<int64_t> next = alarm().next_after(second)) {
        const auto whole_s = static_cast<uint64_t>(*next - second - 1);
        due_ns = std::min(due_ns, now_ns + to_second_ns + whole_s * Clock::kNanosecondsPerSecond);
      }
    }
  }
  if (due_ns == UINT64_MAX) {
    timer_->disarm();
  } else {
    timer_->arm(due_ns);
  }
}

void Rtc::on_timer() {
  bool changed = false;
  {
    LockGuard lock(mutex_);
    collect();
    changed = update();
  }
  if (changed) irq_.settle();
}

// Registers

uint8_t Rtc::read_byte(uint16_t offset) {
  if (offset != 1) return 0xFF;
  bool changed = false;
  uint8_t value = 0;
  {
    LockGuard lock(mutex_);
    value = read_memory(index_);
    if (index_ == kRegisterC) changed = update();
  }
  if (changed) irq_.settle();
  return value;
}

uint8_t Rtc::read_memory(uint8_t index) {
  const bool runs = !is_stopped() && !is_divider_reset();
  if (is_time(index) && runs) show_time(second_now());
  switch (index) {
    case kRegisterA: {
      const bool updates = runs && nanosecond_now() >= Clock::kNanosecondsPerSecond - kUpdateNs;
      return memory_[kRegisterA] | (updates ? kUpdateInProgress : 0);
    }
    case kRegisterC: {
      collect();
      const uint8_t flags = memory_[kRegisterC];
      const bool interrupt = (flags & memory_[kRegisterB] & kEvents) != 0;
      memory_[kRegisterC] = 0;
      return static_cast<uint8_t>((flags & kEvents) | (interrupt ? kInterrupt : 0));
    }
    case kRegisterD:
      return kValid;
    default:
      return memory_[index];
  }
}

void Rtc::write_byte(uint16_t offset, uint8_t value) {
  bool changed = false;
  {
    LockGuard lock(mutex_);
    if (offset == 0) {
      index_ = value & 0x7F;  // bit 7 masks NMI, of which this board has none
    } else if (offset == 1) {
      write_memory(index_, value);
      changed = update();
    }
  }
  if (changed) irq_.settle();
}

void Rtc::write_memory(uint8_t index, uint8_t value) {
  collect();
  switch (index) {
    case kRegisterA: {
      const bool was_reset = is_divider_reset();
      if (!was_reset && !is_stopped()) show_time(second_now());
      memory_[kRegisterA] = value & ~kUpdateInProgress;
      seen_period_ = period_count();
      // The first update follows half a second after the divider is released (data sheet, "Divider Control").
      if (was_reset && !is_divider_reset() && !is_stopped()) set_time(shown_time(), kHalfSecondNs);
      return;
    }
    case kRegisterB: {
      const bool was_stopped = is_stopped();
      if (!was_stopped && !is_divider_reset()) show_time(second_now());
      // SET stops the updates and with them their interrupt.
      memory_[kRegisterB] = (value & kSet) != 0 ? value & ~kUpdate : value;
      if (was_stopped && !is_stopped() && !is_divider_reset()) set_time(shown_time(), nanosecond_now());
      return;
    }
    case kRegisterC:
    case kRegisterD:
      return;
    default:
      break;
  }
  if (is_time(index) && !is_stopped() && !is_divider_reset()) {
    show_time(second_now());
    memory_[index] = value;
    set_time(shown_time(), nanosecond_now());
  } else {
    memory_[index] = value;
  }
}

// Saved state

void Rtc::save_state(StateWriter& writer) const {
  LockGuard lock(mutex_);
  writer.put("index", index_).put_bytes("memory", memory_);
  writer.put("offset_s", offset_s_).put("phase_ns", phase_ns_);
  writer.put("seen_second", seen_second_).put("seen_period", seen_period_).put("cut_off", cut_off_);
}

Result<> Rtc::restore_state(const StateReader& reader) {
  const auto index = static_cast<uint8_t>(TRY(reader.get("index", kMemorySize - 1)));
  const ByteSpan memory = TRY(reader.get_bytes("memory", kMemorySize));
  const auto offset_s = static_cast<int64_t>(TRY(reader.get("offset_s")));
  const uint64_t phase_ns = TRY(reader.get("phase_ns", Clock::kNanosecondsPerSecond - 1));
  const auto seen_second = static_cast<int64_t>(TRY(reader.get("seen_second")));
  const uint64_t seen_period = TRY(reader.get("seen_period"));
  const bool cut_off = TRY(reader.get_flag("cut_off"));
  // A guest can set the year to 25755 at the most.
  constexpr int64_t kFurthest = int64_t{30'000} * 366 * kSecondsPerDay;
  if (offset_s > kFurthest || offset_s < -kFurthest || seen_second > kFurthest || seen_second < -kFurthest) {
    return fail("{}: the clock is set {} s apart", reader.path(), offset_s);
  }
  bool changed = false;
  {
    LockGuard lock(mutex_);
    index_ = index;
    std::ranges::copy(memory, memory_.begin());
    memory_[kRegisterA] &= static_cast<uint8_t>(~kUpdateInProgress);
    offset_s_ = offset_s;
    phase_ns_ = phase_ns;
    seen_second_ = seen_second;
    seen_period_ = seen_period;
    cut_off_ = cut_off;
    changed = update();
  }
  if (changed) irq_.settle();
  return {};
}

}  // namespace bulkhead::device::legacy
