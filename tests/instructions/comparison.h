// What of an instruction's result is architecture and what the manual leaves undefined, and the difference of two
// results in words.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/decoder/instruction.h"
#include "instructions/registers.h"

namespace bulkhead::instructions {

// RFLAGS bits that mean nothing after this instruction ran with these registers; takes the operands into account, which
// the decoder's table cannot (shift counts).
uint32_t undefined_flags(const engine::decoder::Instruction& instruction, const Registers& before);

// True when the whole result is undefined: 16-bit double shifts by more than 16 bits, 16-bit BSWAP.
bool is_undefined(const engine::decoder::Instruction& instruction, const Registers& before);

// True for what AMD's processors do in another way than Intel's, whose manual is the engine's; always false on a host
// that is none of AMD's. `code`: the bytes of the instruction. Each case is explained in README.md.
bool is_other_on_host(const engine::decoder::Instruction& instruction, std::span<const uint8_t> code);

// What a faulting instruction may have left behind on the host's CPU, though the manual has it unchanged: the
// interpreter's value of such a field is put into `expected`, and the outcomes are brought to what both can say. Each
// case is explained in README.md.
void forgive_host(const engine::decoder::Instruction& instruction, const Registers& actual,
                  const Outcome& actual_outcome, Registers& expected, Outcome& expected_outcome);

// One line a difference, empty when the results agree in all that is defined.
std::vector<std::string> compare(const Registers& expected, const Outcome& expected_outcome, const Registers& actual,
                                 const Outcome& actual_outcome, uint32_t ignored_flags);

}  // namespace bulkhead::instructions
