#include "device/timer/pit_channel.h"

#include <algorithm>

namespace bulkhead::device::timer {

void PitChannel::write_control(uint8_t control) {
  const uint8_t mode = control >> 1 & 7;
  mode_ = mode > 5 ? mode - 4 : mode;
  decimal_ = (control & 1) != 0;
  access_ = static_cast<Access>(control >> 4 & 3);
  loaded_ = running_ = false;
  reload_ = modulus();
  next_reload_ = 0;
  held_ticks_ = 0;
  writes_high_ = reads_high_ = false;
  latched_count_.reset();
  latched_status_.reset();
}

void PitChannel::write_count(uint8_t byte, uint64_t tick) {
  if (access_ == kLowThenHigh && !writes_high_) {
    written_low_ = byte;
    writes_high_ = true;
    // The first byte stops mode 0 and lowers its output.
    if (mode_ == 0) loaded_ = running_ = false;
    return;
  }
  writes_high_ = false;
  const unsigned value = access_ == kLow ? byte : access_ == kHigh ? byte << 8 : byte << 8 | written_low_;
  load(decode(static_cast<uint16_t>(value)), tick);
}

void PitChannel::load(uint32_t count, uint64_t tick) {
  if (needs_trigger()) {
    loaded_ = true;
    next_reload_ = count;
    return;
  }
  if (is_periodic()) {
    count = std::max(count, 2u);
    if (loaded_ && running_) {
      next_reload_ = count;
      return;
    }
  }
  loaded_ = true;
  reload_ = count;
  next_reload_ = 0;
  start(tick);
  if (!gate_) hold(tick);
}

void PitChannel::start(uint64_t tick) {
  running_ = true;
  start_tick_ = tick;
  held_ticks_ = 0;
}

void PitChannel::hold(uint64_t tick) {
  held_ticks_ = elapsed(tick);
  running_ = false;
}

void PitChannel::set_gate(bool gate, uint64_t tick) {
  if (gate == gate_) return;
  gate_ = gate;
  if (!loaded_) return;
  if (needs_trigger()) {
    if (!gate) return;
    if (next_reload_ != 0) reload_ = next_reload_;
    next_reload_ = 0;
    start(tick);
  } else if (!gate) {
    hold(tick);
  } else if (is_periodic()) {
    if (next_reload_ != 0) reload_ = next_reload_;
    next_reload_ = 0;
    start(tick);
  } else {
    const uint64_t counted = held_ticks_;
    start(tick);
    start_tick_ -= counted;
  }
}

void PitChannel::take_over_count(uint64_t tick) {
  if (next_reload_ == 0 || !is_periodic() || !running_ || elapsed(tick) < reload_) return;
  start_tick_ += reload_;
  reload_ = next_reload_;
  next_reload_ = 0;
}

uint64_t PitChannel::elapsed(uint64_t tick) const {
  return running_ ? tick - start_tick_ : held_ticks_;
}

uint32_t PitChannel::count(uint64_t tick) const {
  const uint64_t passed = elapsed(tick);
  if (mode_ == 2) return static_cast<uint32_t>(reload_ - passed % reload_);
  if (mode_ == 3) {
    // Counts by two from the even part of the count, once for each half; the high half of an odd count is longer by
    // one.
    const auto place = static_cast<uint32_t>(passed % reload_);
    const uint32_t high_half = (reload_ + 1) / 2;
    return (reload_ & ~1u) - 2 * (place < high_half ? place : place - high_half);
  }
  const uint32_t wrap = modulus();
  return static_cast<uint32_t>((reload_ + wrap - passed % wrap) % wrap);
}

bool PitChannel::output(uint64_t tick) const {
  const uint64_t passed = elapsed(tick);
  switch (mode_) {
    case 0:
      return loaded_ && passed >= reload_;
    case 1:
      return !running_ || passed >= reload_;
    case 2:
      return !running_ || passed % reload_ != reload_ - 1;
    case 3:
      return !running_ || passed % reload_ < (reload_ + 1) / 2;
    default:
      return !running_ || passed != reload_;
  }
}

std::optional<uint64_t> PitChannel::next_rise(uint64_t tick) const {
  if (!running_) return std::nullopt;
  const uint64_t passed = elapsed(tick);
  if (is_periodic()) return start_tick_ + (passed / reload_ + 1) * reload_;
  const uint64_t rise = mode_ >= 4 ? uint64_t{reload_} + 1 : reload_;
  return passed < rise ? std::optional(start_tick_ + rise) : std::nullopt;
}

uint8_t PitChannel::read(uint64_t tick) {
  if (latched_status_) return *std::exchange(latched_status_, std::nullopt);
  const uint16_t value = latched_count_ ? *latched_count_ : encode(count(tick));
  const bool high = access_ == kHigh || (access_ == kLowThenHigh && reads_high_);
  if (access_ == kLowThenHigh) reads_high_ = !reads_high_;
  if (access_ != kLowThenHigh || !reads_high_) latched_count_.reset();
  return static_cast<uint8_t>(high ? value >> 8 : value);
}

void PitChannel::latch_count(uint64_t tick) {
  if (!latched_count_) latched_count_ = encode(count(tick));
}

void PitChannel::latch_status(uint64_t tick) {
  if (latched_status_) return;
  const bool null_count = !loaded_ || next_reload_ != 0;
  latched_status_ = static_cast<uint8_t>((output(tick) ? 0x80 : 0) | (null_count ? 0x40 : 0) | access_ << 4 |
                                         mode_ << 1 | (decimal_ ? 1 : 0));
}

uint16_t PitChannel::encode(uint32_t value) const {
  value %= modulus();
  if (!decimal_) return static_cast<uint16_t>(value);
  return static_cast<uint16_t>(value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10);
}

uint32_t PitChannel::decode(uint16_t value) const {
  uint32_t decoded = value;
  if (decimal_) decoded = ((value >> 12) * 1000u + (value >> 8 & 15) * 100u + (value >> 4 & 15) * 10u + (value & 15u));
  decoded %= modulus();
  return decoded == 0 ? modulus() : decoded;
}

void PitChannel::save(StateWriter writer) const {
  writer.put("mode", mode_).put("decimal", decimal_).put("access", access_).put("gate", gate_);
  writer.put("loaded", loaded_).put("running", running_).put("reload", reload_).put("next_reload", next_reload_);
  writer.put("start_tick", start_tick_).put("held_ticks", held_ticks_);
  writer.put("written_low", written_low_).put("writes_high", writes_high_).put("reads_high", reads_high_);
  if (latched_count_) writer.put("latched_count", *latched_count_);
  if (latched_status_) writer.put("latched_status", *latched_status_);
}

Result<PitChannel> PitChannel::restore(const StateReader& reader) {
  PitChannel channel;
  channel.mode_ = static_cast<uint8_t>(TRY(reader.get("mode", 5)));
  channel.decimal_ = TRY(reader.get_flag("decimal"));
  channel.access_ = static_cast<Access>(TRY(reader.get("access", kLowThenHigh)));
  channel.gate_ = TRY(reader.get_flag("gate"));
  channel.loaded_ = TRY(reader.get_flag("loaded"));
  channel.running_ = TRY(reader.get_flag("running"));
  channel.reload_ = static_cast<uint32_t>(TRY(reader.get("reload", channel.modulus())));
  channel.next_reload_ = static_cast<uint32_t>(TRY(reader.get("next_reload", channel.modulus())));
  channel.start_tick_ = TRY(reader.get("start_tick"));
  channel.held_ticks_ = TRY(reader.get("held_ticks"));
  channel.written_low_ = static_cast<uint8_t>(TRY(reader.get("written_low", 0xFF)));
  channel.writes_high_ = TRY(reader.get_flag("writes_high"));
  channel.reads_high_ = TRY(reader.get_flag("reads_high"));
  if (reader.has("latched_count")) {
    channel.latched_count_ = static_cast<uint16_t>(TRY(reader.get("latched_count", 0xFFFF)));
  }
  if (reader.has("latched_status")) {
    channel.latched_status_ = static_cast<uint8_t>(TRY(reader.get("latched_status", 0xFF)));
  }
  const uint32_t least = channel.is_periodic() ? 2 : 1;
  if (channel.reload_ < least || (channel.next_reload_ != 0 && channel.next_reload_ < least)) {
    return fail("{}: count {} in mode {}", reader.path(), channel.reload_, channel.mode_);
  }
  return channel;
}

}  // namespace bulkhead::device::timer
