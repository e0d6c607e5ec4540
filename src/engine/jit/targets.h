// Where jumps have led whose target is only known as they run. Each state of the code mappings (Cpu::run_context) has a
// table of its own, so that an entry says no more than an address and the code for it. Translated code looks into the
// table in use by itself (target_search.cc), so its layout is part of the interface.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "engine/interpreter/cpu.h"

namespace bulkhead::engine::jit {

class Targets {
 public:
  // An address stands at its slot or nowhere. Those of an empty table have an address that belongs elsewhere, since
  // the guest may ask for any.
  struct Target {
    uint64_t linear = 0;
    const uint8_t* code = nullptr;
  };
  static constexpr uint8_t kTargetShift = 4,
                           kChunkShift = 10;  // of bytes: what has been filled since is known by chunk
  static_assert(sizeof(Target) == 1 << kTargetShift);

  // The table for the Cpu's run_context becomes the one in use: another one is emptied for it when it has none.
  void choose(Cpu& cpu) {
    if (in_use_ == nullptr || in_use_->run_context != cpu.run_context) [[unlikely]]
      change(cpu);
  }
  // In the one in use.
  void remember(uint64_t linear, const uint8_t* code) {
    const size_t offset = offset_of(linear, in_use_->mask());
    in_use_->chunks[offset >> kChunkShift] = 1;
    in_use_->entries[offset >> kTargetShift] = {.linear = linear, .code = code};
  }
  // The distance of an address' slot from the table's begin, in bytes. Not the same number for its neighbours.
  [[nodiscard]] static constexpr size_t offset_of(uint64_t linear, uint64_t mask) {
    return ((linear << kTargetShift | linear >> (64 - kTargetShift)) ^ linear) & mask;
  }
  void clear();

 private:
  static constexpr size_t kKernelTables = 2, kUserTables = 4;
  struct Table {
    uint64_t run_context = 0;  // 0 is never in use
    uint64_t last_use = 0;
    size_t size = 0;                    // in entries
    std::unique_ptr<Target[]> entries;  // made when they are first needed
    std::unique_ptr<uint8_t[]> chunks;  // not 0: one of its entries has been filled
    [[nodiscard]] uint64_t mask() const { return (size - 1) << kTargetShift; }
    void clear();
  };
  void change(Cpu& cpu);

  std::array<Table, kKernelTables> kernel_;
  std::array<Table, kUserTables> user_;
  Table* in_use_ = nullptr;
  uint64_t use_count_ = 0;
};

}  // namespace bulkhead::engine::jit
