#include "engine/jit/targets.h"

#include <algorithm>
#include <span>

namespace bulkhead::engine::jit {
namespace {

constexpr size_t kKernelEntries = 1 << 15, kUserEntries = 1 << 13;

}  // namespace

void Targets::Table::clear() {
  constexpr size_t kPerChunk = size_t{1} << (kChunkShift - kTargetShift);
  for (size_t chunk = 0; chunk < size / kPerChunk; ++chunk) {
    if (chunks[chunk] == 0) continue;
    std::fill_n(&entries[chunk * kPerChunk], kPerChunk, Target{});
    chunks[chunk] = 0;
  }
  entries[0].linear = 1;  // 0 is at home in the first slot
}

void Targets::change(Cpu& cpu) {
  const bool is_user = cpu.cpl == 3;
  const std::span<Table> tables = is_user ? std::span<Table>(user_) : std::span<Table>(kernel_);
  auto found = std::ranges::find(tables, cpu.run_context, &Table::run_context);
  if (found == tables.end()) {
    found = std::ranges::min_element(tables, {}, &Table::last_use);
    if (found->entries == nullptr) {
      found->size = is_user ? kUserEntries : kKernelEntries;
      found->entries = std::make_unique<Target[]>(found->size);
      found->chunks = std::make_unique<uint8_t[]>((found->size << kTargetShift) >> kChunkShift);
    }
    found->clear();
    found->run_context = cpu.run_context;
  }
  found->last_use = ++use_count_;
  in_use_ = &*found;
  cpu.jit_targets = found->entries.get();
  cpu.jit_target_mask = found->mask();
  cpu.jit_target_chunks = found->chunks.get();
}

void Targets::clear() {
  for (const std::span<Table> tables : {std::span<Table>(kernel_), std::span<Table>(user_)}) {
    for (Table& table : tables) {
      if (table.entries != nullptr) table.clear();
    }
  }
}

}  // namespace bulkhead::engine::jit
