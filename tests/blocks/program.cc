#include "blocks/program.h"

#include <algorithm>
#include <cstring>

#include "instructions/host_cpu.h"
#include "memory/guest_address.h"

namespace bulkhead::blocks {

using engine::decoder::InstructionClass;
using engine::decoder::Mnemonic;
using instructions::kCodeAddress;
using instructions::kScratchAddress;
using instructions::Sample;

Program ProgramGenerator::next(Ring ring) {
  code64_ = true;
  begin();
  for (uint64_t count = 3 + below(24); count != 0; --count) add_instruction(ring);
  mark();
  emit({0xE6, 0xF4});  // out 0xf4, al
  resolve_branches();
  return std::move(program_);
}

Program ProgramGenerator::next_32(Ring ring) {
  code64_ = false;
  begin();
  for (uint64_t count = 3 + below(24); count != 0; --count) add_instruction(ring);
  mark();
  emit({0xE6, 0xF4});
  resolve_branches();
  return std::move(program_);
}

void ProgramGenerator::begin() {
  program_ = {};
  branches_.clear();
  immediates_.clear();
  // Often across the border of the two pages of code.
  program_.start = chance(30) ? kPageSize - below(200) : below(0x800);
}

uint64_t ProgramGenerator::here() const {
  return kCodeAddress + program_.start + program_.code.size();
}

void ProgramGenerator::mark() {
  program_.boundaries.push_back(static_cast<uint16_t>(program_.code.size()));
}

void ProgramGenerator::emit(std::initializer_list<unsigned> bytes) {
  for (const unsigned byte : bytes) program_.code.push_back(static_cast<uint8_t>(byte));
}

void ProgramGenerator::emit_value(uint64_t value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) program_.code.push_back(static_cast<uint8_t>(value >> 8 * i));
}

// mov reg, value; changes no flag.
void ProgramGenerator::load(unsigned reg, uint64_t value) {
  mark();
  if (!code64_) {
    emit({0xB8 + (reg & 7)});
    immediates_.push_back(program_.code.size());
    emit_value(value, 4);
  } else {
    emit({0x48 + (reg >> 3), 0xB8 + (reg & 7)});
    emit_value(value, 8);
  }
}

uint64_t ProgramGenerator::pointer() {
  constexpr std::array<uint64_t, 16> kPages = {kPlain,      kPlain,     kPlain,  kPlain,    kPlain,    kPlain,
                                               kPlain,      kPlain + 1, kAbsent, kDevice,   kReadOnly, kCodeAlias,
                                               kSupervisor, kFresh,     kFresh,  kPlain + 1};
  const uint64_t page = kPages[below(kPages.size())];
  // A third near the page's ends, for accesses that cross.
  const uint64_t offset = chance(33) ? (kPageSize - below(32)) % kPageSize : below(kPageSize);
  return kScratchAddress + page * kPageSize + offset;
}

void ProgramGenerator::add_instruction(Ring ring) {
  if (program_.code.size() > 1200) return;
  const uint64_t kind = below(100);
  if (kind < 37) {
    add_sample();
  } else if (kind < 50) {
    add_vector(ring);
  } else if (kind < 70) {
    add_simple();
  } else if (kind < 80) {
    add_branch();
  } else if (kind < 85) {
    add_call();
  } else if (kind < 89) {
    add_loop();
  } else if (kind < 92) {
    add_self_modification();
  } else {
    add_system(ring);
  }
}

// Any instruction of the differential run, with the registers of its operands set right in front of it.
void ProgramGenerator::add_sample() {
  Sample sample;
  do {
    samples_.next(sample, unused_scratch_);
  } while (sample.instruction.info->instruction_class == InstructionClass::kControl ||
           sample.instruction.mnemonic == Mnemonic::kHlt);
  const auto& instruction = sample.instruction;
  std::vector<uint8_t> bytes(sample.code().begin(), sample.code().end());
  if (!code64_) {
    const auto mode = engine::decoder::DecodeMode::kProtected32;
    const auto decoded = engine::decoder::decode(sample.bytes, mode, options_);
    if (decoded.status != engine::decoder::DecodeStatus::kOk ||
        decoded.instruction.info->instruction_class == InstructionClass::kControl ||
        !instructions::is_comparable(decoded.instruction.mnemonic)) {
      return;
    }
    bytes.resize(decoded.instruction.length, 0);
  }
  // The generator puts operands into the plain pages; a few go elsewhere.
  uint64_t shift = 0;
  if (chance(12)) shift = (pointer() - kScratchAddress) / kPageSize * kPageSize;
  auto gpr = sample.registers.gpr;
  const bool has_base = instruction.base < 16;
  if (has_base) gpr[instruction.base] += shift;
  if (!chance(15)) {
    if (has_base && instruction.base != cpu::kRsp) load(instruction.base, gpr[instruction.base]);
    if (instruction.index < 16 && instruction.has_memory() && instruction.index != instruction.base) {
      load(instruction.index, gpr[instruction.index]);
    }
    const bool is_string = instruction.info->instruction_class == InstructionClass::kString;
    if (is_string) {
      load(cpu::kRsi, gpr[cpu::kRsi] + (chance(10) ? shift : 0));
      load(cpu::kRdi, gpr[cpu::kRdi] + (chance(10) ? shift : 0));
      load(cpu::kRcx, gpr[cpu::kRcx]);
    }
  }
  if (code64_ && instruction.base == engine::decoder::kRipRelative) {
    int32_t displacement = 0;
    std::memcpy(&displacement, bytes.data() + instruction.displacement_offset, 4);
    displacement -= static_cast<int32_t>(here() - kCodeAddress);
    displacement += static_cast<int32_t>(shift);
    std::memcpy(bytes.data() + instruction.displacement_offset, &displacement, 4);
  }
  mark();
  program_.code.insert(program_.code.end(), bytes.begin(), bytes.end());
}

// What compilers emit most: moves, arithmetic with live flags, pushes and pops, through pointers that stay in
// registers.
void ProgramGenerator::add_simple() {
  const unsigned reg = static_cast<unsigned>(below(8)), rm = static_cast<unsigned>(below(8));
  const unsigned wide = code64_ ? 0x48 : 0x3E;  // REX.W, or a DS prefix that changes nothing
  const unsigned direct = 0xC0 | reg << 3 | rm;
  constexpr std::array<unsigned, 8> kArithmetic = {0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31, 0x39};
  switch (below(12)) {
    case 0:  // op rm, reg
      mark();
      if (rm == cpu::kRsp) return emit({0x90});
      return emit({wide, kArithmetic[below(8)], direct});
    case 1:  // op eax-like, imm32
      mark();
      emit({0x81, 0xC0 | static_cast<unsigned>(below(8)) << 3 | (rm == cpu::kRsp ? 0u : rm)});
      immediates_.push_back(program_.code.size());
      return emit_value(random_.next(), 4);
    case 2:  // push; pop
      mark();
      emit({0x50 + reg});
      mark();
      return emit({0x58 + (rm == cpu::kRsp ? 0u : rm)});
    case 3:  // setcc
      mark();
      return emit({0x0F, 0x90 + static_cast<unsigned>(below(16)), 0xC0 | (rm & 3)});
    case 4:  // cmovcc
      mark();
      return emit(
          {wide, 0x0F, 0x40 + static_cast<unsigned>(below(16)), 0xC0 | (reg == cpu::kRsp ? 0u : reg) << 3 | rm});
    case 5:  // adc, sbb reg, imm8
      mark();
      return emit({wide, 0x83, (chance(50) ? 0xD0u : 0xD8u) | (rm == cpu::kRsp ? 1u : rm), 0x11});
    case 6:  // mov reg, [pointer]: the pointer is kept in rbx
      load(cpu::kRbx, pointer());
      mark();
      return emit({wide, 0x8B, 0x43 | (reg == cpu::kRsp ? 0u : reg) << 3, static_cast<unsigned>(below(256))});
    case 7:  // op [rbx + disp8], reg
      mark();
      return emit({wide, kArithmetic[below(8)], 0x43 | reg << 3, static_cast<unsigned>(below(256))});
    case 8:  // lock xadd [rbx], reg
      mark();
      return emit({0xF0, wide, 0x0F, 0xC1, 0x03 | reg << 3});
    case 9:  // movups xmm, [rbx + disp8] or back
      mark();
      return emit({0x0F, chance(50) ? 0x10u : 0x11u, 0x43 | reg << 3, static_cast<unsigned>(below(256))});
    case 10:  // shift by an immediate, perhaps 0
      mark();
      return emit({wide, 0xC1, 0xC0 | static_cast<unsigned>(below(8)) << 3 | (rm == cpu::kRsp ? 2u : rm),
                   static_cast<unsigned>(below(70))});
    default:  // pushf; pop, or lahf
      mark();
      if (chance(50)) return emit({0x9F});
      emit({0x9C});
      mark();
      return emit({0x58 + (rm == cpu::kRsp ? 0u : rm)});
  }
}

// jcc or jmp to any instruction, more often forward.
void ProgramGenerator::add_branch() {
  mark();
  if (chance(80)) {
    emit({0x0F, 0x80 + static_cast<unsigned>(below(16))});
  } else {
    emit({0xE9});
  }
  branches_.push_back({program_.code.size()});
  emit_value(0, 4);
}

// call over a ret, so that it comes back; or a call that does not.
void ProgramGenerator::add_call() {
  mark();
  if (chance(60)) {
    emit({0xE8, 0x02, 0, 0, 0});  // call +2
    mark();
    emit({0xEB, 0x01});  // jmp +1
    mark();
    return emit({0xC3});  // ret
  }
  emit({0xE8});
  branches_.push_back({program_.code.size()});
  emit_value(0, 4);
}

// A few rounds over what was emitted last: mov ecx, n ... dec ecx; jnz.
void ProgramGenerator::add_loop() {
  load(cpu::kRcx, 1 + below(6));
  const size_t begin = program_.code.size();
  for (uint64_t count = 1 + below(3); count != 0; --count) add_simple();
  mark();
  emit({0xFF, 0xC9});
  mark();
  emit({0x0F, 0x85});
  emit_value(static_cast<uint64_t>(static_cast<int64_t>(begin) - static_cast<int64_t>(program_.code.size() + 4)), 4);
}

// Rewrites an immediate somewhere in the program, through its own address or the alias.
void ProgramGenerator::add_self_modification() {
  if (immediates_.empty() || chance(30)) {
    // One to come: the block under way is rewritten.
    const uint64_t target = here() + (code64_ ? 10 : 5) + 6 + 1;
    load(cpu::kRdi, chance(70) ? target : target - kCodeAddress + kScratchAddress + kCodeAlias * kPageSize);
    mark();
    emit({0xC7, 0x07});  // mov dword [rdi], imm32
    emit_value(random_.next(), 4);
    mark();
    emit({0xB8});  // mov eax, imm32: rewritten
    immediates_.push_back(program_.code.size());
    return emit_value(random_.next(), 4);
  }
  const uint64_t target = kCodeAddress + program_.start + immediates_[below(immediates_.size())];
  load(cpu::kRdi, chance(70) ? target : target - kCodeAddress + kScratchAddress + kCodeAlias * kPageSize);
  mark();
  emit({0xC7, 0x07});
  emit_value(random_.next(), 4);
}

// Devices, flags of the system, time and randomness; in user mode most of it faults.
void ProgramGenerator::add_system(Ring ring) {
  mark();
  switch (below(ring == Ring::kKernel ? 15 : 7)) {
    case 0:
      return emit({0x0F, 0x31});  // rdtsc
    case 1:
      return emit({0x0F, 0xC7, 0xF0 | static_cast<unsigned>(below(4))});  // rdrand
    case 2:
      return emit({0x0F, 0xA2});  // cpuid
    case 3:
      return emit({chance(50) ? 0xFCu : 0xFDu});  // cld, std
    case 4:
      return emit({0xF3, 0x90});  // pause
    case 5:
      return chance(20) ? emit({0xCC}) : emit({0x0F, 0x0B});  // int3, ud2
    case 6:
      return chance(20) ? emit({0xFA}) : emit({0x90});  // cli
    case 7:
    case 8:
      return emit({0xFB});  // sti
    case 9:
      return emit({0xE6, kInterruptPort});  // out: an interrupt
    case 10:
      return emit({0xE5, 0x70});  // in eax, 0x70
    case 11:
      load(cpu::kRdi, kScratchAddress + kDevice * kPageSize + below(0x1000));
      mark();
      return emit({chance(50) ? 0x8Bu : 0x89u, 0x07});  // mov between eax and a device
    case 12:
      load(cpu::kRdi, pointer());
      mark();
      return emit({0x0F, 0x01, 0x3F});  // invlpg [rdi]
    case 13:
      emit({0x0F, 0x20, 0xD8});  // mov rax, cr3
      mark();
      return emit({0x0F, 0x22, 0xD8});  // mov cr3, rax
    default:
      emit({0x9C});  // pushf
      mark();
      return emit({0x9D});  // popf
  }
}

void ProgramGenerator::resolve_branches() {
  for (const Branch& branch : branches_) {
    const auto& all = program_.boundaries;
    const auto next = std::ranges::upper_bound(all, static_cast<uint16_t>(branch.at));
    const size_t first = chance(85) ? static_cast<size_t>(next - all.begin()) : 0;
    const uint16_t target = all[first + below(all.size() - first)];
    const auto displacement = static_cast<int32_t>(target) - static_cast<int32_t>(branch.at + 4);
    std::memcpy(program_.code.data() + branch.at, &displacement, 4);
  }
}

}  // namespace bulkhead::blocks
