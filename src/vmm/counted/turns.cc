#include "vmm/counted/turns.h"

#include <algorithm>
#include <chrono>

namespace bulkhead::vmm {
namespace {

// How often a machine in which nothing will ever happen again looks for what comes from outside (the power button).
constexpr std::chrono::milliseconds kLookOutside{10};

}  // namespace

class Turns::Port final : public cpu::CpuIo, public CountedClock::Counter {
 public:
  Port(Seat seat, const std::function<void()>& do_device_work) : seat_(seat), do_device_work_(do_device_work) {}

  void set_limit(uint64_t count) {
    limit_ = count;
    seat_.vcpu.stop_at(count);
  }
  [[nodiscard]] uint64_t instruction_count() const override { return seat_.vcpu.instruction_count(); }
  void bring_forward(uint64_t count) override {
    if (count < limit_) set_limit(count);
  }

  void read_memory(GuestAddress address, MutableByteSpan out) override { seat_.io.read_memory(address, out); }
  void write_memory(GuestAddress address, ByteSpan in) override {
    seat_.io.write_memory(address, in);
    do_device_work_();
  }
  uint32_t read_port(uint16_t port, unsigned size) override { return seat_.io.read_port(port, size); }
  void write_port(uint16_t port, unsigned size, uint32_t value) override {
    seat_.io.write_port(port, size, value);
    do_device_work_();
  }
  std::optional<uint8_t> acknowledge_interrupt() override { return seat_.io.acknowledge_interrupt(); }
  bool interrupt_pending() override { return seat_.io.interrupt_pending(); }
  std::optional<uint64_t> read_apic_msr(uint32_t index) override { return seat_.io.read_apic_msr(index); }
  bool write_apic_msr(uint32_t index, uint64_t value) override { return seat_.io.write_apic_msr(index, value); }
  void set_tsc_offset(uint64_t offset) override { seat_.io.set_tsc_offset(offset); }
  uint8_t read_task_priority() override { return seat_.io.read_task_priority(); }
  void write_task_priority(uint8_t priority) override { seat_.io.write_task_priority(priority); }

 private:
  Seat seat_;
  const std::function<void()>& do_device_work_;
  uint64_t limit_ = 0;
};

Turns::Turns(std::vector<Seat> seats, CountedClock& clock, std::function<void()> do_device_work)
    : seats_(std::move(seats)), clock_(clock), do_device_work_(std::move(do_device_work)) {
  left_ = turn_length();
  for (const Seat& seat : seats_) ports_.push_back(std::make_unique<Port>(seat, do_device_work_));
}

Turns::~Turns() = default;

cpu::StopReason Turns::run(cpu::CpuIo&) {
  return run_until(UINT64_MAX);
}

cpu::StopReason Turns::run_until(uint64_t now_ns) {
  end_ns_ = now_ns;
  do_device_work_();
  while (true) {
    if (stop_requested_.exchange(false)) return cpu::StopReason::kRequested;
    if (frozen_) {
      // A driver without threads asks frozen() instead of waiting for somebody to stop the run.
      if (end_ns_ != UINT64_MAX) return cpu::StopReason::kRequested;
      wait_for_request();
      continue;
    }
    if (clock_.fire_due()) do_device_work_();
    if (clock_.now_ns() >= end_ns_) return cpu::StopReason::kCountReached;
    const cpu::StopReason reason = take_turn();
    switch (reason) {
      case cpu::StopReason::kRequested:
        break;
      case cpu::StopReason::kCountReached:
        waiting_ = 0;
        if (left_ == 0) next_seat();
        break;
      case cpu::StopReason::kHalted:
        next_seat();
        if (++waiting_ < seats_.size()) break;
        waiting_ = 0;
        if (const auto deadline = clock_.next_deadline_ns(); deadline || end_ns_ != UINT64_MAX) {
          clock_.skip_to(std::min(deadline.value_or(end_ns_), end_ns_));
        } else {
          wait_for_request();
        }
        break;
      default:
        return reason;
    }
  }
}

cpu::StopReason Turns::take_turn() {
  cpu::CountedVcpu& vcpu = seats_[current_].vcpu;
  Port& port = *ports_[current_];
  const uint64_t now_ns = clock_.now_ns();
  uint64_t length = std::min(left_, end_ns_ - now_ns);
  if (const auto deadline = clock_.next_deadline_ns()) {
    // A timer that fires again and again at once must not hold up the guest.
    length = std::min(length, *deadline > now_ns ? *deadline - now_ns : 1);
  }
  running_.store(current_);
  const uint64_t count = vcpu.instruction_count();
  port.set_limit(length > UINT64_MAX - count ? UINT64_MAX : count + length);
  clock_.begin_turn(port);
  const cpu::StopReason reason = vcpu.run(port);
  const uint64_t retired = clock_.end_turn();
  left_ -= std::min(left_, retired);
  if (retired != 0) waiting_ = 0;
  return reason;
}

void Turns::end_after(uint64_t instructions) {
  end_ns_ = std::min(end_ns_, clock_.now_ns() + instructions);
  ports_[current_]->bring_forward(seats_[current_].vcpu.instruction_count() + instructions);
}

void Turns::next_seat() {
  current_ = (current_ + 1) % static_cast<uint32_t>(seats_.size());
  left_ = turn_length();
}

void Turns::wait_for_request() {
  const LockGuard guard(mutex_);
  if (!stop_requested_.load()) requested_.wait_for(mutex_, kLookOutside);
}

void Turns::freeze() {
  frozen_ = true;
  seats_[current_].vcpu.request_stop();
}

void Turns::thaw() {
  frozen_ = false;
  current_ = 0;
  left_ = turn_length();
  waiting_ = 0;
}

void Turns::request_stop() {
  // A vCPU that is stopped late, because the turn has gone on meanwhile, only returns once for nothing.
  stop_requested_.store(true);
  seats_[running_.load()].vcpu.request_stop();
  const LockGuard guard(mutex_);
  requested_.notify_all();
}

}  // namespace bulkhead::vmm
