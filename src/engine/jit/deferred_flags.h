// Flags that a block leaves to the next one as a note in Cpu::flags of how to make them, in place of the flags: most
// blocks overwrite all flags before anybody could see them, and then nobody ever makes them. A note holds as long as
// the registers that it names; what a block does with them before it is done with the flags is in Translation.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "engine/decoder/instruction.h"
#include "engine/interpreter/op.h"

namespace bulkhead::engine {
struct Cpu;
}

namespace bulkhead::engine::jit {

// Bit 7 is set, which it never is in flags, and everything else that is stored with Cpu::flags as 32 bits:
//   2:0 DeferredFlags::Kind, 4:3 log2 of the operands' size, 5 the second operand is an immediate, 11:8 and 15:12 the
//   operands' registers, 31:16 an immediate that is no wider; a wider one is in Cpu::flags_immediate, and 6 is set.
//   kWithBit: 31:16 has the WithBit.
class DeferredFlags {
 public:
  static constexpr uint8_t kMark = 0x80;

  // Nothing: the flags of this instruction cannot be made from what it leaves in registers.
  static std::optional<DeferredFlags> of(const decoder::Instruction& instruction);
  // The same where the lowest byte of Cpu::flags_immediate is what the flag of bit_condition() was behind it.
  static std::optional<DeferredFlags> with_bit(const decoder::Instruction& instruction);
  static uint8_t bit_condition(const decoder::Instruction& instruction);

  [[nodiscard]] uint32_t note() const { return note_; }
  // What Cpu::flags_immediate has to be.
  [[nodiscard]] std::optional<int32_t> wide_immediate() const { return wide_immediate_; }
  // That have to stay as the instruction has left them, bit n = register n.
  [[nodiscard]] uint32_t registers() const;

  // Called from common code with the guest's registers in the Cpu, whose flags are such a note.
  static void make(Cpu* cpu) noexcept;

 private:
  // How the operands were used. For kSum, kDifference and kNegation the first one has the result by now, for kProduct
  // its upper half.
  enum Kind : uint8_t { kCompare, kTest, kResult, kSum, kDifference, kNegation, kProduct, kWithBit };
  // What has left the bit, and a result: OF, which CF is too; CF of a shift.
  enum WithBit : uint16_t { kMultiplied, kShifted, kShiftedLeftByOne, kShiftedRightByOne };
  explicit DeferredFlags(uint32_t note) : note_(note) {}
  template <typename T>
  void make_for(Cpu& cpu) const;
  template <typename T>
  void make_with_bit(Cpu& cpu, T result) const;

  uint32_t note_;
  std::optional<int32_t> wide_immediate_;
};

// What a block does before all flags that it came with are overwritten: the registers that it writes before something
// may show the flags, bit n = register n; or kNeedsFlags.
inline constexpr uint32_t kNeedsFlags = 1u << 16;
// by_handler: see Translation; of a block that has none, 0 is a good guess.
[[nodiscard]] uint32_t registers_before_flags(std::span<const Op> ops, uint64_t by_handler);

}  // namespace bulkhead::engine::jit
