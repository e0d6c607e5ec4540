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
  // A way out to a block of the same page, at `distance` from this one's beginning.
  struct Edge {
    size_t jump;  // where its distance stands in the code
    size_t unlinked;
    int64_t distance;
  };
  [[nodiscard]] std::span<const Edge> edges() const { return edges_; }
  // Of the code once it is at its place; without the edges.
  [[nodiscard]] Translation translation(const uint8_t* place) const;
  [[nodiscard]] size_t native_count() const { return native_count_; }

 private:
  using Instruction = decoder::Instruction;
  // Where the guest's arithmetic flags are between two instructions. kRecipe: nowhere, but what recipe_ was has left
  // enough to make them again.
  enum class Flags : uint8_t { kMemory, kHost, kBoth, kRecipe };
  // An access that missed the TLB is carried out behind the block's end by the handler.
  struct Slow {
    size_t from, back;
    const Op* op;
    bool flags_to_host;
    const Op* recipe = nullptr;
  };
  // The operands of a ModRM form in host terms.
  struct Form;

  void prologue();
  void epilogue();
  bool native(const Op& op);
  void by_handler(const Op& op);
  void call_handler(const Op& op);
  void slow_paths();

  bool general(const Op& op);
  bool accumulator_or_none(const Op& op);
  bool high_byte(const Op& op);
  bool move_immediate(const Op& op);
  // With copy() twice, for a count of 0 leaves the flags alone.
  template <typename Copy>
  void shift_by_cl(const Instruction& instruction, Copy&& copy);
  bool divide(const Op& op);
  bool leave_frame(const Op& op);
  bool swap_bytes(const Op& op);
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
  [[nodiscard]] bool is_simd(const Op& op) const;
  bool simd(const Op& op);
  void load_simd();
  void call_simd_load();
  void reload_simd(const Op& op);
  void simd_slow_paths();
  size_t move_mxcsr(bool store);

  // x87 instructions (translator_x87.cc).
  [[nodiscard]] bool is_x87(const Op& op) const;
  void plan_x87();
  bool x87(const Op& op);
  void load_x87(uint32_t level);
  void x87_slow_paths();
  size_t load_x87_control();

  [[nodiscard]] bool can_address(const Op& op) const;
  void address(const Op& op);
  size_t look_up(unsigned size, bool write);
  void checked_target(const Op& op, std::vector<size_t>& misses);
  void edge(int64_t distance, const Op& last);
  void finish_indirect(const Op& last);
  void count_up_to(const Op& last);
  void set_rip(int64_t distance);
  void jump_to(const uint8_t* place);
  void encode(const Instruction& instruction, uint8_t reg, Host rm, bool is_memory, bool force_rex);

  // --- flags ---
  void save_flags();
  void restore_flags(Host temporary);
  void clear_flags(uint16_t cleared);
  void carry_to_memory();
  void flags_to_memory();
  void flags_to_host() {
    if (flags_ == Flags::kMemory) restore_flags(kScratch2);
    if (flags_ == Flags::kRecipe) {
      follow_recipe(*producer_);
      flags_ = Flags::kHost;
    }
  }
  // Before and after the look-up of op's address: the host's flags are lost in between.
  void before_look_up(const Op& op);
  void after_look_up() {
    if (flags_ != Flags::kRecipe) flags_ = Flags::kMemory;
  }
  void host_flags_of(const Op& op) {
    flags_ = Flags::kHost;
    producer_ = &op;
  }
  [[nodiscard]] bool recipe_lasts(const Op& op) const;
  void follow_recipe(const Op& recipe);
  Slow slow_for(const Op& op, size_t from) const {
    return {.from = from,
            .back = 0,
            .op = &op,
            .flags_to_host = false,
            .recipe = flags_ == Flags::kRecipe ? producer_ : nullptr};
  }
  [[nodiscard]] bool flags_matter_after(const Op& op) const;

  [[nodiscard]] int32_t page_offset() const { return static_cast<int32_t>(block_.physical & (kPageSize - 1)); }
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
  const Op* producer_ = nullptr;  // with flags_ at kHost or kRecipe: the instruction that made them
  std::vector<Edge> edges_;
  // Jcc in the middle of the block, taken: the way out stands behind the block's end.
  struct SideExit {
    size_t jump;
    const Op* op;
    Flags flags;
  };
  std::vector<SideExit> side_exits_;
  std::vector<size_t> looks_;  // jumps that are taken when the block must not run now
  size_t checked_ = 0, body_ = 0;
  size_t native_count_ = 0;
  struct X87Load {
    size_t from, back;
    uint32_t level;
  };
  bool has_x87_ = false;
  std::vector<X87Load> x87_loads_;                 // as simd_loads_
  uint32_t simd_level_ = 0;                        // SimdLive that the block needs
  const Op* last_simd_ = nullptr;                  // the last instruction that needs it; nullptr: none
  bool simd_loaded_ = false;                       // at this point of the code
  std::vector<std::array<size_t, 2>> simd_loads_;  // jumps to behind the block's end, and where they come back
  bool ended_ = false;                             // the last instruction has left the block
};

}  // namespace bulkhead::engine::jit
