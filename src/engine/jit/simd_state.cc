#include "engine/jit/simd_state.h"

#include <array>

#include "engine/interpreter/simd/float_control.h"
#include "engine/interpreter/simd/registers.h"
#include "engine/jit/state_layout.h"

namespace bulkhead::engine::jit {
namespace {

constexpr unsigned kRegisters = 16;
constexpr uint8_t kLoadAligned = 0x28, kStoreAligned = 0x29;  // MOVAPS
constexpr uint8_t kInsertUpper = 0x18, kExtractUpper = 0x19;  // VINSERTF128, VEXTRACTF128
constexpr uint8_t kLoadControl = 2, kStoreControl = 3;        // digits of LDMXCSR and STMXCSR
constexpr Memory kBelowStack{kRsp, -8};                       // signals leave it alone

bool host_has_avx() {
  return __builtin_cpu_supports("avx") != 0;
}

Memory image(const Cpu& cpu, size_t offset) {
  return field(cpu, cpu.xsave[offset]);
}

void control(Assembler& code, uint8_t digit, Memory memory) {
  code.rex(false, 0, 0, memory.base);
  code.byte(0x0F);
  code.byte(0xAE);
  code.modrm_memory(digit, memory);
}

// The VEX form of a load clears the upper half, so that legacy instructions have no old value to keep.
void move_xmm(Assembler& code, uint8_t opcode, unsigned number, Memory memory, bool avx) {
  if (avx) {
    code.byte(0xC4);
    code.byte(static_cast<uint8_t>((number < 8 ? 0x80 : 0) | 0x40 | (memory.base < 8 ? 0x20 : 0) | 1));
    code.byte(0x78);
  } else {
    code.rex(false, static_cast<uint8_t>(number), 0, memory.base);
    code.byte(0x0F);
  }
  code.byte(opcode);
  code.modrm_memory(static_cast<uint8_t>(number), memory);
}

void or_into_xmm0(Assembler& code, Memory memory) {
  code.byte(0xC4);
  code.byte(static_cast<uint8_t>(0x80 | 0x40 | (memory.base < 8 ? 0x20 : 0) | 1));
  code.byte(0x78);
  code.byte(0x56);  // vorps xmm0, xmm0, memory
  code.modrm_memory(0, memory);
}

void move_upper(Assembler& code, uint8_t opcode, unsigned number, Memory memory) {
  const unsigned first = opcode == kInsertUpper ? number : 0;
  code.byte(0xC4);
  code.byte(static_cast<uint8_t>((number < 8 ? 0x80 : 0) | 0x40 | (memory.base < 8 ? 0x20 : 0) | 3));
  code.byte(static_cast<uint8_t>((~first & 15) << 3 | 5));
  code.byte(opcode);
  code.modrm_memory(static_cast<uint8_t>(number), memory);
  code.byte(1);
}

}  // namespace

bool masks_all_simd_exceptions(const Cpu& cpu) {
  return (simd::mxcsr(cpu) & simd::kMxcsrMasks) == simd::kMxcsrMasks;
}

size_t emit_simd_load(Assembler& code, const Cpu& cpu, SimdLive level) {
  const Memory live = field(cpu, cpu.simd_live), guest_mxcsr = image(cpu, simd::kMxcsrOffset);
  const bool avx = host_has_avx();
  const auto xmm = [&](uint8_t opcode, unsigned number) {
    move_xmm(code, opcode, number, image(cpu, simd::kXmmOffset + 16 * number), avx);
  };
  const auto finish = [&](SimdLive now) {
    code.op(0xC7, 0, live, false);
    code.value(static_cast<uint32_t>(now));
    code.byte(0xC3);
  };
  code.load(kScratch, guest_mxcsr, false);
  code.move(kScratch2, kScratch);
  code.immediate(4, kScratch2, simd::kMxcsrMasks, false);
  code.immediate(7, kScratch2, simd::kMxcsrMasks, false);
  const size_t unmasked = code.jump_if(kIfNotZero);
  code.immediate(7, live, kSimdXmm, false);
  const size_t has_xmm = code.jump_if(kIfNotCarry);
  // Writing MXCSR takes longer than finding out that it is right already.
  control(code, kStoreControl, kBelowStack);
  code.op(0x3B, kScratch, kBelowStack, false);
  const size_t is_same = code.jump_if(kIfZero);
  control(code, kLoadControl, guest_mxcsr);
  code.bind_here(is_same);
  for (unsigned i = 0; i < kRegisters; ++i) xmm(kLoadAligned, i);
  if (level == kSimdXmm) {
    finish(kSimdXmm);
    code.bind_here(has_xmm);  // nobody asks for what is there
    code.byte(0xC3);
    return unmasked;
  }
  const size_t loaded = code.jump();
  code.bind_here(has_xmm);
  code.immediate(7, live, kSimdClean, false);
  const size_t is_clean = code.jump_if(kIfNotCarry);
  xmm(kStoreAligned, 0);
  code.bind_here(loaded);
  // Even zeros, once written to the upper halves, would make legacy instructions slow.
  move_xmm(code, kLoadAligned, 0, image(cpu, simd::kYmmHighOffset), true);
  for (unsigned i = 1; i < kRegisters; ++i) or_into_xmm0(code, image(cpu, simd::kYmmHighOffset + 16 * i));
  code.bytes(std::array<uint8_t, 5>{0xC4, 0xE2, 0x79, 0x17, 0xC0});  // vptest xmm0, xmm0
  xmm(kLoadAligned, 0);
  const size_t has_zeros = code.jump_if(kIfZero);
  for (unsigned i = 0; i < kRegisters; ++i)
    move_upper(code, kInsertUpper, i, image(cpu, simd::kYmmHighOffset + 16 * i));
  finish(kSimdYmm);
  code.bind_here(is_clean);
  code.bind_here(has_zeros);
  finish(level);
  return unmasked;
}

void emit_simd_store(Assembler& code, const Cpu& cpu) {
  const Memory live = field(cpu, cpu.simd_live), guest_mxcsr = image(cpu, simd::kMxcsrOffset);
  code.immediate(7, live, kSimdXmm, false);
  const size_t nothing = code.jump_if(kIfCarry);
  control(code, kStoreControl, guest_mxcsr);
  // Flags mean nothing to C++; rounding and flushing to zero would.
  code.load(kRax, guest_mxcsr, false);
  code.immediate(4, kRax, static_cast<int32_t>(~uint32_t{simd::kMxcsrFlags}), false);
  code.immediate(7, kRax, simd::kMxcsrReset, false);
  const size_t is_default = code.jump_if(kIfZero);
  code.op(0xC7, 0, kBelowStack, false);
  code.value(static_cast<uint32_t>(simd::kMxcsrReset));
  control(code, kLoadControl, kBelowStack);
  code.bind_here(is_default);
  const bool avx = host_has_avx();
  for (unsigned i = 0; i < kRegisters; ++i)
    move_xmm(code, kStoreAligned, i, image(cpu, simd::kXmmOffset + 16 * i), avx);
  if (avx) {
    code.immediate(7, live, kSimdYmm, false);
    const size_t no_upper = code.jump_if(kIfCarry);
    for (unsigned i = 0; i < kRegisters; ++i)
      move_upper(code, kExtractUpper, i, image(cpu, simd::kYmmHighOffset + 16 * i));
    code.byte(0xC5);  // vzeroupper
    code.byte(0xF8);
    code.byte(0x77);
    code.bind_here(no_upper);
  }
  code.op(0xC7, 0, live, false);
  code.value(static_cast<uint32_t>(kSimdInCpu));
  code.bind_here(nothing);
}

}  // namespace bulkhead::engine::jit
