// What the translator has to know of an instruction besides its form: the flags it reads, changes and leaves undefined,
// and whether it can be copied.
#pragma once

#include "engine/decoder/instruction.h"

namespace bulkhead::engine::jit {

[[nodiscard]] bool reads(decoder::Access access);
[[nodiscard]] bool writes(decoder::Access access);
// The arithmetic six, at their places in RFLAGS.
[[nodiscard]] uint32_t flags_read(const decoder::Instruction& instruction);
[[nodiscard]] uint32_t flags_changed(const decoder::Instruction& instruction);
// Gives all six a value that does not depend on those before.
[[nodiscard]] bool changes_all_flags(const decoder::Instruction& instruction);
// Flags that the manual leaves undefined, the interpreter clears, and the host may set. In the form of ArithmeticFlags.
[[nodiscard]] uint16_t cleared_flags(const decoder::Instruction& instruction);

[[nodiscard]] bool is_shift(decoder::Mnemonic mnemonic);
[[nodiscard]] bool is_rotate(decoder::Mnemonic mnemonic);
[[nodiscard]] bool is_logic(decoder::Mnemonic mnemonic);
[[nodiscard]] bool is_bit_test(decoder::Mnemonic mnemonic);
// The prefix that is part of an opcode without VEX, or 0.
[[nodiscard]] uint8_t opcode_prefix(decoder::Mnemonic mnemonic);
[[nodiscard]] bool counts_by_cl(const decoder::Instruction& instruction);
[[nodiscard]] uint8_t shift_mask(const decoder::Instruction& instruction);
// Of a shift by an immediate, as the processor masks it.
[[nodiscard]] unsigned shift_count(const decoder::Instruction& instruction);

// The instructions that Translator::general() copies.
[[nodiscard]] bool is_copied(decoder::Mnemonic mnemonic);
// Carried out without a handler, but for its memory operand.
[[nodiscard]] bool is_native(const decoder::Instruction& instruction);
[[nodiscard]] bool may_access_memory(const decoder::Instruction& instruction);
// General registers that it may write, bit n = register n.
[[nodiscard]] uint32_t written_registers(const decoder::Instruction& instruction);

}  // namespace bulkhead::engine::jit
