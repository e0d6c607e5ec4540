// Privileged and system instructions, port I/O, cache and state management, hints. SDM volume 2, appendix A.
#pragma once

#include "engine/decoder/opcodes_general.h"

namespace bulkhead::engine::decoder::tables {

constexpr void add_ports_and_flags(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  using enum InstructionClass;
  t.add(Table::kOneByte, 0xE4, kIn, written(AL), Ib).of(kPrivileged);
  t.add(Table::kOneByte, 0xE5, kIn, written(rAX), Ib).of(kPrivileged).with(kMax4);
  t.add(Table::kOneByte, 0xE6, kOut, Ib, AL).of(kPrivileged).with(kByteOperand);
  t.add(Table::kOneByte, 0xE7, kOut, Ib, rAX).of(kPrivileged).with(kMax4);
  t.add(Table::kOneByte, 0xEC, kIn, written(AL), DX).of(kPrivileged);
  t.add(Table::kOneByte, 0xED, kIn, written(rAX), DX).of(kPrivileged).with(kMax4);
  t.add(Table::kOneByte, 0xEE, kOut, DX, AL).of(kPrivileged).with(kByteOperand);
  t.add(Table::kOneByte, 0xEF, kOut, DX, rAX).of(kPrivileged).with(kMax4);
  for (size_t i = t.count - 8; i < t.count; ++i) t.rows[i].reads(kFlagIopl);
  t.add(Table::kOneByte, 0xF4, kHlt).of(kPrivileged);
  t.add(Table::kOneByte, 0xFA, kCli).of(kPrivileged).reads(kFlagIopl).writes(kFlagIf | kFlagVif);
  t.add(Table::kOneByte, 0xFB, kSti).of(kPrivileged).reads(kFlagIopl).writes(kFlagIf | kFlagVif);
  t.add(Table::k0F, 0x06, kClts).of(kPrivileged);
  t.add(Table::k0F, 0x08, kInvd).of(kPrivileged);
  t.add(Table::k0F, 0x09, kWbinvd).of(kPrivileged);
  t.add(Table::k0F, 0x30, kWrmsr).of(kPrivileged).needs(Feature::kMsr).uses(kAx | kCx | kDx, 0);
  t.add(Table::k0F, 0x31, kRdtsc).of(kHelper).needs(Feature::kTsc).uses(0, kAx | kDx);
  t.add(Table::k0F, 0x32, kRdmsr).of(kPrivileged).needs(Feature::kMsr).uses(kCx, kAx | kDx);
  t.add(Table::k0F, 0x33, kRdpmc).of(kPrivileged).uses(kCx, kAx | kDx);
  t.add(Table::k0F, 0xA2, kCpuid).of(kHelper).uses(kAx | kCx, kAx | kBx | kCx | kDx);
  t.add(Table::k0F, 0xAA, kRsm).of(kPrivileged);
  constexpr uint32_t kAllFlags = kArithmeticFlags | kFlagTf | kFlagIf | kFlagDf | kFlagIopl | kFlagNt | kFlagRf |
                                 kFlagVm | kFlagAc | kFlagVif | kFlagVip | kFlagId;
  t.rows[t.count - 1].writes(kAllFlags);
  t.add(Table::k0F, 0x05, kSyscall).of(kControl).needs(Feature::kSyscall).writes(kAllFlags).uses(0, kCx | kR11);
  t.add(Table::k0F, 0x07, kSysret)
      .of(kControl)
      .with(kProtectedOnly)
      .needs(Feature::kSyscall)
      .writes(kAllFlags & ~kFlagVm)
      .uses(kCx | kR11, 0);
  t.add(Table::k0F, 0x34, kSysenter).of(kControl).needs(Feature::kSep).writes(kFlagIf | kFlagRf | kFlagVm).uses(0, kSp);
  t.add(Table::k0F, 0x35, kSysexit).of(kControl).needs(Feature::kSep).uses(kCx | kDx, kSp);
}

constexpr void add_descriptor_tables(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  using enum InstructionClass;
  t.add(Table::k0F, 0x00, kSldt, written(Ewv)).group(0).of(kPrivileged).with(kProtectedOnly);
  t.add(Table::k0F, 0x00, kStr, written(Ewv)).group(1).of(kPrivileged).with(kProtectedOnly);
  t.add(Table::k0F, 0x00, kLldt, Ew).group(2).of(kPrivileged).with(kProtectedOnly);
  t.add(Table::k0F, 0x00, kLtr, Ew).group(3).of(kPrivileged).with(kProtectedOnly);
  t.add(Table::k0F, 0x00, kVerr, Ew).group(4).of(kPrivileged).with(kProtectedOnly).writes(kFlagZf);
  t.add(Table::k0F, 0x00, kVerw, Ew).group(5).of(kPrivileged).with(kProtectedOnly).writes(kFlagZf);
  t.add(Table::k0F, 0x01, kSgdt, written(Ms)).group(0).of(kPrivileged).with(kNativeSize);
  t.add(Table::k0F, 0x01, kSidt, written(Ms)).group(1).of(kPrivileged).with(kNativeSize);
  t.add(Table::k0F, 0x01, kLgdt, Ms).group(2).of(kPrivileged).with(kNativeSize);
  t.add(Table::k0F, 0x01, kLidt, Ms).group(3).of(kPrivileged).with(kNativeSize);
  t.add(Table::k0F, 0x01, kSmsw, written(Ewv)).group(4).of(kPrivileged);
  t.add(Table::k0F, 0x01, kLmsw, Ew).group(6).of(kPrivileged);
  t.add(Table::k0F, 0x01, kInvlpg, M).group(7).of(kPrivileged);
  t.add(Table::k0F, 0x02, kLar, changed(Gv), Ewv).of(kPrivileged).with(kProtectedOnly).writes(kFlagZf);
  t.add(Table::k0F, 0x03, kLsl, changed(Gv), Ewv).of(kPrivileged).with(kProtectedOnly).writes(kFlagZf);
  t.add(Table::kOneByte, 0x8C, kMovFromSegment, written(Ewv), Sw).of(kPrivileged);
  t.add(Table::kOneByte, 0x8E, kMovToSegment, written(Sw), Ew).of(kPrivileged);
  t.add(Table::kOneByte, 0xC4, kLes, written(Gv), Mp).not_in_64().of(kPrivileged);
  t.add(Table::kOneByte, 0xC5, kLds, written(Gv), Mp).not_in_64().of(kPrivileged);
  t.add(Table::k0F, 0xB2, kLss, written(Gv), Mp).of(kPrivileged);
  t.add(Table::k0F, 0xB4, kLfs, written(Gv), Mp).of(kPrivileged);
  t.add(Table::k0F, 0xB5, kLgs, written(Gv), Mp).of(kPrivileged);
  const Operand r = make(K::kGprRm, W_::kOperand);
  t.add(Table::k0F, 0x20, kMovFromControl, written(r), Cv)
      .of(kPrivileged)
      .with(kNativeSize | kModIgnored)
      .writes(0, kArithmeticFlags);
  t.add(Table::k0F, 0x21, kMovFromDebug, written(r), Dv)
      .of(kPrivileged)
      .with(kNativeSize | kModIgnored)
      .writes(0, kArithmeticFlags);
  t.add(Table::k0F, 0x22, kMovToControl, written(Cv), r)
      .of(kPrivileged)
      .with(kNativeSize | kModIgnored)
      .writes(0, kArithmeticFlags);
  t.add(Table::k0F, 0x23, kMovToDebug, written(Dv), r)
      .of(kPrivileged)
      .with(kNativeSize | kModIgnored)
      .writes(0, kArithmeticFlags);
}

constexpr void add_group_7_registers(auto& t) {
  using enum Mnemonic;
  using enum InstructionClass;
  t.add(Table::k0F, 0x01, kVmcall).exactly(0, 1).when(kNp).of(kHelper);
  t.add(Table::k0F, 0x01, kMonitor)
      .exactly(1, 0)
      .when(kNp)
      .of(kPrivileged)
      .needs(Feature::kMonitor)
      .uses(kAx | kCx | kDx, 0);
  t.add(Table::k0F, 0x01, kMwait).exactly(1, 1).when(kNp).of(kPrivileged).needs(Feature::kMonitor).uses(kAx | kCx, 0);
  t.add(Table::k0F, 0x01, kClac).exactly(1, 2).when(kNp).of(kPrivileged).needs(Feature::kSmap).writes(kFlagAc);
  t.add(Table::k0F, 0x01, kStac).exactly(1, 3).when(kNp).of(kPrivileged).needs(Feature::kSmap).writes(kFlagAc);
  t.add(Table::k0F, 0x01, kXgetbv).exactly(2, 0).when(kNp).of(kHelper).needs(Feature::kXsave).uses(kCx, kAx | kDx);
  t.add(Table::k0F, 0x01, kXsetbv)
      .exactly(2, 1)
      .when(kNp)
      .of(kPrivileged)
      .needs(Feature::kXsave)
      .uses(kAx | kCx | kDx, 0);
  t.add(Table::k0F, 0x01, kVmmcall).exactly(3, 1).of(kHelper);
  t.add(Table::k0F, 0x01, kSwapgs).exactly(7, 0).only_in_64().of(kPrivileged);
  t.add(Table::k0F, 0x01, kRdtscp).exactly(7, 1).of(kHelper).needs(Feature::kRdtscp).uses(0, kAx | kCx | kDx);
}

constexpr void add_state_management(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  using enum InstructionClass;
  const auto memory = [&t](unsigned opcode, int extension, Mnemonic mnemonic, Operand operand,
                           Feature feature) -> Row& {
    return t.add(Table::k0F, opcode, mnemonic, operand)
        .group(extension)
        .memory_only()
        .when(kNp)
        .needs(feature)
        .of(kHelper);
  };
  constexpr unsigned kMask = kAx | kDx;
  memory(0xAE, 0, kFxsave, written(Mfxsave), Feature::kFxsr).aligned(Alignment::k16).with(kDwordOrW);
  memory(0xAE, 1, kFxrstor, Mfxsave, Feature::kFxsr).aligned(Alignment::k16).with(kDwordOrW);
  memory(0xAE, 2, kLdmxcsr, Md, Feature::kSse).state(StateComponent::kSse);
  memory(0xAE, 3, kStmxcsr, written(Md), Feature::kSse).state(StateComponent::kSse);
  memory(0xAE, 4, kXsave, changed(Mxsave), Feature::kXsave).aligned(Alignment::k64).with(kDwordOrW).uses(kMask, 0);
  memory(0xAE, 5, kXrstor, Mxsave, Feature::kXsave).aligned(Alignment::k64).with(kDwordOrW).uses(kMask, 0);
  memory(0xAE, 6, kXsaveopt, changed(Mxsave), Feature::kXsaveopt)
      .aligned(Alignment::k64)
      .with(kDwordOrW)
      .uses(kMask, 0);
  memory(0xAE, 7, kClflush, Mb, Feature::kClflush);
  memory(0xAE, 6, kClwb, Mb, Feature::kClwb).when(k66);
  memory(0xAE, 7, kClflushopt, Mb, Feature::kClflushopt).when(k66);
  memory(0xC7, 3, kXrstors, Mxsave, Feature::kXsaves)
      .aligned(Alignment::k64)
      .of(kPrivileged)
      .with(kDwordOrW)
      .uses(kMask, 0);
  memory(0xC7, 4, kXsavec, written(Mxsave), Feature::kXsavec).aligned(Alignment::k64).with(kDwordOrW).uses(kMask, 0);
  memory(0xC7, 5, kXsaves, written(Mxsave), Feature::kXsaves)
      .aligned(Alignment::k64)
      .of(kPrivileged)
      .with(kDwordOrW)
      .uses(kMask, 0);
  const auto vex_mxcsr = [&t](int extension, Mnemonic mnemonic, Operand operand) {
    t.add(Table::kVex0F, 0xAE, mnemonic, operand)
        .group(extension)
        .memory_only()
        .when(kNp)
        .with_length(VectorLength::k128)
        .needs(Feature::kAvx)
        .of(kHelper)
        .state(StateComponent::kAvx);
  };
  vex_mxcsr(2, kLdmxcsr, Md);
  vex_mxcsr(3, kStmxcsr, written(Md));

  t.add(Table::k0F, 0xAE, kLfence).group(5).register_only().when(kNp).needs(Feature::kSse2);
  t.add(Table::k0F, 0xAE, kMfence).group(6).register_only().when(kNp).needs(Feature::kSse2);
  t.add(Table::k0F, 0xAE, kSfence).group(7).register_only().when(kNp).needs(Feature::kSse);
  constexpr std::array<Mnemonic, 4> kBases = {kRdfsbase, kRdgsbase, kWrfsbase, kWrgsbase};
  for (int i = 0; i < 4; ++i)
    t.add(Table::k0F, 0xAE, kBases[static_cast<size_t>(i)], i < 2 ? written(Ey) : Ey)
        .group(i)
        .register_only()
        .when(kF3)
        .only_in_64()
        .with(kDwordOrW)
        .needs(Feature::kFsgsbase)
        .of(kPrivileged);
  t.add(Table::k0F, 0xC7, kRdrand, written(Ev))
      .group(6)
      .register_only()
      .when(kNoRep)
      .needs(Feature::kRdrand)
      .of(kHelper)
      .writes(kArithmeticFlags);
  t.add(Table::k0F, 0xC7, kRdseed, written(Ev))
      .group(7)
      .register_only()
      .when(kNoRep)
      .needs(Feature::kRdseed)
      .of(kHelper)
      .writes(kArithmeticFlags);
  t.add(Table::k0F, 0xC7, kRdpid, written(Ev))
      .group(7)
      .register_only()
      .when(kF3)
      .with(kNativeSize)
      .needs(Feature::kRdpid)
      .of(kHelper);
  t.add(Table::k0F38, 0x82, kInvpcid, make(K::kGprReg, W_::kOperand), Mdq)
      .when(k66)
      .with(kNativeSize)
      .needs(Feature::kInvpcid)
      .of(kPrivileged);
}

constexpr void add_hints(auto& t) {
  using enum Mnemonic;
  using namespace operands;
  constexpr std::array<Mnemonic, 4> kPrefetches = {kPrefetchnta, kPrefetcht0, kPrefetcht1, kPrefetcht2};
  for (int i = 0; i < 4; ++i)
    t.add(Table::k0F, 0x18, kPrefetches[static_cast<size_t>(i)], unused(Mb))
        .group(i)
        .memory_only()
        .needs(Feature::kSse);
  for (int i = 0; i < 8; ++i) {
    const Mnemonic mnemonic = i == 1 ? kPrefetchw : kPrefetch;
    t.add(Table::k0F, 0x0D, mnemonic, unused(Mb)).group(i).memory_only().needs(Feature::kPrefetchw);
    t.add(Table::k0F, 0x0D, kNop, unused(Ev), unused(Gv)).group(i).register_only();
  }
  // The reserved hint space, where CET's ENDBR and others live: no operation for a processor without them.
  for (unsigned opcode = 0x18; opcode <= 0x1F; ++opcode) t.add(Table::k0F, opcode, kNop, unused(Ev), unused(Gv));
}

}  // namespace bulkhead::engine::decoder::tables
