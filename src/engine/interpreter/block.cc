#include "engine/interpreter/block.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "engine/code_map.h"
#include "engine/engine.h"
#include "engine/interpreter/integer/select_handler.h"
#include "engine/interpreter/system/system.h"
#include "engine/jit/jit.h"
#include "engine/mmu/access.h"
#include "support/check.h"

namespace bulkhead::engine {
namespace {

constexpr uint64_t kOffsetMask = kPageSize - 1;

decoder::DecodeMode decode_mode(ModeBits mode) {
  if (mode.code64()) return decoder::DecodeMode::kLong64;
  if (!mode.protected_mode()) return decoder::DecodeMode::kReal16;
  return mode.code32() ? decoder::DecodeMode::kProtected32 : decoder::DecodeMode::kProtected16;
}

void raise_invalid_opcode(Cpu&, const Op&) {
  raise(kInvalidOpcode);
}
void raise_too_long(Cpu&, const Op&) {
  raise(kGeneralProtection, 0);
}

bool same_bytes(const Cpu& cpu, uint64_t physical, const uint8_t* bytes, size_t size) {
  return std::memcmp(cpu.memory->host_base() + physical, bytes, size) == 0;
}

// Of a block that crosses a page: what it has of the first one.
bool same_beginning(const Cpu& cpu, const Block& block) {
  return same_bytes(cpu, block.physical, block.source(), kPageSize - (block.physical & (kPageSize - 1)));
}

uint64_t run_context_linear(const Cpu& cpu, uint64_t linear) {
  return cpu.mode.code64() ? linear : static_cast<uint32_t>(linear);
}

}  // namespace

BlockCache::BlockCache(const decoder::DecodeOptions& options, size_t decoded_bytes)
    : options_(options), memory_(std::make_unique_for_overwrite<uint8_t[]>(kCapacity)), decoded_(decoded_bytes) {}

void BlockCache::flush() {
  index_.clear();
  jumps_.fill({});
  used_ = 0;
  decoded_.clear();
  ++flush_count_;
}

void BlockCache::drop_translations() {
  for (size_t at = 0; at < used_;) {
    auto* block = reinterpret_cast<Block*>(memory_.get() + at);
    block->translation = {};
    if (block->runs != Block::kNotTranslatable) block->runs = 0;
    at += room_for(block->length);
  }
}

void BlockCache::decode_from_source(Block& block) {
  std::memcpy(draft_.source.data(), block.source(), block.length);
  (void)decode(block.mode, block.length, block.op_count);
  CHECK(draft_.op_count == block.op_count && draft_.length == block.length, "a block that decodes in another way");
  decoded_.add(block, {draft_.ops.data(), draft_.op_count}, {draft_.instructions.data(), draft_.op_count});
}

bool BlockCache::is_current(Cpu& cpu, Block& block) {
  Engine& engine = *cpu.engine;
  CodeMap& map = engine.code_map();
  const bool crosses = block.second_page != Block::kNoPage;
  const unsigned in_first = crosses ? static_cast<unsigned>(kPageSize - (block.physical & kOffsetMask)) : block.length;
  const uint32_t first_version = map.page(block.physical).version.load();
  const uint32_t second_version = crosses ? map.page(block.second_page).version.load() : 0;
  if (crosses && first_version == block.first_version && second_version == block.second_version && !block.is_shared)
    return true;

  ++cpu.counters.blocks_stale;
  // Registered again before the bytes are compared, see code_map.h.
  bool shared = false;
  const auto add_piece = [&](uint64_t physical, unsigned size) {
    if (map.add(physical, size)) {
      cpu.tlb.drop_writes_to(reinterpret_cast<uint64_t>(cpu.memory->host_base() + (physical & ~kOffsetMask)));
      block.made_at_epoch = engine.request_write_flush(cpu);
      map.flag_announced(physical);
    } else if (map.page(physical).turning_on.load() != 0) {
      shared = true;
    }
  };
  block.made_at_epoch = engine.write_epoch();
  add_piece(block.physical, in_first);
  if (crosses) add_piece(block.second_page, block.length - in_first);
  // This vCPU too may have an entry for writing from before, until it answers.
  shared = shared || cpu.write_epoch < block.made_at_epoch || !engine.write_flush_done(cpu, block.made_at_epoch);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!same_bytes(cpu, block.physical, block.source(), in_first)) return false;
  if (crosses && !same_bytes(cpu, block.second_page, block.source() + in_first, block.length - in_first)) return false;
  block.is_shared = shared;
  block.first_version = first_version;
  block.second_version = second_version;
  block.made_at_version = shared || crosses ? Block::kAlwaysCheck : first_version;
  if (block.translation.code != nullptr) cpu.jit->made_current(block);
  return true;
}

Block* BlockCache::find(Cpu& cpu, uint64_t linear) {
  BlockLink& jump = jumps_[jump_slot(linear)];
  ++cpu.counters.block_lookups;
  BlockKey key = code_pages_.find(linear, cpu.run_context);
  if (key == 0) {
    if (is_page_fault(cpu, linear, 1, MemoryAccess::kExecute, cpu.jit_fault)) return nullptr;
    const CheckedAccess access = check_access(cpu, cpu::kCs, linear, 1, MemoryAccess::kExecute);
    const AccessPiece& piece = access.pieces[0];
    if (piece.host == nullptr) return make_single(cpu, linear);
    if (cpu.tlb.note_code_page(linear)) translations_changed(cpu);
    key = block_key(piece.physical, cpu.mode.value);
    code_pages_.remember(linear, cpu.run_context, block_key(piece.physical & ~kOffsetMask, cpu.mode.value));
  }
  Block* found = index_.find(key);
  // What stands in the first page now may not reach into the second one, whose fault would be nobody's then.
  if (found != nullptr && found->second_page != Block::kNoPage && !same_beginning(cpu, *found)) {
    index_.remove(key);
    found = nullptr;
  }
  if (found != nullptr && found->second_page != Block::kNoPage) {
    const uint64_t second = run_context_linear(cpu, (linear | kOffsetMask) + 1);
    const CheckedAccess rest = check_access(cpu, cpu::kCs, second, 1, MemoryAccess::kExecute);
    if (rest.pieces[0].host == nullptr || rest.pieces[0].physical != found->second_page)
      found = nullptr;
    else if (cpu.tlb.note_code_page(second))
      translations_changed(cpu);
  }
  if (found != nullptr && found->version->load(std::memory_order_acquire) != found->made_at_version &&
      !is_current(cpu, *found)) {
    index_.remove(key);
    found = nullptr;
  }
  if (found == nullptr) {
    found = build(cpu, linear, physical_of(key));
    if (found == &single_) return found;
  }
  jump = {.linear = linear, .run_context = cpu.run_context, .block = found};
  return found;
}

void BlockCache::add_op(ModeBits mode, Handler handler, unsigned length) {
  Op& op = draft_.ops[draft_.op_count];
  decoder::Instruction& instruction = draft_.instructions[draft_.op_count];
  op = Op{};
  op.offset = static_cast<uint16_t>(draft_.length);
  op.end_offset = static_cast<uint16_t>(draft_.length + length);
  if (handler != nullptr) {
    instruction = {};
    op.handler = handler;
    op.instruction = &instruction;
    op.ends_block = true;
  } else {
    prepare(op, instruction, {.code64 = mode.code64(), .code32 = mode.code32()});
    op.ends_block = op.ends_block || system_ends_block(instruction);
  }
  draft_.length += length;
  ++draft_.op_count;
}

bool BlockCache::decode(ModeBits mode, unsigned available, unsigned op_limit) {
  draft_.op_count = 0;
  draft_.length = 0;
  const decoder::DecodeMode decode_as = decode_mode(mode);
  while (draft_.op_count < op_limit && draft_.length < available) {
    const std::span<const uint8_t> bytes(draft_.source.data() + draft_.length, available - draft_.length);
    decoder::Instruction& instruction = draft_.instructions[draft_.op_count];
    const decoder::DecodeStatus status = decoder::decode(bytes, decode_as, options_, instruction);
    if (status == decoder::DecodeStatus::kNeedsMoreBytes) return draft_.op_count != 0;
    if (status == decoder::DecodeStatus::kOk) {
      add_op(mode, nullptr, instruction.length);
    } else {
      // Every byte that the decoder may have looked at belongs to the block, or a change of one would go unseen.
      const auto seen = static_cast<unsigned>(std::min(bytes.size(), decoder::kMaxInstructionLength));
      add_op(mode, status == decoder::DecodeStatus::kInvalid ? raise_invalid_opcode : raise_too_long, seen);
    }
    if (draft_.ops[draft_.op_count - 1].ends_block) break;
  }
  return true;
}

Block* BlockCache::keep(Cpu& cpu, uint64_t physical) {
  const size_t room = room_for(draft_.length);
  if (room > kCapacity - used_) flush();
  auto* block = new (memory_.get() + used_) Block;
  used_ += room;
  block->version = &cpu.engine->code_map().page(physical).version;
  block->length = static_cast<uint16_t>(draft_.length);
  block->op_count = static_cast<uint16_t>(draft_.op_count);
  block->mode = cpu.mode;
  block->physical = physical;
  std::memcpy(const_cast<uint8_t*>(block->source()), draft_.source.data(), draft_.length);
  decoded_.add(*block, {draft_.ops.data(), draft_.op_count}, {draft_.instructions.data(), draft_.op_count});
  ++cpu.counters.blocks_built;
  return block;
}

Block* BlockCache::build(Cpu& cpu, uint64_t linear, uint64_t physical) {
  const auto in_page = static_cast<unsigned>(std::min<uint64_t>(kMaximumBytes, kPageSize - (physical & kOffsetMask)));
  std::memcpy(draft_.source.data(), cpu.memory->host_base() + physical, in_page);
  if (!decode(cpu.mode, in_page, kMaximumOps)) return build_crossing(cpu, linear, physical);
  Block* block = keep(cpu, physical);
  // The bytes were read before anybody was told: is_current() registers them and compares.
  block->first_version = ~cpu.engine->code_map().page(physical).version.load();
  if (!is_current(cpu, *block)) return make_single(cpu, linear);  // being written at this moment
  insert(block);
  return block;
}

Block* BlockCache::build_crossing(Cpu& cpu, uint64_t linear, uint64_t physical) {
  const uint64_t second = run_context_linear(cpu, (linear | kOffsetMask) + 1);
  const auto in_first = static_cast<unsigned>(kPageSize - (physical & kOffsetMask));
  const CheckedAccess rest = check_access(cpu, cpu::kCs, second, 1, MemoryAccess::kExecute);
  if (rest.pieces[0].host == nullptr) return make_single(cpu, linear);
  if (cpu.tlb.note_code_page(second)) translations_changed(cpu);
  std::memcpy(draft_.source.data() + in_first, cpu.memory->host_base() + rest.pieces[0].physical,
              decoder::kMaxInstructionLength);
  (void)decode(cpu.mode, in_first + decoder::kMaxInstructionLength, 1);
  if (draft_.length <= in_first) return make_single(cpu, linear);  // changed meanwhile, or invalid by its first bytes
  Block* block = keep(cpu, physical);
  block->second_page = rest.pieces[0].physical;
  block->first_version = ~cpu.engine->code_map().page(physical).version.load();
  if (!is_current(cpu, *block)) return make_single(cpu, linear);
  insert(block);
  return block;
}

Block* BlockCache::make_single(Cpu& cpu, uint64_t linear) {
  // As many bytes as the instruction has, so that a fetch beyond it cannot fault, and none behind CS's limit.
  const uint64_t offset = linear - cpu.code_base;
  unsigned available = decoder::kMaxInstructionLength;
  bool limited = false;
  if (!cpu.mode.code64()) {
    const uint64_t left = uint64_t{cpu.segments[cpu::kCs].limit} + 1 - static_cast<uint32_t>(offset);
    limited = left < available;
    if (limited) available = static_cast<unsigned>(left);
  }
  const auto in_first = static_cast<unsigned>(std::min<uint64_t>(available, kPageSize - (linear & kOffsetMask)));
  const auto fetch = [&](uint64_t from, unsigned at, unsigned size) {
    CheckedAccess access = check_access(cpu, cpu::kCs, from, 1, MemoryAccess::kExecute);
    access.pieces[0].size = size;
    perform_read(cpu, access, draft_.source.data() + at);
  };
  fetch(linear, 0, in_first);
  bool complete = decode(cpu.mode, in_first, 1);
  if (!complete && in_first < available) {
    fetch(run_context_linear(cpu, linear + in_first), in_first, available - in_first);
    complete = decode(cpu.mode, available, 1);
  }
  if (!complete) raise(kGeneralProtection, 0);  // the limit cuts it off
  draft_.ops[0].instruction = &draft_.instructions[0];
  single_ = Block{};
  single_.version = &cpu.engine->code_map().page(0).version;
  single_.length = static_cast<uint16_t>(draft_.length);
  single_.op_count = 1;
  single_.ops = draft_.ops.data();
  single_.mode = cpu.mode;
  return &single_;
}

}  // namespace bulkhead::engine
