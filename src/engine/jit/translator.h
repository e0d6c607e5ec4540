// Translates one block of 64-bit code: the guest's integer instructions are copied with the registers of state_layout.h
// and a look into the software TLB before each access to memory; what has no such form is carried out by the
// interpreter's handler. See README.md.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "engine/jit/access_groups.h"
#include "engine/jit/deferred_flags.h"
#include "engine/jit/jit.h"
#include "engine/jit/state_layout.h"
#include "support/check.h"

namespace bulkhead::engine::jit {

// A guest's address: of a base register and a displacement alone, or what R13 has.
struct Linear {
  Host base = kScratch;
  int32_t displacement = 0;
  [[nodiscard]] bool in_scratch() const { return base == kScratch; }
};

// An access, and whether R14, too, may be needed to address the memory that is found for it.
struct Look {
  unsigned size;
  bool write;
  bool stack = false;
  bool scratch2_is_free = false;
};
inline constexpr Look kPushed{.size = 8, .write = true, .stack = true},
    kPopped{.size = 8, .write = false, .stack = true};

class Translator {
 public:
  // The code goes into the Jit's assembler.
  Translator(Jit& jit, Block& block) : jit_(jit), cpu_(jit.cpu_), code_(jit.assembler_), block_(block) {
    plan_rounds();
    groups_ = AccessGroups(ops_, in_all_rounds(block.without_group));
  }

  // False: the block is left to the interpreter.
  [[nodiscard]] bool run();
  // A way out to a block of the same page, at `distance` from this one's beginning.
  struct Edge {
    size_t jump;  // where its distance stands in the code
    size_t unlinked;
    int64_t distance;
    // What the flags behind it can be made from, 0: nothing; and whether they have to be.
    uint32_t flag_registers;
    bool defers_flags;
  };
  [[nodiscard]] std::span<const Edge> edges() const { return edges_; }
  // Of the code once it is at its place; without the edges.
  [[nodiscard]] Translation translation(const uint8_t* place) const;
  // Of a loop, those of one round.
  [[nodiscard]] size_t native_count() const { return native_count_; }
  [[nodiscard]] size_t handler_count() const { return handler_count_; }
  // The code is no good: it has to be made again without flags that are deferred.
  [[nodiscard]] bool defers_wrongly() const { return defers_wrongly_; }
  // Once the code is in the cache.
  void note_sites(uint32_t code_at) const;

 private:
  using Instruction = decoder::Instruction;
  // Where the guest's arithmetic flags are between two instructions. kRecipe: nowhere, but recipe_ tells how to make
  // them.
  enum class Flags : uint8_t { kMemory, kHost, kBoth, kRecipe };
  // An access that missed the TLB is carried out behind the block's end by the handler.
  struct Slow {
    size_t from, back;
    const Op* op;
    bool flags_to_host;
    std::optional<DeferredFlags> recipe{};
    std::optional<AccessGroups::Span> lead{};
    // With a lead: how it was before it, and where the code is that does without its group, 0: nowhere.
    const Op* producer = nullptr;
    bool simd_loaded = false;
    size_t crossing = 0;
    const uint8_t* repeat = nullptr;  // does what it can of a string; RCX is 0 when that was all
  };
  // The operands of a ModRM form in host terms.
  struct Form;

  void plan_rounds();
  [[nodiscard]] uint64_t in_all_rounds(uint64_t marks) const;
  // It jumps back to the loop's beginning, and the next round stands behind it.
  [[nodiscard]] bool ends_round(const Op& op) const {
    return block_.loop_ops != 0 && (index_of(op) + 1) % block_.loop_ops == 0 && &op + 1 != end();
  }
  bool translate_from(const Op* first);
  bool crossings();
  void prologue();
  void epilogue();
  bool native(const Op& op);
  void by_handler(const Op& op);
  void call_handler(const Op& op);
  void call_common(const uint8_t* place);
  void slow_paths();

  bool general(const Op& op);
  bool accumulator_or_none(const Op& op);
  bool high_byte(const Op& op);
  bool source_in_cpu(const Op& op, const Form& form);
  static bool stays_in_cpu(const Instruction& instruction, const Form& form);
  void insert_high_byte(uint8_t number, Host from);
  bool move_immediate(const Op& op);
  // With copy() twice, for a count of 0 leaves the flags alone.
  template <typename Copy>
  void shift_by_cl(const Instruction& instruction, Copy&& copy);
  bool divide(const Op& op);
  bool leave_frame(const Op& op);
  bool swap_bytes(const Op& op);
  bool vex_integer(const Op& op);
  bool repeated_string(const Op& op);
  void look_up_run(Host pointer, uint8_t size_log2, bool write, std::vector<size_t>& misses);
  bool push(const Op& op);
  bool pop(const Op& op);
  bool load_address(const Op& op);
  [[nodiscard]] bool reaches(const Op& op) const;
  bool control(const Op& op);
  void conditional_jump(const Op& op);
  bool count_jump(const Op& op);
  bool call(const Op& op);
  bool ret(const Op& op);
  bool jump_indirect(const Op& op);

  // Of the system, and others of kernels (translator_system.cc).
  bool system(const Op& op);
  void change_system_flags(uint8_t digit, int32_t operand);
  size_t jump_by_system_flag(int32_t flag, bool when_set);
  void set_interrupt_flag(const Op& op);
  void change_access_check(bool set);
  bool push_flags(const Op& op);
  bool push_memory(const Op& op);
  void to_register(uint8_t guest, Memory from, bool wide);
  bool move_from_control(const Op& op);
  bool move_from_segment(const Op& op);
  void segment_base(const Op& op);
  bool compare_exchange_pair(const Op& op);
  bool bit_in_memory(const Op& op);

  // Vector instructions (translator_simd.cc).
  void plan_simd();
  [[nodiscard]] bool is_simd(const Op& op) const;
  bool simd(const Op& op);
  void load_simd();
  void call_simd_load();
  void reload_simd(const Op& op);
  void simd_across_pages(const Slow& slow);
  void simd_slow_paths();
  size_t move_mxcsr(bool store);

  // x87 instructions (translator_x87.cc).
  [[nodiscard]] bool is_x87(const Op& op) const;
  void plan_x87();
  bool x87(const Op& op);
  void load_x87(uint32_t level);
  void x87_slow_paths();
  size_t load_x87_control();

  Linear linear_of(const Op& op);
  [[nodiscard]] bool can_address(const Op& op) const;
  Linear address(const Op& op);
  Linear stack_address(int32_t displacement) const { return {.base = kR12, .displacement = displacement}; }
  // What look_up() gives back is the place of a jump; of one that code behind the block's end will have, a number.
  static constexpr size_t kFirstSite = size_t{1} << 32, kNoMiss = ~size_t{0};
  // The look-up for an operand in memory, which is at place_ then; the result goes to come_back().
  // tests_address: the host's flags do not outlive the access anyway.
  Slow access(const Op& op, bool scratch2_is_free = false, bool tests_address = false);
  Slow stack_access(const Op& op, Linear linear, Look look);
  Slow access_to(const Op& op, Linear linear, Look look);
  // Behind the instruction that has been copied. restores_flags: what comes next wants them on the host.
  void come_back(Slow slow, bool restores_flags);
  size_t look_up(Linear linear, Look look);
  // The memory that has to be reachable: of the access alone, or of its group.
  struct Span {
    int32_t begin;  // from the address of the access
    uint32_t size;  // bytes
    bool writes;
  };
  void look_into_tlb(Linear linear, Span span);
  void delta_from_entry(Linear linear, Span span);
  void set_place(Linear linear, Look look);
  void test_address(uint8_t mask);
  void forget_groups() {
    group_is_live_.fill(false);
    aligned_.fill({});
  }
  [[nodiscard]] bool is_known_to_be_aligned(unsigned bytes) const;
  void note_alignment(unsigned bytes);
  void note_delta_in_scratch(const Slow& slow);
  // Of the instruction under way: its access needs no look-up, since one for its whole group has been made.
  [[nodiscard]] bool joins_group() const;
  // Its access, and those of its group behind it; nothing: there are none.
  [[nodiscard]] std::optional<AccessGroups::Span> group_span() const;
  void resume_group(const Slow& slow);
  [[nodiscard]] bool is_user() const { return (block_.mode.value & ModeBits::kCplMask) == ModeBits::kCplMask; }
  [[nodiscard]] mmu::Slots::Bank bank(bool write) const;
  [[nodiscard]] bool has_slot(bool stack) const;
  struct Site;
  void emit_sites();
  // Asks for the block to be translated anew; the number is that of the place among the block's.
  void report_place(size_t number);

  // Accesses that the host's flags live through (translator_live_flags.cc).
  [[nodiscard]] bool should_keep_flags(const Op& op, Look look) const;
  size_t look_up_keeping_flags(const Op& op, Linear linear, Look look);
  void emit_packed_site(Site& site, size_t number);
  void call_to_scratch2(const Op& op, std::vector<size_t>& misses);
  void checked_target(std::vector<size_t>& misses);
  // How flags get to the next block.
  struct Left {
    uint32_t registers;
    bool deferred;
  };
  void edge(int64_t distance, const Op& last, Left flags);
  void finish_indirect(const Op& last);
  void finish_checked(const Op& last, int32_t popped, std::vector<size_t>& misses);
  void count_up_to(const Op& last);
  void set_rip(int64_t distance);
  void jump_to(const uint8_t* place);
  void encode(const Instruction& instruction, uint8_t reg, Host rm, bool is_memory, bool force_rex);

  // --- flags ---
  void save_flags(uint16_t cleared = 0);
  void restore_flags(Host temporary);
  void clear_flags(uint16_t cleared);
  void note_flags(const DeferredFlags& deferred);
  void carry_to_memory();
  void carry_to_host();
  void flags_to_memory();
  // For an edge: in memory, or deferred. The result is what edge() wants.
  Left leave_flags(int64_t distance, const Op& last);
  [[nodiscard]] bool can_do_without_flags(int64_t distance, uint32_t registers) const;
  [[nodiscard]] std::optional<int64_t> distance_of_last_edge() const;
  void flags_to_host() {
    CHECK(flags_ != Flags::kRecipe, "flags that nobody was to read");
    if (flags_ == Flags::kMemory) restore_flags(kScratch2);
  }
  void load_flags();
  // Before and after the look-up of op's address: the host's flags are lost in between, unless it keeps them.
  void before_look_up(const Op& op, bool keeps_flags = false);
  void after_look_up() {
    if (!keeps_flags_ && flags_ != Flags::kRecipe) flags_ = Flags::kMemory;
    keeps_flags_ = false;
  }
  void host_flags_of(const Op& op) {
    flags_ = Flags::kHost;
    producer_ = &op;
  }
  bool try_recipe(const std::optional<DeferredFlags>& recipe, const Op& op);
  void leave_cleared_flags(const Op& op, uint16_t cleared);
  Slow slow_for(const Op& op, size_t from) const {
    return {.from = from,
            .back = 0,
            .op = &op,
            .flags_to_host = false,
            .recipe = flags_ == Flags::kRecipe ? recipe_ : std::nullopt,
            .lead = lead_,
            .producer = producer_,
            .simd_loaded = simd_loaded_};
  }
  [[nodiscard]] bool flags_matter_after(const Op& op) const;

  [[nodiscard]] int32_t page_offset() const { return static_cast<int32_t>(block_.physical & (kPageSize - 1)); }
  [[nodiscard]] const Op* end() const { return ops_.data() + ops_.size(); }
  // Among ops_, and among the block's.
  [[nodiscard]] size_t index_of(const Op& op) const { return static_cast<size_t>(&op - ops_.data()); }
  [[nodiscard]] size_t index_in_block(const Op& op) const {
    return block_.loop_ops != 0 ? index_of(op) % block_.loop_ops : index_of(op);
  }
  [[nodiscard]] std::span<const uint8_t> source(const Op& op) const {
    return {block_.source() + op.offset, op.instruction->length};
  }

  Jit& jit_;
  Cpu& cpu_;
  Assembler& code_;
  Block& block_;
  std::vector<Op> rounds_;       // of a loop
  std::span<const Op> ops_;      // what is translated: the block's, or rounds_
  const Op* current_ = nullptr;  // the instruction being translated
  Flags flags_ = Flags::kMemory;
  bool keeps_flags_ = false;  // the look-up under way changes none
  Memory place_{kScratch};    // the memory that look_up() has found
  AccessGroups groups_;
  std::array<bool, AccessGroups::kGroups> group_is_live_{};
  // A multiple of `bytes` away from `offset` lie the aligned addresses of the group; 0: it is not known.
  struct Aligned {
    int64_t offset = 0;
    unsigned bytes = 0;
  };
  std::array<Aligned, AccessGroups::kGroups> aligned_{};
  // R13 has the group's delta where the code has this size.
  uint8_t group_in_scratch_ = AccessGroups::kGroups;
  size_t group_in_scratch_at_ = 0;
  uint8_t group_without_look_ = AccessGroups::kGroups;  // its accesses are on their own for now
  std::optional<AccessGroups::Span> lead_;              // of the look-up made last
  std::vector<const Op*> leads_;                        // those that may have to end the block
  std::vector<Slow> slow_;
  const Op* producer_ = nullptr;  // with flags_ at kHost: the instruction that made them
  std::optional<DeferredFlags> recipe_;
  bool defers_wrongly_ = false;
  uint32_t deferrable_ = 0;  // what the flags at the block's end could be made from, would the next one do with that
  std::vector<Edge> edges_;
  // Jcc in the middle of the block, taken: the way out stands behind the block's end.
  struct SideExit {
    size_t jump;
    const Op* op;
    int64_t distance;
    Flags flags;
    const Op* producer;
  };
  std::vector<SideExit> side_exits_;
  struct Site {
    const Op* op;
    Linear linear;
    Span span;
    size_t slot;
    bool is_packed = false;  // the slot is a PackedSlot
    size_t jump, back;
    size_t miss = 0;
    size_t fill_return = 0;
  };
  std::vector<Site> sites_;
  std::vector<size_t> looks_;  // jumps that are taken when the block must not run now
  size_t checked_ = 0, body_ = 0;
  size_t native_count_ = 0, handler_count_ = 0;
  uint64_t by_handler_ = 0;  // bit n: the n-th instruction has no native form
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
