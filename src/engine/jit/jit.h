// The translator's side of one vCPU: its code cache, the way into translated code and out of it again. Translated code
// is an optimisation of Block alone: what it leaves in the Cpu is, bit for bit, what the interpreter would have left.
// README.md of this folder tells how the pieces fit.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/interpreter/block.h"
#include "engine/interpreter/cpu.h"
#include "engine/jit/assembler.h"
#include "engine/jit/code_cache.h"
#include "engine/jit/targets.h"
#include "support/result.h"

// clang's check of calls looks for a mark in front of a function, which translated code does not have.
#ifdef __clang__
#define BULKHEAD_CALLS_TRANSLATED_CODE [[clang::no_sanitize("function")]]
#else
#define BULKHEAD_CALLS_TRANSLATED_CODE
#endif

namespace bulkhead::engine::jit {

// An instruction or an edge of a block, by BlockCache::number_of() the block and its index in there.
inline constexpr unsigned kIndexBits = 6;
static_assert(BlockCache::kMaximumOps < 1 << kIndexBits, "there is an edge more");
[[nodiscard]] constexpr uint32_t place_of(uint32_t block_number, size_t index) {
  return block_number << kIndexBits | static_cast<uint32_t>(index);
}
[[nodiscard]] constexpr uint32_t block_at(uint32_t place) {
  return place >> kIndexBits;
}
[[nodiscard]] constexpr uint32_t index_at(uint32_t place) {
  return place & ((1 << kIndexBits) - 1);
}

// Why translated code has come back. Cpu::rip and everything else is as between two blocks, but for kFault.
enum class Exit : uint32_t {
  kLook,      // nothing of the block at RIP has run: attention, or the count's limit
  kEdge,      // the block Cpu::jit_block is done and left by its direct edge Cpu::jit_edge, which may be linked
  kIndirect,  // a block is done; its successor has no code yet or is not remembered
  kLeft,      // an instruction that the interpreter carried out has ended the block; seen by thunks only
  kFault,     // Cpu::jit_fault is to be delivered for Cpu::op
};
inline constexpr size_t kExitKinds = 5;

class Jit {
 public:
  // Runs of a block by the interpreter before it is translated.
  static constexpr uint16_t kThreshold = 8;

  // The Cpu outlives the Jit and stays where it is. Fails where the host forbids executable memory.
  static Result<std::unique_ptr<Jit>> create(Cpu& cpu, size_t capacity_bytes);

  // Gives the block its code, unless it is of a kind that is not translated, or the cache is full.
  void translate(Block& block);
  // Runs the block, whose code it has, and those linked to it.
  Exit run(Block& block);
  // Lets `from` go on to `to` without coming back, if `to` can do with the flags that `from` leaves. Both have code and
  // stand for the bytes in memory as they are now; `to` begins where the edge leads.
  void link(Block& from, unsigned edge, Block& to);
  // count: Engine::code_changes(). When it has grown, whatever code was known by its address may be out of date.
  void look_at_code_changes(uint64_t count);
  // The block stands for its page as it is now. All links from it are taken back: what they lead to may be older.
  void made_current(Block& block);
  // The slot of the place changes too often, or its group is too seldom within one page: its block is translated anew
  // without.
  void drop_slot(uint32_t site);
  // The block's code is made anew, and all ways into the old one lead on to it. False: it stays as it was.
  bool translate_again(Block& block);
  // All code is gone; no block may have any. flush_count: the block cache's, which the Jit keeps in step with.
  void reset(uint64_t flush_count);
  [[nodiscard]] uint64_t flush_count() const { return flush_count_; }
  [[nodiscard]] bool is_full() const { return is_full_; }
  // Cpu::run_context is another one.
  void choose_targets() { targets_.choose(cpu_); }
  void set_threshold(uint16_t runs) { threshold_ = runs; }
  [[nodiscard]] bool is_hot(Block& block) const {
    if (block.runs >= threshold_) return block.runs != Block::kNotTranslatable;
    return ++block.runs >= threshold_;
  }

  // How often translated code has called the handlers of a mnemonic.
  struct Calls {
    uint64_t handler = 0;  // because it has no other form
    uint64_t slow = 0;     // because its native form could not do it: an access that the TLB does not know, a rare case
  };
  struct Counters {
    std::array<Calls, static_cast<size_t>(decoder::Mnemonic::kCount)> calls{};
    uint64_t translations = 0, guest_bytes = 0, native_instructions = 0, handler_instructions = 0, entries = 0,
             links = 0, unlinks = 0, resets = 0, slots_dropped = 0, flags_wanted = 0, flags_unwanted = 0,
             targets_cleared = 0;
    std::array<uint64_t, kExitKinds> exits{};  // by Exit
  };
  [[nodiscard]] const Counters& counters() const { return counters_; }
  void count_call(const Block& block, const Op& op) {
    Calls& calls = counters_.calls[static_cast<size_t>(op.instruction->mnemonic)];
    ++((block.translation.by_handler >> (&op - block.ops) & 1) != 0 ? calls.handler : calls.slow);
  }
  [[nodiscard]] size_t code_bytes() const { return cache_->used(); }
  [[nodiscard]] size_t places() const { return sites_.size(); }

 private:
  Jit(Cpu& cpu, std::unique_ptr<CodeCache> cache);
  void make_thunks();
  void tell_of_common_code() const;
  void tell_of(const Block& block, size_t code_size);
  void make_register_loads();
  void make_target_search();
  void make_slot_fill(bool write);
  void make_crossing_read();
  void make_crossing_write();
  void make_repeat(bool moves, uint8_t size_log2);
  void lead_links_on(const Translation& from, Translation& to);
  // By Cpu::jit_site_return.
  [[nodiscard]] uint32_t site_returned_to() const;
  // On to R14, which is RIP: straight, when targets_ knows code for it.
  void emit_dispatch(Assembler& code) const;
  size_t emit_target_look_up(Assembler& code) const;
  void emit_target_reload(Assembler& code) const;
  void emit_target_jump(Assembler& code) const;
  // R13 = how far the slot for R14 is from the begin of the table in use.
  void emit_target_offset(Assembler& code) const;

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
  const uint8_t* call_handler_ = nullptr;  // R13D: place_of() the Op
  const uint8_t* leave_ = nullptr;         // R14D: the Exit
  const uint8_t* leave_look_ = nullptr;
  const uint8_t* leave_look_at_ = nullptr;     // R13: the block's offset within its page
  const uint8_t* leave_edge_ = nullptr;        // R13D: place_of() the edge
  std::array<const uint8_t*, 2> load_x87_{};   // what X87Live says, less 1
  std::array<const uint8_t*, 3> load_simd_{};  // what SimdLive says, less 1; may leave by leave_look_
  const uint8_t* leave_indirect_ = nullptr;
  const uint8_t* search_target_ = nullptr;
  std::array<const uint8_t*, 2> fill_slot_{};                       // for reading, for writing; see slot_fill.cc
  const uint8_t *read_across_ = nullptr, *write_across_ = nullptr;  // see page_crossing.cc
  std::array<std::array<const uint8_t*, 4>, 2> repeat_{};           // REP STOS and REP MOVS, by log2 of the size
  Targets targets_;
  uint64_t code_changes_ = 0;
  // A direct jump to another block: where in the code its distance stands and what it leads to until it is linked; and
  // how far its target is from the block's beginning.
  struct Edge {
    uint32_t jump_at, unlinked_at;
    int32_t distance;
    uint32_t flag_registers;  // that have to outlive the flags behind it, when those are deferred
    bool defers_flags;
    bool is_known_to_target = false;  // it stands in the list that begins with Translation::last_link
    uint32_t link_before = Translation::kNoLink;
  };
  std::vector<Edge> edges_;  // of all translations
  // What accesses memory through a slot, or for a group.
  struct Site {
    Block* block;
    uint16_t op;
    bool is_group;
    uint32_t return_at;  // where in the code fill_slot_ returns to
  };
  static constexpr uint32_t kSiteByReturn = ~0u;  // in Cpu::jit_site: the one of Cpu::jit_site_return
  std::vector<Site> sites_;                       // in the order of their code
  uint32_t next_slot_ = 0, next_group_ = 0;
  std::unordered_map<const Block*, uint64_t> linear_of_;  // of what the watcher was told
  Counters counters_;
};

}  // namespace bulkhead::engine::jit
