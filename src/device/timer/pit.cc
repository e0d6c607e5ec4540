#include "device/timer/pit.h"

namespace bulkhead::device::timer {
namespace {

// The host's timer fires at most this often for channel 0: about 20 us.
constexpr uint64_t kLeastPeriodTicks = 24;

// Port 0x61. The refresh bit changes with each refresh cycle of the original PC, about every 15 us.
constexpr uint8_t kGate2 = 0x01, kControlWritable = 0x0F, kRefresh = 0x10, kOutput2 = 0x20;
constexpr uint64_t kRefreshNs = 15'085;

PitChannel speaker_channel() {
  PitChannel channel;
  channel.set_gate(false, 0);
  return channel;
}

// Rounded up, so that the tick has come when the timer fires.
uint64_t ns_of(uint64_t tick) {
  const uint64_t ns = Clock::scale(tick, Clock::kNanosecondsPerSecond, Pit::kFrequencyHz);
  return ns == UINT64_MAX ? ns : ns + 1;
}

}  // namespace

Pit::Pit(Clock& clock, IrqLine irq)
    : clock_(clock), irq_(irq), timer_(clock.make_timer("pit", [this] { on_timer(); })) {
  channels_[2] = speaker_channel();
}

void Pit::reset() {
  LockGuard lock(mutex_);
  channels_ = {};
  channels_[2] = speaker_channel();
  control_ = 0;
  schedule(tick());
}

void Pit::set_irq(uint32_t, bool asserted) {
  LockGuard lock(mutex_);
  cut_off_ = asserted;
}

void Pit::schedule(uint64_t tick) {
  due_tick_ = channels_[0].next_rise(tick);
  if (!due_tick_) {
    timer_->disarm();
    return;
  }
  timer_->arm(ns_of(*due_tick_));
}

void Pit::on_timer() {
  bool fire = false;
  {
    LockGuard lock(mutex_);
    if (!due_tick_) return;
    const uint64_t now = tick();
    if (now < *due_tick_) {
      timer_->arm(ns_of(*due_tick_));
      return;
    }
    fire = !cut_off_;
    channels_[0].take_over_count(now);
    // The first rise that lies far enough ahead; those before it are lost.
    const uint64_t ahead = channels_[0].next_rise(now).value_or(now) - now < kLeastPeriodTicks ? kLeastPeriodTicks : 0;
    due_tick_ = channels_[0].next_rise(now + ahead);
    if (due_tick_) timer_->arm(ns_of(*due_tick_));
  }
  if (fire) irq_.pulse();
}

uint8_t Pit::CounterPorts::read_byte(uint16_t offset) {
  if (offset >= 3) return 0xFF;
  LockGuard lock(pit_.mutex_);
  const uint64_t now = pit_.tick();
  pit_.channels_[offset].take_over_count(now);
  return pit_.channels_[offset].read(now);
}

void Pit::CounterPorts::write_byte(uint16_t offset, uint8_t value) {
  if (offset >= kRangeSize) return;
  LockGuard lock(pit_.mutex_);
  const uint64_t now = pit_.tick();
  if (offset == 3) {
    pit_.write_control(value, now);
    return;
  }
  pit_.channels_[offset].take_over_count(now);
  pit_.channels_[offset].write_count(value, now);
  if (offset == 0) pit_.schedule(now);
}

void Pit::write_control(uint8_t value, uint64_t tick) {
  const unsigned selected = value >> 6;
  for (PitChannel& channel : channels_) channel.take_over_count(tick);
  if (selected == 3) {  // read-back: bits 5 and 4 clear latch count and status of the channels in bits 3 to 1
    for (unsigned i = 0; i < 3; ++i) {
      if ((value & 2u << i) == 0) continue;
      if ((value & 0x20) == 0) channels_[i].latch_count(tick);
      if ((value & 0x10) == 0) channels_[i].latch_status(tick);
    }
  } else if ((value & 0x30) == 0) {
    channels_[selected].latch_count(tick);
  } else {
    channels_[selected].write_control(value);
    if (selected == 0) schedule(tick);
  }
}

uint8_t Pit::ControlPort::read_byte(uint16_t offset) {
  if (offset != 0) return 0xFF;
  LockGuard lock(pit_.mutex_);
  const bool refresh = pit_.clock_.now_ns() / kRefreshNs % 2 != 0;
  const uint64_t now = pit_.tick();
  pit_.channels_[2].take_over_count(now);
  return static_cast<uint8_t>(pit_.control_ | (refresh ? kRefresh : 0) |
                              (pit_.channels_[2].output(now) ? kOutput2 : 0));
}

void Pit::ControlPort::write_byte(uint16_t offset, uint8_t value) {
  if (offset != 0) return;
  LockGuard lock(pit_.mutex_);
  const uint64_t now = pit_.tick();
  pit_.control_ = value & kControlWritable;
  pit_.channels_[2].take_over_count(now);
  pit_.channels_[2].set_gate((value & kGate2) != 0, now);
}

void Pit::save_state(StateWriter& writer) const {
  LockGuard lock(mutex_);
  channels_[0].save(writer.child("channel0"));
  channels_[1].save(writer.child("channel1"));
  channels_[2].save(writer.child("channel2"));
  writer.put("control", control_).put("cut_off", cut_off_);
  if (due_tick_) writer.put("due_tick", *due_tick_);
}

Result<> Pit::restore_state(const StateReader& reader) {
  std::array<PitChannel, 3> channels{TRY(PitChannel::restore(TRY(reader.child("channel0")))),
                                     TRY(PitChannel::restore(TRY(reader.child("channel1")))),
                                     TRY(PitChannel::restore(TRY(reader.child("channel2"))))};
  const auto control = static_cast<uint8_t>(TRY(reader.get("control", kControlWritable)));
  const bool cut_off = TRY(reader.get_flag("cut_off"));
  std::optional<uint64_t> due_tick;
  if (reader.has("due_tick")) due_tick = TRY(reader.get("due_tick"));
  if (channels[2].gate() != ((control & kGate2) != 0)) return fail("{}: gate 2 and port 0x61 disagree", reader.path());
  LockGuard lock(mutex_);
  channels_ = channels;
  control_ = control;
  cut_off_ = cut_off;
  due_tick_ = due_tick;
  if (due_tick_) {
    timer_->arm(ns_of(*due_tick_));
  } else {
    timer_->disarm();
  }
  return {};
}

}  // namespace bulkhead::device::timer
