// All vCPUs of a repeatable run as one: they take turns on the calling thread, a fixed number of instructions each, and
// the clock moves with what they retire. Timers fire between two instructions at their exact count; when every vCPU
// waits, time skips to the next timer. It must never look at host time, and never let an instruction more or less run
// because of what another thread does.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cpu/vcpu.h"
#include "support/os/mutex.h"
#include "support/time/counted_clock.h"

namespace bulkhead::vmm {

class Turns final : public cpu::Vcpu {
 public:
  // Instructions of one turn: short enough that a vCPU which spins for another does not spin long. One that is alone
  // has no turns.
  static constexpr uint64_t kTurnLength = 20'000;

  struct Seat {
    cpu::CountedVcpu& vcpu;
    cpu::CpuIo& io;
  };
  // do_device_work is called after each write to a device, after timers and at the start: what threads of devices
  // would do.
  Turns(std::vector<Seat> seats, CountedClock& clock, std::function<void()> do_device_work);
  ~Turns() override;

  // The seats have their own ways to the board; the argument is not used. A stop other than kRequested is of vCPU
  // stopped_index().
  cpu::StopReason run(cpu::CpuIo& io) override;
  // Runs until the clock shows now_ns or something stops it: kCountReached when the time has come. For a driver without
  // threads.
  cpu::StopReason run_until(uint64_t now_ns);
  // From within run_until(): it ends after so many more instructions of the vCPU under way, if not before.
  void end_after(uint64_t instructions);
  [[nodiscard]] uint32_t stopped_index() const { return current_; }

  // No instruction runs any more from the one under way on, until thaw(): what a guest that asks for its end expects.
  // From within a call of CpuIo.
  void freeze();
  // While run() is not active; forgets whose turn it was.
  void thaw();
  [[nodiscard]] bool frozen() const { return frozen_; }

  void request_stop() override;
  // Of the first vCPU. Interrupts, NMI, INIT and SIPI go to the vCPUs themselves.
  void set_interrupt_request(bool asserted) override { seats_[0].vcpu.set_interrupt_request(asserted); }
  void raise_nmi() override { seats_[0].vcpu.raise_nmi(); }
  void raise_init() override { seats_[0].vcpu.raise_init(); }
  void raise_sipi(uint8_t vector) override { seats_[0].vcpu.raise_sipi(vector); }
  cpu::State get_state() override { return seats_[current_].vcpu.get_state(); }
  Result<> set_state(const cpu::State& state) override { return seats_[0].vcpu.set_state(state); }
  Result<> set_debug(const cpu::DebugRequest& request) override { return seats_[0].vcpu.set_debug(request); }
  std::optional<GuestAddress> translate(uint64_t linear) override { return seats_[current_].vcpu.translate(linear); }
  [[nodiscard]] cpu::Statistics statistics() const override { return seats_[0].vcpu.statistics(); }
  [[nodiscard]] std::string error() const override { return seats_[current_].vcpu.error(); }

 private:
  class Port;  // one seat's CpuIo, and the clock's view of its count

  [[nodiscard]] uint64_t turn_length() const { return seats_.size() == 1 ? UINT64_MAX : kTurnLength; }
  cpu::StopReason take_turn();
  void next_seat();
  void wait_for_request();

  std::vector<Seat> seats_;
  CountedClock& clock_;
  std::function<void()> do_device_work_;
  std::vector<std::unique_ptr<Port>> ports_;

  uint32_t current_ = 0;
  uint64_t end_ns_ = UINT64_MAX;  // of run_until()
  uint64_t left_;                 // of the current turn
  uint32_t waiting_ = 0;          // turns in a row that ended in a wait without an instruction
  bool frozen_ = false;

  std::atomic<bool> stop_requested_{false};
  std::atomic<uint32_t> running_{0};  // whom request_stop() has to stop
  Mutex mutex_;
  ConditionVariable requested_;
};

}  // namespace bulkhead::vmm
