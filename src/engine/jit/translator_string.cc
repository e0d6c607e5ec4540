// REP MOVS and REP STOS by the host's own. Here stands what all bytes of whose operands are in one page that the TLB
// knows; others go page by page (page_crossing.cc). Those that run downwards and all else are the handler's business.
#include <cstddef>

#include "engine/jit/translator.h"

namespace bulkhead::engine::jit {
using decoder::Mnemonic;

// R13 = the difference to the host's address of what a register points at, if the whole run is in its page.
void Translator::look_up_run(Host pointer, uint8_t size_log2, bool write, std::vector<size_t>& misses) {
  code_.op(0x89, pointer, kScratch, false);
  code_.immediate(4, kScratch, kPageSize - 1, false);
  code_.lea(kScratch, kScratch, kRcx, size_log2, 0);
  code_.immediate(7, kScratch, static_cast<int32_t>(kPageSize));
  misses.push_back(code_.jump_if(kIfAbove));
  look_into_tlb({.base = pointer}, {.begin = 0, .size = 1, .writes = write});
  misses.push_back(code_.jump_if(kIfAbove));
  code_.load(kScratch, {kScratch2, static_cast<int32_t>(offsetof(mmu::TlbEntry, delta))});
}

bool Translator::repeated_string(const Op& op) {
  const Instruction& instruction = *op.instruction;
  const bool moves = instruction.mnemonic == Mnemonic::kMovs;
  if (!instruction.has(decoder::kPrefixRep) || instruction.address_size != 8 || op.segment >= cpu::kFs) return false;
  const uint8_t size_log2 = (instruction.opcode & 1) == 0   ? 0
                            : instruction.operand_size == 8 ? 3
                            : instruction.operand_size == 4 ? 2
                                                            : 1;
  std::vector<size_t> misses = {jump_by_system_flag(kFlagDirection, true)};
  code_.immediate(7, kRcx, static_cast<int32_t>(kPageSize >> size_log2));
  misses.push_back(code_.jump_if(kIfAbove));
  if (moves) {
    look_up_run(kRsi, size_log2, false, misses);
    code_.store(field(cpu_, cpu_.jit_target), kScratch);
  }
  look_up_run(kRdi, size_log2, true, misses);
  if (moves) {
    code_.load(kScratch2, field(cpu_, cpu_.jit_target));
    code_.op(0x01, kScratch2, kRsi);
  }
  code_.op(0x01, kScratch, kRdi);
  code_.bytes(source(op));
  code_.op(0x29, kScratch, kRdi);
  if (moves) code_.op(0x29, kScratch2, kRsi);
  for (const size_t miss : misses) {
    Slow slow = slow_for(op, miss);
    if (miss != misses.front()) slow.repeat = jit_.repeat_[moves ? 1 : 0][size_log2];
    come_back(slow, false);
  }
  return true;
}

}  // namespace bulkhead::engine::jit
