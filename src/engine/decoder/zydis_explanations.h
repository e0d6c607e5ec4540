// For tests only: what Zydis 4.0 is known to see otherwise than our decoder, each with its reason. Everything that is
// not listed here is a difference; an entry must never account for more than its own cases and aspects.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <string_view>

#include "engine/decoder/zydis_oracle.h"

namespace bulkhead::engine::decoder::oracle {

// One known way in which Zydis 4.0 sees things otherwise. It accounts for a case when it applies and for its aspects
// only.
struct Explanation {
  std::string_view name;
  std::string_view reason;
  unsigned aspects;
  bool (*applies)(const Case&);
};

inline bool is_one_of(const Case& c, std::initializer_list<Mnemonic> list) {
  return std::find(list.begin(), list.end(), c.ours.mnemonic) != list.end();
}

inline bool is_in_our_isa(ZydisISASet set) {
  switch (set) {
    case ZYDIS_ISA_SET_ADOX_ADCX:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_AMD:
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_CLFLUSHOPT:
    case ZYDIS_ISA_SET_CLFSH:
    case ZYDIS_ISA_SET_CLWB:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_F16C:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I286PROTECTED:
    case ZYDIS_ISA_SET_I286REAL:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_INVPCID:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_LZCNT:
    case ZYDIS_ISA_SET_MONITOR:
    case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_PREFETCHWT1:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_RDPID:
    case ZYDIS_ISA_SET_RDPMC:
    case ZYDIS_ISA_SET_RDRAND:
    case ZYDIS_ISA_SET_RDSEED:
    case ZYDIS_ISA_SET_RDTSCP:
    case ZYDIS_ISA_SET_RDWRFSGS:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_SMAP:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_XSAVE:
    case ZYDIS_ISA_SET_XSAVEC:
    case ZYDIS_ISA_SET_XSAVEOPT:
    case ZYDIS_ISA_SET_XSAVES:
      return true;
    default:
      return false;
  }
}

inline constexpr Explanation kExplanations[] = {
    {"outside our ISA",
     "Zydis knows AVX-512, XOP, FMA4, 3DNow!, VMX, SVM, CET, KNC and others, which no Bulkhead CPU model shows",
     kValidity, [](const Case& c) { return !c.we_accept() && !is_in_our_isa(c.zydis.meta.isa_set); }},
    {"SYSENTER and SYSEXIT in 16-bit mode",
     "real mode raises #GP, not #UD, and virtual-8086 mode decodes them (SDM 2B)", kValidity,
     [](const Case& c) {
       return is_one_of(c, {Mnemonic::kSysenter, Mnemonic::kSysexit}) && c.mode == DecodeMode::kReal16;
     }},
    {"illegal and too long",
     "both a reserved encoding and more than 15 bytes: the manual ranks the two faults alike (SDM 3A, 6.9); each "
     "decoder stops "
     "where it first knows",
     kRefusal,
     [](const Case& c) { return c.status == DecodeStatus::kTooLong ? !c.zydis_accepts() : c.ours.info == nullptr; }},
    {"other names",
     "one operation, several names: FSTPNCE is FSTP; FENI, FDISI, FSETPM are FNOP today; PREFETCHWT1 is a hint", kName,
     [](const Case& c) {
       return is_one_of(c, {Mnemonic::kFstp, Mnemonic::kFnop, Mnemonic::kPrefetch}) &&
              (c.zydis.mnemonic == ZYDIS_MNEMONIC_FSTPNCE || c.zydis.mnemonic == ZYDIS_MNEMONIC_FENI8087_NOP ||
               c.zydis.mnemonic == ZYDIS_MNEMONIC_FDISI8087_NOP || c.zydis.mnemonic == ZYDIS_MNEMONIC_FSETPM287_NOP ||
               c.zydis.mnemonic == ZYDIS_MNEMONIC_PREFETCHWT1);
     }},
    {"hints", "a hint or INVLPG uses an address and never reads; the operands of a reserved NOP mean nothing",
     kOperands | kWidth | kAccess,
     [](const Case& c) {
       return is_one_of(c, {Mnemonic::kNop, Mnemonic::kPrefetch, Mnemonic::kPrefetchw, Mnemonic::kPrefetchnta,
                            Mnemonic::kPrefetcht0, Mnemonic::kPrefetcht1, Mnemonic::kPrefetcht2, Mnemonic::kInvlpg});
     }},
    {"UD0 and UD1", "operands of an instruction that only faults", kWidth,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kUd0, Mnemonic::kUd1}); }},
    {"cache line",
     "Zydis gives CLFLUSH, CLFLUSHOPT, CLWB 64 bytes; permissions are checked as for a byte load (SDM 2A)", kWidth,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kClflush, Mnemonic::kClflushopt, Mnemonic::kClwb}); }},
    {"XSAVE area", "Zydis gives 576 bytes; the size follows XCR0 and the instruction's mask (SDM 1, 13)", kWidth,
     [](const Case& c) {
       return is_one_of(c, {Mnemonic::kXsave, Mnemonic::kXsavec, Mnemonic::kXsaveopt, Mnemonic::kXsaves,
                            Mnemonic::kXrstor, Mnemonic::kXrstors});
     }},
    {"LSL source", "a selector: 16 bits count whatever register width is named", kWidth,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kLsl, Mnemonic::kLar}); }},
    {"MOVSXD with 66", "reads 16 bits (SDM 2B; Intel processors do), Zydis says 32", kWidth,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kMovsxd}) && c.ours.operand_size == 2; }},
    {"MOVMSKPS and MOVMSKPD with REX.W", "the mask is zero-extended to 64 bits either way", kWidth,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kMovmskps, Mnemonic::kMovmskpd}); }},
    {"SIB base 101 with 67 and REX.B",
     "mod 00: no base and a displacement whatever REX.B says (SDM 2A, table 2-5); Zydis 4.0 names r13", kOperands,
     [](const Case& c) {
       return c.mode == DecodeMode::kLong64 && c.ours.has(kPrefixAddressSize) && c.ours.has_memory() &&
              c.ours.base == kNoRegister && c.ours.displacement_length == 4;
     }},
    {"merging destination", "legacy SSE keeps the destination's upper part, so it is read", kAccess,
     [](const Case& c) {
       return !c.ours.is_vex() && c.ours.vector_size == 16 && c.ours.info->operands[0].access == Access::kReadWrite;
     }},
    {"BSF and BSR of zero", "leave the destination, so it is read", kAccess,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kBsf, Mnemonic::kBsr}); }},
    {"FFREE", "marks a register empty: a write", kAccess,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kFfree, Mnemonic::kFfreep}); }},
    {"XLAT", "adds AL to the address, so it is read", kImplicitRead,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kXlat}); }},
    {"BEXTR flags", "CF and OF are cleared, AF, SF and PF undefined (SDM 2A)", kFlagsWritten | kFlagsUndefined,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kBextr}); }},
    {"SBB flags", "AF is set according to the result (SDM 2B)", kFlagsWritten | kFlagsUndefined,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kSbb}); }},
    {"shifts by one", "OF is defined for a count of 1 (SDM 2B)", kFlagsWritten | kFlagsUndefined,
     [](const Case& c) { return (c.ours.opcode & 0xFE) == 0xD0 && c.ours.opcode_map == OpcodeMap::kOneByte; }},
    {"VPTEST and VTESTPS flags", "OF, AF, PF and SF are cleared (SDM 2B, 2C)", kFlagsWritten,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kPtest, Mnemonic::kVtestps, Mnemonic::kVtestpd}); }},
    {"MOV to and from CR and DR", "leave the arithmetic flags undefined (SDM 2B)", kFlagsUndefined,
     [](const Case& c) {
       return is_one_of(
           c, {Mnemonic::kMovToControl, Mnemonic::kMovFromControl, Mnemonic::kMovToDebug, Mnemonic::kMovFromDebug});
     }},
    {"INT1 and INTO flags", "deliver through the IDT as INT3 does", kFlagsRead | kFlagsWritten,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kInt1, Mnemonic::kInto}); }},
    {"repeated comparison", "the ZF that ends a repetition is the one just written", kFlagsRead,
     [](const Case& c) {
       return is_one_of(c, {Mnemonic::kCmps, Mnemonic::kScas}) && (c.ours.has(kPrefixRep) || c.ours.has(kPrefixRepne));
     }},
    {"VMCALL flags", "Zydis describes VMX operation, which no guest of ours is in", kFlagsRead | kFlagsWritten,
     [](const Case& c) { return is_one_of(c, {Mnemonic::kVmcall}); }},
};
inline constexpr size_t kExplanationCount = std::size(kExplanations);

// Takes what is explained out of c.differences and counts it.
inline void explain(Case& c, std::array<uint64_t, kExplanationCount>& counts) {
  for (size_t i = 0; i < kExplanationCount && c.differences != 0; ++i) {
    if ((c.differences & kExplanations[i].aspects) == 0 || !kExplanations[i].applies(c)) continue;
    c.differences &= ~kExplanations[i].aspects;
    ++counts[i];
  }
}

}  // namespace bulkhead::engine::decoder::oracle
