// Who wants to know which blocks are translated, and to what: a trace, a map for a profiler. Costs nothing where nobody
// does.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/decoder/instruction.h"
#include "support/bytes.h"

namespace bulkhead::engine {

struct TranslatedBlock {
  struct Instruction {
    uint16_t offset, length;  // in bytes, within the block
    decoder::Mnemonic mnemonic;
    bool by_handler;  // it calls the interpreter
  };
  uint32_t vcpu_index = 0;
  uint64_t linear = 0;    // RIP of its first instruction
  uint64_t physical = 0;  // the same in RAM
  unsigned privilege = 0;
  bool is_again = false;  // it was translated before, and runs from another place now
  ByteSpan bytes;
  std::span<const Instruction> instructions;
  ByteSpan code;  // where it runs on the host
};

class TranslationWatcher {
 public:
  virtual ~TranslationWatcher() = default;
  // On the vCPU's thread; several at once. What it is shown lasts as long as the call.
  virtual void on_translated(const TranslatedBlock& block) = 0;
  // The code that each vCPU has besides its blocks: the ways in and out.
  virtual void on_common_code(uint32_t vcpu_index, ByteSpan code) = 0;
};

}  // namespace bulkhead::engine
