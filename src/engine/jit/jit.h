// The translator's side of one vCPU: its code cache, the way into translated code and out of it again. Translated code
// is an optimisation of Block alone: what it leaves in the Cpu is, bit for bit, what the interpreter would have left.
// README.md of this folder tells how the pieces fit.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/interpreter/block.h"
#include "engine/interpreter/cpu.h"
#include "engine/jit/assembler.h"
#include "engine/jit/code_cache.h"
#include "support/result.h"

// clang's check of calls looks for a mark in front of a function, which translated code does not have.
#ifdef __clang__
#define BULKHEAD_CALLS_TRANSLATED_CODE [[clang::no_sanitize("function")]]
#else
#define BULKHEAD_CALLS_TRANSLATED_CODE
#endif

namespace bulkhead::engine::jit {

// Why translated code has come back. Cpu::rip and everything else is as between two blocks, but for kFault.
enum class Exit : uint32_t {
  kLook,      // nothing of the block at RIP has run: attention, the count's limit, or changed code
  kEdge,      // the block Cpu::jit_block is done and left by its direct edge Cpu::jit_edge, which may be linked
  kIndirect,  // a block is done; its successor has no code yet or is not remembered
  kLeft,      // an instruction that the interpreter carried out has ended the block; seen by thunks only
  kFault,     // Cpu::jit_fault is to be delivered for Cpu::op
};

class Jit {
 public:
  static constexpr size_t kDefaultCapacity = size_t{32} << 20;
  // Runs of a block by the interpreter before it is translated.
  static constexpr uint16_t kThreshold = 8;

  // The Cpu outlives the Jit and stays where it is. Fails where the host forbids executable memory.
  static Result<std::unique_ptr<Jit>> create(Cpu& cpu, size_t capacity_bytes = kDefaultCapacity);

  // Gives the block its code, unless it is of a kind that is not translated, or the cache is full.
  void translate(Block& block);
  // Runs the block, whose code it has, and those linked to it.
  Exit run(Block& block);
  // Lets `from` go on to `to` without coming back. Both have code and stand for the bytes in memory as they are now;
  // `to` begins where the edge leads.
  void link(Block& from, unsigned edge, const Block& to);
  // Takes back all links from the block: what they lead to may be older than what the block stands for from now on.
  void unlink(Block& block);
  // All code is gone; no block may have any. flush_count: the block cache's, which the Jit keeps in step with.
  void reset(uint64_t flush_count);
  [[nodiscard]] uint64_t flush_count() const { return flush_count_; }
  [[nodiscard]] bool is_full() const { return is_full_; }
  void set_threshold(uint16_t runs) { threshold_ = runs; }
  [[nodiscard]] bool is_hot(Block& block) const { return block.runs >= threshold_ || ++block.runs >= threshold_; }

  struct Counters {
    uint64_t translations = 0, guest_bytes = 0, native_instructions = 0, handler_instructions = 0, entries = 0,
             links = 0, resets = 0;
  };
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] size_t code_bytes() const { return cache_->used(); }

 private:
  Jit(Cpu& cpu, std::unique_ptr<CodeCache> cache);
  void make_thunks();
  void make_register_loads();
  void emit_dispatch(Assembler& code, const Cpu& cpu, const uint8_t* miss) const;

  // Where indirect jumps went, found by slot_of(linear).
  struct Target {
    uint64_t linear = 0;
    uint64_t run_context = 0;  // 0 is never in use
    const uint8_t* code = nullptr;
    uint64_t padding = 0;
  };
  static constexpr size_t kTargets = 1 << 12;
  static size_t slot_of(uint64_t linear) { return (linear ^ (linear >> kPageShift)) & (kTargets - 1); }

  friend class Translator;
  using Enter = uint32_t (*)(Cpu*, const uint8_t*);

  Cpu& cpu_;
  std::unique_ptr<CodeCache> cache_;
  Assembler assembler_;
  uint16_t threshold_ = kThreshold;
  bool is_full_ = false;
  uint64_t flush_count_ = 0;
  size_t thunk_bytes_ = 0;
  Enter enter_ = nullptr;
  const uint8_t* call_handler_ = nullptr;  // R13: the Op, R14: its Block
  const uint8_t* leave_ = nullptr;         // R14D: the Exit
  const uint8_t* leave_look_ = nullptr;
  std::array<const uint8_t*, 2> load_x87_{};   // what X87Live says, less 1
  std::array<const uint8_t*, 3> load_simd_{};  // what SimdLive says, less 1; may leave by leave_look_
  const uint8_t* leave_indirect_ = nullptr;
  std::vector<Target> targets_;
  std::vector<std::unique_ptr<Translation::Edge[]>> edges_;  // of all translations
  Counters counters_;
};

}  // namespace bulkhead::engine::jit
