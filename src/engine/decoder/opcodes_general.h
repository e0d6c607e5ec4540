// The general-purpose instructions of the one-byte and 0F maps, and the VEX-coded ones of BMI. SDM volume 2, appendix
// A.
#pragma once

#include "engine/decoder/rows.h"

namespace bulkhead::engine::decoder::tables {

inline constexpr uint32_t kLogicFlags = kArithmeticFlags & ~kFlagAf;
inline constexpr uint32_t kMulUndefined = kFlagSf | kFlagZf | kFlagAf | kFlagPf;
inline constexpr uint32_t kBitTestUndefined = kFlagOf | kFlagSf | kFlagAf | kFlagPf;

// What condition code 0 to 15 reads: O B Z BE S P L LE and their opposites.
constexpr uint32_t condition_flags(unsigned condition) {
  constexpr std::array<uint32_t, 8> kFlags = {kFlagOf, kFlagCf, kFlagZf,           kFlagCf | kFlagZf,
                                              kFlagSf, kFlagPf, kFlagSf | kFlagOf, kFlagZf | kFlagSf | kFlagOf};
  return kFlags[condition >> 1];
}

constexpr void add_alu_flags(Row& row, unsigned operation) {
  const bool logic = operation == 1 || operation == 4 || operation == 6;
  row.writes(logic ? kLogicFlags : kArithmeticFlags, logic ? kFlagAf : 0);
  if (operation == 2 || operation == 3) row.reads(kFlagCf);
}

constexpr void add_arithmetic(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  constexpr std::array<Mnemonic, 8> kAlu = {kAdd, kOr, kAdc, kSbb, kAnd, kSub, kXor, kCmp};
  for (unsigned i = 0; i < 8; ++i) {
    const Mnemonic m = kAlu[i];
    const unsigned base = i * 8;
    const bool stores = m != kCmp;
    const auto target = [stores](Operand operand) { return stores ? changed(operand) : operand; };
    add_alu_flags(t.add(Table::kOneByte, base + 0, m, target(Eb), Gb).lockable(stores), i);
    add_alu_flags(t.add(Table::kOneByte, base + 1, m, target(Ev), Gv).lockable(stores), i);
    add_alu_flags(t.add(Table::kOneByte, base + 2, m, target(Gb), Eb), i);
    add_alu_flags(t.add(Table::kOneByte, base + 3, m, target(Gv), Ev), i);
    add_alu_flags(t.add(Table::kOneByte, base + 4, m, target(AL), sIb), i);
    add_alu_flags(t.add(Table::kOneByte, base + 5, m, target(rAX), Iz), i);
    const int extension = static_cast<int>(i);
    add_alu_flags(t.add(Table::kOneByte, 0x80, m, target(Eb), sIb).group(extension).lockable(stores), i);
    add_alu_flags(t.add(Table::kOneByte, 0x81, m, target(Ev), Iz).group(extension).lockable(stores), i);
    add_alu_flags(t.add(Table::kOneByte, 0x82, m, target(Eb), sIb).group(extension).lockable(stores).not_in_64(), i);
    add_alu_flags(t.add(Table::kOneByte, 0x83, m, target(Ev), sIb).group(extension).lockable(stores), i);
  }
  constexpr uint32_t kIncFlags = kArithmeticFlags & ~kFlagCf;
  for (unsigned i = 0; i < 8; ++i) {
    t.add(Table::kOneByte, 0x40 + i, kInc, changed(Zv)).not_in_64().writes(kIncFlags);
    t.add(Table::kOneByte, 0x48 + i, kDec, changed(Zv)).not_in_64().writes(kIncFlags);
  }
  t.add(Table::kOneByte, 0xFE, kInc, changed(Eb)).group(0).lockable().writes(kIncFlags);
  t.add(Table::kOneByte, 0xFE, kDec, changed(Eb)).group(1).lockable().writes(kIncFlags);
  t.add(Table::kOneByte, 0xFF, kInc, changed(Ev)).group(0).lockable().writes(kIncFlags);
  t.add(Table::kOneByte, 0xFF, kDec, changed(Ev)).group(1).lockable().writes(kIncFlags);

  constexpr std::array<Mnemonic, 8> kShifts = {kRol, kRor, kRcl, kRcr, kShl, kShr, kShl, kSar};
  for (unsigned i = 0; i < 8; ++i) {
    const auto shift = [&](unsigned opcode, Operand target, Operand count) {
      Row& row = t.add(Table::kOneByte, opcode, kShifts[i], changed(target), count).group(static_cast<int>(i));
      // OF is defined for a count of 1 only.
      const uint32_t overflow = count.kind == OperandKind::kOne ? kFlagOf : 0;
      const uint32_t others = i < 4 ? kFlagCf : kLogicFlags & ~kFlagOf;
      row.writes(others | overflow, (i < 4 ? 0 : kFlagAf) | (kFlagOf & ~overflow));
      if (i == 2 || i == 3) row.reads(kFlagCf);
      if (count.kind != OperandKind::kOne) row.may_keep_flags();
    };
    shift(0xC0, Eb, Ib);
    shift(0xC1, Ev, Ib);
    shift(0xD0, Eb, One);
    shift(0xD1, Ev, One);
    shift(0xD2, Eb, CL);
    shift(0xD3, Ev, CL);
  }
  constexpr std::array<Mnemonic, 2> kDoubleShifts = {kShld, kShrd};
  for (unsigned i = 0; i < 2; ++i) {
    for (unsigned j = 0; j < 2; ++j)
      t.add(Table::k0F, 0xA4 + 8 * i + j, kDoubleShifts[i], changed(Ev), Gv, j == 0 ? Ib : CL)
          .writes(kLogicFlags & ~kFlagOf, kFlagAf | kFlagOf)
          .may_keep_flags();
  }

  const auto unary = [&t](unsigned opcode, Operand target, bool byte) {
    const unsigned both = kAx | (byte ? 0u : kDx);
    t.add(Table::kOneByte, opcode, kTest, target, byte ? sIb : Iz).group(0).writes(kLogicFlags, kFlagAf);
    t.add(Table::kOneByte, opcode, kTest, target, byte ? sIb : Iz).group(1).writes(kLogicFlags, kFlagAf);
    t.add(Table::kOneByte, opcode, kNot, changed(target)).group(2).lockable();
    t.add(Table::kOneByte, opcode, kNeg, changed(target)).group(3).lockable().writes(kArithmeticFlags);
    t.add(Table::kOneByte, opcode, kMul, target).group(4).writes(kFlagCf | kFlagOf, kMulUndefined).uses(kAx, both);
    t.add(Table::kOneByte, opcode, kImul, target).group(5).writes(kFlagCf | kFlagOf, kMulUndefined).uses(kAx, both);
    t.add(Table::kOneByte, opcode, kDiv, target).group(6).writes(0, kArithmeticFlags).uses(both, both);
    t.add(Table::kOneByte, opcode, kIdiv, target).group(7).writes(0, kArithmeticFlags).uses(both, both);
  };
  unary(0xF6, Eb, true);
  unary(0xF7, Ev, false);
  t.add(Table::kOneByte, 0x69, kImul, written(Gv), Ev, Iz).writes(kFlagCf | kFlagOf, kMulUndefined);
  t.add(Table::kOneByte, 0x6B, kImul, written(Gv), Ev, sIb).writes(kFlagCf | kFlagOf, kMulUndefined);
  t.add(Table::k0F, 0xAF, kImul, changed(Gv), Ev).writes(kFlagCf | kFlagOf, kMulUndefined);
  t.add(Table::kOneByte, 0x84, kTest, Eb, Gb).writes(kLogicFlags, kFlagAf);
  t.add(Table::kOneByte, 0x85, kTest, Ev, Gv).writes(kLogicFlags, kFlagAf);
  t.add(Table::kOneByte, 0xA8, kTest, AL, sIb).writes(kLogicFlags, kFlagAf);
  t.add(Table::kOneByte, 0xA9, kTest, rAX, Iz).writes(kLogicFlags, kFlagAf);

  t.add(Table::kOneByte, 0x27, kDaa)
      .not_in_64()
      .reads(kFlagAf | kFlagCf)
      .writes(kArithmeticFlags & ~kFlagOf, kFlagOf)
      .uses(kAx, kAx);
  t.add(Table::kOneByte, 0x2F, kDas)
      .not_in_64()
      .reads(kFlagAf | kFlagCf)
      .writes(kArithmeticFlags & ~kFlagOf, kFlagOf)
      .uses(kAx, kAx);
  constexpr uint32_t kAsciiUndefined = kFlagOf | kFlagSf | kFlagZf | kFlagPf;
  t.add(Table::kOneByte, 0x37, kAaa)
      .not_in_64()
      .reads(kFlagAf)
      .writes(kFlagAf | kFlagCf, kAsciiUndefined)
      .uses(kAx, kAx);
  t.add(Table::kOneByte, 0x3F, kAas)
      .not_in_64()
      .reads(kFlagAf)
      .writes(kFlagAf | kFlagCf, kAsciiUndefined)
      .uses(kAx, kAx);
  constexpr uint32_t kAsciiAdjustFlags = kFlagSf | kFlagZf | kFlagPf;
  t.add(Table::kOneByte, 0xD4, kAam, Ib)
      .not_in_64()
      .writes(kAsciiAdjustFlags, kFlagOf | kFlagAf | kFlagCf)
      .uses(kAx, kAx);
  t.add(Table::kOneByte, 0xD5, kAad, Ib)
      .not_in_64()
      .writes(kAsciiAdjustFlags, kFlagOf | kFlagAf | kFlagCf)
      .uses(kAx, kAx);
  t.add(Table::kOneByte, 0xD6, kSalc).not_in_64().reads(kFlagCf).uses(0, kAx);
}

constexpr void add_bits(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  constexpr std::array<Mnemonic, 4> kBitTests = {kBt, kBts, kBtr, kBtc};
  for (unsigned i = 0; i < 4; ++i) {
    const bool stores = i != 0;
    const Operand target = stores ? changed(Ev) : Ev;
    t.add(Table::k0F, 0xA3 + 8 * i, kBitTests[i], target, Gv).lockable(stores).writes(kFlagCf, kBitTestUndefined);
    t.add(Table::k0F, 0xBA, kBitTests[i], target, Ib)
        .group(4 + static_cast<int>(i))
        .lockable(stores)
        .writes(kFlagCf, kBitTestUndefined);
  }
  constexpr uint32_t kScanUndefined = kArithmeticFlags & ~kFlagZf;
  constexpr uint32_t kCountFlags = kFlagCf | kFlagZf;
  t.add(Table::k0F, 0xB8, kPopcnt, written(Gv), Ev).when(kF3).needs(Feature::kPopcnt).writes(kArithmeticFlags);
  // Without the feature the F3 prefix is ignored and the older instruction runs.
  t.add(Table::k0F, 0xBC, kTzcnt, written(Gv), Ev)
      .when(kF3)
      .needs(Feature::kBmi1)
      .writes(kCountFlags, kArithmeticFlags & ~kCountFlags);
  t.add(Table::k0F, 0xBC, kBsf, changed(Gv), Ev).writes(kFlagZf, kScanUndefined);
  t.add(Table::k0F, 0xBD, kLzcnt, written(Gv), Ev)
      .when(kF3)
      .needs(Feature::kAbm)
      .writes(kCountFlags, kArithmeticFlags & ~kCountFlags);
  t.add(Table::k0F, 0xBD, kBsr, changed(Gv), Ev).writes(kFlagZf, kScanUndefined);

  const auto vex = [&t](Table table, unsigned opcode, PrefixMask prefix, Mnemonic mnemonic, Feature feature,
                        auto... list) -> Row& {
    return t.add(table, opcode, mnemonic, list...)
        .when(prefix)
        .needs(feature)
        .with(kDwordOrW)
        .with_length(VectorLength::k128);
  };
  constexpr Table kMap = Table::kVex0F38;
  constexpr uint32_t kBmiFlags = kFlagCf | kFlagZf | kFlagSf | kFlagOf;
  constexpr uint32_t kBmiUndefined = kFlagAf | kFlagPf;
  vex(kMap, 0xF2, kNp, kAndn, Feature::kBmi1, written(Gy), By, Ey).writes(kBmiFlags, kBmiUndefined);
  vex(kMap, 0xF3, kNp, kBlsr, Feature::kBmi1, written(By), Ey).group(1).writes(kBmiFlags, kBmiUndefined);
  vex(kMap, 0xF3, kNp, kBlsmsk, Feature::kBmi1, written(By), Ey).group(2).writes(kBmiFlags, kBmiUndefined);
  vex(kMap, 0xF3, kNp, kBlsi, Feature::kBmi1, written(By), Ey).group(3).writes(kBmiFlags, kBmiUndefined);
  vex(kMap, 0xF5, kNp, kBzhi, Feature::kBmi2, written(Gy), Ey, By).writes(kBmiFlags, kBmiUndefined);
  vex(kMap, 0xF5, kF3, kPext, Feature::kBmi2, written(Gy), By, Ey);
  vex(kMap, 0xF5, kF2, kPdep, Feature::kBmi2, written(Gy), By, Ey);
  vex(kMap, 0xF6, kF2, kMulx, Feature::kBmi2, written(Gy), written(By), Ey).uses(kDx, 0);
  vex(kMap, 0xF7, kNp, kBextr, Feature::kBmi1, written(Gy), Ey, By)
      .writes(kFlagCf | kFlagZf | kFlagOf, kFlagAf | kFlagPf | kFlagSf);
  vex(kMap, 0xF7, k66, kShlx, Feature::kBmi2, written(Gy), Ey, By);
  vex(kMap, 0xF7, kF3, kSarx, Feature::kBmi2, written(Gy), Ey, By);
  vex(kMap, 0xF7, kF2, kShrx, Feature::kBmi2, written(Gy), Ey, By);
  vex(Table::kVex0F3A, 0xF0, kF2, kRorx, Feature::kBmi2, written(Gy), Ey, Ib);

  t.add(Table::k0F38, 0xF0, kMovbe, written(Gv), Mv).when(kNoRep).needs(Feature::kMovbe);
  t.add(Table::k0F38, 0xF1, kMovbe, written(Mv), Gv).when(kNoRep).needs(Feature::kMovbe);
  t.add(Table::k0F38, 0xF0, kCrc32, changed(Gy), Eb).when(kF2).needs(Feature::kSse42);
  t.add(Table::k0F38, 0xF1, kCrc32, changed(Gy), Ev).when(kF2).needs(Feature::kSse42);
  t.add(Table::k0F38, 0xF6, kAdcx, changed(Gy), Ey)
      .when(k66)
      .with(kDwordOrW)
      .needs(Feature::kAdx)
      .reads(kFlagCf)
      .writes(kFlagCf);
  t.add(Table::k0F38, 0xF6, kAdox, changed(Gy), Ey)
      .when(kF3)
      .with(kDwordOrW)
      .needs(Feature::kAdx)
      .reads(kFlagOf)
      .writes(kFlagOf);
}

constexpr void add_moves(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  using enum InstructionClass;
  t.add(Table::kOneByte, 0x88, kMov, written(Eb), Gb);
  t.add(Table::kOneByte, 0x89, kMov, written(Ev), Gv);
  t.add(Table::kOneByte, 0x8A, kMov, written(Gb), Eb);
  t.add(Table::kOneByte, 0x8B, kMov, written(Gv), Ev);
  t.add(Table::kOneByte, 0xA0, kMov, written(AL), Ob);
  t.add(Table::kOneByte, 0xA1, kMov, written(rAX), Ov);
  t.add(Table::kOneByte, 0xA2, kMov, written(Ob), AL);
  t.add(Table::kOneByte, 0xA3, kMov, written(Ov), rAX);
  for (unsigned i = 0; i < 8; ++i) {
    t.add(Table::kOneByte, 0xB0 + i, kMov, written(Zb), Ib);
    t.add(Table::kOneByte, 0xB8 + i, kMov, written(Zv), Iv);
    t.add(Table::kOneByte, 0x50 + i, kPush, Zv).with(kDefault64).of(kStack).uses(kSp, kSp);
    t.add(Table::kOneByte, 0x58 + i, kPop, written(Zv)).with(kDefault64).of(kStack).uses(kSp, kSp);
    t.add(Table::k0F, 0xC8 + i, kBswap, changed(Zv));
  }
  t.add(Table::kOneByte, 0xC6, kMov, written(Eb), Ib).group(0);
  t.add(Table::kOneByte, 0xC7, kMov, written(Ev), Iz).group(0);
  t.add(Table::kOneByte, 0x8D, kLea, written(Gv), M);
  t.add(Table::kOneByte, 0x86, kXchg, changed(Eb), changed(Gb)).lockable();
  t.add(Table::kOneByte, 0x87, kXchg, changed(Ev), changed(Gv)).lockable();
  t.add(Table::kOneByte, 0x90, kPause).when(kF3).of(kHelper);
  t.add(Table::kOneByte, 0x90, kNop).with(kNoRexB);
  for (unsigned i = 0; i < 8; ++i) t.add(Table::kOneByte, 0x90 + i, kXchg, changed(Zv), changed(rAX));
  t.add(Table::kOneByte, 0x63, kArpl, changed(Ew), Gw).not_in_64().with(kProtectedOnly).writes(kFlagZf);
  t.add(Table::kOneByte, 0x63, kMovsxd, written(Gv), Ez).only_in_64();
  t.add(Table::k0F, 0xB6, kMovzx, written(Gv), Eb);
  t.add(Table::k0F, 0xB7, kMovzx, written(Gv), Ew);
  t.add(Table::k0F, 0xBE, kMovsx, written(Gv), Eb);
  t.add(Table::k0F, 0xBF, kMovsx, written(Gv), Ew);
  t.add(Table::k0F, 0xB0, kCmpxchg, changed(Eb), Gb).lockable().writes(kArithmeticFlags).uses(kAx, kAx);
  t.add(Table::k0F, 0xB1, kCmpxchg, changed(Ev), Gv).lockable().writes(kArithmeticFlags).uses(kAx, kAx);
  t.add(Table::k0F, 0xC0, kXadd, changed(Eb), changed(Gb)).lockable().writes(kArithmeticFlags);
  t.add(Table::k0F, 0xC1, kXadd, changed(Ev), changed(Gv)).lockable().writes(kArithmeticFlags);
  t.add(Table::k0F, 0xC3, kMovnti, written(My), Gy).when(kNp).with(kDwordOrW).needs(Feature::kSse2);
  constexpr unsigned kWide = kAx | kBx | kCx | kDx;
  t.add(Table::k0F, 0xC7, kCmpxchg8b, changed(Mpair))
      .group(1)
      .with_w(0)
      .with(kDwordOrW)
      .needs(Feature::kCx8)
      .lockable()
      .writes(kFlagZf)
      .uses(kWide, kAx | kDx);
  t.add(Table::k0F, 0xC7, kCmpxchg16b, changed(Mpair))
      .group(1)
      .with_w(1)
      .with(kDwordOrW)
      .needs(Feature::kCx16)
      .aligned(Alignment::k16)
      .lockable()
      .writes(kFlagZf)
      .uses(kWide, kAx | kDx);
  for (unsigned i = 0; i < 16; ++i) {
    t.add(Table::k0F, 0x40 + i, kCmovcc, changed(Gv), Ev).needs(Feature::kCmov).reads(condition_flags(i));
    t.add(Table::k0F, 0x90 + i, kSetcc, written(Eb)).reads(condition_flags(i));
  }
  t.add(Table::kOneByte, 0x98, kCbw).uses(kAx, kAx);
  t.add(Table::kOneByte, 0x99, kCwd).uses(kAx, kDx);
  t.add(Table::kOneByte, 0xD7, kXlat).of(kHelper).uses(kAx | kBx, kAx);
  t.add(Table::kOneByte, 0x9E, kSahf)
      .needs(Feature::kLahfLm)
      .only_in_64()
      .writes(kArithmeticFlags & ~kFlagOf)
      .uses(kAx, 0);
  t.add(Table::kOneByte, 0x9F, kLahf)
      .needs(Feature::kLahfLm)
      .only_in_64()
      .reads(kArithmeticFlags & ~kFlagOf)
      .uses(0, kAx);
  t.add(Table::kOneByte, 0x9E, kSahf).not_in_64().writes(kArithmeticFlags & ~kFlagOf).uses(kAx, 0);
  t.add(Table::kOneByte, 0x9F, kLahf).not_in_64().reads(kArithmeticFlags & ~kFlagOf).uses(0, kAx);
  t.add(Table::kOneByte, 0xF5, kCmc).reads(kFlagCf).writes(kFlagCf);
  t.add(Table::kOneByte, 0xF8, kClc).writes(kFlagCf);
  t.add(Table::kOneByte, 0xF9, kStc).writes(kFlagCf);
  t.add(Table::kOneByte, 0xFC, kCld).of(kHelper).writes(kFlagDf);
  t.add(Table::kOneByte, 0xFD, kStd).of(kHelper).writes(kFlagDf);
}

constexpr void add_stack_and_control(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  using enum InstructionClass;
  // The segment's number stands in bits 5:3 of the opcode.
  for (const unsigned opcode : {0x06u, 0x0Eu, 0x16u, 0x1Eu})
    t.add(Table::kOneByte, opcode, kPushSegment, Sw).without_modrm().not_in_64().of(kPrivileged).uses(kSp, kSp);
  for (const unsigned opcode : {0x07u, 0x17u, 0x1Fu})
    t.add(Table::kOneByte, opcode, kPopSegment, written(Sw)).without_modrm().not_in_64().of(kPrivileged).uses(kSp, kSp);
  for (const unsigned opcode : {0xA0u, 0xA8u}) {
    t.add(Table::k0F, opcode, kPushSegment, Sw).without_modrm().with(kDefault64).of(kPrivileged).uses(kSp, kSp);
    t.add(Table::k0F, opcode + 1, kPopSegment, written(Sw))
        .without_modrm()
        .with(kDefault64)
        .of(kPrivileged)
        .uses(kSp, kSp);
  }
  constexpr unsigned kEight = 0xFF;
  t.add(Table::kOneByte, 0x60, kPusha).not_in_64().of(kStack).uses(kEight, kSp);
  t.add(Table::kOneByte, 0x61, kPopa).not_in_64().of(kStack).uses(kSp, kEight);
  t.add(Table::kOneByte, 0x68, kPush, Iz).with(kDefault64).of(kStack).uses(kSp, kSp);
  t.add(Table::kOneByte, 0x6A, kPush, sIb).with(kDefault64).of(kStack).uses(kSp, kSp);
  t.add(Table::kOneByte, 0x8F, kPop, written(Ev)).group(0).with(kDefault64).of(kStack).uses(kSp, kSp);
  t.add(Table::kOneByte, 0xFF, kPush, Ev).group(6).with(kDefault64).of(kStack).uses(kSp, kSp);
  constexpr uint32_t kPushedFlags =
      kArithmeticFlags | kFlagTf | kFlagIf | kFlagDf | kFlagIopl | kFlagNt | kFlagAc | kFlagId;
  t.add(Table::kOneByte, 0x9C, kPushf)
      .with(kDefault64)
      .of(kPrivileged)
      .reads(kPushedFlags | kFlagRf | kFlagVm | kFlagVif | kFlagVip)
      .uses(kSp, kSp);
  t.add(Table::kOneByte, 0x9D, kPopf)
      .with(kDefault64)
      .of(kPrivileged)
      .reads(kFlagIopl | kFlagVm | kFlagVip)
      .writes(kPushedFlags | kFlagRf | kFlagVif)
      .uses(kSp, kSp);
  t.add(Table::kOneByte, 0xC8, kEnter, Iw, Ib2).with(kDefault64).of(kStack).uses(kSp | kBp, kSp | kBp);
  t.add(Table::kOneByte, 0xC9, kLeave).with(kDefault64).of(kStack).uses(kSp | kBp, kSp | kBp);
  t.add(Table::kOneByte, 0x62, kBound, Gv, Ma).not_in_64().of(kHelper);

  for (unsigned i = 0; i < 16; ++i) {
    t.add(Table::kOneByte, 0x70 + i, kJcc, Jb).with(kForce64).of(kControl).reads(condition_flags(i));
    t.add(Table::k0F, 0x80 + i, kJcc, Jz).with(kForce64).of(kControl).reads(condition_flags(i));
  }
  t.add(Table::kOneByte, 0xE0, kLoopne, Jb).with(kForce64).of(kControl).reads(kFlagZf).uses(kCx, kCx);
  t.add(Table::kOneByte, 0xE1, kLoope, Jb).with(kForce64).of(kControl).reads(kFlagZf).uses(kCx, kCx);
  t.add(Table::kOneByte, 0xE2, kLoop, Jb).with(kForce64).of(kControl).uses(kCx, kCx);
  t.add(Table::kOneByte, 0xE3, kJcxz, Jb).with(kForce64).of(kControl).uses(kCx, 0);
  t.add(Table::kOneByte, 0xE8, kCall, Jz).with(kForce64).of(kControl).uses(kSp, kSp);
  t.add(Table::kOneByte, 0xE9, kJmp, Jz).with(kForce64).of(kControl);
  t.add(Table::kOneByte, 0xEB, kJmp, Jb).with(kForce64).of(kControl);
  t.add(Table::kOneByte, 0xFF, kCall, Ev).group(2).with(kForce64).of(kControl).uses(kSp, kSp);
  t.add(Table::kOneByte, 0xFF, kCallFar, Mp).group(3).of(kControl).uses(kSp, kSp);
  t.add(Table::kOneByte, 0xFF, kJmp, Ev).group(4).with(kForce64).of(kControl);
  t.add(Table::kOneByte, 0xFF, kJmpFar, Mp).group(5).of(kControl);
  t.add(Table::kOneByte, 0x9A, kCallFar, Ap).not_in_64().of(kControl).uses(kSp, kSp);
  t.add(Table::kOneByte, 0xEA, kJmpFar, Ap).not_in_64().of(kControl);
  t.add(Table::kOneByte, 0xC2, kRet, Iw).with(kForce64).of(kControl).uses(kSp, kSp);
  t.add(Table::kOneByte, 0xC3, kRet).with(kForce64).of(kControl).uses(kSp, kSp);
  t.add(Table::kOneByte, 0xCA, kRetFar, Iw).of(kControl).uses(kSp, kSp);
  t.add(Table::kOneByte, 0xCB, kRetFar).of(kControl).uses(kSp, kSp);
  constexpr uint32_t kInterruptFlags = kFlagTf | kFlagIf | kFlagNt | kFlagRf | kFlagVm | kFlagAc | kFlagVif;
  constexpr uint32_t kInterruptReads = kFlagIopl | kFlagVm;
  t.add(Table::kOneByte, 0xCC, kInt3).of(kControl).reads(kInterruptReads).writes(kInterruptFlags);
  t.add(Table::kOneByte, 0xCD, kInt, Ib).of(kControl).reads(kInterruptReads).writes(kInterruptFlags);
  t.add(Table::kOneByte, 0xCE, kInto).not_in_64().of(kControl).reads(kFlagOf | kInterruptReads).writes(kInterruptFlags);
  t.add(Table::kOneByte, 0xF1, kInt1).of(kControl).writes(kInterruptFlags);
  t.add(Table::kOneByte, 0xCF, kIret)
      .of(kControl)
      .reads(kFlagNt | kInterruptReads)
      .writes(kPushedFlags | kFlagRf | kFlagVm | kFlagVif | kFlagVip)
      .uses(kSp, kSp);
  t.add(Table::k0F, 0x0B, kUd2).of(kControl);
  t.add(Table::k0F, 0xB9, kUd1, Gv, Ev).of(kControl);
  t.add(Table::k0F, 0xFF, kUd0, Gv, Ev).of(kControl);
}

constexpr void add_strings(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  using enum InstructionClass;
  const auto pair = [&t](unsigned opcode, Mnemonic mnemonic, auto first, auto second, unsigned read,
                         unsigned changed_registers, uint32_t flags) {
    const unsigned pointers = changed_registers;
    t.add(Table::kOneByte, opcode, mnemonic, first, second)
        .of(kString)
        .reads(kFlagDf)
        .writes(flags)
        .uses(read | pointers, pointers);
    if (flags != 0) t.rows[t.count - 1].may_keep_flags();
  };
  pair(0xA4, kMovs, written(Yb), Xb, 0, kSi | kDi, 0);
  pair(0xA5, kMovs, written(Yv), Xv, 0, kSi | kDi, 0);
  pair(0xA6, kCmps, Xb, Yb, 0, kSi | kDi, kArithmeticFlags);
  pair(0xA7, kCmps, Xv, Yv, 0, kSi | kDi, kArithmeticFlags);
  pair(0xAA, kStos, written(Yb), AL, 0, kDi, 0);
  pair(0xAB, kStos, written(Yv), rAX, 0, kDi, 0);
  pair(0xAC, kLods, written(AL), Xb, 0, kSi, 0);
  pair(0xAD, kLods, written(rAX), Xv, 0, kSi, 0);
  pair(0xAE, kScas, AL, Yb, 0, kDi, kArithmeticFlags);
  pair(0xAF, kScas, rAX, Yv, 0, kDi, kArithmeticFlags);
  pair(0x6C, kIns, written(Yb), DX, 0, kDi, 0);
  pair(0x6D, kIns, written(Yv), DX, 0, kDi, 0);
  t.rows[t.count - 1].with(kMax4);
  pair(0x6E, kOuts, DX, Xb, 0, kSi, 0);
  t.rows[t.count - 1].with(kByteOperand);
  pair(0x6F, kOuts, DX, Xv, 0, kSi, 0);
  t.rows[t.count - 1].with(kMax4);
  for (size_t i = t.count - 4; i < t.count; ++i) t.rows[i].reads(kFlagIopl);
}

}  // namespace bulkhead::engine::decoder::tables
