// What exists in VEX coding only: the new instructions of AVX, AVX2 and FMA. SDM volume 2, chapter 5 and appendix A.
#pragma once

#include "engine/decoder/opcodes_sse.h"

namespace bulkhead::engine::decoder::tables {

constexpr void add_avx(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  using enum VectorLength;
  constexpr Table k38 = Table::k0F38, k3A = Table::k0F3A;
  constexpr Feature kAvx1 = Feature::kAvx, kAvx2 = Feature::kAvx2;
  avx(t, Table::k0F, 0x77, kNp, kVzeroupper, kAvx1, k128);
  avx(t, Table::k0F, 0x77, kNp, kVzeroall, kAvx1, k256);
  avx(t, k38, 0x0C, k66, kVpermilps, kAvx1, kBoth, written(V), H, W).with_w(0);
  avx(t, k38, 0x0D, k66, kVpermilpd, kAvx1, kBoth, written(V), H, W).with_w(0);
  avx(t, k3A, 0x04, k66, kVpermilps, kAvx1, kBoth, written(V), W, Ib).with_w(0);
  avx(t, k3A, 0x05, k66, kVpermilpd, kAvx1, kBoth, written(V), W, Ib).with_w(0);
  avx(t, k38, 0x0E, k66, kVtestps, kAvx1, kBoth, V, W).with_w(0).writes(kArithmeticFlags);
  avx(t, k38, 0x0F, k66, kVtestpd, kAvx1, kBoth, V, W).with_w(0).writes(kArithmeticFlags);
  avx(t, k38, 0x18, k66, kVbroadcastss, kAvx1, kBoth, written(V), Wd).memory_only().with_w(0);
  avx(t, k38, 0x18, k66, kVbroadcastss, kAvx2, kBoth, written(V), Wd).register_only().with_w(0);
  avx(t, k38, 0x19, k66, kVbroadcastsd, kAvx1, k256, written(V), Wq).memory_only().with_w(0);
  avx(t, k38, 0x19, k66, kVbroadcastsd, kAvx2, k256, written(V), Wq).register_only().with_w(0);
  avx(t, k38, 0x1A, k66, kVbroadcastf128, kAvx1, k256, written(V), Mdq).with_w(0);
  avx(t, k38, 0x5A, k66, kVbroadcasti128, kAvx2, k256, written(V), Mdq).with_w(0);
  avx(t, k38, 0x58, k66, kVpbroadcastd, kAvx2, kBoth, written(V), Wd).with_w(0);
  avx(t, k38, 0x59, k66, kVpbroadcastq, kAvx2, kBoth, written(V), Wq).with_w(0);
  avx(t, k38, 0x78, k66, kVpbroadcastb, kAvx2, kBoth, written(V), Wb).with_w(0);
  avx(t, k38, 0x79, k66, kVpbroadcastw, kAvx2, kBoth, written(V), Ww).with_w(0);
  avx(t, k3A, 0x18, k66, kVinsertf128, kAvx1, k256, written(V), H, Wx, Ib).with_w(0);
  avx(t, k3A, 0x19, k66, kVextractf128, kAvx1, k256, written(Wx), V, Ib).with_w(0);
  avx(t, k3A, 0x38, k66, kVinserti128, kAvx2, k256, written(V), H, Wx, Ib).with_w(0);
  avx(t, k3A, 0x39, k66, kVextracti128, kAvx2, k256, written(Wx), V, Ib).with_w(0);
  avx(t, k3A, 0x06, k66, kVperm2f128, kAvx1, k256, written(V), H, W, Ib).with_w(0);
  avx(t, k3A, 0x46, k66, kVperm2i128, kAvx2, k256, written(V), H, W, Ib).with_w(0);
  avx(t, k38, 0x16, k66, kVpermps, kAvx2, k256, written(V), H, W).with_w(0);
  avx(t, k38, 0x36, k66, kVpermd, kAvx2, k256, written(V), H, W).with_w(0);
  avx(t, k3A, 0x00, k66, kVpermq, kAvx2, k256, written(V), W, Ib).with_w(1);
  avx(t, k3A, 0x01, k66, kVpermpd, kAvx2, k256, written(V), W, Ib).with_w(1);
  avx(t, k3A, 0x02, k66, kVpblendd, kAvx2, kBoth, written(V), H, W, Ib).with_w(0);
  avx(t, k38, 0x45, k66, kVpsrlvd, kAvx2, kBoth, written(V), H, W).with_w(0);
  avx(t, k38, 0x45, k66, kVpsrlvq, kAvx2, kBoth, written(V), H, W).with_w(1);
  avx(t, k38, 0x46, k66, kVpsravd, kAvx2, kBoth, written(V), H, W).with_w(0);
  avx(t, k38, 0x47, k66, kVpsllvd, kAvx2, kBoth, written(V), H, W).with_w(0);
  avx(t, k38, 0x47, k66, kVpsllvq, kAvx2, kBoth, written(V), H, W).with_w(1);
  // Masked: elements whose mask bit is clear are neither read nor written, and cannot fault.
  using enum InstructionClass;
  avx(t, k38, 0x2C, k66, kVmaskmovps, kAvx1, kBoth, written(V), H, Mx).with_w(0).of(kHelper);
  avx(t, k38, 0x2D, k66, kVmaskmovpd, kAvx1, kBoth, written(V), H, Mx).with_w(0).of(kHelper);
  avx(t, k38, 0x2E, k66, kVmaskmovps, kAvx1, kBoth, written(Mx), H, V).with_w(0).of(kHelper);
  avx(t, k38, 0x2F, k66, kVmaskmovpd, kAvx1, kBoth, written(Mx), H, V).with_w(0).of(kHelper);
  avx(t, k38, 0x8C, k66, kVpmaskmovd, kAvx2, kBoth, written(V), H, Mx).with_w(0).of(kHelper);
  avx(t, k38, 0x8C, k66, kVpmaskmovq, kAvx2, kBoth, written(V), H, Mx).with_w(1).of(kHelper);
  avx(t, k38, 0x8E, k66, kVpmaskmovd, kAvx2, kBoth, written(Mx), H, V).with_w(0).of(kHelper);
  avx(t, k38, 0x8E, k66, kVpmaskmovq, kAvx2, kBoth, written(Mx), H, V).with_w(1).of(kHelper);
}

// The destination and the mask have as many elements as indices or data fit, whichever are fewer.
constexpr void add_gathers(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  using enum VectorLength;
  const auto gather = [&t](unsigned opcode, int w, Mnemonic mnemonic, bool halves) {
    const Operand memory = w != 0 ? VsibQ : VsibD;
    avx(t, Table::k0F38, opcode, k66, mnemonic, Feature::kAvx2, kBoth, changed(halves ? Vg : V), memory,
        changed(halves ? Hg : H))
        .with_w(w)
        .of(InstructionClass::kHelper);
  };
  gather(0x90, 0, kVpgatherdd, false);
  gather(0x90, 1, kVpgatherdq, false);
  gather(0x91, 0, kVpgatherqd, true);
  gather(0x91, 1, kVpgatherqq, false);
  gather(0x92, 0, kVgatherdps, false);
  gather(0x92, 1, kVgatherdpd, false);
  gather(0x93, 0, kVgatherqps, true);
  gather(0x93, 1, kVgatherqpd, false);
}

constexpr void add_fma(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  using enum VectorLength;
  // From opcode 96, 9A.. on; each further order of operands stands 10 (hexadecimal) later. Single precision W0, double
  // W1.
  struct Family {
    uint8_t opcode;
    bool scalar;
    std::array<Mnemonic, 6> mnemonics;  // 132 single, 132 double, 213 single, ...
  };
  constexpr Family kFamilies[] = {
      {0x96,
       false,
       {kVfmaddsub132ps, kVfmaddsub132pd, kVfmaddsub213ps, kVfmaddsub213pd, kVfmaddsub231ps, kVfmaddsub231pd}},
      {0x97,
       false,
       {kVfmsubadd132ps, kVfmsubadd132pd, kVfmsubadd213ps, kVfmsubadd213pd, kVfmsubadd231ps, kVfmsubadd231pd}},
      {0x98, false, {kVfmadd132ps, kVfmadd132pd, kVfmadd213ps, kVfmadd213pd, kVfmadd231ps, kVfmadd231pd}},
      {0x99, true, {kVfmadd132ss, kVfmadd132sd, kVfmadd213ss, kVfmadd213sd, kVfmadd231ss, kVfmadd231sd}},
      {0x9A, false, {kVfmsub132ps, kVfmsub132pd, kVfmsub213ps, kVfmsub213pd, kVfmsub231ps, kVfmsub231pd}},
      {0x9B, true, {kVfmsub132ss, kVfmsub132sd, kVfmsub213ss, kVfmsub213sd, kVfmsub231ss, kVfmsub231sd}},
      {0x9C, false, {kVfnmadd132ps, kVfnmadd132pd, kVfnmadd213ps, kVfnmadd213pd, kVfnmadd231ps, kVfnmadd231pd}},
      {0x9D, true, {kVfnmadd132ss, kVfnmadd132sd, kVfnmadd213ss, kVfnmadd213sd, kVfnmadd231ss, kVfnmadd231sd}},
      {0x9E, false, {kVfnmsub132ps, kVfnmsub132pd, kVfnmsub213ps, kVfnmsub213pd, kVfnmsub231ps, kVfnmsub231pd}},
      {0x9F, true, {kVfnmsub132ss, kVfnmsub132sd, kVfnmsub213ss, kVfnmsub213sd, kVfnmsub231ss, kVfnmsub231sd}}};
  for (const Family& family : kFamilies) {
    for (unsigned i = 0; i < 6; ++i) {
      const int w = static_cast<int>(i & 1);
      const Operand source = !family.scalar ? W : w != 0 ? Wq : Wd;
      avx(t, Table::k0F38, family.opcode + 16 * (i / 2), k66, family.mnemonics[i], Feature::kFma,
          family.scalar ? kIgnored : kBoth, changed(V), H, source)
          .with_w(w);
    }
  }
}

}  // namespace bulkhead::engine::decoder::tables
