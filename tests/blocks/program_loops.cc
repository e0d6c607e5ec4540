// Loops of random programs: enough rounds for the translator to have several of them at once, with pointers that move
// from round to round, and what may end a round in its middle.
#include "blocks/program.h"
#include "instructions/environment.h"

namespace bulkhead::blocks {

using instructions::kCodeAddress;

// mov counter, n; loop: ...; dec counter or sub counter, 1; jnz loop, now and then another jcc.
void ProgramGenerator::add_loop() {
  const bool in_rbp = chance(40);
  for (const unsigned pointer_register : {+cpu::kRbx, +cpu::kRsi, +cpu::kRdi}) {
    if (chance(60)) load(pointer_register, pointer());
  }
  load(in_rbp ? cpu::kRbp : cpu::kRcx, 1 + below(chance(70) ? 6 : 20));
  const size_t begin = program_.code.size();
  for (uint64_t count = 1 + below(4); count != 0; --count) add_to_loop();
  mark();
  const unsigned counter = in_rbp ? 5 : 1;
  chance(70) ? emit({0xFF, 0xC8 | counter}) : emit({0x83, 0xE8 | counter, 1});
  if (code64_ && chance(15)) {
    mark();
    emit({0x48, 0x8D, 0x76, 0x08});  // lea rsi, [rsi + 8]
  }
  mark();
  emit({0x0F, chance(85) ? 0x85u : 0x80u + static_cast<unsigned>(below(16))});
  emit_value(static_cast<uint64_t>(static_cast<int64_t>(begin) - static_cast<int64_t>(program_.code.size() + 4)), 4);
}

void ProgramGenerator::add_to_loop() {
  const auto byte = [&] { return static_cast<unsigned>(below(256)); };
  const unsigned reg = static_cast<unsigned>(below(2)) * 2;  // RAX, RDX
  const unsigned base = std::array<unsigned, 3>{cpu::kRbx, cpu::kRsi, cpu::kRdi}[below(3)];
  const unsigned modrm = 0x40 | reg << 3 | base, xmm_modrm = 0x40 | static_cast<unsigned>(below(8)) << 3 | base;
  const uint64_t kind = below(14);
  if (kind < 3) return add_simple();
  if (kind < 4) return add_sample();
  if (kind < 5) return add_branch();
  mark();
  const auto wide = [&] {
    if (code64_) emit({0x48});
  };
  switch (kind) {
    case 5:  // mov
      wide();
      return emit({chance(50) ? 0x8Bu : 0x89u, modrm, byte()});
    case 6:  // add, or, adc, sbb, and, sub, xor, cmp
      wide();
      return emit({static_cast<unsigned>(below(8)) << 3 | (chance(50) ? 3u : 1u), modrm, byte()});
    case 7:  // add or lea of the pointer
      wide();
      return chance(50) ? emit({0x83, 0xC0 | base, (static_cast<unsigned>(below(64)) - 16) & 0xFF})
                        : emit({0x8D, 0x40 | base << 3 | base, static_cast<unsigned>(below(64))});
    case 8:  // movups
      return emit({0x0F, chance(50) ? 0x10u : 0x11u, xmm_modrm, byte()});
    case 9:  // addps
      return emit({0x0F, 0x58, xmm_modrm, static_cast<unsigned>(below(16) * 16)});
    case 10:  // cmp
      wide();
      return emit({0x39, 0xC0 | reg << 3 | base});
    case 11:  // push
      return emit({0x50 + reg});
    case 12:  // fld, fst, fstp
      return emit({chance(50) ? 0xD9u : 0xDDu, 0x40 | std::array<unsigned, 3>{0, 2, 3}[below(3)] << 3 | base, byte()});
    default:
      break;
  }
  if (chance(60) || immediates_.empty()) return emit({0x0F, 0x01, 0x06});  // sgdt [rsi], by its handler
  load(cpu::kRdi, kCodeAddress + program_.start + immediates_[below(immediates_.size())]);
  mark();
  emit({0x89, 0x07 | reg << 3});  // mov [rdi], reg: into code
}

}  // namespace bulkhead::blocks
