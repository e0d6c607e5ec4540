// One pre-decoded instruction of a block: its handler and its operands in the form that the handler wants them. Made
// once by prepare() (engine/interpreter/integer/select_handler.h), run many times; constant while the block lives.
#pragma once

#include <cstdint>

#include "engine/decoder/instruction.h"

namespace bulkhead::engine {

struct Cpu;
struct Op;

// Carries the instruction out. May throw GuestFault, before any change. A handler whose instruction transfers control
// (and a repeated string instruction, which may have to come back) sets cpu.rip; the others leave it to the run loop.
using Handler = void (*)(Cpu&, const Op&);

struct Op {
  Handler handler = nullptr;
  uint64_t immediate = 0;    // as the decoder extended it
  int64_t displacement = 0;  // RIP-relative operands: end_offset is added, since their base is Cpu::block_rip
  const decoder::Instruction* instruction = nullptr;

  // From the block's first byte to this instruction's first byte, and to the byte behind it.
  uint16_t offset = 0, end_offset = 0;

  // General registers as byte offsets from Cpu::gpr (AH is 1): ModRM.reg, ModRM.rm or opcode register, VEX.vvvv.
  uint8_t reg = 0, rm = 0, vvvv = 0;
  // The address is [base] + ([index] << scale_log2) + displacement; base and index as offsets from Cpu::gpr, an absent
  // one is the offset of Cpu::zero, RIP-relative the one of Cpu::block_rip.
  uint8_t base = 0, index = 0, scale_log2 = 0;
  uint8_t segment = cpu::kDs;
  bool ends_block = false;  // no instruction may follow this one in its block
  // 64-bit mode: offset from Cpu::gpr of the FS or GS base, else of Cpu::zero.
  uint16_t segment_base = 0;
};
static_assert(sizeof(Op) <= 56);

}  // namespace bulkhead::engine
