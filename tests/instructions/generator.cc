#include "instructions/generator.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>
#include <tuple>

namespace bulkhead::instructions {

using engine::decoder::DecodeMode;
using engine::decoder::DecodeStatus;
using engine::decoder::Instruction;
using engine::decoder::Mnemonic;
using engine::decoder::OpcodeMap;
using engine::decoder::OperandKind;

bool is_comparable(Mnemonic mnemonic) {
  using enum Mnemonic;
  switch (mnemonic) {
    // Leave user mode, change segments, or answer with something of the system.
    case kInvalid:
    case kInt:
    case kInt1:
    case kInt3:
    case kInto:
    case kIret:
    case kSyscall:
    case kSysret:
    case kSysenter:
    case kSysexit:
    case kJmpFar:
    case kCallFar:
    case kRetFar:
    case kPushf:
    case kPopf:
    case kPushSegment:
    case kPopSegment:
    case kMovToSegment:
    case kMovFromSegment:
    case kLss:
    case kLfs:
    case kLgs:
    case kLds:
    case kLes:
    case kIn:
    case kOut:
    case kIns:
    case kOuts:
    case kCli:
    case kSti:
    case kHlt:
    case kLgdt:
    case kSgdt:
    case kLidt:
    case kSidt:
    case kLldt:
    case kSldt:
    case kLtr:
    case kStr:
    case kLmsw:
    case kSmsw:
    case kVerr:
    case kVerw:
    case kLar:
    case kLsl:
    case kClts:
    case kInvd:
    case kWbinvd:
    case kInvlpg:
    case kInvpcid:
    case kMovToControl:
    case kMovFromControl:
    case kMovToDebug:
    case kMovFromDebug:
    case kRdmsr:
    case kWrmsr:
    case kRdtsc:
    case kRdtscp:
    case kRdpmc:
    case kRsm:
    case kCpuid:
    case kSwapgs:
    case kRdfsbase:
    case kRdgsbase:
    case kWrfsbase:
    case kWrgsbase:
    case kRdrand:
    case kRdseed:
    case kRdpid:
    case kClac:
    case kStac:
    case kMonitor:
    case kMwait:
    case kXgetbv:
    case kXsetbv:
    case kVmcall:
    case kVmmcall:
    // Whole images of the state: their reserved fields and instruction pointers differ; text cases cover them.
    case kXsave:
    case kXsavec:
    case kXsaveopt:
    case kXsaves:
    case kXrstor:
    case kXrstors:
    case kFxsave:
    case kFxrstor:
    case kFnsave:
    case kFnstenv:
    case kFldenv:
    case kFrstor:
      return false;
    default:
      return true;
  }
}

Generator::Generator(const engine::decoder::DecodeOptions& options, uint64_t seed) : options_(options), random_(seed) {
  collect_forms();
}

bool Generator::keep_only(std::string_view mnemonic) {
  std::erase_if(forms_,
                [&](const Form& form) { return engine::decoder::mnemonic_name(form.info->mnemonic) != mnemonic; });
  return !forms_.empty();
}

// --- the forms ---

void Generator::collect_forms() {
  for (const OpcodeMap map : {OpcodeMap::kOneByte, OpcodeMap::k0F, OpcodeMap::k0F38, OpcodeMap::k0F3A}) {
    for (unsigned opcode = 0; opcode < 256; ++opcode) {
      for (const uint8_t prefix : {0x00, 0x66, 0xF2, 0xF3}) {
        for (const bool w : {false, true}) {
          Form form{.map = map, .opcode = static_cast<uint8_t>(opcode), .prefix = prefix, .w = w};
          collect(form);
          if (prefix == 0xF2 || prefix == 0xF3) {
            form.second_66 = true;
            collect(form);
            form.second_66 = false;
          }
          if (map == OpcodeMap::kOneByte) continue;
          form.vex = true;
          collect(form);
          form.vex_256 = true;
          collect(form);
        }
      }
    }
  }
}

// Tries every byte behind the opcode and sorts what decodes into forms.
void Generator::collect(Form form) {
  std::vector<Form> found;
  std::vector<std::array<uint32_t, 3>> keys;
  for (unsigned modrm = 0; modrm < 256; ++modrm) {
    form.modrm = {static_cast<uint8_t>(modrm)};
    std::array<uint8_t, 15> bytes{};
    encode(form, bytes);
    Instruction instruction;
    if (engine::decoder::decode(bytes, DecodeMode::kLong64, options_, instruction) != DecodeStatus::kOk) {
      // VEX.vvvv may have to be unused, or a memory operand's size may hang on the random parts: a second chance.
      encode(form, bytes);
      if (engine::decoder::decode(bytes, DecodeMode::kLong64, options_, instruction) != DecodeStatus::kOk) continue;
    }
    // A prefix may have turned the opcode into something else; prefixes without a meaning are another test's business.
    if (!is_comparable(instruction.mnemonic) || instruction.opcode != form.opcode) continue;
    if (instruction.info->instruction_class == engine::decoder::InstructionClass::kControl && form.prefix != 0)
      continue;
    form.info = instruction.info;
    const std::array<uint32_t, 3> key = {instruction.operand_size, instruction.vector_size, instruction.has_memory()};
    size_t i = 0;
    while (i < found.size() && (found[i].info != form.info || keys[i] != key)) ++i;
    if (i < found.size()) {
      found[i].modrm.push_back(static_cast<uint8_t>(modrm));
    } else {
      found.push_back(form);
      keys.push_back(key);
    }
  }
  std::move(found.begin(), found.end(), std::back_inserter(forms_));
}

// --- bytes ---

unsigned Generator::encode_vex(const Form& form, std::array<uint8_t, 15>& bytes, unsigned length) {
  const uint8_t pp = form.prefix == 0x66 ? 1 : form.prefix == 0xF3 ? 2 : form.prefix == 0xF2 ? 3 : 0;
  const uint8_t vvvv = chance(50) ? 15 : static_cast<uint8_t>(below(16));
  const uint8_t tail = static_cast<uint8_t>(vvvv << 3 | (form.vex_256 ? 4 : 0) | pp);
  const bool r = chance(50);
  if (form.map == OpcodeMap::k0F && !form.w && chance(30)) {
    bytes[length++] = 0xC5;
    bytes[length++] = static_cast<uint8_t>((r ? 0x80 : 0) | tail);
    return length;
  }
  const uint8_t map = form.map == OpcodeMap::k0F ? 1 : form.map == OpcodeMap::k0F38 ? 2 : 3;
  bytes[length++] = 0xC4;
  bytes[length++] = static_cast<uint8_t>((r ? 0x80 : 0) | (chance(50) ? 0x40 : 0) | (chance(50) ? 0x20 : 0) | map);
  bytes[length++] = static_cast<uint8_t>((form.w ? 0x80 : 0) | tail);
  return length;
}

// Returns the offset behind ModRM; the rest is random.
unsigned Generator::encode(const Form& form, std::array<uint8_t, 15>& bytes) {
  random_.fill(bytes);
  unsigned length = 0;
  if (chance(3)) bytes[length++] = 0x65;
  if (chance(4)) bytes[length++] = 0x67;
  if (form.vex) {
    length = encode_vex(form, bytes, length);
    bytes[length++] = form.opcode;
  } else {
    if (form.info != nullptr && form.info->lockable && (form.modrm[0] >> 6) != 3 && chance(20)) bytes[length++] = 0xF0;
    if (form.second_66) bytes[length++] = 0x66;
    if (form.prefix != 0) bytes[length++] = form.prefix;
    if (form.w || chance(60)) bytes[length++] = static_cast<uint8_t>((form.w ? 0x48 : 0x40) | below(8));
    if (form.map != OpcodeMap::kOneByte) bytes[length++] = 0x0F;
    if (form.map == OpcodeMap::k0F38) bytes[length++] = 0x38;
    if (form.map == OpcodeMap::k0F3A) bytes[length++] = 0x3A;
    bytes[length++] = form.opcode;
  }
  bytes[length++] = form.modrm[below(form.modrm.size())];
  return length;
}

bool Generator::draw_bytes(const Form& form, Sample& sample) {
  encode(form, sample.bytes);
  if (engine::decoder::decode(sample.bytes, DecodeMode::kLong64, options_, sample.instruction) != DecodeStatus::kOk)
    return false;
  return sample.instruction.info == form.info;
}

void Generator::patch(Sample& sample, unsigned offset, unsigned length, uint64_t value) {
  std::memcpy(sample.bytes.data() + offset, &value, length);
  engine::decoder::decode(sample.bytes, DecodeMode::kLong64, options_, sample.instruction);
}

// --- values ---

uint64_t Generator::random_word() {
  switch (below(8)) {
    case 0:
      return below(256);
    case 1:
      return ~below(256);
    case 2:
      return uint64_t{1} << below(64);
    case 3:
      return (uint64_t{1} << below(64)) - 1;
    case 4:
      return static_cast<uint64_t>(static_cast<int64_t>(INT64_MIN) >> below(64));
    case 5:
      return static_cast<uint32_t>(random_.next());
    default:
      return random_.next();
  }
}

uint64_t Generator::random_double() {
  static constexpr std::array<uint64_t, 16> kSpecial = {0,
                                                        0x8000000000000000,
                                                        0x7FF0000000000000,
                                                        0xFFF0000000000000,
                                                        0x7FF8000000000000,
                                                        0x7FF0000000000001,
                                                        1,
                                                        0x000FFFFFFFFFFFFF,
                                                        0x0010000000000000,
                                                        0x7FEFFFFFFFFFFFFF,
                                                        0x3FF0000000000000,
                                                        0xBFF0000000000000,
                                                        0x4000000000000000,
                                                        0x41DFFFFFFFC00000,
                                                        0x43E0000000000000,
                                                        0x3FE0000000000000};
  if (chance(25)) return kSpecial[below(kSpecial.size())];
  if (chance(40)) return std::bit_cast<uint64_t>(static_cast<double>(static_cast<int64_t>(below(2000)) - 1000) / 8);
  // An exponent near 1, so that sums and products are neither lost nor infinite.
  return (random_.next() & 0x800FFFFFFFFFFFFF) | (0x3E0 + below(0x40)) << 52;
}

void Generator::fill_vectors(Registers& registers) {
  static constexpr std::array<uint32_t, 16> kSpecial = {
      0,          0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 1,          0x007FFFFF,
      0x00800000, 0x7F7FFFFF, 0x3F800000, 0xBF800000, 0x40000000, 0x4EFFFFFF, 0x4F000000, 0x3F000000};
  reset_vector_state(registers);
  const unsigned kind = static_cast<unsigned>(below(4));
  for (unsigned i = 0; i < 64; ++i) {
    uint64_t word = random_.next();
    if (kind == 1) word = random_double();
    if (kind == 2) {
      const auto single = [&]() -> uint64_t {
        if (chance(25)) return kSpecial[below(kSpecial.size())];
        return (random_.next() & 0x807FFFFF) | (0x70 + below(0x20)) << 23;
      };
      word = single() << 32 | single();
    }
    if (kind == 3) word = random_word();
    const size_t offset = i < 32 ? kXmmRegisters + 8 * i : kYmmHighHalves + 8 * (i - 32);
    registers.set_xsave_field<uint64_t>(offset, word);
  }
  // Rounding, denormals, flags at random; exceptions masked but for one in twenty.
  uint32_t mxcsr = 0x1F80 | static_cast<uint32_t>(below(4)) << 13;
  if (chance(20)) mxcsr |= 0x8000;
  if (chance(20)) mxcsr |= 0x40;
  if (chance(30)) mxcsr |= static_cast<uint32_t>(below(64));
  if (chance(5)) mxcsr &= ~static_cast<uint32_t>(below(64) << 7);
  registers.set_xsave_field<uint32_t>(kMxcsr, mxcsr);

  uint16_t control = static_cast<uint16_t>(0x37F | below(4) << 10);
  if (chance(30)) control = static_cast<uint16_t>((control & ~0x300) | (chance(50) ? 0x200 : 0));
  if (chance(5)) control &= static_cast<uint16_t>(~below(64));
  uint16_t status = static_cast<uint16_t>(below(8) << 11 | (random_.next() & 0x4700));
  if (chance(20)) status |= static_cast<uint16_t>(below(64) & control);
  registers.set_xsave_field<uint16_t>(kControlWord, control);
  registers.set_xsave_field<uint16_t>(kStatusWord, status);
  registers.set_xsave_field<uint8_t>(kTagWord, chance(80) ? 0xFF : static_cast<uint8_t>(random_.next()));
  for (unsigned i = 0; i < 8; ++i) {
    static constexpr std::array<std::array<uint64_t, 2>, 9> kExtended = {{{0, 0},
                                                                          {0, 0x8000},
                                                                          {0x8000000000000000, 0x7FFF},
                                                                          {0x8000000000000000, 0xFFFF},
                                                                          {0xC000000000000000, 0x7FFF},
                                                                          {0xA000000000000000, 0x7FFF},
                                                                          {1, 0},
                                                                          {0x8000000000000000, 0x3FFF},
                                                                          {0x4000000000000000, 0x3FFF}}};
    uint64_t mantissa = random_.next() | uint64_t{1} << 63;
    uint64_t exponent = (random_.next() & 0x8000) | (0x3FE0 + below(0x40));
    if (chance(25)) {
      const auto& special = kExtended[below(kExtended.size())];
      mantissa = special[0];
      exponent = special[1];
    } else if (chance(30)) {
      mantissa = (1 + below(1000)) << 54;
      mantissa <<= std::countl_zero(mantissa);
    }
    registers.set_xsave_field<uint64_t>(kX87Registers + 16 * i, mantissa);
    registers.set_xsave_field<uint16_t>(kX87Registers + 16 * i + 8, static_cast<uint16_t>(exponent));
  }
}

void Generator::fill_registers(Registers& registers) {
  for (uint64_t& gpr : registers.gpr) gpr = random_word();
  // The stack lies in the scratch pages whether the instruction uses it or not.
  registers.gpr[cpu::kRsp] = kScratchAddress + 0xF00 + below(0x200);
  registers.rflags = 0x202 | (random_.next() & 0x8D5) | (chance(20) ? 0x400 : 0);
  registers.rip = kCodeAddress;
  fill_vectors(registers);
}

// --- operands ---

// Most operands lie near the border of the two pages, the rest anywhere, and a few where nothing is mapped or no
// address is.
uint64_t Generator::choose_target(const Instruction& instruction) {
  using engine::decoder::Alignment;
  const uint64_t size = std::max<uint64_t>(instruction.memory_size, 1);
  uint64_t target;
  const uint64_t kind = below(100);
  if (kind < 2) {
    target = kScratchAddress + kScratchSize - below(size + 1);
  } else if (kind < 3) {
    target = 0x8000'0000'0000'0000 + below(1 << 20);
  } else if (kind < 40) {
    target = kScratchAddress + 0x1000 - below(2 * size + 16);
  } else {
    target = kScratchAddress + 0xE00 + below(0x400);
  }
  const Alignment alignment = instruction.info->alignment;
  if (alignment == Alignment::kNone) {
    if (chance(30)) target &= ~(std::bit_floor(std::min<uint64_t>(size, 32)) - 1);
  } else if (!chance(5)) {
    target &= alignment == Alignment::k64 ? ~63ull : alignment == Alignment::k16 ? ~15ull : ~31ull;
  }
  return target;
}

// Sets base, index and displacement so that the operand is at target. False: this encoding cannot reach it.
bool Generator::place_memory(Sample& sample, uint64_t target) {
  const Instruction& instruction = sample.instruction;
  auto& gpr = sample.registers.gpr;
  const bool uses_gs = instruction.segment == cpu::kGs;
  if (instruction.segment == cpu::kFs) return false;
  if (uses_gs) target -= kGsBase;
  const uint64_t mask = instruction.address_size == 4 ? 0xFFFF'FFFF : ~uint64_t{0};
  if (instruction.address_size == 4 && target > mask) return false;

  const uint8_t base = instruction.base;
  const bool gather = instruction.info->operands[1].kind == OperandKind::kVsib;
  const uint8_t index = gather ? engine::decoder::kNoRegister : instruction.index;
  if (base == engine::decoder::kRipRelative) {
    const uint64_t displacement = target - (kCodeAddress + instruction.length);
    if (static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(displacement))) != displacement) return false;
    patch(sample, instruction.displacement_offset, 4, displacement);
    return true;
  }
  if (base == engine::decoder::kNoRegister) {
    uint64_t scaled = 0;
    if (index != engine::decoder::kNoRegister) {
      if (index == cpu::kRsp) return false;
      gpr[index] = below(256);
      scaled = gpr[index] << instruction.scale_log2;
    }
    const uint64_t displacement = target - scaled;
    const unsigned length = instruction.displacement_length;
    if (length == 4 && static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(displacement))) != displacement)
      return false;
    if (length != 4 && length != 8) return false;
    patch(sample, instruction.displacement_offset, length, displacement);
    return true;
  }
  if (instruction.displacement_length == 4) patch(sample, instruction.displacement_offset, 4, below(4096) - 2048);
  if (base == index) return false;
  const uint64_t scaled = index == engine::decoder::kNoRegister ? 0 : gpr[index] << sample.instruction.scale_log2;
  uint64_t value = target - scaled - static_cast<uint64_t>(sample.instruction.displacement);
  if (instruction.address_size == 4 && base != cpu::kRsp) value = (value & mask) | (random_.next() & ~mask);
  // The code page is mapped on the host only: a stack pointer into it would tell the two apart.
  if (base == cpu::kRsp && value - kCodeAddress + 8 < 4096 + 16) return false;
  gpr[base] = value;
  return true;
}

// The elements of a gather lie within 64 bytes around the base, whatever their width.
void Generator::place_gather(Sample& sample) {
  const Instruction& instruction = sample.instruction;
  const Mnemonic mnemonic = instruction.mnemonic;
  const bool dword_index = mnemonic == Mnemonic::kVgatherdps || mnemonic == Mnemonic::kVgatherdpd ||
                           mnemonic == Mnemonic::kVpgatherdd || mnemonic == Mnemonic::kVpgatherdq;
  for (unsigned i = 0; i < 4; ++i) {
    const auto small = [&] { return static_cast<uint64_t>(static_cast<int64_t>(below(128)) - 64); };
    const uint64_t word = dword_index ? small() << 32 | static_cast<uint32_t>(small()) : small();
    const size_t offset =
        i < 2 ? kXmmRegisters + 16 * instruction.index + 8 * i : kYmmHighHalves + 16 * instruction.index + 8 * (i - 2);
    sample.registers.set_xsave_field<uint64_t>(offset, word);
  }
}

// Relative branches go to kTakenAddress; the others find it in their register or memory operand, or on the stack.
bool Generator::place_branch(Sample& sample, std::span<uint8_t, kScratchSize> scratch) {
  const Instruction& instruction = sample.instruction;
  auto& gpr = sample.registers.gpr;
  if (instruction.info->operands[0].kind == OperandKind::kRelative) {
    patch(sample, instruction.immediate_offset, instruction.immediate_length,
          kTakenAddress - (kCodeAddress + instruction.length));
    if (chance(50)) gpr[cpu::kRcx] = below(3);
    return true;
  }
  const uint64_t at = 0xF00 + below(0x180);
  if (instruction.mnemonic == Mnemonic::kRet) {
    gpr[cpu::kRsp] = kScratchAddress + at;
  } else if (!instruction.has_memory()) {
    if (instruction.rm == cpu::kRsp) return false;
    gpr[instruction.rm] = kTakenAddress;
    return true;
  } else if (!place_memory(sample, kScratchAddress + at)) {
    return false;
  }
  std::memcpy(scratch.data() + at, &kTakenAddress, sizeof kTakenAddress);
  return true;
}

bool Generator::place_operands(Sample& sample, std::span<uint8_t, kScratchSize> scratch) {
  using engine::decoder::InstructionClass;
  using enum Mnemonic;
  const Instruction& instruction = sample.instruction;
  auto& gpr = sample.registers.gpr;
  const auto in_scratch = [&] { return kScratchAddress + 0xE80 + below(0x300); };
  if (instruction.info->instruction_class == InstructionClass::kControl && instruction.mnemonic != kUd0 &&
      instruction.mnemonic != kUd1 && instruction.mnemonic != kUd2) {
    return place_branch(sample, scratch);
  }
  switch (instruction.mnemonic) {
    case kLea:
    case kNop:
    case kUd0:
    case kUd1:
    case kPrefetch:
    case kPrefetchw:
    case kPrefetchnta:
    case kPrefetcht0:
    case kPrefetcht1:
    case kPrefetcht2:
      return true;
    case kEnter:
      patch(sample, instruction.immediate_offset, 2, below(64));
      gpr[cpu::kRbp] = in_scratch();
      return true;
    case kLeave:
      gpr[cpu::kRbp] = in_scratch();
      return true;
    case kXlat:
      gpr[cpu::kRbx] = in_scratch() - (instruction.segment == cpu::kGs ? kGsBase : 0);
      return instruction.segment != cpu::kFs;
    case kMaskmovdqu:
    case kMaskmovq:
      gpr[cpu::kRdi] = in_scratch() - (instruction.segment == cpu::kGs ? kGsBase : 0);
      return instruction.segment != cpu::kFs;
    case kMovs:
    case kCmps:
    case kStos:
    case kLods:
    case kScas:
      if (instruction.segment == cpu::kFs) return false;
      gpr[cpu::kRsi] = in_scratch() - (instruction.segment == cpu::kGs ? kGsBase : 0);
      gpr[cpu::kRdi] = in_scratch();
      gpr[cpu::kRcx] = below(20);
      if (chance(30)) std::memset(scratch.data() + 0xE80, static_cast<int>(gpr[cpu::kRax] & 0xFF), 0x300);
      return true;
    default:
      break;
  }
  if (!instruction.has_memory()) return true;
  // Only address arithmetic or FS, whose base is the host's thread pointer: not ours to touch.
  if (instruction.segment == cpu::kFs) return false;
  const bool gather = instruction.info->operands[1].kind == OperandKind::kVsib;
  uint64_t target = choose_target(instruction);
  const bool bit_string = instruction.mnemonic >= kBt && instruction.mnemonic <= kBtc &&
                          instruction.info->operands[1].kind == OperandKind::kGprReg;
  if (gather || bit_string) target = kScratchAddress + 0xC00 + below(0x800);
  // Where a kernel watches for locks that cross a cache line it makes the program wait; the page border is one such
  // line.
  const bool locks = instruction.has(engine::decoder::kPrefixLock) || instruction.mnemonic == kXchg;
  const bool crosses = (target & 63) + std::max<uint64_t>(instruction.memory_size, 8) > 64;
  if (locks && (bit_string || crosses)) target &= ~uint64_t{15};
  if (gather &&
      (instruction.base == engine::decoder::kNoRegister || instruction.base == engine::decoder::kRipRelative)) {
    if (instruction.base == engine::decoder::kRipRelative) return false;
  }
  if (!place_memory(sample, target)) return false;
  if (gather) place_gather(sample);
  if (bit_string) {
    const uint8_t reg = sample.instruction.reg;
    if (reg == sample.instruction.base || reg == sample.instruction.index) return false;
    gpr[reg] = (gpr[reg] & ~uint64_t{0xFFFF'FFFF'FFFF'FFFF}) | (below(4096) - 2048);
  }
  // The memory operand is often a number that floating-point instructions can work on.
  if (target >= kScratchAddress && target + 32 <= kScratchAddress + kScratchSize && chance(50)) {
    const bool doubles = chance(50);
    for (unsigned i = 0; i < 4; ++i) {
      const uint64_t word = doubles ? random_double() : random_word();
      std::memcpy(scratch.data() + (target - kScratchAddress) + 8 * i, &word, sizeof word);
    }
  }
  return true;
}

void Generator::next(Sample& sample, std::span<uint8_t, kScratchSize> scratch) {
  for (;;) {
    const Form& form = forms_[below(forms_.size())];
    if (!draw_bytes(form, sample)) continue;
    fill_registers(sample.registers);
    if (place_operands(sample, scratch)) return;
  }
}

void Generator::next_of(size_t form, Sample& sample, std::span<uint8_t, kScratchSize> scratch) {
  do {
    while (!draw_bytes(forms_[form], sample)) {
    }
    fill_registers(sample.registers);
  } while (!place_operands(sample, scratch));
}

void Generator::keep_distinct() {
  std::set<std::tuple<const engine::decoder::OpcodeInfo*, uint8_t, uint8_t, bool, bool>> seen;
  std::erase_if(forms_, [&](const Form& form) {
    Sample sample;
    while (!draw_bytes(form, sample)) {
    }
    const Instruction& instruction = sample.instruction;
    return !seen.emplace(form.info, instruction.operand_size, instruction.vector_size, instruction.has_memory(),
                         instruction.is_vex())
                .second;
  });
}

}  // namespace bulkhead::instructions
