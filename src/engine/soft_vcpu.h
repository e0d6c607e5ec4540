// A vCPU of the software engine as cpu::Vcpu: requests from other threads, waiting while halted, state in and out. What
// runs instructions is interpreter/run_loop.h.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>

#include "cpu/vcpu.h"
#include "engine/engine.h"
#include "engine/interpreter/block.h"
#include "engine/interpreter/cpu.h"
#include "engine/jit/jit.h"
#include "support/os/busy_poll.h"
#include "support/os/mutex.h"

namespace bulkhead::engine {

class SoftVcpu final : public cpu::CountedVcpu {
 public:
  SoftVcpu(Engine& engine, uint32_t index);
  ~SoftVcpu() override;

  // Blocks are translated after so many runs by the interpreter. Fails where the host forbids executable memory; then
  // the interpreter goes on alone.
  Result<> use_translator(uint16_t after_runs, size_t code_cache_bytes = EngineOptions{}.code_cache_bytes);

  cpu::StopReason run(cpu::CpuIo& io) override;
  void request_stop() override { ask(kAttentionStop); }
  void set_interrupt_request(bool asserted) override;
  void raise_nmi() override { ask(kAttentionNmi); }
  void raise_init() override { ask(kAttentionInit); }
  void raise_sipi(uint8_t vector) override;
  cpu::State get_state() override;
  Result<> set_state(const cpu::State& state) override;
  Result<> set_debug(const cpu::DebugRequest& request) override;
  std::optional<GuestAddress> translate(uint64_t linear_address) override;
  [[nodiscard]] cpu::Statistics statistics() const override;
  [[nodiscard]] std::string error() const override { return error_; }
  [[nodiscard]] uint64_t instruction_count() const override { return cpu_.current_instruction_count(); }
  void stop_at(uint64_t count) override { cpu_.count_limit = std::max(count, cpu_.instruction_count); }

  [[nodiscard]] Cpu& cpu() { return cpu_; }

  // --- for the run loop ---
  // Sleeps until attention has one of `wake`.
  void wait(uint32_t wake);
  [[nodiscard]] uint8_t sipi_vector() const { return sipi_vector_.load(); }
  [[nodiscard]] const cpu::DebugRequest& debug() const { return debug_; }
  void fail(std::string error) { error_ = std::move(error); }

 private:
  void ask(uint32_t attention);

  Engine& engine_;
  BlockCache blocks_;
  Cpu cpu_;
  std::unique_ptr<jit::Jit> jit_;
  cpu::DebugRequest debug_;
  std::string error_;
  std::atomic<uint8_t> sipi_vector_{0};
  std::atomic<bool> waiting_{false};
  Mutex mutex_;
  ConditionVariable woken_;
  BusyPoll poll_;
};

}  // namespace bulkhead::engine
