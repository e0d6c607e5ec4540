#include "blocks/program.h"

#include <algorithm>
#include <cstring>

#include "instructions/environment.h"
#include "instructions/host_cpu.h"
#include "memory/guest_address.h"

namespace bulkhead::blocks {

using engine::decoder::InstructionClass;
using engine::decoder::Mnemonic;
using instructions::kCodeAddress;
using instructions::kScratchAddress;
using instructions::Sample;

namespace {

// ADD, OR, ADC, SBB, AND, SUB, XOR and CMP of a register to ModRM.rm.
constexpr std::array<unsigned, 8> kArithmetic = {0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31, 0x39};

}  // namespace

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
  if (chance(6)) {  // by a large page
    const uint64_t page = kPageSize * below(2);
    const uint64_t offset = chance(33) ? (kPageSize - below(32)) % kPageSize : below(kPageSize);
    return chance(70) ? kLargeAddress + page + offset
                      : kLargeCodeAddress + instructions::environment::kHighCodePhysical + page + offset;
  }
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
  } else if (kind < 62) {
    add_simple();
  } else if (kind < 69) {
    add_structure();
  } else if (kind < 70) {
    code64_ ? add_far_displacements() : add_structure();
  } else if (kind < 80) {
    add_branch();
  } else if (kind < 85) {
    add_call();
  } else if (kind < 89) {
    add_loop();
  } else if (kind < 92) {
    add_self_modification();
  } else if (kind < 94) {
    if (code64_) return chance(50) ? add_table_change(ring) : add_table_loop(ring);
    add_simple();
  } else if (kind < 95) {
    add_debug_registers();
  } else if (kind < 96) {
    add_ring_change(ring);
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
  switch (below(13)) {
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
    case 10: {  // adc, adcx or adox reg, [rbx + 8 * n]: chains whose carries outlive accesses
      mark();
      const unsigned modrm = 0x43 | (reg == cpu::kRsp ? 0u : reg) << 3, offset = 8 * static_cast<unsigned>(below(16));
      if (chance(40)) return emit({wide, 0x13, modrm, offset});
      return emit({chance(50) ? 0x66u : 0xF3u, wide, 0x0F, 0x38, 0xF6, modrm, offset});
    }
    case 11:  // shift by an immediate, perhaps 0
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

// Several accesses around one register, which moves on in between: what a look-up for a whole group can stand for.
void ProgramGenerator::add_structure() {
  const auto base = static_cast<unsigned>(code64_ && chance(40) ? 12u + static_cast<unsigned>(below(4))
                                          : chance(20)          ? +cpu::kRsp
                                                                : +cpu::kRbx);
  const unsigned number = base & 7;
  if (base != cpu::kRsp) load(base, pointer());
  const bool has_index = base != cpu::kRsp && chance(25);
  if (has_index) load(cpu::kRcx, below(4));
  for (uint64_t count = 2 + below(7); count != 0; --count) {
    const unsigned reg = static_cast<unsigned>(below(2)) * 2;  // AX or DX
    const unsigned wide = 0x48 | base >> 3;                    // REX.B where the base needs it
    const auto displacement = static_cast<unsigned>(below(256));
    // REX in front of an opcode, and the address behind it.
    const auto access = [&](std::initializer_list<unsigned> opcode, bool is_64 = true) {
      mark();
      if (code64_ && (is_64 || base >= 8)) emit({is_64 ? wide : wide & 0x47});
      emit(opcode);
      if (has_index)
        emit({0x44 | reg << 3, 0xC8 | number, displacement});  // [base + RCX * 8 + disp8]
      else if (number == cpu::kRsp)
        emit({0x44 | reg << 3, 0x24, displacement});
      else
        emit({0x40 | reg << 3 | number, displacement});
    };
    switch (below(12)) {
      case 0:
      case 1:
      case 2:
        access({0x8B});
        break;
      case 3:
        access({0x89});
        break;
      case 4:
        access({kArithmetic[below(8)]});  // also ADC and SBB
        break;
      case 5:
        access({0x0F, chance(50) ? 0x10u : 0x11u}, false);  // movups
        break;
      case 6:
        access({0x0F, 0x58}, false);  // addps, aligned
        break;
      case 7:
        access({0x8A}, false);
        break;
      case 8: {  // push and pop
        mark();
        emit({0x50});
        if (chance(50)) break;
        mark();
        emit({0x58});
        break;
      }
      case 9:  // add base, imm8
        if (base == cpu::kRsp) break;
        mark();
        if (code64_) emit({wide});
        emit({0x83, 0xC0 | number, static_cast<unsigned>(below(256))});
        break;
      case 10:  // lea base, [base + disp8]
        if (number == cpu::kRsp) break;
        mark();
        if (code64_) emit({base >= 8 ? wide | 4u : wide});
        emit({0x8D, 0x40 | number << 3 | number, displacement});
        break;
      default:
        add_simple();
    }
    if (chance(10)) add_branch();
  }
}

// Accesses and jumps whose displacement is next to what 32 bits hold, and absolute addresses of 64 bits.
void ProgramGenerator::add_far_displacements() {
  const uint64_t at = pointer();
  if (chance(15)) {  // mov rax or [..], the other
    const uint64_t address = chance(50) ? at : (uint64_t{1} << 63) + (at & 0xFFFF'FFFF);
    for (uint64_t count = below(3); count != 0; --count) {  // mov rdx, [..]
      mark();
      emit({0x48, 0x8B, 0x14, 0x25});
      emit_value(at + below(64), 4);
    }
    mark();
    emit({0x48, chance(50) ? 0xA1u : 0xA3u});
    return emit_value(address, 8);
  }
  if (chance(10)) {
    mark();
    if (chance(50)) {
      emit({0x0F, 0x80 + static_cast<unsigned>(below(16))});
    } else {
      emit({chance(50) ? 0xE9u : 0xE8u});
    }
    return emit_value((chance(50) ? INT32_MAX : INT32_MIN + 0x2000) - below(0x2000), 4);
  }
  constexpr std::array<unsigned, 7> kBases = {cpu::kRbx, cpu::kRsi, cpu::kRdi, cpu::kR12,
                                              cpu::kR13, cpu::kR14, cpu::kR15};
  const unsigned base = kBases[below(kBases.size())];
  constexpr std::array<unsigned, 6> kOpcodes = {0x8B, 0x89, 0x03, 0x01, 0x39, 0x13};
  const auto edge = static_cast<uint64_t>(int64_t{chance(60) ? INT32_MIN : INT32_MAX - 300});
  const uint64_t near = below(280);
  load(base, at - edge - near);
  for (uint64_t count = 1 + below(4); count != 0; --count) {
    mark();
    const unsigned reg = static_cast<unsigned>(below(2)) * 2;  // AX or DX
    const bool is_vector = chance(20);
    if (!is_vector || base >= 8) emit({(is_vector ? 0x40u : 0x48u) | base >> 3});
    if (is_vector)
      emit({0x0F, chance(50) ? 0x10u : 0x11u});  // movups
    else
      emit({kOpcodes[below(kOpcodes.size())]});
    emit({0x80 | reg << 3 | (base & 7)});
    if ((base & 7) == cpu::kRsp) emit({0x24});
    emit_value(edge + (chance(50) ? near : below(300)), 4);
    if (chance(30)) {  // add base, imm8
      mark();
      emit({0x48 | base >> 3, 0x83, 0xC0 | (base & 7), static_cast<unsigned>(below(256))});
    }
  }
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
  const uint64_t offset = program_.start + immediates_[below(immediates_.size())];
  load(cpu::kRdi, chance(60)   ? kCodeAddress + offset
                  : chance(60) ? kScratchAddress + kCodeAlias * kPageSize + offset
                               : kLargeCodeAddress + instructions::environment::kHighCodePhysical + offset);
  mark();
  emit({0xC7, 0x07});
  emit_value(random_.next(), 4);
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
