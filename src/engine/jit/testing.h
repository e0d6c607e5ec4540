// Instructions of 64-bit code as blocks have them, for the tests of what only looks at them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "engine/decoder/decoder.h"
#include "engine/interpreter/op.h"

namespace bulkhead::engine::jit::testing {

using Bytes = std::initializer_list<uint8_t>;

// instruction.info is nullptr when the bytes are no instruction.
inline decoder::Instruction decoded(Bytes bytes) {
  std::vector<uint8_t> padded(bytes);
  padded.resize(15, 0x90);
  decoder::Instruction instruction;
  if (decoder::decode(padded, decoder::DecodeMode::kLong64, {}, instruction) != decoder::DecodeStatus::kOk) return {};
  return instruction;
}

class Code {
 public:
  Code(std::initializer_list<Bytes> code) {
    for (const Bytes& bytes : code) instructions_.push_back(decoded(bytes));
    uint16_t offset = 0;
    for (const decoder::Instruction& instruction : instructions_) {
      Op op;
      op.instruction = &instruction;
      op.offset = offset;
      op.end_offset = offset = static_cast<uint16_t>(offset + instruction.length);
      op.displacement = instruction.displacement + (instruction.base == decoder::kRipRelative ? offset : 0);
      op.segment = instruction.segment;
      ops_.push_back(op);
    }
  }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  [[nodiscard]] std::span<const Op> ops() const { return ops_; }

 private:
  std::vector<decoder::Instruction> instructions_;
  std::vector<Op> ops_;
};

}  // namespace bulkhead::engine::jit::testing
