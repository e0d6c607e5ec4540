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
#include <vector>

#include "engine/decoder/decoder.h"
#include "engine/interpreter/cpu.h"
#include "engine/interpreter/op.h"

namespace bulkhead::engine {

// Where a block went last; holds as long as the vCPU's run_context is the same.
struct BlockLink {
  uint64_t linear = 0;
  uint64_t run_context = 0;  // 0 is never in use
  Block* block = nullptr;
};

// What engine/jit has made of a block.
struct Translation {
  const uint8_t* code = nullptr;     // entered with RIP in the Cpu; nullptr: there is none
  const uint8_t* checked = nullptr;  // entered from the same page: looks whether the block may run
  const uint8_t* body = nullptr;     // entered from the same page, by a way that has looked already
  // A direct jump to another block: where its distance stands in the code, and what it leads to until it is linked.
  struct Edge {
    const uint8_t* distance = nullptr;
    const uint8_t* unlinked = nullptr;
  };
  std::span<Edge> edges{};
  // The code does nothing while MXCSR, or the x87 control word, does not mask all exceptions.
  bool needs_masked_simd = false, needs_masked_x87 = false;
};

struct Block {
  static constexpr uint32_t kAlwaysCheck = 0xFFFF'FFFF;  // no page has this version
  static constexpr uint64_t kNoPage = ~0ull;

  // What is looked at on each run.
  const std::atomic<uint32_t>* version = nullptr;
  uint32_t made_at_version = kAlwaysCheck;
  uint16_t length = 0;  // in bytes
  uint16_t op_count = 0;
  const Op* ops = nullptr;
  std::array<BlockLink, 2> links{};
  uint8_t last_link = 0;

  // What it is.
  ModeBits mode{};
  bool is_shared = false;  // other vCPUs may still write to its page without telling; see made_at_epoch
  uint64_t physical = 0;
  uint64_t second_page = kNoPage;  // physical page of its last bytes, when its only instruction crosses a page
  uint32_t first_version = 0, second_version = 0;  // with second_page, instead of made_at_version
  uint64_t made_at_epoch = 0;
  Translation translation;
  uint16_t runs = 0;  // by the interpreter, up to the translator's threshold
  const uint8_t* source = nullptr;
  Block* next_in_bucket = nullptr;
};

class BlockCache {
 public:
  explicit BlockCache(const decoder::DecodeOptions& options) : options_(options) {}

  // The block at this linear address (canonical, within the limit of CS), made when there is none. Faults of the fetch
  // are thrown.
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
  // Number of times that everything was thrown away; blocks got before are gone then.
  [[nodiscard]] uint64_t flush_count() const { return flush_count_; }
  void flush();

  static constexpr size_t kMaximumOps = 48;
  static constexpr size_t kMaximumBytes = 512;

 private:
  static constexpr size_t kJumpEntries = 1 << 12;
  static constexpr size_t kBuckets = 1 << 14;
  static constexpr size_t kChunkSize = 256 << 10;
  static constexpr size_t kMaximumChunks = 256;  // 64 MiB

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
  bool decode(Cpu& cpu, unsigned available, unsigned op_limit);
  void add_op(Cpu& cpu, Handler handler, unsigned length);
  Block* keep(Cpu& cpu, uint64_t physical);
  void* allocate(size_t bytes, size_t alignment);
  void insert(Block* block);
  void forget(Block* block);
  static size_t jump_slot(uint64_t linear) { return (linear ^ (linear >> 12)) & (kJumpEntries - 1); }
  static size_t bucket_of(uint64_t physical) { return ((physical >> 1) ^ (physical >> 13)) & (kBuckets - 1); }

  decoder::DecodeOptions options_;
  std::array<Block*, kBuckets> buckets_{};
  std::array<BlockLink, kJumpEntries> jumps_{};
  std::vector<std::unique_ptr<uint8_t[]>> chunks_;
  size_t chunk_used_ = kChunkSize;
  uint64_t flush_count_ = 0;
  Draft draft_;
  Block single_;
};

}  // namespace bulkhead::engine
