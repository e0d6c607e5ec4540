// Runs of vector instructions, as a translator meets them: many on the same registers, with memory, general registers
// and flags in between, and now and then a change of what they depend on.
#include <array>

#include "blocks/program.h"
#include "memory/guest_address.h"

namespace bulkhead::blocks {
namespace {

enum Form : uint8_t { kBoth = 0, kTwoOperands = 1, kVexOnly = 2, kWide = 4, kImmediate = 8, kLegacyOnly = 16 };

// The opcode's prefix and map as VEX numbers them.
struct Operation {
  uint8_t prefix, map, opcode, form;
};

constexpr std::array<uint8_t, 4> kPrefixes = {0, 0x66, 0xF3, 0xF2};

constexpr std::array kOperations = {
    Operation{0, 1, 0x58, kBoth},                      // addps
    Operation{1, 1, 0x58, kBoth},                      // addpd
    Operation{2, 1, 0x58, kBoth},                      // addss
    Operation{3, 1, 0x58, kBoth},                      // addsd
    Operation{0, 1, 0x59, kBoth},                      // mulps
    Operation{3, 1, 0x59, kBoth},                      // mulsd
    Operation{1, 1, 0x5C, kBoth},                      // subpd
    Operation{3, 1, 0x5E, kBoth},                      // divsd
    Operation{0, 1, 0x5E, kBoth},                      // divps
    Operation{1, 1, 0x51, kTwoOperands},               // sqrtpd
    Operation{2, 1, 0x5D, kBoth},                      // minss
    Operation{1, 1, 0x5F, kBoth},                      // maxpd
    Operation{1, 1, 0xC2, kImmediate},                 // cmppd
    Operation{0, 1, 0xC6, kImmediate},                 // shufps
    Operation{0, 1, 0x54, kBoth},                      // andps
    Operation{1, 1, 0xEF, kBoth},                      // pxor
    Operation{1, 1, 0xFE, kBoth},                      // paddd
    Operation{1, 1, 0x60, kBoth},                      // punpcklbw
    Operation{1, 1, 0x74, kBoth},                      // pcmpeqb
    Operation{1, 1, 0x70, kTwoOperands | kImmediate},  // pshufd
    Operation{1, 2, 0x00, kBoth},                      // pshufb
    Operation{1, 2, 0x40, kBoth},                      // pmulld
    Operation{1, 2, 0xB8, kVexOnly | kWide},           // vfmadd231pd
    Operation{1, 2, 0x99, kVexOnly},                   // vfmadd132ss
    Operation{1, 2, 0x58, kVexOnly | kTwoOperands},    // vpbroadcastd
    Operation{1, 2, 0x14, kLegacyOnly},                // blendvps
    Operation{1, 3, 0x0F, kImmediate},                 // palignr
    Operation{0, 1, 0x5B, kTwoOperands},               // cvtdq2ps
    Operation{2, 1, 0x5B, kTwoOperands},               // cvttps2dq
    Operation{0, 1, 0x5A, kTwoOperands},               // cvtps2pd
    Operation{0, 1, 0x10, kTwoOperands},               // movups
    Operation{0, 1, 0x11, kTwoOperands},               // movups, to memory
    Operation{0, 1, 0x28, kTwoOperands},               // movaps
    Operation{0, 1, 0x29, kTwoOperands},               // movaps, to memory
    Operation{3, 1, 0x10, kTwoOperands},               // movsd; #UD as VEX between registers with a third
    Operation{3, 1, 0x11, kTwoOperands},
    Operation{2, 1, 0x2A, kBoth},                      // cvtsi2ss
    Operation{3, 1, 0x2A, kBoth | kWide},              // cvtsi2sd from 64 bits
    Operation{3, 1, 0x2C, kTwoOperands},               // cvttsd2si
    Operation{3, 1, 0x2D, kTwoOperands | kWide},       // cvtsd2si to 64 bits
    Operation{1, 1, 0x2E, kTwoOperands},               // ucomisd
    Operation{0, 1, 0x2F, kTwoOperands},               // comiss
    Operation{1, 2, 0x17, kTwoOperands},               // ptest
    Operation{1, 1, 0xD7, kTwoOperands},               // pmovmskb
    Operation{0, 1, 0x50, kTwoOperands},               // movmskps
    Operation{1, 1, 0x6E, kTwoOperands},               // movd
    Operation{1, 1, 0x7E, kTwoOperands | kWide},       // movq to a general register
    Operation{1, 3, 0x16, kTwoOperands | kImmediate},  // pextrd
    Operation{1, 3, 0x22, kImmediate | kWide},         // pinsrq
};

}  // namespace

void ProgramGenerator::add_vector_operation() {
  const Operation& operation = kOperations[below(kOperations.size())];
  const unsigned reg = static_cast<unsigned>(below(16)), first = static_cast<unsigned>(below(16));
  const bool memory = chance(35);
  // [rbx + disp8], or any register; RSP is left alone where it could be a general register.
  unsigned rm = memory ? unsigned{cpu::kRbx} : static_cast<unsigned>(below(16));
  const unsigned safe_reg = reg == cpu::kRsp ? 0 : reg;
  if (rm == cpu::kRsp) rm = 0;
  const bool wide = (operation.form & kWide) != 0;
  const bool vex = (operation.form & kVexOnly) != 0 || ((operation.form & kLegacyOnly) == 0 && chance(50));
  mark();
  if (vex) {
    const unsigned vvvv = (operation.form & kTwoOperands) != 0 ? 0 : first;
    emit({0xC4, (safe_reg < 8 ? 0x80u : 0u) | 0x40 | (rm < 8 ? 0x20u : 0u) | operation.map,
          (wide ? 0x80u : 0u) | (~vvvv & 15) << 3 | (chance(40) ? 4u : 0u) | operation.prefix});
  } else {
    if (operation.prefix != 0) emit({kPrefixes[operation.prefix]});
    emit({0x40 | (wide ? 8u : 0u) | safe_reg >> 3 << 2 | rm >> 3, 0x0F});
    if (operation.map == 2) emit({0x38});
    if (operation.map == 3) emit({0x3A});
  }
  emit({operation.opcode, (memory ? 0x40u : 0xC0u) | (safe_reg & 7) << 3 | (rm & 7)});
  // Mostly aligned, where RBX is.
  if (memory && crosses_) emit({(static_cast<unsigned>(below(32)) - 16) & 0xFF});
  if (memory && !crosses_) emit({static_cast<unsigned>(below(256)) & (chance(70) ? 0xE0u : 0xFFu)});
  if ((operation.form & kImmediate) != 0) emit({static_cast<unsigned>(below(256))});
}

void ProgramGenerator::add_vector_control(Ring ring) {
  switch (below(ring == Ring::kKernel ? 7 : 5)) {
    case 0:
    case 1: {  // push imm32; ldmxcsr [rsp]; pop rax: any control and flags, mostly masked
      const uint32_t value = chance(70)   ? 0x1F80 | (random_.next() & 0xE07F)
                             : chance(85) ? random_.next() & 0xFFFF
                                          : static_cast<uint32_t>(random_.next());
      mark();
      emit({0x68});
      emit_value(value & 0x7FFF'FFFF, 4);
      mark();
      if (chance(50))
        emit({0x0F, 0xAE, 0x14, 0x24});
      else
        emit({0xC5, 0xF8, 0xAE, 0x14, 0x24});
      mark();
      return emit({0x58});
    }
    case 2:
      mark();
      return emit({0x0F, 0xAE, 0x5B, static_cast<unsigned>(below(256))});  // stmxcsr [rbx + disp8]
    case 3:
      mark();
      return emit({0xC5, chance(80) ? 0xF8u : 0xFCu, 0x77});  // vzeroupper, vzeroall
    case 4: {                                                 // fxsave, fxrstor, xsave, xrstor [rdi]
      constexpr std::array<unsigned, 4> kDigits = {0, 1, 4, 5};
      load(cpu::kRdi, instructions::kScratchAddress + below(8) * 128);
      load(cpu::kRdx, 0);
      load(cpu::kRax, below(8));
      mark();
      return emit({chance(50) ? 0x48u : 0x40u, 0x0F, 0xAE, 0x07 | kDigits[below(4)] << 3});
    }
    case 5:
      mark();
      return emit({0x0F, 0x06});  // clts
    default:
      if (!chance(30)) return add_vector_operation();
      mark();
      emit({0x0F, 0x20, 0xC0});  // mov rax, cr0
      mark();
      emit({0x48, 0x83, 0xF0, 0x08});  // xor rax, 8: CR0.TS
      mark();
      return emit({0x0F, 0x22, 0xC0});  // mov cr0, rax
  }
}

// Any opcode of the x87 unit, on registers or at [rbx + disp8]; what loads or stores more than a number is rarer.
void ProgramGenerator::add_x87_operation() {
  mark();
  const unsigned opcode = 0xD8 + static_cast<unsigned>(below(8));
  const unsigned digit = static_cast<unsigned>(below(8));
  if (chance(45)) return emit({opcode, 0xC0 | digit << 3 | static_cast<unsigned>(below(8))});
  const bool is_large =
      (opcode == 0xD9 && (digit == 4 || digit == 6)) || (opcode == 0xDD && (digit == 4 || digit == 6));
  const unsigned displacement = static_cast<unsigned>(below(256));
  if (is_large && chance(60)) return emit({0xDD, 0x43, displacement});  // fld qword [rbx + disp8]
  emit({opcode, 0x43 | digit << 3, displacement});
}

void ProgramGenerator::add_vector(Ring ring) {
  if (!code64_) return add_simple();
  if (chance(60)) load(cpu::kRbx, chance(80) ? pointer() & ~uint64_t{31} : pointer());
  // Where two pages meet that are both there, again and again.
  crosses_ = chance(15);
  if (crosses_) load(cpu::kRbx, instructions::kScratchAddress + (kPlain + 1) * kPageSize - below(32));
  const bool with_x87 = chance(30);
  for (uint64_t count = 1 + below(8); count != 0; --count) {
    const uint64_t kind = below(100);
    if (kind < (with_x87 ? 35u : 75u)) {
      add_vector_operation();
    } else if (kind < 75) {
      add_x87_operation();
    } else if (kind < 88) {
      add_simple();
    } else {
      add_vector_control(ring);
    }
  }
  crosses_ = false;
}

}  // namespace bulkhead::blocks
