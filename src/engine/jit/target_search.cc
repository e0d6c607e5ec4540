// How translated code goes on to an address that it only now knows: by Jit::targets_, or, what they have lost or never
// had, by the block cache's own tables (interpreter/block_index.h). C++ is left out as long as the page has been run
// from since its translation last changed and the block there has code.
#include <cstddef>

#include "engine/jit/jit.h"
#include "engine/jit/state_layout.h"

namespace bulkhead::engine::jit {

void Jit::emit_target_offset(Assembler& code) const {
  if (__builtin_cpu_supports("bmi2")) {
    code.rotate_right(kScratch, kScratch2, 64 - Targets::kTargetShift);
  } else {
    code.move(kScratch, kScratch2);
    code.op(0xC1, 0, kScratch);  // rol
    code.byte(Targets::kTargetShift);
  }
  code.op(0x33, kScratch, kScratch2, false);
  code.op(0x23, kScratch, field(cpu_, cpu_.jit_target_mask));
}

// Takes the jump that is returned where R14, the address to go on at, is not known. Else the entry at R13 is its own.
size_t Jit::emit_target_look_up(Assembler& code) const {
  emit_target_offset(code);
  code.op(0x03, kScratch, field(cpu_, cpu_.jit_targets));
  code.op(0x3B, kScratch2, Memory{kScratch, offsetof(Targets::Target, linear)});
  return code.jump_if(kIfNotZero);
}

// R14 = the address whose entry R13 has.
void Jit::emit_target_reload(Assembler& code) const {
  code.load(kScratch2, Memory{kScratch, offsetof(Targets::Target, linear)});
}

void Jit::emit_target_jump(Assembler& code) const {
  code.op(0xFF, 4, Memory{kScratch, offsetof(Targets::Target, code)}, false);  // jmp [r13 + code]
}

void Jit::emit_dispatch(Assembler& code) const {
  const size_t other = emit_target_look_up(code);
  code.set(other, search_target_ - (cache_->end() + other + 4));
  emit_target_jump(code);
}

// On to R14.
void Jit::make_target_search() {
  constexpr uint8_t kPushRax = 0x50, kPopRax = 0x58, kPageEntryShift = 5, kIndexEntryShift = 4;
  static_assert(sizeof(CodePage) == 1 << kPageEntryShift && sizeof(BlockIndex::Entry) == 1 << kIndexEntryShift);
  const BlockIndex& index = cpu_.blocks->index();
  const auto in_blocks = [&](const auto& member) {
    return static_cast<int32_t>(reinterpret_cast<const char*>(&member) - reinterpret_cast<const char*>(&index));
  };
  Assembler& code = assembler_;
  code.clear();
  code.store(field(cpu_, cpu_.rip), kScratch2);
  code.byte(kPushRax);

  // RAX = the key of the block, if the page is known.
  code.move(kScratch, kScratch2);
  code.shift_right(kScratch, kPageShift);
  code.immediate(4, kScratch, CodePages::kEntries - 1, false);
  code.shift_left(kScratch, kPageEntryShift);
  code.move(kRax, reinterpret_cast<uint64_t>(cpu_.blocks->code_pages().data()));
  code.op(0x03, kScratch, kRax);
  code.move(kRax, kScratch2);
  code.immediate(4, kRax, -static_cast<int32_t>(kPageSize));
  code.op(0x3B, kRax, Memory{kScratch, offsetof(CodePage, linear)});
  const size_t other_page = code.jump_if(kIfNotZero);
  code.load(kRax, field(cpu_, cpu_.run_context));
  code.op(0x3B, kRax, Memory{kScratch, offsetof(CodePage, run_context)});
  const size_t old_page = code.jump_if(kIfNotZero);
  code.op(0x89, kScratch2, kRax, false);
  code.immediate(4, kRax, kPageSize - 1, false);
  code.shift_left(kRax, 16);
  code.op(0x03, kRax, Memory{kScratch, offsetof(CodePage, key)});

  // R13 = the index's entry, if it has one.
  code.move(kScratch, BlockIndex::kMultiplier);
  code.rex(true, kScratch, 0, kRax);
  code.byte(0x0F);
  code.byte(0xAF);  // imul r13, rax
  code.modrm_register(kScratch, kRax);
  code.shift_right(kScratch, BlockIndex::kHashShift);
  code.move(kScratch2, reinterpret_cast<uint64_t>(&index));
  code.op(0x23, kScratch, Memory{kScratch2, in_blocks(index.mask())});
  code.shift_left(kScratch, kIndexEntryShift);
  code.op(0x03, kScratch, Memory{kScratch2, in_blocks(index.entries())});
  const size_t search = code.size();
  code.op(0x3B, kRax, Memory{kScratch, offsetof(BlockIndex::Entry, key)});
  const size_t found = code.jump_if(kIfZero);
  static_assert(BlockIndex::kEmpty == ~0ull);
  code.immediate(7, Memory{kScratch, offsetof(BlockIndex::Entry, key)}, -1);
  const size_t not_found = code.jump_if(kIfZero);
  code.immediate(0, kScratch, 1 << kIndexEntryShift);
  code.bind(code.jump(), search);

  code.bind_here(found);
  code.load(kScratch, Memory{kScratch, offsetof(BlockIndex::Entry, block)});
  code.load(kRax, Memory{kScratch, offsetof(Block, translation) + offsetof(Translation, code)});
  code.op(0x85, kRax, kRax);
  const size_t no_code = code.jump_if(kIfZero);
  code.load(kScratch2, Memory{kScratch, offsetof(Block, version)});
  code.load(kScratch2, Memory{kScratch2, 0}, false);
  code.op(0x3B, kScratch2, Memory{kScratch, offsetof(Block, made_at_version)}, false);
  const size_t is_old = code.jump_if(kIfNotZero);
  code.load(kScratch2, field(cpu_, cpu_.rip));
  emit_target_offset(code);
  code.move(kScratch2, kScratch);
  code.shift_right(kScratch2, Targets::kChunkShift);
  code.op(0x03, kScratch2, field(cpu_, cpu_.jit_target_chunks));
  code.rex(false, 0, 0, kScratch2);
  code.byte(0xC6);  // mov byte [r14], 1
  code.modrm_memory(0, {kScratch2, 0});
  code.byte(1);
  code.load(kScratch2, field(cpu_, cpu_.rip));
  code.op(0x03, kScratch, field(cpu_, cpu_.jit_targets));
  code.store(Memory{kScratch, offsetof(Targets::Target, linear)}, kScratch2);
  code.store(Memory{kScratch, offsetof(Targets::Target, code)}, kRax);
  code.byte(kPopRax);
  emit_target_jump(code);

  for (const size_t miss : {other_page, old_page, not_found, no_code, is_old}) code.bind_here(miss);
  code.byte(kPopRax);
  const size_t leave = code.jump();
  code.set(leave, leave_indirect_ - (cache_->end() + code.size()));
  search_target_ = cache_->add(code.code());
}

}  // namespace bulkhead::engine::jit
