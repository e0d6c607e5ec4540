// Tells EngineOptions::watcher what has been translated.
#include "engine/engine.h"
#include "engine/jit/jit.h"
#include "engine/translation_watcher.h"

namespace bulkhead::engine::jit {

void Jit::tell_of_common_code() const {
  TranslationWatcher* watcher = cpu_.engine == nullptr ? nullptr : cpu_.engine->options().watcher;
  if (watcher != nullptr) watcher->on_common_code(cpu_.index, {cache_->begin(), thunk_bytes_});
}

void Jit::tell_of(const Block& block, size_t code_size) {
  TranslationWatcher* watcher = cpu_.engine == nullptr ? nullptr : cpu_.engine->options().watcher;
  if (watcher == nullptr) return;
  // One that is translated anew is not the one that RIP is at.
  const auto [known, is_new] = linear_of_.try_emplace(&block, cpu_.rip);
  std::vector<TranslatedBlock::Instruction> instructions;
  const unsigned count = block.loop_ops != 0 ? block.loop_ops : block.op_count;
  for (unsigned i = 0; i < count; ++i) {
    const Op& op = block.ops[i];
    instructions.push_back({.offset = op.offset,
                            .length = static_cast<uint16_t>(op.end_offset - op.offset),
                            .mnemonic = op.instruction->mnemonic,
                            .by_handler = (block.translation.by_handler >> i & 1) != 0});
  }
  watcher->on_translated(
      {.vcpu_index = cpu_.index,
       .linear = known->second,
       .physical = block.physical,
       .privilege = static_cast<unsigned>((block.mode.value & ModeBits::kCplMask) >> ModeBits::kCplShift),
       .is_again = !is_new,
       .bytes = {block.source(), block.length},
       .instructions = instructions,
       .code = {block.translation.code, code_size}});
}

}  // namespace bulkhead::engine::jit
