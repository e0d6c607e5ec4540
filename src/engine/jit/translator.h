// Translates one block of 64-bit code: the guest's integer instructions are copied with the registers of state_layout.h
// and a look into the software TLB before each access to memory; what has no such form is carried out by the
// interpreter's handler. See README.md.
#pragma once

#include <array>
#include <vector>

#include "engine/jit/jit.h"
#include "engine/jit/state_layout.h"

namespace bulkhead::engine::jit {

class Translator {
 public:
  // The code goes into the Jit's assembler.
  Translator(Jit& jit, const Block& block) : jit_(jit), cpu_(jit.cpu_), code_(jit.assembler_), block_(block) {}

  // False: the block is left to the interpreter.
  [[nodiscard]] bool run();
  // Where the distances of the direct edges stand in the code; 0: there is none that may be linked.
  [[nodiscard]] const std::array<size_t, 2>& edges() const { return edges_; }
  // Its vector instructions run on the host's registers; the code turns away while MXCSR does not mask all exceptions.
  [[nodiscard]] bool needs_simd() const { return last_simd_ != nullptr; }
  [[nodiscard]] size_t native_count() const { return native_count_; }

 private:
  using Instruction = decoder::Instruction;
  // Where the guest's arithmetic flags are between two instructions.
  enum class Flags : uint8_t { kMemory, kHost, kBoth };
  // An access that missed the TLB is carried out behind the block's end by the handler.
  struct Slow {
    size_t from, back;
    const Op* op;
    bool flags_to_host;
  };
  // The operands of a ModRM form in host terms.
  struct Form;

  void prologue();
  bool native(const Op& op);
  void by_handler(const Op& op);
  void call_handler(const Op& op);
  void slow_paths();

  bool general(const Op& op);
  bool accumulator_or_none(const Op& op);
  bool move_immediate(const Op& op);
  bool push(const Op& op);
  bool pop(const Op& op);
  bool load_address(const Op& op);
  bool control(const Op& op);
  void conditional_jump(const Op& op);
  bool call(const Op& op);
  bool ret(const Op& op);
  bool jump_indirect(const Op& op);

  // Vector instructions (translator_simd.cc).
  void plan_simd();
  bool simd(const Op& op);
  void load_simd();
  void call_simd_load();
  void reload_simd(const Op& op);
  void simd_slow_paths();
  size_t move_mxcsr(bool store);

  void address(const Op& op);
  size_t look_up(unsigned size, bool write);
  void checked_target(const Op& op, std::vector<size_t>& misses);
  void edge(unsigned number, int64_t distance);
  void finish_indirect();
  void count_block();
  void leave(Exit exit);
  void jump_to(const uint8_t* place);
  void encode(const Instruction& instruction, uint8_t reg, Host rm, bool is_memory, bool force_rex);

  // --- flags ---
  void save_flags();
  void restore_flags(Host temporary);
  void flags_to_memory() {
    if (flags_ == Flags::kHost) save_flags();
  }
  [[nodiscard]] bool flags_matter_after(const Op& op) const;

  [[nodiscard]] const Op* end() const { return block_.ops + block_.op_count; }
  [[nodiscard]] std::span<const uint8_t> source(const Op& op) const {
    return {block_.source + op.offset, op.instruction->length};
  }

  Jit& jit_;
  Cpu& cpu_;
  Assembler& code_;
  const Block& block_;
  Flags flags_ = Flags::kMemory;
  std::vector<Slow> slow_;
  std::array<size_t, 2> edges_{};
  size_t native_count_ = 0;
  uint32_t simd_level_ = 0;                        // SimdLive that the block needs
  const Op* last_simd_ = nullptr;                  // the last instruction that needs it; nullptr: none
  bool simd_loaded_ = false;                       // at this point of the code
  std::vector<std::array<size_t, 2>> simd_loads_;  // jumps to behind the block's end, and where they come back
  bool ended_ = false;                             // the last instruction has left the block
};

}  // namespace bulkhead::engine::jit
