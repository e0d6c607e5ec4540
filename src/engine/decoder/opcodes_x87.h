// The x87 escapes D8 to DF. SDM volume 2, appendix A.5. Encodings the manual leaves out but every processor runs as an
// alias (DC D0 for FCOM, ...) decode to the operation they alias.
#pragma once

#include "engine/decoder/rows.h"

namespace bulkhead::engine::decoder::tables {

constexpr Row& x87(auto& t, unsigned opcode, Mnemonic mnemonic, auto... list) {
  return t.add(Table::kOneByte, opcode, mnemonic, list...).state(StateComponent::kX87).needs(Feature::kFpu);
}

constexpr void add_x87_memory(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  constexpr std::array<Mnemonic, 8> kReal = {kFadd, kFmul, kFcom, kFcomp, kFsub, kFsubr, kFdiv, kFdivr};
  constexpr std::array<Mnemonic, 8> kInteger = {kFiadd, kFimul, kFicom, kFicomp, kFisub, kFisubr, kFidiv, kFidivr};
  for (int i = 0; i < 8; ++i) {
    const auto operation = static_cast<size_t>(i);
    const bool compares = i == 2 || i == 3;
    const Operand target = compares ? ST0 : changed(ST0);
    x87(t, 0xD8, kReal[operation], target, Md).group(i);
    x87(t, 0xDC, kReal[operation], target, Mq).group(i);
    x87(t, 0xDA, kInteger[operation], target, Md).group(i);
    x87(t, 0xDE, kInteger[operation], target, Mw).group(i);
  }
  x87(t, 0xD9, kFld, written(ST0), Md).group(0);
  x87(t, 0xD9, kFst, written(Md), ST0).group(2);
  x87(t, 0xD9, kFstp, written(Md), ST0).group(3);
  x87(t, 0xD9, kFldenv, Menv).group(4);
  x87(t, 0xD9, kFldcw, Mw).group(5);
  x87(t, 0xD9, kFnstenv, written(Menv)).group(6);
  x87(t, 0xD9, kFnstcw, written(Mw)).group(7);
  x87(t, 0xDB, kFild, written(ST0), Md).group(0);
  x87(t, 0xDB, kFisttp, written(Md), ST0).group(1).needs(Feature::kSse3);
  x87(t, 0xDB, kFist, written(Md), ST0).group(2);
  x87(t, 0xDB, kFistp, written(Md), ST0).group(3);
  x87(t, 0xDB, kFld, written(ST0), Mt).group(5);
  x87(t, 0xDB, kFstp, written(Mt), ST0).group(7);
  x87(t, 0xDD, kFld, written(ST0), Mq).group(0);
  x87(t, 0xDD, kFisttp, written(Mq), ST0).group(1).needs(Feature::kSse3);
  x87(t, 0xDD, kFst, written(Mq), ST0).group(2);
  x87(t, 0xDD, kFstp, written(Mq), ST0).group(3);
  x87(t, 0xDD, kFrstor, Mstate).group(4);
  x87(t, 0xDD, kFnsave, written(Mstate)).group(6);
  x87(t, 0xDD, kFnstsw, written(Mw)).group(7);
  x87(t, 0xDF, kFild, written(ST0), Mw).group(0);
  x87(t, 0xDF, kFisttp, written(Mw), ST0).group(1).needs(Feature::kSse3);
  x87(t, 0xDF, kFist, written(Mw), ST0).group(2);
  x87(t, 0xDF, kFistp, written(Mw), ST0).group(3);
  x87(t, 0xDF, kFbld, written(ST0), Mt).group(4);
  x87(t, 0xDF, kFild, written(ST0), Mq).group(5);
  x87(t, 0xDF, kFbstp, written(Mt), ST0).group(6);
  x87(t, 0xDF, kFistp, written(Mq), ST0).group(7);
}

constexpr void add_x87_registers(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  constexpr std::array<Mnemonic, 8> kTop = {kFadd, kFmul, kFcom, kFcomp, kFsub, kFsubr, kFdiv, kFdivr};
  constexpr std::array<Mnemonic, 8> kOther = {kFadd, kFmul, kFcom, kFcomp, kFsubr, kFsub, kFdivr, kFdiv};
  constexpr std::array<Mnemonic, 8> kPopForms = {kFaddp, kFmulp, kFcomp, kFcompp, kFsubrp, kFsubp, kFdivrp, kFdivp};
  for (int i = 0; i < 8; ++i) {
    const auto operation = static_cast<size_t>(i);
    const bool compares = i == 2 || i == 3;
    x87(t, 0xD8, kTop[operation], compares ? ST0 : changed(ST0), STi).group(i).register_only();
    if (compares)
      x87(t, 0xDC, kOther[operation], ST0, STi).group(i).register_only();
    else
      x87(t, 0xDC, kOther[operation], changed(STi), ST0).group(i).register_only();
    if (i == 2)
      x87(t, 0xDE, kPopForms[operation], ST0, STi).group(i).register_only();
    else if (i == 3)
      x87(t, 0xDE, kPopForms[operation]).exactly(3, 1);
    else
      x87(t, 0xDE, kPopForms[operation], changed(STi), ST0).group(i).register_only();
  }

  x87(t, 0xD9, kFld, written(ST0), STi).group(0).register_only();
  for (const unsigned opcode : {0xD9u, 0xDDu, 0xDFu})
    x87(t, opcode, kFxch, changed(ST0), changed(STi)).group(1).register_only();
  x87(t, 0xD9, kFnop).exactly(2, 0);
  x87(t, 0xD9, kFstp, written(STi), ST0).group(3).register_only();
  constexpr std::array<Mnemonic, 8> kD9Four = {kFchs, kFabs, kInvalid, kInvalid, kFtst, kFxam, kInvalid, kInvalid};
  constexpr std::array<Mnemonic, 8> kD9Five = {kFld1, kFldl2t, kFldl2e, kFldpi, kFldlg2, kFldln2, kFldz, kInvalid};
  constexpr std::array<Mnemonic, 8> kD9Six = {kF2xm1, kFyl2x, kFptan, kFpatan, kFxtract, kFprem1, kFdecstp, kFincstp};
  constexpr std::array<Mnemonic, 8> kD9Seven = {kFprem, kFyl2xp1, kFsqrt, kFsincos, kFrndint, kFscale, kFsin, kFcos};
  for (int rm = 0; rm < 8; ++rm) {
    const auto i = static_cast<size_t>(rm);
    if (kD9Four[i] != kInvalid) x87(t, 0xD9, kD9Four[i]).exactly(4, rm);
    if (kD9Five[i] != kInvalid) x87(t, 0xD9, kD9Five[i]).exactly(5, rm);
    x87(t, 0xD9, kD9Six[i]).exactly(6, rm);
    x87(t, 0xD9, kD9Seven[i]).exactly(7, rm);
  }
  constexpr std::array<Mnemonic, 4> kMoves = {kFcmovb, kFcmove, kFcmovbe, kFcmovu};
  constexpr std::array<Mnemonic, 4> kOppositeMoves = {kFcmovnb, kFcmovne, kFcmovnbe, kFcmovnu};
  constexpr std::array<uint32_t, 4> kMoveFlags = {kFlagCf, kFlagZf, kFlagCf | kFlagZf, kFlagPf};
  for (int i = 0; i < 4; ++i) {
    const auto condition = static_cast<size_t>(i);
    x87(t, 0xDA, kMoves[condition], changed(ST0), STi)
        .group(i)
        .register_only()
        .reads(kMoveFlags[condition])
        .needs(Feature::kCmov);
    x87(t, 0xDB, kOppositeMoves[condition], changed(ST0), STi)
        .group(i)
        .register_only()
        .reads(kMoveFlags[condition])
        .needs(Feature::kCmov);
  }
  x87(t, 0xDA, kFucompp).exactly(5, 1);
  // FENI, FDISI and FSETPM of older coprocessors.
  x87(t, 0xDB, kFnop).exactly(4, 0);
  x87(t, 0xDB, kFnop).exactly(4, 1);
  x87(t, 0xDB, kFnclex).exactly(4, 2);
  x87(t, 0xDB, kFninit).exactly(4, 3);
  x87(t, 0xDB, kFnop).exactly(4, 4);
  x87(t, 0xDB, kFucomi, ST0, STi).group(5).register_only().writes(kArithmeticFlags).needs(Feature::kCmov);
  x87(t, 0xDB, kFcomi, ST0, STi).group(6).register_only().writes(kArithmeticFlags).needs(Feature::kCmov);
  x87(t, 0xDD, kFfree, written(STi)).group(0).register_only();
  x87(t, 0xDD, kFst, written(STi), ST0).group(2).register_only();
  x87(t, 0xDD, kFstp, written(STi), ST0).group(3).register_only();
  x87(t, 0xDD, kFucom, ST0, STi).group(4).register_only();
  x87(t, 0xDD, kFucomp, ST0, STi).group(5).register_only();
  x87(t, 0xDF, kFfreep, written(STi)).group(0).register_only();
  x87(t, 0xDF, kFstp, written(STi), ST0).group(2).register_only();
  x87(t, 0xDF, kFstp, written(STi), ST0).group(3).register_only();
  x87(t, 0xDF, kFnstsw, written(AX)).exactly(4, 0).uses(0, 0);
  x87(t, 0xDF, kFucomip, ST0, STi).group(5).register_only().writes(kArithmeticFlags).needs(Feature::kCmov);
  x87(t, 0xDF, kFcomip, ST0, STi).group(6).register_only().writes(kArithmeticFlags).needs(Feature::kCmov);
  x87(t, 0x9B, kFwait);
}

}  // namespace bulkhead::engine::decoder::tables
