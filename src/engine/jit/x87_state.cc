#include "engine/jit/x87_state.h"

#include "engine/interpreter/x87/image.h"
#include "engine/jit/state_layout.h"

namespace bulkhead::engine::jit {
namespace {

constexpr size_t kHeaderOffset = 512;                 // XSTATE_BV
constexpr uint8_t kXsaveDigit = 4, kXrstorDigit = 5;  // of 0F AE
constexpr int32_t kX87Component = 1;

Memory image(const Cpu& cpu, size_t offset) {
  return field(cpu, cpu.xsave[offset]);
}

// XSAVE64 or XRSTOR64 of the x87 component.
void transfer(Assembler& code, const Cpu& cpu, uint8_t digit) {
  code.move(kRax, uint64_t{kX87Component});
  code.move(kRdx, uint64_t{0});
  const Memory area = image(cpu, 0);
  code.rex(true, 0, 0, area.base);
  code.byte(0x0F);
  code.byte(0xAE);
  code.modrm_memory(digit, area);
}

}  // namespace

bool host_can_hold_x87() {
  return __builtin_cpu_supports("avx") != 0;  // which comes with XSAVE
}

bool masks_all_x87_exceptions(const Cpu& cpu) {
  return (x87::control(cpu) & x87::kControlMasks) == x87::kControlMasks;
}

void emit_x87_load(Assembler& code, const Cpu& cpu, X87Live level) {
  const Memory live = field(cpu, cpu.x87_live);
  code.immediate(7, live, kX87Loaded, false);
  const size_t is_loaded = code.jump_if(kIfNotCarry);
  code.byte(0x50);  // push rax
  code.byte(0x52);  // push rdx
  code.op(0xC7, 0, image(cpu, kHeaderOffset));
  code.value(kX87Component);
  transfer(code, cpu, kXrstorDigit);
  code.byte(0x5A);  // pop rdx
  code.byte(0x58);  // pop rax
  code.bind_here(is_loaded);
  code.op(0xC7, 0, live, false);
  code.value(static_cast<uint32_t>(level));
  code.byte(0xC3);
}

// The pointers that the host has are about its own code.
void emit_x87_store(Assembler& code, const Cpu& cpu) {
  const Memory live = field(cpu, cpu.x87_live);
  code.immediate(7, live, kX87Loaded, false);
  const size_t nothing = code.jump_if(kIfCarry);
  code.load(kRcx, image(cpu, x87::kCodePointerOffset));
  code.load(kRsi, image(cpu, x87::kDataPointerOffset));
  code.load(kRdi, image(cpu, x87::kTagOffset), false);
  code.op(0xC1, 5, kRdi, false);  // shr edi, 16: the opcode
  code.byte(16);
  code.immediate(7, live, kX87Computed, false);
  const size_t are_kept = code.jump_if(kIfCarry);
  code.move(kRcx, uint64_t{0});
  code.move(kRsi, uint64_t{0});
  code.move(kRdi, uint64_t{0});
  code.bind_here(are_kept);
  transfer(code, cpu, kXsaveDigit);
  code.byte(0xDB);  // fninit
  code.byte(0xE3);
  code.store(image(cpu, x87::kCodePointerOffset), kRcx);
  code.store(image(cpu, x87::kDataPointerOffset), kRsi);
  code.byte(0x66);
  code.op(0x89, kRdi, image(cpu, x87::kOpcodeOffset), false);
  code.op(0xC7, 0, live, false);
  code.value(static_cast<uint32_t>(kX87InCpu));
  code.bind_here(nothing);
}

}  // namespace bulkhead::engine::jit
