// The software engine of one VM: what its vCPUs share. It sees guest RAM, a clock and a source of randomness, nothing
// else of the host. Begin with interpreter/README.md.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/model.h"
#include "cpu/vcpu.h"
#include "engine/code_map.h"
#include "engine/decoder/decoder.h"
#include "memory/guest_memory.h"
#include "support/os/mutex.h"
#include "support/random.h"
#include "support/result.h"
#include "support/time/clock.h"

namespace bulkhead::engine {

struct Cpu;
class SoftVcpu;
class TranslationWatcher;

struct EngineOptions {
  uint32_t vcpu_count = 1;                          // at most kMaximumVcpus
  cpu::FeatureSet features;                         // of the CPU model: decides which opcodes exist
  std::vector<std::vector<cpu::CpuidLeaf>> leaves;  // CPUID of each vCPU
  bool counted = false;                             // the vCPUs keep the rules of cpu::CountedVcpu
  bool translate = false;        // blocks that run often are translated (engine/jit) where the host lets us
  uint16_t translate_after = 8;  // runs of a block by the interpreter before that
  size_t code_cache_bytes = size_t{32} << 20;  // for translated code, of each vCPU
  TranslationWatcher* watcher = nullptr;       // outlives the vCPUs
};

class Engine final : public memory::CodeWatcher {
 public:
  static constexpr uint32_t kMaximumVcpus = 64;

  // memory, clock and random outlive the engine; it becomes the memory's code watcher.
  static Result<std::unique_ptr<Engine>> create(memory::GuestMemory& memory, Clock& clock, RandomSource& random,
                                                EngineOptions options);
  ~Engine() override;

  // Each index once; the engine outlives its vCPUs. In reset state.
  Result<std::unique_ptr<cpu::CountedVcpu>> create_vcpu(uint32_t index);

  // What the interpreter really carries out on this host.
  static cpu::FeatureSet available_features();

  // All that is written to RAM from now on gets its dirty flag again: after GuestMemory::take_dirty(), while no vCPU
  // runs.
  void restart_dirty_log();

  // --- for the vCPUs ---
  [[nodiscard]] Clock& clock() { return clock_; }
  [[nodiscard]] RandomSource& random() { return random_; }
  [[nodiscard]] memory::GuestMemory& memory() { return memory_; }
  [[nodiscard]] CodeMap& code_map() { return code_map_; }
  [[nodiscard]] const EngineOptions& options() const { return options_; }
  [[nodiscard]] const decoder::DecodeOptions& decode_options() const { return decode_options_; }

  // A device or another process of the host wrote to a page that holds code.
  void on_code_written(GuestAddress address, uint64_t size) override {
    if (code_map_.written(address.value, size)) tell_of_changed_code(nullptr);
  }
  // A page's version has moved. Translated code does not look at versions, but at attention.
  void tell_of_changed_code(const Cpu* writer);
  [[nodiscard]] uint64_t code_changes() const { return code_changes_.load(); }

  // A page's code flag has just been turned on: the write entries for it have to go everywhere. The asker has dropped
  // its own. The value to ask about.
  uint64_t request_write_flush(Cpu& asker);
  // True when every other vCPU has dropped the entries it had when request_write_flush() gave `epoch`.
  [[nodiscard]] bool write_flush_done(const Cpu& asker, uint64_t epoch) const;
  [[nodiscard]] uint64_t write_epoch() const { return write_epoch_.load(); }

  // run() has begun or goes on after a wait; it must look at attention before it touches guest memory. And the
  // opposite.
  void enter(Cpu& cpu);
  void leave(Cpu& cpu);
  // kAttentionFlush: drops write entries, and stands still while another vCPU asks for it.
  void attend_flush(Cpu& cpu);
  // All other vCPUs stand still between these two.
  void begin_exclusive(Cpu& cpu);
  void end_exclusive();

 private:
  Engine(memory::GuestMemory& memory, Clock& clock, RandomSource& random, EngineOptions options, CodeMap code_map);

  void ask_others(const Cpu* asker, uint32_t attention);

  memory::GuestMemory& memory_;
  Clock& clock_;
  RandomSource& random_;
  EngineOptions options_;
  decoder::DecodeOptions decode_options_;
  CodeMap code_map_;

  static constexpr uint64_t kParked = UINT64_MAX;
  std::atomic<uint64_t> write_epoch_{0};
  std::atomic<uint64_t> code_changes_{0};
  std::array<std::atomic<Cpu*>, kMaximumVcpus> cpus_{};
  std::array<std::atomic<uint64_t>, kMaximumVcpus> seen_epochs_{};

  Mutex mutex_;
  ConditionVariable changed_;
  uint32_t running_ GUARDED_BY(mutex_) = 0;
  bool exclusive_ GUARDED_BY(mutex_) = false;
  std::atomic<bool> pause_requested_{false};

  friend class SoftVcpu;
};

}  // namespace bulkhead::engine
