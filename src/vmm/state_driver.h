// Owns every change of a VM's state: starting, pausing, resetting, ending. Requests come from any thread (the user, the
// guest's devices, the debugger) into one queue; one thread carries them out in order, with the vCPUs parked where it
// matters.
//
//              start            hold                    guest power-off, fault,
//   (made) ---------> running <--------> held           user's stop, ...
//                        |     release    |  <-- step
//                        +----------------+-------------------------------------> ended (Outcome)
//                        reset: park, Board::reset(), go on
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "cpu/vcpu.h"
#include "device/wires.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"
#include "support/result.h"
#include "vmm/outcome.h"
#include "vmm/vcpu_thread.h"

namespace bulkhead::vmm {

// What the driver does to the machine. Every call comes from the driver's thread with all vCPUs parked, except
// press_power_button().
class Board {
 public:
  virtual ~Board() = default;
  // Devices as after power-on, the kernel loaded again and every vCPU in its first state.
  virtual Result<> reset() = 0;
  // Between the two, guest time stands still and no device works on its own.
  virtual void pause() = 0;
  virtual void resume() = 0;
  virtual void press_power_button() = 0;
  // What the guest's kernel said before it died, when it said so ("Fatal exception"); forgotten by reset().
  [[nodiscard]] virtual std::optional<std::string> panic_message() { return std::nullopt; }
};

struct VcpuSlot {
  cpu::Vcpu& vcpu;
  cpu::CpuIo& io;
};

class StateDriver final : public device::PowerControl {
 public:
  // The VM runs when nobody holds it. kStart is held from the beginning.
  enum class Holder : uint8_t { kStart, kUser, kDebugger, kDisk };

  struct Policy {
    bool reboot = true;  // after the guest's reset
  };

  StateDriver(Board& board, std::vector<VcpuSlot> vcpus, Policy policy);
  ~StateDriver() override;

  void start() { release(Holder::kStart); }
  // Return when it is done, at once when the VM has ended. hold() again by the same holder has no effect.
  void hold(Holder holder);
  void release(Holder holder);
  // Releases the debugger's hold for one vCPU only, while the others stay parked. Other holders still hold all.
  void release_one(uint32_t vcpu_index);
  // Runs work on the driver's thread with the VM at rest, then goes on as before. False when the VM has ended.
  bool call_at_rest(std::function<void()> work);

  // Do not wait.
  void press_power_button() { post(kButton); }
  void reset() { post(kUserReset); }
  void quit() { post(kQuit); }
  // The user's; resume() releases what a disk holds too.
  void pause() { post(kUserPause); }
  void resume() { post(kUserResume); }
  // A disk of the host cannot go on.
  void pause_for_disk() { post(kDiskPause); }
  // The first time the power button, the second time the end: what SIGTERM means.
  void shut_down();

  Outcome wait();
  [[nodiscard]] bool ended();
  // As of the last change that the driver's thread has made.
  [[nodiscard]] bool held_by(Holder holder);

  // Called on the driver's thread after a vCPU met a debug event; the debugger holds the VM then.
  void set_debug_listener(std::function<void(uint32_t vcpu_index)> on_debug_stop);

  // device::PowerControl: the guest's requests, from its vCPUs' threads.
  void request_power_off() override { post(kPowerOff); }
  void request_reset() override { post(kGuestReset); }
  void request_exit(uint8_t status) override;

 private:
  // Events keep no order among themselves and count once, so that a guest cannot fill the queue.
  enum Event : uint32_t {
    kPowerOff = 1,
    kGuestReset = 2,
    kDebugExit = 4,
    kButton = 8,
    kUserReset = 16,
    kQuit = 32,
    kStop = 64,
    kVcpuStopped = 128,
    kEndThread = 256,
    kUserPause = 512,
    kUserResume = 1024,
    kDiskPause = 2048,
  };
  struct Call {
    std::function<void()> work;
    bool at_rest;
    bool done = false;
  };
  // Callers wait for their call, so there is at most one a thread.
  using Calls = std::deque<std::shared_ptr<Call>>;

  void post(Event event);
  bool call(std::function<void()> work, bool at_rest);
  void on_vcpu_stop(uint32_t index, cpu::StopReason reason);

  // On the driver's thread.
  void body();
  void handle_events(uint32_t events);
  void handle_vcpu_stops();
  void do_reset();
  void end(Outcome outcome);
  void come_to_rest();
  void apply_holds();
  [[nodiscard]] std::string describe_fault(uint32_t index);

  Board& board_;
  const Policy policy_;
  std::vector<std::unique_ptr<VcpuThread>> vcpus_;

  // Of the driver's thread alone.
  uint32_t holders_ = 1u << static_cast<unsigned>(Holder::kStart);
  std::optional<uint32_t> only_vcpu_;  // who may run when nobody holds; all when empty
  bool running_ = false;
  std::optional<uint32_t> running_only_;

  Mutex mutex_;
  ConditionVariable work_;
  ConditionVariable done_;
  uint32_t events_ GUARDED_BY(mutex_) = 0;
  uint32_t holders_seen_ GUARDED_BY(mutex_) = 1u << static_cast<unsigned>(Holder::kStart);  // holders_, for others
  // The first that this life of the guest asked for: it runs on until it is parked and may write to the port again.
  std::optional<uint8_t> debug_status_ GUARDED_BY(mutex_);
  bool asked_to_shut_down_ GUARDED_BY(mutex_) = false;
  std::vector<std::optional<cpu::StopReason>> vcpu_stops_ GUARDED_BY(mutex_);
  Calls calls_ GUARDED_BY(mutex_);
  std::optional<Outcome> outcome_ GUARDED_BY(mutex_);
  bool thread_ended_ GUARDED_BY(mutex_) = false;
  std::function<void(uint32_t)> on_debug_stop_ GUARDED_BY(mutex_);
  Thread thread_;
};

}  // namespace bulkhead::vmm
