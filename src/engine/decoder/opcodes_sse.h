// MMX and SSE to SSE4.2 with AES, PCLMULQDQ and SHA, each together with its VEX form where it has one. SDM volume 2,
// appendix A. A row written with the operand H (VEX.vvvv) has two operands in its legacy form, whose destination is its
// first source.
#pragma once

#include "engine/decoder/rows.h"

namespace bulkhead::engine::decoder::tables {

constexpr Table vex_table(Table table) {
  return table == Table::k0F ? Table::kVex0F : table == Table::k0F38 ? Table::kVex0F38 : Table::kVex0F3A;
}

constexpr bool is_vvvv(const Operand& operand) {
  return operand.kind == OperandKind::kXmmVvvv;
}

// Legacy form alone. A whole-register memory operand must be aligned.
constexpr Row& sse(auto& t, Table table, unsigned opcode, PrefixMask prefix, Mnemonic mnemonic, Feature feature,
                   auto... list) {
  Row& row =
      t.add(table, opcode, mnemonic, list...).when(prefix).needs(feature).state(StateComponent::kSse).with(kDwordOrW);
  bool first_source_is_destination = false;
  unsigned kept = 0;
  std::array<Operand, 4> operands_kept{};
  for (unsigned i = 0; i < row.info.operand_count; ++i) {
    const Operand& operand = row.info.operands[i];
    const bool whole = operand.width == OperandWidth::kVector || operand.width == OperandWidth::kXmm;
    if (whole && (operand.kind == OperandKind::kXmmRm || operand.kind == OperandKind::kMemory))
      row.aligned(Alignment::k16);
    if (is_vvvv(operand))
      first_source_is_destination = true;
    else
      operands_kept[kept++] = operand;
  }
  if (first_source_is_destination) operands_kept[0].access = Access::kReadWrite;
  row.info.operands = operands_kept;
  row.info.operand_count = static_cast<uint8_t>(kept);
  return row;
}

constexpr Row& avx(auto& t, Table table, unsigned opcode, PrefixMask prefix, Mnemonic mnemonic, Feature feature,
                   VectorLength length, auto... list) {
  return t.add(vex_table(table), opcode, mnemonic, list...)
      .when(prefix)
      .needs(feature)
      .state(StateComponent::kAvx)
      .with_length(length)
      .with(kDwordOrW);
}

// Both forms, the 256-bit one with AVX.
constexpr void both(auto& t, Table table, unsigned opcode, PrefixMask prefix, Mnemonic mnemonic, Feature feature,
                    auto... list) {
  sse(t, table, opcode, prefix, mnemonic, feature, list...);
  avx(t, table, opcode, prefix, mnemonic, Feature::kAvx, VectorLength::kBoth, list...);
}

// Both forms; the VEX one ignores L and works on 128-bit registers.
constexpr void scalar(auto& t, Table table, unsigned opcode, PrefixMask prefix, Mnemonic mnemonic, Feature feature,
                      auto... list) {
  sse(t, table, opcode, prefix, mnemonic, feature, list...);
  avx(t, table, opcode, prefix, mnemonic, Feature::kAvx, VectorLength::kIgnored, list...);
}

// Both forms, 128 bits only.
constexpr void xmm(auto& t, Table table, unsigned opcode, PrefixMask prefix, Mnemonic mnemonic, Feature feature,
                   auto... list) {
  sse(t, table, opcode, prefix, mnemonic, feature, list...);
  avx(t, table, opcode, prefix, mnemonic, Feature::kAvx, VectorLength::k128, list...);
}

constexpr Row& mmx(auto& t, Table table, unsigned opcode, PrefixMask prefix, Mnemonic mnemonic, Feature feature,
                   auto... list) {
  return t.add(table, opcode, mnemonic, list...)
      .when(prefix)
      .needs(feature)
      .state(StateComponent::kMmx)
      .with(kDwordOrW);
}

// ps, pd, ss, sd under no prefix, 66, F3, F2: V, H, W.
constexpr void four_types(auto& t, unsigned opcode, std::array<Mnemonic, 4> mnemonics, auto... immediate) {
  using namespace operands;
  both(t, Table::k0F, opcode, kNp, mnemonics[0], Feature::kSse, written(V), H, W, immediate...);
  both(t, Table::k0F, opcode, k66, mnemonics[1], Feature::kSse2, written(V), H, W, immediate...);
  scalar(t, Table::k0F, opcode, kF3, mnemonics[2], Feature::kSse, written(V), H, Wd, immediate...);
  scalar(t, Table::k0F, opcode, kF2, mnemonics[3], Feature::kSse2, written(V), H, Wq, immediate...);
}

constexpr void two_types(auto& t, unsigned opcode, Mnemonic single, Mnemonic twice, auto... immediate) {
  using namespace operands;
  both(t, Table::k0F, opcode, kNp, single, Feature::kSse, written(V), H, W, immediate...);
  both(t, Table::k0F, opcode, k66, twice, Feature::kSse2, written(V), H, W, immediate...);
}

constexpr void add_sse_moves(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  constexpr Table k = Table::k0F;
  const auto unaligned = [&t](unsigned opcode, PrefixMask prefix, Mnemonic mnemonic, Feature feature, auto... list) {
    sse(t, Table::k0F, opcode, prefix, mnemonic, feature, list...).aligned(Alignment::kNone);
    avx(t, Table::k0F, opcode, prefix, mnemonic, Feature::kAvx, VectorLength::kBoth, list...);
  };
  const auto aligned = [&t](Table table, unsigned opcode, PrefixMask prefix, Mnemonic mnemonic, Feature feature,
                            auto... list) {
    sse(t, table, opcode, prefix, mnemonic, feature, list...);
    avx(t, table, opcode, prefix, mnemonic, Feature::kAvx, VectorLength::kBoth, list...)
        .aligned(Alignment::kVectorSize);
  };
  unaligned(0x10, kNp, kMovups, Feature::kSse, written(V), W);
  unaligned(0x11, kNp, kMovups, Feature::kSse, written(W), V);
  unaligned(0x10, k66, kMovupd, Feature::kSse2, written(V), W);
  unaligned(0x11, k66, kMovupd, Feature::kSse2, written(W), V);
  const auto scalar_move = [&t](PrefixMask prefix, Mnemonic mnemonic, Feature feature, Operand rm) {
    using enum VectorLength;
    sse(t, Table::k0F, 0x10, prefix, mnemonic, feature, written(V), H, rm).register_only();
    sse(t, Table::k0F, 0x11, prefix, mnemonic, feature, written(rm), H, V).register_only();
    sse(t, Table::k0F, 0x10, prefix, mnemonic, feature, written(V), rm).memory_only();
    sse(t, Table::k0F, 0x11, prefix, mnemonic, feature, written(rm), V).memory_only();
    avx(t, Table::k0F, 0x10, prefix, mnemonic, Feature::kAvx, kIgnored, written(V), H, rm).register_only();
    avx(t, Table::k0F, 0x11, prefix, mnemonic, Feature::kAvx, kIgnored, written(rm), H, V).register_only();
    avx(t, Table::k0F, 0x10, prefix, mnemonic, Feature::kAvx, kIgnored, written(V), rm).memory_only();
    avx(t, Table::k0F, 0x11, prefix, mnemonic, Feature::kAvx, kIgnored, written(rm), V).memory_only();
  };
  scalar_move(kF3, kMovss, Feature::kSse, Wd);
  scalar_move(kF2, kMovsd, Feature::kSse2, Wq);

  const auto halves = [&t](unsigned opcode, Mnemonic single, Mnemonic twice, Mnemonic registers) {
    xmm(t, Table::k0F, opcode, kNp, single, Feature::kSse, written(V), H, Mq);
    xmm(t, Table::k0F, opcode, k66, twice, Feature::kSse2, written(V), H, Mq);
    xmm(t, Table::k0F, opcode + 1, kNp, single, Feature::kSse, written(Mq), V);
    xmm(t, Table::k0F, opcode + 1, k66, twice, Feature::kSse2, written(Mq), V);
    sse(t, Table::k0F, opcode, kNp, registers, Feature::kSse, written(V), H, Wq).register_only();
    avx(t, Table::k0F, opcode, kNp, registers, Feature::kAvx, VectorLength::k128, written(V), H, Wq).register_only();
  };
  halves(0x12, kMovlps, kMovlpd, kMovhlps);
  halves(0x16, kMovhps, kMovhpd, kMovlhps);
  both(t, k, 0x12, kF3, kMovsldup, Feature::kSse3, written(V), W);
  both(t, k, 0x16, kF3, kMovshdup, Feature::kSse3, written(V), W);
  sse(t, k, 0x12, kF2, kMovddup, Feature::kSse3, written(V), Wq);
  avx(t, k, 0x12, kF2, kMovddup, Feature::kAvx, VectorLength::k128, written(V), Wq);
  avx(t, k, 0x12, kF2, kMovddup, Feature::kAvx, VectorLength::k256, written(V), W);
  aligned(k, 0x28, kNp, kMovaps, Feature::kSse, written(V), W);
  aligned(k, 0x29, kNp, kMovaps, Feature::kSse, written(W), V);
  aligned(k, 0x28, k66, kMovapd, Feature::kSse2, written(V), W);
  aligned(k, 0x29, k66, kMovapd, Feature::kSse2, written(W), V);
  aligned(k, 0x2B, kNp, kMovntps, Feature::kSse, written(Mx), V);
  aligned(k, 0x2B, k66, kMovntpd, Feature::kSse2, written(Mx), V);
  aligned(k, 0xE7, k66, kMovntdq, Feature::kSse2, written(Mx), V);
  mmx(t, k, 0xE7, kNp, kMovntq, Feature::kSse, written(Mq), P);
  sse(t, Table::k0F38, 0x2A, k66, kMovntdqa, Feature::kSse41, written(V), Mx);
  avx(t, Table::k0F38, 0x2A, k66, kMovntdqa, Feature::kAvx, VectorLength::k128, written(V), Mx)
      .aligned(Alignment::kVectorSize);
  avx(t, Table::k0F38, 0x2A, k66, kMovntdqa, Feature::kAvx2, VectorLength::k256, written(V), Mx)
      .aligned(Alignment::kVectorSize);
  aligned(k, 0x6F, k66, kMovdqa, Feature::kSse2, written(V), W);
  aligned(k, 0x7F, k66, kMovdqa, Feature::kSse2, written(W), V);
  unaligned(0x6F, kF3, kMovdqu, Feature::kSse2, written(V), W);
  unaligned(0x7F, kF3, kMovdqu, Feature::kSse2, written(W), V);
  unaligned(0xF0, kF2, kLddqu, Feature::kSse3, written(V), Mx);
  both(t, k, 0x50, kNp, kMovmskps, Feature::kSse, written(Gd), W);
  both(t, k, 0x50, k66, kMovmskpd, Feature::kSse2, written(Gd), W);
  for (size_t i = t.count - 4; i < t.count; ++i) t.rows[i].register_only().aligned(Alignment::kNone);

  const auto general = [&t](unsigned opcode, Mnemonic name, int w, auto... list) {
    xmm(t, Table::k0F, opcode, k66, name, Feature::kSse2, list...);
    for (size_t i = t.count - 2; i < t.count; ++i) t.rows[i].with_w(w).with(kWIgnoredOutside64);
  };
  for (int w = 0; w < 2; ++w) {
    const Mnemonic name = w != 0 ? kMovq : kMovd;
    mmx(t, k, 0x6E, kNp, name, Feature::kMmx, written(P), Ey).with_w(w);
    mmx(t, k, 0x7E, kNp, name, Feature::kMmx, written(Ey), P).with_w(w);
    general(0x6E, name, w, written(V), Ey);
    general(0x7E, name, w, written(Ey), V);
  }
  xmm(t, k, 0x7E, kF3, kMovq, Feature::kSse2, written(V), Wq);
  xmm(t, k, 0xD6, k66, kMovq, Feature::kSse2, written(Wq), V);
  mmx(t, k, 0x6F, kNp, kMovq, Feature::kMmx, written(P), Qq);
  mmx(t, k, 0x7F, kNp, kMovq, Feature::kMmx, written(Qq), P);
  mmx(t, k, 0xD6, kF3, kMovq2dq, Feature::kSse2, written(V), Qq).register_only();
  mmx(t, k, 0xD6, kF2, kMovdq2q, Feature::kSse2, written(P), Wq).register_only();
  mmx(t, k, 0xF7, kNp, kMaskmovq, Feature::kSse, P, Qq).register_only().of(InstructionClass::kHelper).uses(kDi, 0);
  sse(t, k, 0xF7, k66, kMaskmovdqu, Feature::kSse2, V, W)
      .register_only()
      .aligned(Alignment::kNone)
      .of(InstructionClass::kHelper)
      .uses(kDi, 0);
  avx(t, k, 0xF7, k66, kMaskmovdqu, Feature::kAvx, VectorLength::k128, V, W)
      .register_only()
      .of(InstructionClass::kHelper)
      .uses(kDi, 0);
}

constexpr void add_sse_arithmetic(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  constexpr Table k = Table::k0F;
  four_types(t, 0x58, {kAddps, kAddpd, kAddss, kAddsd});
  four_types(t, 0x59, {kMulps, kMulpd, kMulss, kMulsd});
  four_types(t, 0x5C, {kSubps, kSubpd, kSubss, kSubsd});
  four_types(t, 0x5D, {kMinps, kMinpd, kMinss, kMinsd});
  four_types(t, 0x5E, {kDivps, kDivpd, kDivss, kDivsd});
  four_types(t, 0x5F, {kMaxps, kMaxpd, kMaxss, kMaxsd});
  four_types(t, 0xC2, {kCmpps, kCmppd, kCmpss, kCmpsd}, Ib);
  both(t, k, 0x51, kNp, kSqrtps, Feature::kSse, written(V), W);
  both(t, k, 0x51, k66, kSqrtpd, Feature::kSse2, written(V), W);
  scalar(t, k, 0x51, kF3, kSqrtss, Feature::kSse, written(V), H, Wd);
  scalar(t, k, 0x51, kF2, kSqrtsd, Feature::kSse2, written(V), H, Wq);
  both(t, k, 0x52, kNp, kRsqrtps, Feature::kSse, written(V), W);
  scalar(t, k, 0x52, kF3, kRsqrtss, Feature::kSse, written(V), H, Wd);
  both(t, k, 0x53, kNp, kRcpps, Feature::kSse, written(V), W);
  scalar(t, k, 0x53, kF3, kRcpss, Feature::kSse, written(V), H, Wd);
  two_types(t, 0x54, kAndps, kAndpd);
  two_types(t, 0x55, kAndnps, kAndnpd);
  two_types(t, 0x56, kOrps, kOrpd);
  two_types(t, 0x57, kXorps, kXorpd);
  two_types(t, 0x14, kUnpcklps, kUnpcklpd);
  two_types(t, 0x15, kUnpckhps, kUnpckhpd);
  two_types(t, 0xC6, kShufps, kShufpd, Ib);
  both(t, k, 0x7C, k66, kHaddpd, Feature::kSse3, written(V), H, W);
  both(t, k, 0x7C, kF2, kHaddps, Feature::kSse3, written(V), H, W);
  both(t, k, 0x7D, k66, kHsubpd, Feature::kSse3, written(V), H, W);
  both(t, k, 0x7D, kF2, kHsubps, Feature::kSse3, written(V), H, W);
  both(t, k, 0xD0, k66, kAddsubpd, Feature::kSse3, written(V), H, W);
  both(t, k, 0xD0, kF2, kAddsubps, Feature::kSse3, written(V), H, W);
  constexpr std::array<Mnemonic, 4> kCompares = {kUcomiss, kUcomisd, kComiss, kComisd};
  for (unsigned i = 0; i < 4; ++i) {
    const bool twice = (i & 1) != 0;
    scalar(t, k, 0x2E + i / 2, twice ? k66 : kNp, kCompares[i], twice ? Feature::kSse2 : Feature::kSse, V,
           twice ? Wq : Wd);
    for (size_t row = t.count - 2; row < t.count; ++row) t.rows[row].writes(kArithmeticFlags);
  }

  constexpr Table k3A = Table::k0F3A;
  both(t, k3A, 0x08, k66, kRoundps, Feature::kSse41, written(V), W, Ib);
  both(t, k3A, 0x09, k66, kRoundpd, Feature::kSse41, written(V), W, Ib);
  scalar(t, k3A, 0x0A, k66, kRoundss, Feature::kSse41, written(V), H, Wd, Ib);
  scalar(t, k3A, 0x0B, k66, kRoundsd, Feature::kSse41, written(V), H, Wq, Ib);
  both(t, k3A, 0x0C, k66, kBlendps, Feature::kSse41, written(V), H, W, Ib);
  both(t, k3A, 0x0D, k66, kBlendpd, Feature::kSse41, written(V), H, W, Ib);
  both(t, k3A, 0x40, k66, kDpps, Feature::kSse41, written(V), H, W, Ib);
  xmm(t, k3A, 0x41, k66, kDppd, Feature::kSse41, written(V), H, W, Ib);
  xmm(t, k3A, 0x17, k66, kExtractps, Feature::kSse41, written(Ed), V, Ib);
  xmm(t, k3A, 0x21, k66, kInsertps, Feature::kSse41, written(V), H, Wd, Ib);
  sse(t, Table::k0F38, 0x14, k66, kBlendvps, Feature::kSse41, changed(V), W, Xmm0);
  sse(t, Table::k0F38, 0x15, k66, kBlendvpd, Feature::kSse41, changed(V), W, Xmm0);
  avx(t, k3A, 0x4A, k66, kBlendvps, Feature::kAvx, VectorLength::kBoth, written(V), H, W, L).with_w(0);
  avx(t, k3A, 0x4B, k66, kBlendvpd, Feature::kAvx, VectorLength::kBoth, written(V), H, W, L).with_w(0);
}

constexpr void add_conversions(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  constexpr Table k = Table::k0F;
  mmx(t, k, 0x2A, kNp, kCvtpi2ps, Feature::kSse, changed(V), Qq);
  mmx(t, k, 0x2A, k66, kCvtpi2pd, Feature::kSse2, written(V), Qq);
  scalar(t, k, 0x2A, kF3, kCvtsi2ss, Feature::kSse, written(V), H, Ey);
  scalar(t, k, 0x2A, kF2, kCvtsi2sd, Feature::kSse2, written(V), H, Ey);
  mmx(t, k, 0x2C, kNp, kCvttps2pi, Feature::kSse, written(P), Wq);
  mmx(t, k, 0x2D, kNp, kCvtps2pi, Feature::kSse, written(P), Wq);
  mmx(t, k, 0x2C, k66, kCvttpd2pi, Feature::kSse2, written(P), Wx).aligned(Alignment::k16);
  mmx(t, k, 0x2D, k66, kCvtpd2pi, Feature::kSse2, written(P), Wx).aligned(Alignment::k16);
  scalar(t, k, 0x2C, kF3, kCvttss2si, Feature::kSse, written(Gy), Wd);
  scalar(t, k, 0x2C, kF2, kCvttsd2si, Feature::kSse2, written(Gy), Wq);
  scalar(t, k, 0x2D, kF3, kCvtss2si, Feature::kSse, written(Gy), Wd);
  scalar(t, k, 0x2D, kF2, kCvtsd2si, Feature::kSse2, written(Gy), Wq);
  both(t, k, 0x5A, kNp, kCvtps2pd, Feature::kSse2, written(V), Whalf);
  both(t, k, 0x5A, k66, kCvtpd2ps, Feature::kSse2, written(Vx), W);
  scalar(t, k, 0x5A, kF3, kCvtss2sd, Feature::kSse2, written(V), H, Wd);
  scalar(t, k, 0x5A, kF2, kCvtsd2ss, Feature::kSse2, written(V), H, Wq);
  both(t, k, 0x5B, kNp, kCvtdq2ps, Feature::kSse2, written(V), W);
  both(t, k, 0x5B, k66, kCvtps2dq, Feature::kSse2, written(V), W);
  both(t, k, 0x5B, kF3, kCvttps2dq, Feature::kSse2, written(V), W);
  both(t, k, 0xE6, k66, kCvttpd2dq, Feature::kSse2, written(Vx), W);
  both(t, k, 0xE6, kF3, kCvtdq2pd, Feature::kSse2, written(V), Whalf);
  both(t, k, 0xE6, kF2, kCvtpd2dq, Feature::kSse2, written(Vx), W);
  using enum VectorLength;
  avx(t, Table::k0F38, 0x13, k66, kVcvtph2ps, Feature::kF16c, kBoth, written(V), Whalf).with_w(0);
  avx(t, Table::k0F3A, 0x1D, k66, kVcvtps2ph, Feature::kF16c, kBoth, written(Whalf), V, Ib).with_w(0);
}

// P, Q under no prefix; V, H, W under 66; the 256-bit VEX form with AVX2.
constexpr void packed(auto& t, Table table, unsigned opcode, Mnemonic mnemonic, Feature mmx_feature,
                      Feature sse_feature, auto... immediate) {
  using namespace operands;
  mmx(t, table, opcode, kNp, mnemonic, mmx_feature, changed(P), Qq, immediate...);
  sse(t, table, opcode, k66, mnemonic, sse_feature, written(V), H, W, immediate...);
  avx(t, table, opcode, k66, mnemonic, Feature::kAvx, VectorLength::k128, written(V), H, W, immediate...);
  avx(t, table, opcode, k66, mnemonic, Feature::kAvx2, VectorLength::k256, written(V), H, W, immediate...);
}

// The 66 forms alone.
constexpr void packed_xmm(auto& t, Table table, unsigned opcode, PrefixMask prefix, Mnemonic mnemonic, Feature feature,
                          auto... list) {
  sse(t, table, opcode, prefix, mnemonic, feature, list...);
  avx(t, table, opcode, prefix, mnemonic, Feature::kAvx, VectorLength::k128, list...);
  avx(t, table, opcode, prefix, mnemonic, Feature::kAvx2, VectorLength::k256, list...);
}

struct PackedOpcode {
  uint8_t opcode;
  Mnemonic mnemonic;
  Feature mmx = Feature::kMmx;
};

constexpr void add_packed_integers(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  constexpr Table k = Table::k0F;
  constexpr PackedOpcode kPlain[] = {{0x63, kPacksswb},
                                     {0x64, kPcmpgtb},
                                     {0x65, kPcmpgtw},
                                     {0x66, kPcmpgtd},
                                     {0x67, kPackuswb},
                                     {0x68, kPunpckhbw},
                                     {0x69, kPunpckhwd},
                                     {0x6A, kPunpckhdq},
                                     {0x6B, kPackssdw},
                                     {0x74, kPcmpeqb},
                                     {0x75, kPcmpeqw},
                                     {0x76, kPcmpeqd},
                                     {0xD4, kPaddq, Feature::kSse2},
                                     {0xD5, kPmullw},
                                     {0xD8, kPsubusb},
                                     {0xD9, kPsubusw},
                                     {0xDA, kPminub, Feature::kSse},
                                     {0xDB, kPand},
                                     {0xDC, kPaddusb},
                                     {0xDD, kPaddusw},
                                     {0xDE, kPmaxub, Feature::kSse},
                                     {0xDF, kPandn},
                                     {0xE0, kPavgb, Feature::kSse},
                                     {0xE3, kPavgw, Feature::kSse},
                                     {0xE4, kPmulhuw, Feature::kSse},
                                     {0xE5, kPmulhw},
                                     {0xE8, kPsubsb},
                                     {0xE9, kPsubsw},
                                     {0xEA, kPminsw, Feature::kSse},
                                     {0xEB, kPor},
                                     {0xEC, kPaddsb},
                                     {0xED, kPaddsw},
                                     {0xEE, kPmaxsw, Feature::kSse},
                                     {0xEF, kPxor},
                                     {0xF4, kPmuludq, Feature::kSse2},
                                     {0xF5, kPmaddwd},
                                     {0xF6, kPsadbw, Feature::kSse},
                                     {0xF8, kPsubb},
                                     {0xF9, kPsubw},
                                     {0xFA, kPsubd},
                                     {0xFB, kPsubq, Feature::kSse2},
                                     {0xFC, kPaddb},
                                     {0xFD, kPaddw},
                                     {0xFE, kPaddd}};
  for (const PackedOpcode& row : kPlain) packed(t, k, row.opcode, row.mnemonic, row.mmx, Feature::kSse2);
  constexpr std::array<Mnemonic, 3> kLow = {kPunpcklbw, kPunpcklwd, kPunpckldq};
  for (unsigned i = 0; i < 3; ++i) {
    mmx(t, k, 0x60 + i, kNp, kLow[i], Feature::kMmx, changed(P), Qd);
    packed_xmm(t, k, 0x60 + i, k66, kLow[i], Feature::kSse2, written(V), H, W);
  }
  packed_xmm(t, k, 0x6C, k66, kPunpcklqdq, Feature::kSse2, written(V), H, W);
  packed_xmm(t, k, 0x6D, k66, kPunpckhqdq, Feature::kSse2, written(V), H, W);
  // The count is a whole XMM register or 16 bytes of memory whatever the vector length.
  constexpr PackedOpcode kCounted[] = {{0xD1, kPsrlw}, {0xD2, kPsrld}, {0xD3, kPsrlq}, {0xE1, kPsraw},
                                       {0xE2, kPsrad}, {0xF1, kPsllw}, {0xF2, kPslld}, {0xF3, kPsllq}};
  for (const PackedOpcode& row : kCounted) {
    mmx(t, k, row.opcode, kNp, row.mnemonic, Feature::kMmx, changed(P), Qq);
    packed_xmm(t, k, row.opcode, k66, row.mnemonic, Feature::kSse2, written(V), H, Wx);
  }
  struct ImmediateShift {
    uint8_t opcode;
    uint8_t extension;
    Mnemonic mnemonic;
    bool has_mmx = true;
  };
  constexpr ImmediateShift kImmediateShifts[] = {
      {0x71, 2, kPsrlw}, {0x71, 4, kPsraw}, {0x71, 6, kPsllw},         {0x72, 2, kPsrld}, {0x72, 4, kPsrad},
      {0x72, 6, kPslld}, {0x73, 2, kPsrlq}, {0x73, 3, kPsrldq, false}, {0x73, 6, kPsllq}, {0x73, 7, kPslldq, false}};
  for (const ImmediateShift& row : kImmediateShifts) {
    const int extension = row.extension;
    if (row.has_mmx)
      mmx(t, k, row.opcode, kNp, row.mnemonic, Feature::kMmx, changed(Qq), Ib).group(extension).register_only();
    sse(t, k, row.opcode, k66, row.mnemonic, Feature::kSse2, changed(W), Ib)
        .group(extension)
        .register_only()
        .aligned(Alignment::kNone);
    using enum VectorLength;
    avx(t, k, row.opcode, k66, row.mnemonic, Feature::kAvx, k128, written(H), W, Ib).group(extension).register_only();
    avx(t, k, row.opcode, k66, row.mnemonic, Feature::kAvx2, k256, written(H), W, Ib).group(extension).register_only();
  }
  mmx(t, k, 0x70, kNp, kPshufw, Feature::kSse, written(P), Qq, Ib);
  packed_xmm(t, k, 0x70, k66, kPshufd, Feature::kSse2, written(V), W, Ib);
  packed_xmm(t, k, 0x70, kF3, kPshufhw, Feature::kSse2, written(V), W, Ib);
  packed_xmm(t, k, 0x70, kF2, kPshuflw, Feature::kSse2, written(V), W, Ib);
  mmx(t, k, 0xC4, kNp, kPinsrw, Feature::kSse, changed(P), Ewd, Ib);
  xmm(t, k, 0xC4, k66, kPinsrw, Feature::kSse2, written(V), H, Ewd, Ib);
  mmx(t, k, 0xC5, kNp, kPextrw, Feature::kSse, written(Gd), Qq, Ib).register_only();
  xmm(t, k, 0xC5, k66, kPextrw, Feature::kSse2, written(Gd), W, Ib);
  for (size_t i = t.count - 2; i < t.count; ++i) t.rows[i].register_only().aligned(Alignment::kNone);
  mmx(t, k, 0xD7, kNp, kPmovmskb, Feature::kSse, written(Gd), Qq).register_only();
  packed_xmm(t, k, 0xD7, k66, kPmovmskb, Feature::kSse2, written(Gd), W);
  for (size_t i = t.count - 3; i < t.count; ++i) t.rows[i].register_only().aligned(Alignment::kNone);
  mmx(t, k, 0x77, kNp, kEmms, Feature::kMmx);
}

constexpr void add_sse4_integers(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  constexpr Table k38 = Table::k0F38, k3A = Table::k0F3A;
  constexpr std::array<Mnemonic, 12> kSsse3 = {kPshufb, kPhaddw,  kPhaddd, kPhaddsw, kPmaddubsw, kPhsubw,
                                               kPhsubd, kPhsubsw, kPsignb, kPsignw,  kPsignd,    kPmulhrsw};
  for (unsigned i = 0; i < kSsse3.size(); ++i) packed(t, k38, i, kSsse3[i], Feature::kSsse3, Feature::kSsse3);
  constexpr std::array<Mnemonic, 3> kAbsolute = {kPabsb, kPabsw, kPabsd};
  for (unsigned i = 0; i < 3; ++i) {
    mmx(t, k38, 0x1C + i, kNp, kAbsolute[i], Feature::kSsse3, written(P), Qq);
    packed_xmm(t, k38, 0x1C + i, k66, kAbsolute[i], Feature::kSsse3, written(V), W);
  }
  packed(t, k3A, 0x0F, kPalignr, Feature::kSsse3, Feature::kSsse3, Ib);

  constexpr PackedOpcode kPlain[] = {{0x28, kPmuldq}, {0x29, kPcmpeqq}, {0x2B, kPackusdw}, {0x37, kPcmpgtq},
                                     {0x38, kPminsb}, {0x39, kPminsd},  {0x3A, kPminuw},   {0x3B, kPminud},
                                     {0x3C, kPmaxsb}, {0x3D, kPmaxsd},  {0x3E, kPmaxuw},   {0x3F, kPmaxud},
                                     {0x40, kPmulld}};
  for (const PackedOpcode& row : kPlain)
    packed_xmm(t, k38, row.opcode, k66, row.mnemonic, row.opcode == 0x37 ? Feature::kSse42 : Feature::kSse41,
               written(V), H, W);
  constexpr std::array<Mnemonic, 6> kSigned = {kPmovsxbw, kPmovsxbd, kPmovsxbq, kPmovsxwd, kPmovsxwq, kPmovsxdq};
  constexpr std::array<Mnemonic, 6> kUnsigned = {kPmovzxbw, kPmovzxbd, kPmovzxbq, kPmovzxwd, kPmovzxwq, kPmovzxdq};
  constexpr std::array<Operand, 6> kSources = {Whalf, Wquarter, Weighth, Whalf, Wquarter, Whalf};
  for (unsigned i = 0; i < 6; ++i) {
    packed_xmm(t, k38, 0x20 + i, k66, kSigned[i], Feature::kSse41, written(V), kSources[i]);
    packed_xmm(t, k38, 0x30 + i, k66, kUnsigned[i], Feature::kSse41, written(V), kSources[i]);
  }
  both(t, k38, 0x17, k66, kPtest, Feature::kSse41, V, W);
  for (size_t i = t.count - 2; i < t.count; ++i) t.rows[i].writes(kArithmeticFlags);
  xmm(t, k38, 0x41, k66, kPhminposuw, Feature::kSse41, written(V), W);
  sse(t, k38, 0x10, k66, kPblendvb, Feature::kSse41, changed(V), W, Xmm0);
  avx(t, k3A, 0x4C, k66, kPblendvb, Feature::kAvx, VectorLength::k128, written(V), H, W, L).with_w(0);
  avx(t, k3A, 0x4C, k66, kPblendvb, Feature::kAvx2, VectorLength::k256, written(V), H, W, L).with_w(0);
  packed_xmm(t, k3A, 0x0E, k66, kPblendw, Feature::kSse41, written(V), H, W, Ib);
  packed_xmm(t, k3A, 0x42, k66, kMpsadbw, Feature::kSse41, written(V), H, W, Ib);
  xmm(t, k3A, 0x14, k66, kPextrb, Feature::kSse41, written(Ebd), V, Ib);
  xmm(t, k3A, 0x15, k66, kPextrw, Feature::kSse41, written(Ewd), V, Ib);
  xmm(t, k3A, 0x20, k66, kPinsrb, Feature::kSse41, written(V), H, Ebd, Ib);
  for (int w = 0; w < 2; ++w) {
    xmm(t, k3A, 0x16, k66, w != 0 ? kPextrq : kPextrd, Feature::kSse41, written(Ey), V, Ib);
    xmm(t, k3A, 0x22, k66, w != 0 ? kPinsrq : kPinsrd, Feature::kSse41, written(V), H, Ey, Ib);
    for (size_t i = t.count - 4; i < t.count; ++i) t.rows[i].with_w(w).with(kWIgnoredOutside64);
  }
  // Explicit-length forms read EAX and EDX, index forms write ECX, mask forms XMM0. None checks alignment.
  constexpr std::array<Mnemonic, 4> kStrings = {kPcmpestrm, kPcmpestri, kPcmpistrm, kPcmpistri};
  for (unsigned i = 0; i < 4; ++i) {
    xmm(t, k3A, 0x60 + i, k66, kStrings[i], Feature::kSse42, V, W, Ib);
    for (size_t row = t.count - 2; row < t.count; ++row)
      t.rows[row]
          .aligned(Alignment::kNone)
          .writes(kArithmeticFlags)
          .uses(i < 2 ? kAx | kDx : 0, (i & 1) != 0 ? kCx : 0);
  }
}

constexpr void add_cryptography(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  const auto aes = [&t](Table table, unsigned opcode, Mnemonic mnemonic, Feature feature, auto... list) {
    sse(t, table, opcode, k66, mnemonic, feature, list...);
    avx(t, table, opcode, k66, mnemonic, feature, VectorLength::k128, list...);
  };
  aes(Table::k0F38, 0xDB, kAesimc, Feature::kAes, written(V), W);
  aes(Table::k0F38, 0xDC, kAesenc, Feature::kAes, written(V), H, W);
  aes(Table::k0F38, 0xDD, kAesenclast, Feature::kAes, written(V), H, W);
  aes(Table::k0F38, 0xDE, kAesdec, Feature::kAes, written(V), H, W);
  aes(Table::k0F38, 0xDF, kAesdeclast, Feature::kAes, written(V), H, W);
  aes(Table::k0F3A, 0xDF, kAeskeygenassist, Feature::kAes, written(V), W, Ib);
  aes(Table::k0F3A, 0x44, kPclmulqdq, Feature::kPclmulqdq, written(V), H, W, Ib);
  constexpr Feature kSha = Feature::kShaNi;
  sse(t, Table::k0F38, 0xC8, kNp, kSha1nexte, kSha, changed(V), W);
  sse(t, Table::k0F38, 0xC9, kNp, kSha1msg1, kSha, changed(V), W);
  sse(t, Table::k0F38, 0xCA, kNp, kSha1msg2, kSha, changed(V), W);
  sse(t, Table::k0F38, 0xCB, kNp, kSha256rnds2, kSha, changed(V), W, Xmm0);
  sse(t, Table::k0F38, 0xCC, kNp, kSha256msg1, kSha, changed(V), W);
  sse(t, Table::k0F38, 0xCD, kNp, kSha256msg2, kSha, changed(V), W);
  sse(t, Table::k0F3A, 0xCC, kNp, kSha1rnds4, kSha, changed(V), W, Ib);
}

}  // namespace bulkhead::engine::decoder::tables
