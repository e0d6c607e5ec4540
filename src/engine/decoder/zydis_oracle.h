// For tests only: decodes the same bytes with Zydis and says in which respects the two decoders differ. What Zydis is
// known to see otherwise is no concern of this file: see zydis_explanations.h.
#pragma once

#include <Zydis/Zydis.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <string_view>

#include "engine/decoder/decoder.h"

namespace bulkhead::engine::decoder::oracle {

enum Aspect : unsigned {
  kValidity = 1 << 0,
  kLength = 1 << 1,
  kName = 1 << 2,
  kOperands = 1 << 3,  // kind, register, address, immediate
  kWidth = 1 << 4,
  kAccess = 1 << 5,
  kFlagsRead = 1 << 6,
  kFlagsWritten = 1 << 7,
  kFlagsUndefined = 1 << 8,
  kImplicitRead = 1 << 9,
  kImplicitWritten = 1 << 10,
  kRefusal = 1 << 11,  // #UD against too long
};

struct Case {
  std::span<const uint8_t> bytes;
  DecodeMode mode;
  DecodeStatus status;
  Instruction ours;
  ZyanStatus zydis_status;
  ZydisDecodedInstruction zydis;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
  unsigned differences = 0;  // Aspects
  std::string details;

  [[nodiscard]] bool zydis_accepts() const { return ZYAN_SUCCESS(zydis_status); }
  [[nodiscard]] bool we_accept() const { return status == DecodeStatus::kOk; }
};

class Oracle {
 public:
  Oracle() {
    const std::array<std::pair<ZydisMachineMode, ZydisStackWidth>, 4> modes = {
        {{ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16},
         {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
         {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
         {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64}}};
    for (size_t i = 0; i < modes.size(); ++i) {
      ZydisDecoderInit(&decoders_[i], modes[i].first, modes[i].second);
      // Extensions that a Bulkhead CPU never shows.
      for (const ZydisDecoderMode off : {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_WBNOINVD,
                                         ZYDIS_DECODER_MODE_CLDEMOTE, ZYDIS_DECODER_MODE_AMD_BRANCHES})
        ZydisDecoderEnableMode(&decoders_[i], off, ZYAN_FALSE);
    }
  }

  // bytes: 15 or more.
  void compare(std::span<const uint8_t> bytes, DecodeMode mode, Case& result) const;

 private:
  std::array<ZydisDecoder, 4> decoders_{};
};

// The name that Zydis gives the operation, or "" where it depends on more than ours.
inline std::string zydis_name(const Instruction& ours) {
  using enum Mnemonic;
  const auto sized = [&ours](std::string_view w, std::string_view d, std::string_view q) {
    return std::string(ours.operand_size == 2 ? w : ours.operand_size == 4 ? d : q);
  };
  constexpr std::array<std::string_view, 16> kConditions = {"o", "no", "b", "nb", "z", "nz", "be", "nbe",
                                                            "s", "ns", "p", "np", "l", "nl", "le", "nle"};
  const std::string condition(kConditions[ours.condition()]);
  const std::string name(mnemonic_name(ours.mnemonic));
  switch (ours.mnemonic) {
    case kJcc:
      return "j" + condition;
    case kSetcc:
      return "set" + condition;
    case kCmovcc:
      return "cmov" + condition;
    case kPushSegment:
      return "push";
    case kPopSegment:
      return "pop";
    case kMovToSegment:
    case kMovFromSegment:
    case kMovToControl:
    case kMovFromControl:
    case kMovToDebug:
    case kMovFromDebug:
      return "mov";
    case kCallFar:
      return "call";
    case kJmpFar:
      return "jmp";
    case kRetFar:
      return "ret";
    case kCbw:
      return sized("cbw", "cwde", "cdqe");
    case kCwd:
      return sized("cwd", "cdq", "cqo");
    case kPusha:
      return sized("pusha", "pushad", "");
    case kPopa:
      return sized("popa", "popad", "");
    case kPushf:
      return sized("pushf", "pushfd", "pushfq");
    case kPopf:
      return sized("popf", "popfd", "popfq");
    case kIret:
      return sized("iret", "iretd", "iretq");
    case kJcxz:
      return ours.address_size == 2 ? "jcxz" : ours.address_size == 4 ? "jecxz" : "jrcxz";
    case kMovs:
    case kCmps:
    case kStos:
    case kLods:
    case kScas:
    case kIns:
    case kOuts:
      return name + (ours.operand_size == 1 ? "b" : ours.operand_size == 2 ? "w" : ours.operand_size == 4 ? "d" : "q");
    case kFxsave:
    case kFxrstor:
    case kXsave:
    case kXsavec:
    case kXsaveopt:
    case kXsaves:
    case kXrstor:
    case kXrstors:
      return ours.operand_size == 8 ? name + "64" : name;
    default:
      return ours.is_vex() && name[0] != 'v' && ours.info->state == StateComponent::kAvx ? "v" + name : name;
  }
}

// What one operand is, in terms both decoders share.
struct SeenOperand {
  enum Kind : uint8_t {
    kNone,
    kGpr,
    kSegment,
    kControl,
    kDebug,
    kX87,
    kMmx,
    kXmm,
    kMemory,
    kImmediate,
    kPointer
  } kind = kNone;
  uint8_t number = 0;  // of a register; kHighByte + n for AH..BH
  uint16_t size = 0;   // of a general or vector register, or of memory, in bytes
  int64_t value = 0;   // of an immediate; displacement; offset of a pointer
  uint8_t base = kNoRegister, index = kNoRegister, scale = 0, segment = 0;
  unsigned access = 0;  // 1 read, 2 write
  friend bool operator==(const SeenOperand&, const SeenOperand&) = default;
};

inline SeenOperand seen_by_us(const Instruction& ours, unsigned index) {
  using enum OperandKind;
  const OperandSpec& spec = ours.info->operands[index];
  SeenOperand seen;
  seen.number = operand_register(ours, index);
  if (seen.number == kNoRegister) seen.number = 0;
  seen.size = operand_size_bytes(ours, index);
  seen.access = static_cast<unsigned>(spec.access);
  const auto memory = [&] {
    seen.kind = SeenOperand::kMemory;
    seen.number = 0;
    seen.value = ours.displacement;
    seen.base = ours.base;
    seen.index = ours.index;
    seen.scale = ours.index == kNoRegister ? 0 : ours.scale_log2;
    seen.segment = ours.segment;
  };
  const auto vector_register = [&] {
    if (ours.has_memory() && spec.kind == kXmmRm) return memory();
    seen.kind = SeenOperand::kXmm;
    seen.size = seen.size == 32 ? 32 : 16;
  };
  switch (spec.kind) {
    case kGprRm:
      if (ours.has_memory()) {
        memory();
        break;
      }
      [[fallthrough]];
    case kGprReg:
    case kGprOpcode:
    case kGprVvvv:
    case kAccumulator:
    case kCl:
    case kDx:
      seen.kind = SeenOperand::kGpr;
      break;
    case kMemory:
    case kMoffs:
    case kVsib:
      memory();
      break;
    case kOne:
      seen.kind = SeenOperand::kImmediate;
      seen.value = 1;
      break;
    case kImmediate:
    case kUnsigned:
    case kRelative:
      seen.kind = SeenOperand::kImmediate;
      seen.value = ours.immediate;
      break;
    case kUnsigned2:
      seen.kind = SeenOperand::kImmediate;
      seen.value = ours.immediate2;
      break;
    case kFarPointer:
      seen.kind = SeenOperand::kPointer;
      seen.value = ours.immediate;
      seen.index = static_cast<uint8_t>(ours.immediate2 >> 8);
      seen.base = static_cast<uint8_t>(ours.immediate2);
      break;
    case kSegment:
      seen.kind = SeenOperand::kSegment;
      break;
    case kControl:
      seen.kind = SeenOperand::kControl;
      break;
    case kDebug:
      seen.kind = SeenOperand::kDebug;
      break;
    case kMmxRm:
      if (ours.has_memory()) {
        memory();
        break;
      }
      [[fallthrough]];
    case kMmxReg:
      seen.kind = SeenOperand::kMmx;
      break;
    case kXmmReg:
    case kXmmRm:
    case kXmmVvvv:
    case kXmmIs4:
    case kXmm0:
      vector_register();
      break;
    case kSt0:
    case kStRm:
      seen.kind = SeenOperand::kX87;
      break;
    default:
      break;
  }
  return seen;
}

inline uint8_t register_number(ZydisRegister value) {
  if (value == ZYDIS_REGISTER_NONE) return kNoRegister;
  if (value == ZYDIS_REGISTER_RIP || value == ZYDIS_REGISTER_EIP) return kRipRelative;
  if (value >= ZYDIS_REGISTER_AH && value <= ZYDIS_REGISTER_BH)
    return static_cast<uint8_t>(kHighByte + value - ZYDIS_REGISTER_AH);
  return static_cast<uint8_t>(ZydisRegisterGetId(value));
}

inline SeenOperand seen_by_zydis(const ZydisDecodedOperand& operand) {
  SeenOperand seen;
  seen.access = ((operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0 ? 1u : 0u) |
                ((operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0 ? 2u : 0u);
  // A register that may not be written keeps its value, so it counts as read.
  if ((operand.actions & ZYDIS_OPERAND_ACTION_CONDWRITE) != 0 && operand.type == ZYDIS_OPERAND_TYPE_REGISTER)
    seen.access |= 1;
  switch (operand.type) {
    case ZYDIS_OPERAND_TYPE_REGISTER: {
      seen.number = register_number(operand.reg.value);
      seen.size = static_cast<uint16_t>(ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, operand.reg.value) / 8);
      switch (ZydisRegisterGetClass(operand.reg.value)) {
        case ZYDIS_REGCLASS_GPR8:
          // Zydis numbers AL..BL, AH..BH, SPL.. in one row; SPL to R15B count from 4 as the others do.
          if (operand.reg.value >= ZYDIS_REGISTER_SPL)
            seen.number = static_cast<uint8_t>(4 + operand.reg.value - ZYDIS_REGISTER_SPL);
          [[fallthrough]];
        case ZYDIS_REGCLASS_GPR16:
        case ZYDIS_REGCLASS_GPR32:
        case ZYDIS_REGCLASS_GPR64:
          seen.kind = SeenOperand::kGpr;
          break;
        case ZYDIS_REGCLASS_SEGMENT:
          seen.kind = SeenOperand::kSegment;
          break;
        case ZYDIS_REGCLASS_CONTROL:
          seen.kind = SeenOperand::kControl;
          break;
        case ZYDIS_REGCLASS_DEBUG:
          seen.kind = SeenOperand::kDebug;
          break;
        case ZYDIS_REGCLASS_X87:
          seen.kind = SeenOperand::kX87;
          break;
        case ZYDIS_REGCLASS_MMX:
          seen.kind = SeenOperand::kMmx;
          break;
        case ZYDIS_REGCLASS_XMM:
        case ZYDIS_REGCLASS_YMM:
          seen.kind = SeenOperand::kXmm;
          break;
        default:
          break;
      }
      break;
    }
    case ZYDIS_OPERAND_TYPE_MEMORY:
      seen.kind = SeenOperand::kMemory;
      seen.size = operand.mem.type == ZYDIS_MEMOP_TYPE_AGEN ? 0 : operand.size / 8;
      seen.base = register_number(operand.mem.base);
      seen.index = register_number(operand.mem.index);
      seen.scale = operand.mem.index == ZYDIS_REGISTER_NONE || operand.mem.scale == 0
                       ? 0
                       : static_cast<uint8_t>(__builtin_ctz(operand.mem.scale));
      seen.segment = register_number(operand.mem.segment);
      seen.value = operand.mem.disp.has_displacement ? operand.mem.disp.value : 0;
      break;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
      seen.kind = SeenOperand::kImmediate;
      seen.value = operand.imm.value.s;
      break;
    case ZYDIS_OPERAND_TYPE_POINTER:
      seen.kind = SeenOperand::kPointer;
      seen.value = operand.ptr.offset;
      seen.index = static_cast<uint8_t>(operand.ptr.segment >> 8);
      seen.base = static_cast<uint8_t>(operand.ptr.segment);
      break;
    default:
      break;
  }
  return seen;
}

inline void compare_operands(Case& c) {
  std::array<SeenOperand, ZYDIS_MAX_OPERAND_COUNT> ours_seen, theirs_seen;
  // Zydis hides ST0 where it is implied; whichever operand is not ST0 settles the order.
  const auto is_top = [](const SeenOperand& seen) { return seen.kind == SeenOperand::kX87 && seen.number == 0; };
  unsigned ours = 0, theirs = 0;
  for (unsigned i = 0; i < c.ours.info->operand_count; ++i)
    if (const SeenOperand seen = seen_by_us(c.ours, i);
        !is_top(seen) && c.ours.info->operands[i].kind != OperandKind::kXmm0)
      ours_seen[ours++] = seen;
  for (unsigned i = 0; i < c.zydis.operand_count_visible; ++i)
    if (const SeenOperand seen = seen_by_zydis(c.operands[i]); !is_top(seen)) theirs_seen[theirs++] = seen;
  const auto differ = [&c](Aspect aspect, unsigned index, const SeenOperand& a, const SeenOperand& b) {
    c.differences |= aspect;
    c.details += fmt::format(
        " operand {}: kind {} {}, number {} {}, size {} {}, value {:#x} {:#x}, base {} {}, index {} {}, scale {} {}, "
        "segment {} {}, access {} {};",
        index, static_cast<int>(a.kind), static_cast<int>(b.kind), a.number, b.number, a.size, b.size, a.value, b.value,
        a.base, b.base, a.index, b.index, a.scale, b.scale, a.segment, b.segment, a.access, b.access);
  };
  if (ours != theirs) {
    c.differences |= kOperands;
    c.details += fmt::format(" {} operands, Zydis {};", ours, theirs);
    return;
  }
  for (unsigned i = 0; i < ours; ++i) {
    SeenOperand a = ours_seen[i];
    SeenOperand b = theirs_seen[i];
    if (a.kind == SeenOperand::kImmediate && b.kind == a.kind) {
      // Zydis widens by the encoded size; we by the operand's.
      const unsigned bits = std::min<unsigned>(c.ours.immediate_length * 8u, 64);
      const uint64_t mask = bits == 0 || bits >= 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
      a.value = static_cast<int64_t>(static_cast<uint64_t>(a.value) & mask);
      b.value = static_cast<int64_t>(static_cast<uint64_t>(b.value) & mask);
      a.size = b.size = 0;
    }
    if (a.kind == SeenOperand::kMemory && b.kind == a.kind) {
      // An address is meant modulo the address size, and its computation alone has no segment.
      const unsigned unused = 64 - 8 * c.ours.address_size;
      a.value = static_cast<int64_t>(static_cast<uint64_t>(a.value) << unused);
      b.value = static_cast<int64_t>(static_cast<uint64_t>(b.value) << unused);
      if (c.ours.mnemonic == Mnemonic::kLea) a.segment = b.segment;
    }
    if (a.kind == SeenOperand::kPointer || (a.kind >= SeenOperand::kSegment && a.kind <= SeenOperand::kMmx))
      a.size = b.size;
    if (a.access != b.access) differ(kAccess, i, a, b);
    if (a.size != b.size) differ(kWidth, i, a, b);
    a.access = b.access;
    a.size = b.size;
    if (a != b) differ(kOperands, i, a, b);
  }
}

// Zydis hides the operands of string instructions in part, and not their registers consistently: what is compared is
// the memory they name.
inline void compare_string(Case& c) {
  for (unsigned i = 0; i < c.zydis.operand_count; ++i) {
    const ZydisDecodedOperand& operand = c.operands[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    const SeenOperand seen = seen_by_zydis(operand);
    const bool is_source = seen.base == cpu::kRsi;
    if (seen.size == c.ours.operand_size && seen.segment == (is_source ? c.ours.segment : uint8_t{cpu::kEs}) &&
        (is_source || seen.base == cpu::kRdi))
      continue;
    c.differences |= kOperands;
    c.details += fmt::format(" string: size {} {}, base {}, segment {};", c.ours.operand_size, seen.size, seen.base,
                             seen.segment);
  }
}

inline void compare_implicit_registers(Case& c) {
  unsigned read = 0, written = 0;
  for (unsigned i = 0; i < c.zydis.operand_count; ++i) {
    const ZydisDecodedOperand& operand = c.operands[i];
    if (i < c.zydis.operand_count_visible) continue;
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
      for (const uint8_t number : {register_number(operand.mem.base), register_number(operand.mem.index)})
        if (number < 16) read |= 1u << number;
    }
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    const SeenOperand seen = seen_by_zydis(operand);
    if (seen.kind != SeenOperand::kGpr) continue;
    const unsigned bit = 1u << (seen.number >= kHighByte ? seen.number - kHighByte : seen.number);
    if ((seen.access & 1) != 0) read |= bit;
    if ((seen.access & 2) != 0) written |= bit;
  }
  if (read != c.ours.info->gpr_read) {
    c.differences |= kImplicitRead;
    c.details += fmt::format(" implicit read {:#x} {:#x};", c.ours.info->gpr_read, read);
  }
  if (written != c.ours.info->gpr_written) {
    c.differences |= kImplicitWritten;
    c.details += fmt::format(" implicit written {:#x} {:#x};", c.ours.info->gpr_written, written);
  }
}

inline void compare_flags(Case& c) {
  const ZydisAccessedFlags none{};
  const ZydisAccessedFlags& zydis = c.zydis.cpu_flags != nullptr ? *c.zydis.cpu_flags : none;
  const auto check = [&c](Aspect aspect, std::string_view what, uint32_t ours, uint32_t theirs) {
    if (ours == theirs) return;
    c.differences |= aspect;
    c.details += fmt::format(" flags {} {:#x} {:#x};", what, ours, theirs);
  };
  // Zydis has one bit for the two of IOPL.
  const auto both_iopl = [](uint32_t flags) { return (flags & kFlagIopl) != 0 ? flags | kFlagIopl : flags; };
  check(kFlagsRead, "read", c.ours.info->flags_read, both_iopl(zydis.tested));
  check(kFlagsWritten, "written", c.ours.info->flags_written,
        both_iopl((zydis.modified | zydis.set_0 | zydis.set_1) & ~zydis.undefined));
  check(kFlagsUndefined, "undefined", c.ours.info->flags_undefined, both_iopl(zydis.undefined));
}

inline void Oracle::compare(std::span<const uint8_t> bytes, DecodeMode mode, Case& c) const {
  c.bytes = bytes.first(kMaxInstructionLength);
  c.mode = mode;
  c.differences = 0;
  c.details.clear();
  c.status = decode(c.bytes, mode, DecodeOptions{}, c.ours);
  c.zydis_status = ZydisDecoderDecodeFull(&decoders_[static_cast<size_t>(mode)], c.bytes.data(), c.bytes.size(),
                                          &c.zydis, c.operands.data());
  if (c.we_accept() != c.zydis_accepts()) {
    c.differences = kValidity;
    c.details = c.we_accept() ? fmt::format(" valid, Zydis {:#x}", c.zydis_status)
                              : fmt::format(" status {}, Zydis valid", static_cast<int>(c.status));
    return;
  }
  if (!c.we_accept()) {
    // Both refuse. Zydis was given 15 bytes, so that it runs out where we see a 16th.
    const bool zydis_ran_out =
        c.zydis_status == ZYDIS_STATUS_NO_MORE_DATA || c.zydis_status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG;
    if (zydis_ran_out != (c.status == DecodeStatus::kTooLong)) {
      c.differences = kRefusal;
      c.details = fmt::format(" status {}, Zydis {:#x}", static_cast<int>(c.status), c.zydis_status);
    }
    return;
  }
  if (c.ours.length != c.zydis.length) {
    c.differences |= kLength;
    c.details += fmt::format(" length {} {};", c.ours.length, c.zydis.length);
  }
  if (zydis_name(c.ours) != ZydisMnemonicGetString(c.zydis.mnemonic)) {
    c.differences |= kName;
    c.details += fmt::format(" name {} {};", zydis_name(c.ours), ZydisMnemonicGetString(c.zydis.mnemonic));
  }
  if (c.ours.address_size * 8 != c.zydis.address_width) {
    c.differences |= kWidth;
    c.details += fmt::format(" address size {} {};", c.ours.address_size, c.zydis.address_width / 8);
  }
  if (c.ours.has(kPrefixLock) != ((c.zydis.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0)) {
    c.differences |= kName;
    c.details += " LOCK;";
  }
  if (c.ours.info->instruction_class == InstructionClass::kString) {
    compare_string(c);
  } else {
    compare_operands(c);
    compare_implicit_registers(c);
  }
  compare_flags(c);
}

inline std::string describe(const Case& c) {
  std::string text = fmt::format("mode {} bytes", static_cast<int>(c.mode));
  for (const uint8_t byte : c.bytes) text += fmt::format(" {:02x}", byte);
  text += fmt::format(" [{}/{}]{}", c.we_accept() ? std::string(mnemonic_name(c.ours.mnemonic)) : "invalid",
                      c.zydis_accepts() ? ZydisMnemonicGetString(c.zydis.mnemonic) : "invalid", c.details);
  return text;
}

}  // namespace bulkhead::engine::decoder::oracle
