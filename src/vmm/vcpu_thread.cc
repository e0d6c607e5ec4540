#include "vmm/vcpu_thread.h"

#include <fmt/format.h>

namespace bulkhead::vmm {

VcpuThread::VcpuThread(uint32_t index, cpu::Vcpu& vcpu, cpu::CpuIo& io,
                       std::function<void(uint32_t, cpu::StopReason)> on_stop)
    : index_(index), vcpu_(vcpu), io_(io), on_stop_(std::move(on_stop)), thread_(fmt::format("vcpu{}", index), [this] {
        body();
      }) {}

VcpuThread::~VcpuThread() {
  {
    LockGuard guard(mutex_);
    wish_ = Wish::kEnd;
    if (running_) vcpu_.request_stop();
    changed_.notify_all();
  }
  thread_.join();
}

void VcpuThread::let_run() {
  LockGuard guard(mutex_);
  wish_ = Wish::kRun;
  changed_.notify_all();
}

void VcpuThread::ask_to_park() {
  LockGuard guard(mutex_);
  wish_ = Wish::kPark;
  if (running_) vcpu_.request_stop();
}

void VcpuThread::wait_until_parked() {
  LockGuard guard(mutex_);
  while (running_) changed_.wait(mutex_);
}

void VcpuThread::body() {
  LockGuard guard(mutex_);
  while (true) {
    while (wish_ == Wish::kPark) changed_.wait(mutex_);
    if (wish_ == Wish::kEnd) return;
    running_ = true;
    mutex_.unlock();
    const cpu::StopReason reason = vcpu_.run(io_);
    mutex_.lock();
    running_ = false;
    changed_.notify_all();
    // A stop that was asked for and taken back meanwhile is no event: the loop runs the vCPU again.
    if (reason == cpu::StopReason::kRequested) continue;
    if (wish_ == Wish::kRun) wish_ = Wish::kPark;
    mutex_.unlock();
    on_stop_(index_, reason);
    mutex_.lock();
  }
}

}  // namespace bulkhead::vmm
