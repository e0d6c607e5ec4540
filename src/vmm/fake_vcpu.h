// A vCPU for tests that does what it is told: it "runs" until asked to stop or until the test gives it a reason to.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>

#include "cpu/vcpu.h"

namespace bulkhead::vmm {

class FakeVcpu final : public cpu::Vcpu {
 public:
  cpu::StopReason run(cpu::CpuIo& io) override {
    std::unique_lock lock(mutex_);
    running_ = true;
    ++run_count_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return stop_requested_ || reason_ || work_; });
    while (work_) {
      auto work = std::exchange(work_, nullptr);
      lock.unlock();
      work(io);
      lock.lock();
      changed_.wait(lock, [this] { return stop_requested_ || reason_ || work_; });
    }
    running_ = false;
    changed_.notify_all();
    if (reason_) return *std::exchange(reason_, std::nullopt);
    stop_requested_ = false;
    return cpu::StopReason::kRequested;
  }
  void request_stop() override {
    std::lock_guard guard(mutex_);
    stop_requested_ = true;
    changed_.notify_all();
  }
  void set_interrupt_request(bool) override {}
  void raise_nmi() override {}
  void raise_init() override {}
  void raise_sipi(uint8_t) override {}
  cpu::State get_state() override { return state; }
  Result<> set_state(const cpu::State& next) override {
    state = next;
    return {};
  }
  Result<> set_debug(const cpu::DebugRequest& request) override {
    debug = request;
    return {};
  }
  std::optional<GuestAddress> translate(uint64_t linear) override {
    if (linear >= kMappedEnd) return std::nullopt;
    return GuestAddress{linear};
  }
  [[nodiscard]] cpu::Statistics statistics() const override { return {{"instructions", 1}}; }
  [[nodiscard]] std::string error() const override { return "told to fail"; }

  // For the test.
  void stop_with(cpu::StopReason reason) {
    std::lock_guard guard(mutex_);
    reason_ = reason;
    changed_.notify_all();
  }
  // Done by the running vCPU on its own thread, as an instruction that reaches a device.
  void execute(std::function<void(cpu::CpuIo&)> work) {
    std::lock_guard guard(mutex_);
    work_ = std::move(work);
    changed_.notify_all();
  }
  [[nodiscard]] bool is_running() {
    std::lock_guard guard(mutex_);
    return running_;
  }
  [[nodiscard]] bool wait_until_running() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [this] { return running_; });
  }
  [[nodiscard]] int run_count() {
    std::lock_guard guard(mutex_);
    return run_count_;
  }

  // Linear addresses below this are mapped to themselves.
  static constexpr uint64_t kMappedEnd = 1 << 20;
  cpu::State state;
  cpu::DebugRequest debug;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool running_ = false;
  bool stop_requested_ = false;
  int run_count_ = 0;
  std::optional<cpu::StopReason> reason_;
  std::function<void(cpu::CpuIo&)> work_;
};

// Where nothing answers.
class NullCpuIo final : public cpu::CpuIo {
 public:
  void read_memory(GuestAddress, MutableByteSpan out) override { std::fill(out.begin(), out.end(), 0xFF); }
  void write_memory(GuestAddress, ByteSpan) override {}
  uint32_t read_port(uint16_t, unsigned size) override { return size == 4 ? ~0u : (1u << (8 * size)) - 1; }
  void write_port(uint16_t, unsigned, uint32_t) override {}
  std::optional<uint8_t> acknowledge_interrupt() override { return std::nullopt; }
  bool interrupt_pending() override { return false; }
  std::optional<uint64_t> read_apic_msr(uint32_t) override { return std::nullopt; }
  bool write_apic_msr(uint32_t, uint64_t) override { return false; }
  uint8_t read_task_priority() override { return 0; }
  void write_task_priority(uint8_t) override {}
};

}  // namespace bulkhead::vmm
