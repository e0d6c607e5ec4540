// Blocks of pre-decoded instructions and the cache of one vCPU that holds them, found by physical address and mode.
//
// Code that changes: every page has a version in the engine's CodeMap. A block remembers the version it was made under
// and the bytes it was made from; run from a page whose version has moved, it compares the bytes first. Writers move
// the version after the write (code_map.h), so no block ever runs on after its bytes have changed and the processor had
// to notice.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "engine/decoder/decoder.h"
#include "engine/interpreter/block_index.h"
#include "engine/interpreter/cpu.h"
#include "engine/interpreter/decoded_ring.h"
#include "engine/interpreter/op.h"

namespace bulkhead::engine {

// The block at a linear address; holds as long as the vCPU's run_context is the same.
struct BlockLink {
  uint64_t linear = 0;
  uint64_t run_context = 0;  // 0 is never in use
  Block* block = nullptr;
};

// What engine/jit has made of a block.
struct Translation {
  static constexpr uint32_t kNoLink = ~0u;
  const uint8_t* code = nullptr;  // entered with RIP in R14; nullptr: there is none
  uint16_t checked_at = 0;        // entered from the same page: looks at attention
  uint16_t body_at = 0;           // entered from the same page, by a way that has looked already
  uint32_t first_edge = 0;        // the direct jumps to other blocks, of jit::Jit::edges_
  uint32_t last_link = kNoLink;   // of those edges, the one that was linked to this code last
  uint64_t by_handler = 0;        // bit n: the n-th instruction has no native form
  uint8_t edge_count = 0;
  uint32_t registers_before_flags = 0;  // see jit/deferred_flags.h
  bool opens_interrupts = false;        // ends in STI: no edge may lead past a look at attention
  // The code does nothing while MXCSR, or the x87 control word, does not mask all exceptions.
  bool needs_masked_simd = false, needs_masked_x87 = false;
  [[nodiscard]] const uint8_t* checked() const { return code + checked_at; }
  [[nodiscard]] const uint8_t* body() const { return code + body_at; }
};

// Its bytes stand behind it.
struct Block {
  static constexpr uint32_t kAlwaysCheck = 0xFFFF'FFFF;  // no page has this version
  static constexpr uint64_t kNoPage = ~0ull;
  static constexpr uint16_t kNotTranslatable = 0xFFFF;

  // What is looked at on each run.
  const std::atomic<uint32_t>* version = nullptr;
  uint32_t made_at_version = kAlwaysCheck;
  uint16_t length = 0;  // in bytes
  uint16_t op_count = 0;
  const Op* ops = nullptr;  // while they are needed: see BlockCache::decode_again()

  // What it is.
  ModeBits mode{};
  uint16_t runs = 0;       // by the interpreter, up to the translator's threshold; or kNotTranslatable
  bool is_shared = false;  // other vCPUs may still write to its page without telling; see made_at_epoch
  uint64_t physical = 0;
  uint64_t second_page = kNoPage;  // physical page of its last bytes, when its only instruction crosses a page
  uint32_t first_version = 0, second_version = 0;  // with second_page, instead of made_at_version
  uint64_t made_at_epoch = 0;
  Translation translation;
  // Of translated code: it has the first so many operations, a loop, several times over; 0: each operation once.
  uint8_t loop_ops = 0;
  uint64_t without_slot = 0;   // bit n: the accesses of the n-th instruction look into the TLB, not into a slot first
  uint64_t without_group = 0;  // the same: its accesses are looked up by themselves (jit/access_groups.h)
  uint64_t crosses_pages = 0;  // the same: the group that it leads is often on two pages, and has code for that
  bool without_deferred_flags = false;  // what comes behind it turned out to want them
  uint8_t times_improved = 0;           // translated again, because what comes behind it does not want them

  [[nodiscard]] const uint8_t* source() const { return reinterpret_cast<const uint8_t*>(this + 1); }
};

class BlockCache {
 public:
  // With a translator, few blocks need their decoded instructions for long.
  static constexpr size_t kDecodedBytes = size_t{48} << 20, kDecodedBytesBesideTranslator = size_t{12} << 20;

  BlockCache(const decoder::DecodeOptions& options, size_t decoded_bytes);

  [[nodiscard]] const BlockIndex& index() const { return index_; }
  [[nodiscard]] const CodePages& code_pages() const { return code_pages_; }

  // The block at this linear address (canonical, within the limit of CS), made when there is none. nullptr: there is a
  // page fault, Cpu::jit_fault, to be delivered; other faults of the fetch are thrown.
  Block* find(Cpu& cpu, uint64_t linear);
  // The block that was found there last, without any check but the one for run_context.
  [[nodiscard]] Block* remembered(uint64_t linear, uint64_t run_context) const {
    const BlockLink& jump = jumps_[jump_slot(linear)];
    return jump.linear == linear && jump.run_context == run_context ? jump.block : nullptr;
  }

  // True when the block still stands for the bytes in memory.
  [[nodiscard]] bool is_current(Cpu& cpu, Block& block);
  // One instruction, not kept: for single steps, for code outside of RAM, and where CS's limit may cut an instruction
  // off. Valid until the next call.
  Block* make_single(Cpu& cpu, uint64_t linear);
  // The block has its ops.
  void decode_again(Block& block) {
    if (block.ops == nullptr) [[unlikely]]
      decode_from_source(block);
  }
  // All translations are gone; the blocks stay.
  void drop_translations();
  // A block of this cache in 23 bits, for translated code.
  [[nodiscard]] uint32_t number_of(const Block& block) const {
    return static_cast<uint32_t>((reinterpret_cast<const uint8_t*>(&block) - memory_.get()) / kAlignment);
  }
  [[nodiscard]] Block& numbered(uint32_t number) {
    return *reinterpret_cast<Block*>(memory_.get() + size_t{number} * kAlignment);
  }
  // Number of times that everything was thrown away; blocks got before are gone then.
  [[nodiscard]] uint64_t flush_count() const { return flush_count_; }
  void flush();

  static constexpr size_t kMaximumOps = 48;
  static constexpr size_t kMaximumBytes = 512;

 private:
  static constexpr size_t kJumpEntries = 1 << 13;
  static constexpr size_t kCapacity = size_t{24} << 20;  // of blocks with their bytes
  static constexpr size_t kAlignment = alignof(Block);
  static_assert(kCapacity / kAlignment <= 1 << 23);

  // What is being built.
  struct Draft {
    std::array<decoder::Instruction, kMaximumOps> instructions;
    std::array<Op, kMaximumOps> ops;
    std::array<uint8_t, kMaximumBytes> source;
    unsigned op_count = 0;
    unsigned length = 0;
  };

  Block* build(Cpu& cpu, uint64_t linear, uint64_t physical);
  Block* build_crossing(Cpu& cpu, uint64_t linear, uint64_t physical);
  // Decodes from draft_.source; false: the first instruction needs more bytes.
  bool decode(ModeBits mode, unsigned available, unsigned op_limit);
  void add_op(ModeBits mode, Handler handler, unsigned length);
  void decode_from_source(Block& block);
  Block* keep(Cpu& cpu, uint64_t physical);
  static size_t room_for(size_t length) { return align_up(sizeof(Block) + length, kAlignment); }
  void insert(Block* block) { index_.insert(block_key(block->physical, block->mode.value), block); }
  static size_t jump_slot(uint64_t linear) { return (linear ^ (linear >> 12)) & (kJumpEntries - 1); }

  decoder::DecodeOptions options_;
  BlockIndex index_;
  CodePages code_pages_;
  std::array<BlockLink, kJumpEntries> jumps_{};
  std::unique_ptr<uint8_t[]> memory_;  // of blocks, one behind the other
  size_t used_ = 0;
  DecodedRing decoded_;
  uint64_t flush_count_ = 0;
  Draft draft_;
  Block single_;
};

}  // namespace bulkhead::engine
