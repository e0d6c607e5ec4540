// The thread of one vCPU: it runs the vCPU or stands parked, as the state driver says. It takes no decision of its own.
#pragma once

#include <cstdint>
#include <functional>

#include "cpu/vcpu.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"

namespace bulkhead::vmm {

class VcpuThread {
 public:
  // on_stop is called on this thread when the vCPU stopped for a reason of its own; the thread is parked then.
  VcpuThread(uint32_t index, cpu::Vcpu& vcpu, cpu::CpuIo& io, std::function<void(uint32_t, cpu::StopReason)> on_stop);
  ~VcpuThread();

  void let_run();
  // Asks for a stop; wait_until_parked() ends it. Two calls, so that all vCPUs can be asked before the first is waited
  // for.
  void ask_to_park();
  void wait_until_parked();

  [[nodiscard]] cpu::Vcpu& vcpu() { return vcpu_; }

 private:
  enum class Wish : uint8_t { kPark, kRun, kEnd };
  void body();

  const uint32_t index_;
  cpu::Vcpu& vcpu_;
  cpu::CpuIo& io_;
  const std::function<void(uint32_t, cpu::StopReason)> on_stop_;

  Mutex mutex_;
  ConditionVariable changed_;
  Wish wish_ GUARDED_BY(mutex_) = Wish::kPark;
  bool running_ GUARDED_BY(mutex_) = false;
  Thread thread_;
};

}  // namespace bulkhead::vmm
