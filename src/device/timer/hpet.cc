#include "device/timer/hpet.h"

#include <algorithm>

#include <fmt/format.h>

namespace bulkhead::device::timer {
namespace {

enum Offset : uint64_t {
  kCapabilities = 0x000,
  kConfiguration = 0x010,
  kStatus = 0x020,
  kCounter = 0x0F0,
  kComparators = 0x100,
  kComparatorStride = 0x20,
  kComparatorConfiguration = 0x00,
  kComparatorValue = 0x08,
};

constexpr uint64_t kFemtosecondsPerTick = Hpet::kTickNs * 1'000'000;
constexpr uint64_t kCapabilitiesValue = kFemtosecondsPerTick << 32 | Hpet::kEventTimerBlockId;

constexpr uint64_t kEnable = 1, kLegacy = 2;

constexpr uint64_t kLevelTriggered = 1 << 1, kInterruptEnable = 1 << 2, kPeriodic = 1 << 3, kPeriodicCapable = 1 << 4;
constexpr uint64_t k64BitCapable = 1 << 5, kSetValue = 1 << 6, k32BitMode = 1 << 8;
constexpr unsigned kRouteShift = 9;
constexpr uint64_t kRouteMask = 0x1F;
constexpr uint64_t kWritable =
    kLevelTriggered | kInterruptEnable | kPeriodic | kSetValue | k32BitMode | kRouteMask << kRouteShift;
constexpr uint64_t kRouteCapabilities = ((uint64_t{1} << Hpet::kRouteCount) - 1) << (32 + Hpet::kFirstRoute);
constexpr uint64_t kFixed = kPeriodicCapable | k64BitCapable | kRouteCapabilities;

// The host's timer fires at most this often for one comparator.
constexpr uint64_t kLeastPeriodTicks = 20'000 / Hpet::kTickNs;

// Nobody hears of what it meets, nor sees a status of it.
bool is_silent(uint64_t configuration) {
  return (configuration & (kLevelTriggered | kInterruptEnable)) == 0;
}

uint64_t width_mask(uint64_t configuration) {
  return (configuration & k32BitMode) != 0 ? 0xFFFFFFFF : UINT64_MAX;
}

}  // namespace

Hpet::Hpet(Clock& clock, const Wires& wires)
    : clock_(clock),
      outputs_{wires.irq0, wires.irq8, wires.routes[0], wires.routes[1], wires.routes[2], wires.routes[3]},
      levels_{LevelOutput(outputs_[0]), LevelOutput(outputs_[1]), LevelOutput(outputs_[2]),
              LevelOutput(outputs_[3]), LevelOutput(outputs_[4]), LevelOutput(outputs_[5])},
      cut_off_pit_(wires.cut_off_pit),
      cut_off_rtc_(wires.cut_off_rtc) {
  for (uint32_t i = 0; i < kComparatorCount; ++i) {
    timers_[i] = clock.make_timer(fmt::format("hpet{}", i), [this, i] { on_timer(i); });
  }
}

void Hpet::reset() {
  Action action;
  {
    LockGuard lock(mutex_);
    registers_ = Registers{};
    for (const auto& timer : timers_) timer->disarm();
    update_levels(action);
  }
  perform(action);
}

bool Hpet::is_enabled() const {
  return (registers_.configuration & kEnable) != 0;
}
bool Hpet::is_legacy() const {
  return (registers_.configuration & kLegacy) != 0;
}

uint64_t Hpet::counter(uint64_t now_ns) const {
  return is_enabled() ? registers_.counter + (now_ns - registers_.started_ns) / kTickNs : registers_.counter;
}

uint32_t Hpet::output_of(uint32_t index) const {
  if (is_legacy() && index < 2) return index;
  const uint64_t route = registers_.comparators[index].configuration >> kRouteShift & kRouteMask;
  return route >= kFirstRoute && route < kFirstRoute + kRouteCount ? 2 + static_cast<uint32_t>(route - kFirstRoute)
                                                                   : kNoOutput;
}

void Hpet::update_levels(Action& action) {
  uint32_t asserted = 0;
  for (uint32_t i = 0; i < kComparatorCount; ++i) {
    const bool raised = (registers_.status >> i & 1) != 0 && is_enabled() &&
                        (registers_.comparators[i].configuration & kInterruptEnable) != 0;
    if (raised) asserted |= 1u << output_of(i);
  }
  for (uint32_t i = 0; i < kOutputCount; ++i) action.settle |= levels_[i].want((asserted >> i & 1) != 0);
  action.settle |= cut_off_pit_.want(is_legacy());
  action.settle |= cut_off_rtc_.want(is_legacy());
}

void Hpet::perform(const Action& action) {
  if (action.settle) {
    // First the other devices off the shared lines, then our own levels onto them.
    cut_off_pit_.settle();
    cut_off_rtc_.settle();
    for (LevelOutput& level : levels_) level.settle();
  }
  for (uint32_t i = 0; i < kOutputCount; ++i) {
    if ((action.pulse >> i & 1) != 0) outputs_[i].pulse();
  }
}

// Comparators

void Hpet::schedule(uint32_t index, uint64_t now_ns, bool just_met) {
  Comparator& comparator = registers_.comparators[index];
  comparator.due_ns = kNever;
  if (is_enabled()) {
    const uint64_t mask = width_mask(comparator.configuration);
    const uint64_t now_ticks = (now_ns - registers_.started_ns) / kTickNs;
    uint64_t left = (comparator.value - counter(now_ns)) & mask;
    // Having met, it meets again after the counter has gone round (in 64 bits: never).
    if (left == 0 && just_met) left = mask == UINT64_MAX ? kNever : mask + 1;
    const auto ticks = checked_add(now_ticks, left);
    const auto since_start_ns = ticks ? checked_multiply(*ticks, kTickNs) : std::nullopt;
    if (left != kNever && since_start_ns) {
      comparator.due_ns = checked_add(registers_.started_ns, *since_start_ns).value_or(kNever);
    }
  }
  arm(index);
}

// Linux leaves the comparator of its first tick in periodic mode for ever: the host need not wake up for it.
void Hpet::arm(uint32_t index) {
  const Comparator& comparator = registers_.comparators[index];
  if (comparator.due_ns == kNever || is_silent(comparator.configuration)) {
    timers_[index]->disarm();
  } else {
    timers_[index]->arm(comparator.due_ns);
  }
}

void Hpet::catch_up(uint64_t now_ns) {
  for (uint32_t i = 0; i < kComparatorCount; ++i) {
    Comparator& comparator = registers_.comparators[i];
    if (comparator.due_ns > now_ns || !is_silent(comparator.configuration)) continue;
    if ((comparator.configuration & kPeriodic) != 0) advance_periodic(comparator, now_ns);
    schedule(i, now_ns, true);
  }
}

// The next end of a period that lies far enough ahead; those before it fall together with the present one.
void Hpet::advance_periodic(Comparator& comparator, uint64_t now_ns) {
  const uint64_t mask = width_mask(comparator.configuration);
  const uint64_t period = comparator.period & mask;
  if (period == 0) return;
  const uint64_t behind = (counter(now_ns) - comparator.value) & mask;
  const uint64_t ahead = period < kLeastPeriodTicks ? kLeastPeriodTicks : 1;
  const uint64_t periods = (behind + ahead - 1) / period + 1;
  comparator.value = (comparator.value + periods * period) & mask;
}

void Hpet::on_timer(uint32_t index) {
  Action action;
  {
    LockGuard lock(mutex_);
    Comparator& comparator = registers_.comparators[index];
    if (comparator.due_ns == kNever) return;
    const uint64_t now_ns = clock_.now_ns();
    if (now_ns < comparator.due_ns) {
      timers_[index]->arm(comparator.due_ns);
      return;
    }
    const uint32_t output = output_of(index);
    if ((comparator.configuration & kLevelTriggered) != 0) {
      registers_.status |= uint64_t{1} << index;
    } else if ((comparator.configuration & kInterruptEnable) != 0 && output != kNoOutput) {
      action.pulse = 1u << output;
    }
    if ((comparator.configuration & kPeriodic) != 0) advance_periodic(comparator, now_ns);
    schedule(index, now_ns, true);
    update_levels(action);
  }
  perform(action);
}

// Registers

uint64_t Hpet::read_register(uint64_t offset, uint64_t now_ns) const {
  switch (offset) {
    case kCapabilities:
      return kCapabilitiesValue;
    case kConfiguration:
      return registers_.configuration;
    case kStatus:
      return registers_.status;
    case kCounter:
      return counter(now_ns);
    default:
      break;
  }
  if (offset < kComparators) return 0;
  const uint64_t index = (offset - kComparators) / kComparatorStride;
  if (index >= kComparatorCount) return 0;
  const Comparator& comparator = registers_.comparators[index];
  switch (offset % kComparatorStride) {
    case kComparatorConfiguration:
      return comparator.configuration | kFixed;
    case kComparatorValue:
      return comparator.value & width_mask(comparator.configuration);
    default:
      return 0;
  }
}

void Hpet::write_register(uint64_t offset, uint64_t value, uint64_t now_ns) {
  switch (offset) {
    case kConfiguration:
      write_configuration(value, now_ns);
      return;
    case kStatus:
      registers_.status &= ~value;
      return;
    case kCounter:
      registers_.counter = value;
      registers_.started_ns = now_ns;
      for (uint32_t i = 0; i < kComparatorCount; ++i) schedule(i, now_ns, false);
      return;
    default:
      break;
  }
  if (offset < kComparators) return;
  const uint64_t index = (offset - kComparators) / kComparatorStride;
  if (index >= kComparatorCount) return;
  Comparator& comparator = registers_.comparators[index];
  if (offset % kComparatorStride == kComparatorConfiguration) {
    comparator.configuration = value & kWritable;
    if ((value & kLevelTriggered) == 0) registers_.status &= ~(uint64_t{1} << index);
    schedule(static_cast<uint32_t>(index), now_ns, true);
  } else if (offset % kComparatorStride == kComparatorValue) {
    write_comparator(comparator, value);
    schedule(static_cast<uint32_t>(index), now_ns, false);
  }
}

// In periodic mode a write sets the period, and the comparator itself only when VAL_SET asked for it.
void Hpet::write_comparator(Comparator& comparator, uint64_t value) {
  value &= width_mask(comparator.configuration);
  const bool periodic = (comparator.configuration & kPeriodic) != 0;
  if (!periodic || (comparator.configuration & kSetValue) != 0) comparator.value = value;
  if (periodic) comparator.period = value;
  comparator.configuration &= ~kSetValue;
}

void Hpet::write_configuration(uint64_t value, uint64_t now_ns) {
  const bool was_enabled = is_enabled();
  if (was_enabled) {
    // Carry the part of a tick that has gone by.
    const uint64_t ticks = (now_ns - registers_.started_ns) / kTickNs;
    registers_.counter += ticks;
    registers_.started_ns += ticks * kTickNs;
  } else {
    registers_.started_ns = now_ns;
  }
  registers_.configuration = value & (kEnable | kLegacy);
  for (uint32_t i = 0; i < kComparatorCount; ++i) schedule(i, now_ns, was_enabled);
}

void Hpet::read_mmio(uint64_t offset, MutableByteSpan out) {
  LockGuard lock(mutex_);
  // Registers are 8 bytes wide; an access that goes beyond one reads zeros there.
  const uint64_t now_ns = clock_.now_ns();
  catch_up(now_ns);
  const uint64_t value = read_register(offset & ~uint64_t{7}, now_ns);
  store_little(out, value >> (offset % 8 * 8));
}

void Hpet::write_mmio(uint64_t offset, ByteSpan in) {
  Action action;
  {
    LockGuard lock(mutex_);
    const uint64_t now_ns = clock_.now_ns();
    catch_up(now_ns);
    const uint64_t aligned = offset & ~uint64_t{7};
    const auto shift = static_cast<unsigned>(offset % 8 * 8);
    const unsigned size = static_cast<unsigned>(std::min<uint64_t>(in.size(), 8 - offset % 8));
    const uint64_t mask = (size == 8 ? UINT64_MAX : (uint64_t{1} << (size * 8)) - 1) << shift;
    // Writing ones clears the status, so that the bytes not written are zeros there.
    const uint64_t kept = aligned == kStatus ? 0 : read_register(aligned, now_ns) & ~mask;
    write_register(aligned, kept | (load_little(in) << shift & mask), now_ns);
    update_levels(action);
  }
  perform(action);
}

// Saved state

void Hpet::save_state(StateWriter& writer) const {
  LockGuard lock(mutex_);
  writer.put("configuration", registers_.configuration).put("status", registers_.status);
  writer.put("counter", registers_.counter).put("started_ns", registers_.started_ns);
  for (uint32_t i = 0; i < kComparatorCount; ++i) {
    const Comparator& comparator = registers_.comparators[i];
    StateWriter child = writer.child(fmt::format("comparator{}", i));
    child.put("configuration", comparator.configuration).put("value", comparator.value);
    child.put("period", comparator.period).put("due_ns", comparator.due_ns);
  }
}

Result<> Hpet::restore_state(const StateReader& reader) {
  Registers restored;
  restored.configuration = TRY(reader.get("configuration", kEnable | kLegacy));
  restored.status = TRY(reader.get("status", (1u << kComparatorCount) - 1));
  restored.counter = TRY(reader.get("counter"));
  restored.started_ns = TRY(reader.get("started_ns"));
  for (uint32_t i = 0; i < kComparatorCount; ++i) {
    const StateReader child = TRY(reader.child(fmt::format("comparator{}", i)));
    Comparator& comparator = restored.comparators[i];
    comparator.configuration = TRY(child.get("configuration", kWritable));
    comparator.value = TRY(child.get("value"));
    comparator.period = TRY(child.get("period"));
    comparator.due_ns = TRY(child.get("due_ns"));
    if ((comparator.configuration & ~kWritable) != 0) return fail("{}: reserved bits are set", child.path());
  }
  if (restored.started_ns > clock_.now_ns()) return fail("{}: the counter starts in the future", reader.path());
  Action action;
  {
    LockGuard lock(mutex_);
    registers_ = restored;
    for (uint32_t i = 0; i < kComparatorCount; ++i) {
      if (!is_enabled()) registers_.comparators[i].due_ns = kNever;
      arm(i);
    }
    update_levels(action);
  }
  perform(action);
  return {};
}

}  // namespace bulkhead::device::timer
