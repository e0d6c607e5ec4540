// The words in which the opcode tables are written: one Row per encoding, filled in by chained calls. Only tables.cc
// and the opcodes_*.h lists include this. Operand names follow SDM volume 2, appendix A.2 (E: ModRM.rm, G: ModRM.reg,
// ...).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "engine/decoder/instruction.h"

namespace bulkhead::engine::decoder::tables {

enum class Table : uint8_t { kOneByte, k0F, k0F38, k0F3A, kVex0F, kVex0F38, kVex0F3A, kCount };

// Which mandatory prefixes select a row: bit 0 none, bit 1 66, bit 2 F3, bit 3 F2. F2 and F3 win over 66.
using PrefixMask = uint8_t;
inline constexpr PrefixMask kNp = 1, k66 = 2, kF3 = 4, kF2 = 8, kNoRep = 3, kAnyPrefix = 15;

// VEX.L of a row.
enum class VectorLength : uint8_t { kBoth, k128, k256, kIgnored };

enum Attribute : uint16_t {
  kByteOperand = 1 << 0,    // operand_size is 1
  kDefault64 = 1 << 1,      // 64-bit mode: 8 bytes, or 2 with 66
  kForce64 = 1 << 2,        // 64-bit mode: 8 bytes whatever the prefixes
  kDwordOrW = 1 << 3,       // 8 with W in 64-bit mode, else 4: 66 has no say
  kNativeSize = 1 << 4,     // 8 in 64-bit mode, else 4
  kMax4 = 1 << 5,           // REX.W does not widen (port I/O)
  kProtectedOnly = 1 << 6,  // #UD in real and virtual-8086 mode
  kModIgnored = 1 << 7,     // ModRM names registers whatever its mod field says
  kNoRexB = 1 << 8,         // only without the register extension (NOP against XCHG r8)
  kUsesVvvv = 1 << 9,       // VEX.vvvv names an operand (set by Builder)
  kFixed64Address = 1 << 10,
  kWIgnoredOutside64 = 1 << 11,  // VEX.W counts as 0 outside 64-bit mode
  kGather = 1 << 12,
};

// Who the row is for; bit 0: outside 64-bit mode, bit 1: in it.
inline constexpr uint8_t kLegacyModes = 1, kLongMode = 2, kAllModes = 3;

struct Row {
  Table table = Table::kOneByte;
  uint8_t opcode = 0;
  PrefixMask prefix = kAnyPrefix;
  uint8_t mod = 3;  // bit 0: memory, bit 1: register
  int8_t reg = -1;  // ModRM.reg of a group, -1: any
  int8_t rm = -1;   // ModRM.rm, -1: any
  int8_t w = -1;    // REX.W or VEX.W, -1: ignored
  VectorLength length = VectorLength::kBoth;
  uint8_t modes = kAllModes;
  bool has_modrm = false;
  uint16_t attributes = 0;
  OpcodeInfo info;

  constexpr Row& group(int extension) { return reg = static_cast<int8_t>(extension), has_modrm = true, *this; }
  constexpr Row& exactly(int extension, int register_number) {
    mod = 2;
    rm = static_cast<int8_t>(register_number);
    return group(extension);
  }
  // The operand that would come from ModRM.reg comes from the opcode.
  constexpr Row& without_modrm() { return has_modrm = false, *this; }
  constexpr Row& memory_only() { return mod = 1, has_modrm = true, *this; }
  constexpr Row& register_only() { return mod = 2, has_modrm = true, *this; }
  constexpr Row& when(PrefixMask mask) { return prefix = mask, *this; }
  constexpr Row& with_w(int value) { return w = static_cast<int8_t>(value), *this; }
  constexpr Row& with_length(VectorLength value) { return length = value, *this; }
  constexpr Row& with(unsigned attribute) { return attributes |= static_cast<uint16_t>(attribute), *this; }
  constexpr Row& not_in_64() { return modes = kLegacyModes, *this; }
  constexpr Row& only_in_64() { return modes = kLongMode, *this; }
  constexpr Row& needs(Feature value) { return info.feature = value, *this; }
  constexpr Row& of(InstructionClass value) { return info.instruction_class = value, *this; }
  constexpr Row& state(StateComponent value) { return info.state = value, *this; }
  constexpr Row& aligned(Alignment value) { return info.alignment = value, *this; }
  constexpr Row& lockable(bool value = true) { return info.lockable = value, *this; }
  constexpr Row& may_keep_flags() { return info.may_keep_flags = true, *this; }
  constexpr Row& reads(uint32_t flags) { return info.flags_read |= flags, *this; }
  constexpr Row& writes(uint32_t flags, uint32_t undefined = 0) {
    info.flags_written |= flags;
    info.flags_undefined |= undefined;
    return *this;
  }
  // Implicit general registers, as masks.
  constexpr Row& uses(unsigned read, unsigned written) {
    info.gpr_read |= static_cast<uint16_t>(read);
    info.gpr_written |= static_cast<uint16_t>(written);
    return *this;
  }
};

// Implicit registers of uses().
inline constexpr unsigned kAx = 1u << cpu::kRax, kCx = 1u << cpu::kRcx, kDx = 1u << cpu::kRdx, kBx = 1u << cpu::kRbx,
                          kSp = 1u << cpu::kRsp, kBp = 1u << cpu::kRbp, kSi = 1u << cpu::kRsi, kDi = 1u << cpu::kRdi,
                          kR11 = 1u << cpu::kR11;

using Operand = OperandSpec;
constexpr Operand written(Operand operand) {
  return operand.access = Access::kWrite, operand;
}
constexpr Operand changed(Operand operand) {
  return operand.access = Access::kReadWrite, operand;
}
constexpr Operand unused(Operand operand) {
  return operand.access = Access::kNone, operand;
}

// All are read unless written() or changed() says otherwise.
namespace operands {
using K = OperandKind;
using W_ = OperandWidth;
constexpr Operand make(K kind, W_ width, Access access = Access::kRead) {
  return {kind, width, access};
}
inline constexpr Operand Eb = make(K::kGprRm, W_::kByte), Ew = make(K::kGprRm, W_::kWord),
                         Ed = make(K::kGprRm, W_::kDword), Ev = make(K::kGprRm, W_::kOperand),
                         Ey = make(K::kGprRm, W_::kDwordOrQword), Ez = make(K::kGprRm, W_::kOperandMax4),
                         Ewv = make(K::kGprRm, W_::kWordOrOperand), Ebd = make(K::kGprRm, W_::kByteOrDword),
                         Ewd = make(K::kGprRm, W_::kWordOrDword);
inline constexpr Operand Gb = make(K::kGprReg, W_::kByte), Gw = make(K::kGprReg, W_::kWord),
                         Gd = make(K::kGprReg, W_::kDword), Gv = make(K::kGprReg, W_::kOperand),
                         Gy = make(K::kGprReg, W_::kDwordOrQword);
inline constexpr Operand By = make(K::kGprVvvv, W_::kDwordOrQword);
inline constexpr Operand Zb = make(K::kGprOpcode, W_::kByte), Zv = make(K::kGprOpcode, W_::kOperand);
inline constexpr Operand AL = make(K::kAccumulator, W_::kByte), AX = make(K::kAccumulator, W_::kWord),
                         rAX = make(K::kAccumulator, W_::kOperand), CL = make(K::kCl, W_::kByte),
                         DX = make(K::kDx, W_::kWord), One = make(K::kOne, W_::kByte);
inline constexpr Operand Ib = make(K::kUnsigned, W_::kByte), Iw = make(K::kUnsigned, W_::kWord),
                         sIb = make(K::kImmediate, W_::kByte), Iz = make(K::kImmediate, W_::kOperandMax4),
                         Iv = make(K::kImmediate, W_::kOperand), Ib2 = make(K::kUnsigned2, W_::kByte);
inline constexpr Operand Jb = make(K::kRelative, W_::kByte), Jz = make(K::kRelative, W_::kOperandMax4),
                         Ap = make(K::kFarPointer, W_::kFarPointer);
inline constexpr Operand M = make(K::kMemory, W_::kNone, Access::kNone), Mb = make(K::kMemory, W_::kByte),
                         Mw = make(K::kMemory, W_::kWord), Md = make(K::kMemory, W_::kDword),
                         Mq = make(K::kMemory, W_::kQword), Mt = make(K::kMemory, W_::kTenByte),
                         Mdq = make(K::kMemory, W_::kXmm), Mv = make(K::kMemory, W_::kOperand),
                         My = make(K::kMemory, W_::kDwordOrQword), Mp = make(K::kMemory, W_::kFarPointer),
                         Ma = make(K::kMemory, W_::kBound), Ms = make(K::kMemory, W_::kDescriptor),
                         Mpair = make(K::kMemory, W_::kPair), Mx = make(K::kMemory, W_::kVector),
                         Mqq = make(K::kMemory, W_::kYmm);
inline constexpr Operand Menv = make(K::kMemory, W_::kX87Environment), Mstate = make(K::kMemory, W_::kX87State),
                         Mfxsave = make(K::kMemory, W_::kFxsave), Mxsave = make(K::kMemory, W_::kXsave);
inline constexpr Operand Ob = make(K::kMoffs, W_::kByte), Ov = make(K::kMoffs, W_::kOperand);
inline constexpr Operand Sw = make(K::kSegment, W_::kWord), Cv = make(K::kControl, W_::kOperand),
                         Dv = make(K::kDebug, W_::kOperand);
inline constexpr Operand Xb = make(K::kStringSource, W_::kByte), Xv = make(K::kStringSource, W_::kOperand),
                         Yb = make(K::kStringDestination, W_::kByte), Yv = make(K::kStringDestination, W_::kOperand);
inline constexpr Operand P = make(K::kMmxReg, W_::kQword), Qq = make(K::kMmxRm, W_::kQword),
                         Qd = make(K::kMmxRm, W_::kDword);
inline constexpr Operand V = make(K::kXmmReg, W_::kVector), Vx = make(K::kXmmReg, W_::kXmm),
                         Vg = make(K::kXmmReg, W_::kXmm), H = make(K::kXmmVvvv, W_::kVector),
                         Hx = make(K::kXmmVvvv, W_::kXmm), Hg = make(K::kXmmVvvv, W_::kXmm),
                         L = make(K::kXmmIs4, W_::kVector), Xmm0 = make(K::kXmm0, W_::kXmm);
inline constexpr Operand W = make(K::kXmmRm, W_::kVector), Wx = make(K::kXmmRm, W_::kXmm),
                         Wb = make(K::kXmmRm, W_::kByte), Ww = make(K::kXmmRm, W_::kWord),
                         Wd = make(K::kXmmRm, W_::kDword), Wq = make(K::kXmmRm, W_::kQword),
                         Whalf = make(K::kXmmRm, W_::kHalfVector), Wquarter = make(K::kXmmRm, W_::kQuarterVector),
                         Weighth = make(K::kXmmRm, W_::kEighthVector);
inline constexpr Operand VsibD = make(K::kVsib, W_::kDword), VsibQ = make(K::kVsib, W_::kQword);
inline constexpr Operand ST0 = make(K::kSt0, W_::kTenByte), STi = make(K::kStRm, W_::kTenByte);
}  // namespace operands

// Collects rows. The order of rows with the same opcode is the order in which they are tried.
template <size_t kCapacity>
struct Builder {
  std::array<Row, kCapacity> rows{};
  size_t count = 0;

  template <typename... Operands>
  constexpr Row& add(Table table, unsigned opcode, Mnemonic mnemonic, Operands... list) {
    Row& row = rows[count++];
    row.table = table;
    row.opcode = static_cast<uint8_t>(opcode);
    row.info.mnemonic = mnemonic;
    row.info.operand_count = sizeof...(list);
    size_t index = 0;
    ((row.info.operands[index++] = list), ...);
    for (const Operand& operand : row.info.operands) describe(row, operand);
    if (sizeof...(list) > 0 && row.info.operands[0].width == OperandWidth::kByte &&
        is_general(row.info.operands[0].kind))
      row.attributes |= kByteOperand;
    return row;
  }

 private:
  static constexpr bool is_general(OperandKind kind) {
    using enum OperandKind;
    return kind == kGprReg || kind == kGprRm || kind == kGprOpcode || kind == kAccumulator || kind == kMoffs ||
           kind == kStringSource || kind == kStringDestination;
  }

  static constexpr void describe(Row& row, const Operand& operand) {
    using enum OperandKind;
    switch (operand.kind) {
      case kMemory:
      case kVsib:
        row.mod = 1;
        [[fallthrough]];
      case kGprReg:
      case kGprRm:
      case kSegment:
      case kControl:
      case kDebug:
      case kMmxReg:
      case kMmxRm:
      case kXmmReg:
      case kXmmRm:
      case kStRm:
        row.has_modrm = true;
        break;
      case kGprVvvv:
      case kXmmVvvv:
        row.attributes |= kUsesVvvv;
        break;
      default:
        break;
    }
    if (operand.kind == kVsib) row.attributes |= kGather;
    if (operand.kind == kGprRm || operand.kind == kMemory || operand.kind == kMmxRm || operand.kind == kXmmRm ||
        operand.kind == kMoffs)
      row.info.instruction_class = InstructionClass::kCopyMemory;
  }
};

}  // namespace bulkhead::engine::decoder::tables
