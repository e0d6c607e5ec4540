// What the random comparison with the host does not reach: control register checks, faults in the middle of an
// instruction, gathers and masked accesses, and rules for which the host has no say.
#include <gtest/gtest.h>

#include "cpu/model.h"
#include "engine/interpreter/simd/float_control.h"
#include "engine/interpreter/simd/guest_fixture.h"
#include "engine/interpreter/x87/image.h"

namespace bulkhead::engine::simd {
namespace {

class VectorInstruction : public testing::Test {
 protected:
  VectorInstruction() { guest.cpu().gpr[cpu::kRbx] = Guest::kData; }

  int fault_of(std::initializer_list<uint8_t> bytes) {
    const auto fault = guest.run(bytes);
    return fault ? fault->vector : -1;
  }
  void set_control(uint64_t set_cr0, uint64_t clear_cr4) {
    guest.cpu().cr0 |= set_cr0;
    guest.cpu().cr4 &= ~clear_cr4;
    update_mode(guest.cpu());
  }
  template <typename T>
  void set_lanes(unsigned number, std::initializer_list<T> lanes) {
    VectorRegister value{};
    std::memcpy(&value, lanes.begin(), lanes.size() * sizeof(T));
    write_ymm(guest.cpu(), number, value);
  }
  template <typename T>
  T lane(unsigned number, unsigned index) {
    VectorRegister value;
    read_ymm(guest.cpu(), number, value);
    T result;
    std::memcpy(&result, reinterpret_cast<const uint8_t*>(&value) + index * sizeof(T), sizeof(T));
    return result;
  }
  static bool host_has(std::string_view feature) { return cpu::host_features().has(feature); }

  static constexpr std::initializer_list<uint8_t> kAddps = {0x0F, 0x58, 0xC1}, kVaddps = {0xC5, 0xF0, 0x58, 0xC1},
                                                  kPaddbMmx = {0x0F, 0xFC, 0xC1}, kFld1 = {0xD9, 0xE8}, kFwait = {0x9B},
                                                  kPxor = {0x66, 0x0F, 0xEF, 0xC0};
  Guest guest;
};

TEST_F(VectorInstruction, EmulationMakesSseAndMmxUndefinedAndX87Unavailable) {
  set_control(kCr0Em, 0);
  EXPECT_EQ(fault_of(kAddps), kInvalidOpcode);
  EXPECT_EQ(fault_of(kPxor), kInvalidOpcode);
  EXPECT_EQ(fault_of(kPaddbMmx), kInvalidOpcode);
  EXPECT_EQ(fault_of(kFld1), kDeviceNotAvailable);
  EXPECT_EQ(fault_of(kFwait), -1);
}

TEST_F(VectorInstruction, TaskSwitchedMakesEveryUnitUnavailable) {
  set_control(kCr0Ts, 0);
  for (const auto& bytes : {kAddps, kVaddps, kPxor, kPaddbMmx, kFld1, kFwait})
    EXPECT_EQ(fault_of(bytes), kDeviceNotAvailable);
}

TEST_F(VectorInstruction, SystemsThatDoNotSaveTheStateGetUndefinedOpcodes) {
  set_control(0, kCr4Osxsave);
  EXPECT_EQ(fault_of(kVaddps), kInvalidOpcode);
  EXPECT_EQ(fault_of(kPxor), -1);
  set_control(0, kCr4Osfxsr);
  EXPECT_EQ(fault_of(kPxor), kInvalidOpcode);
  EXPECT_EQ(fault_of(kAddps), kInvalidOpcode);
  EXPECT_EQ(fault_of(kPaddbMmx), -1);
}

TEST_F(VectorInstruction, AvxNeedsXcr0) {
  guest.cpu().xcr0 = 3;
  update_mode(guest.cpu());
  EXPECT_EQ(fault_of(kVaddps), kInvalidOpcode);
  EXPECT_EQ(fault_of(kAddps), -1);
}

TEST_F(VectorInstruction, UnmaskedFloatErrorsKeepTheDestinationAndSetFlags) {
  Cpu& cpu = guest.cpu();
  set_lanes<float>(0, {1, 1, 1, 1});
  set_lanes<float>(1, {0, 0, 0, 0});
  set_mxcsr(cpu, kMxcsrReset & ~(uint32_t{kMxcsrZeroDivide} << kMxcsrMaskShift));
  EXPECT_EQ(fault_of({0x0F, 0x5E, 0xC1}), kSimdError);  // DIVPS
  EXPECT_EQ(lane<float>(0, 0), 1.0f);
  EXPECT_EQ(mxcsr(cpu) & kMxcsrFlags, uint32_t{kMxcsrZeroDivide});
  set_control(0, kCr4Osxmmexcpt);
  EXPECT_EQ(fault_of({0x0F, 0x5E, 0xC1}), kInvalidOpcode);
}

TEST_F(VectorInstruction, ExactTinyResultsCountWhileUnderflowIsUnmasked) {
  set_lanes<uint32_t>(0, {0x00800000, 0, 0, 0});  // the smallest normal number
  set_lanes<float>(1, {0.5f, 0, 0, 0});
  set_mxcsr(guest.cpu(), kMxcsrReset);
  EXPECT_EQ(fault_of({0xF3, 0x0F, 0x59, 0xC1}), -1);  // MULSS
  EXPECT_EQ(mxcsr(guest.cpu()), uint32_t{kMxcsrReset});
  set_lanes<uint32_t>(0, {0x00800000, 0, 0, 0});
  set_mxcsr(guest.cpu(), kMxcsrReset & ~uint32_t{kMxcsrUnderflowMask});
  EXPECT_EQ(fault_of({0xF3, 0x0F, 0x59, 0xC1}), kSimdError);
}

TEST_F(VectorInstruction, LegacyOperandsMustBeAlignedAndVexOnesNeedNot) {
  guest.cpu().gpr[cpu::kRbx] = Guest::kData + 1;
  EXPECT_EQ(fault_of({0x0F, 0x58, 0x03}), kGeneralProtection);        // ADDPS
  EXPECT_EQ(fault_of({0x66, 0x0F, 0xEF, 0x03}), kGeneralProtection);  // PXOR
  EXPECT_EQ(fault_of({0x0F, 0x28, 0x03}), kGeneralProtection);        // MOVAPS load
  EXPECT_EQ(fault_of({0x0F, 0x29, 0x03}), kGeneralProtection);        // MOVAPS store
  EXPECT_EQ(fault_of({0x0F, 0x10, 0x03}), -1);                        // MOVUPS
  EXPECT_EQ(fault_of({0xC5, 0xF9, 0xEF, 0x03}), -1);                  // VPXOR
  EXPECT_EQ(fault_of({0xC5, 0xFC, 0x28, 0x03}), kGeneralProtection);  // VMOVAPS ymm
}

TEST_F(VectorInstruction, LegacyKeepsTheUpperHalfAndVexClearsIt) {
  set_lanes<uint64_t>(0, {1, 2, 3, 4});
  EXPECT_EQ(fault_of(kPxor), -1);
  EXPECT_EQ(lane<uint64_t>(0, 3), 4u);
  EXPECT_EQ(fault_of({0xC5, 0xF9, 0xEF, 0xC0}), -1);
  EXPECT_EQ(lane<uint64_t>(0, 3), 0u);
}

TEST_F(VectorInstruction, AStoreAcrossAnAbsentPageWritesNothing) {
  set_lanes<uint64_t>(0, {~0ull, ~0ull, ~0ull, ~0ull});
  std::memset(guest.host(Guest::kAbsent - 64), 0, 64);
  guest.cpu().gpr[cpu::kRbx] = Guest::kAbsent - 8;
  EXPECT_EQ(fault_of({0x0F, 0x11, 0x03}), kPageFault);
  EXPECT_EQ(fault_of({0xC5, 0xFC, 0x11, 0x03}), kPageFault);
  EXPECT_EQ(guest.get<uint64_t>(Guest::kAbsent - 8), 0u);
}

TEST_F(VectorInstruction, AGatherKeepsItsProgressWhenALaneFaults) {
  Cpu& cpu = guest.cpu();
  guest.put<uint32_t>(Guest::kData, 11);
  guest.put<uint32_t>(Guest::kData + 4, 22);
  cpu.gpr[cpu::kRbx] = Guest::kData;
  set_lanes<uint32_t>(0, {1, 2, 3, 4});                             // destination
  set_lanes<uint32_t>(1, {0, 1, 0x400, 0x401});                     // indices; the last two hit the absent page
  set_lanes<uint32_t>(2, {0x80000000, 0xFFFFFFFF, 0x80000000, 0});  // mask
  const std::initializer_list<uint8_t> gather = {0xC4, 0xE2, 0x69,
                                                 0x90, 0x04, 0x8B};  // VPGATHERDD xmm0, [rbx+xmm1*4], xmm2
  const auto fault = guest.run(gather);
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->vector, kPageFault);
  EXPECT_EQ(fault->cr2, Guest::kAbsent);
  EXPECT_EQ(lane<uint32_t>(0, 0), 11u);
  EXPECT_EQ(lane<uint32_t>(0, 1), 22u);
  EXPECT_EQ(lane<uint32_t>(0, 2), 3u);
  EXPECT_EQ(lane<uint32_t>(2, 0), 0u);
  EXPECT_EQ(lane<uint32_t>(2, 2), 0xFFFFFFFFu);
  set_lanes<uint32_t>(1, {0, 1, 1, 0x401});
  EXPECT_EQ(fault_of(gather), -1);
  EXPECT_EQ(lane<uint32_t>(0, 2), 22u);
  EXPECT_EQ(lane<uint32_t>(0, 3), 4u);
  EXPECT_EQ(lane<uint32_t>(2, 2), 0u);
}

TEST_F(VectorInstruction, AGatherOfQuadIndicesFillsHalfARegister) {
  guest.put<uint32_t>(Guest::kData + 8, 7);
  set_lanes<uint32_t>(0, {1, 2, 3, 4, 5, 6, 7, 8});
  set_lanes<uint64_t>(1, {2, ~0ull, 0, 0});
  set_lanes<uint32_t>(2, {~0u, 0, ~0u, ~0u, ~0u});
  EXPECT_EQ(fault_of({0xC4, 0xE2, 0x69, 0x91, 0x04, 0x8B}), -1);  // VPGATHERQD xmm0, [rbx+xmm1*4], xmm2
  EXPECT_EQ(lane<uint32_t>(0, 0), 7u);
  EXPECT_EQ(lane<uint32_t>(0, 1), 2u);
  for (unsigned index = 2; index < 8; ++index) EXPECT_EQ(lane<uint32_t>(0, index), 0u);
}

TEST_F(VectorInstruction, MaskedMovesDoNotTouchMaskedLanes) {
  guest.cpu().gpr[cpu::kRbx] = Guest::kAbsent - 8;
  guest.put<uint64_t>(Guest::kAbsent - 8, 0x2222222211111111);
  set_lanes<uint32_t>(1, {~0u, ~0u, 0, 0});
  EXPECT_EQ(fault_of({0xC4, 0xE2, 0x71, 0x2C, 0x03}), -1);  // VMASKMOVPS xmm0, xmm1, [rbx]
  EXPECT_EQ(lane<uint64_t>(0, 0), 0x2222222211111111u);
  EXPECT_EQ(lane<uint64_t>(0, 1), 0u);
  set_lanes<uint32_t>(0, {5, 6, 7, 8});
  EXPECT_EQ(fault_of({0xC4, 0xE2, 0x71, 0x2E, 0x03}), -1);  // store
  EXPECT_EQ(guest.get<uint64_t>(Guest::kAbsent - 8), 0x0000000600000005u);
  set_lanes<uint32_t>(1, {~0u, 0, ~0u, 0});
  set_lanes<uint32_t>(0, {9, 9, 9, 9});
  EXPECT_EQ(fault_of({0xC4, 0xE2, 0x71, 0x2E, 0x03}), kPageFault);
  EXPECT_EQ(guest.get<uint64_t>(Guest::kAbsent - 8), 0x0000000600000005u);
}

TEST_F(VectorInstruction, MaskmovdquWritesTheChosenBytes) {
  guest.put<uint64_t>(Guest::kData, 0);
  guest.cpu().gpr[cpu::kRdi] = Guest::kData;
  set_lanes<uint64_t>(0, {0x8877665544332211, 0});
  set_lanes<uint64_t>(1, {0x80007F0080000080, 0});
  EXPECT_EQ(fault_of({0x66, 0x0F, 0xF7, 0xC1}), -1);
  EXPECT_EQ(guest.get<uint64_t>(Guest::kData), 0x8800000044000011u);
}

TEST_F(VectorInstruction, DoesAnAesRoundByKnownAnswer) {
  if (!host_has("aes")) GTEST_SKIP() << "the host has no AES";
  // FIPS 197, appendix B: round 1.
  set_lanes<uint8_t>(0,
                     {0x19, 0x3D, 0xE3, 0xBE, 0xA0, 0xF4, 0xE2, 0x2B, 0x9A, 0xC6, 0x8D, 0x2A, 0xE9, 0xF8, 0x48, 0x08});
  set_lanes<uint8_t>(1,
                     {0xA0, 0xFA, 0xFE, 0x17, 0x88, 0x54, 0x2C, 0xB1, 0x23, 0xA3, 0x39, 0x39, 0x2A, 0x6C, 0x76, 0x05});
  EXPECT_EQ(fault_of({0x66, 0x0F, 0x38, 0xDC, 0xC1}), -1);
  EXPECT_EQ(lane<uint8_t>(0, 0), 0xA4);
  EXPECT_EQ(lane<uint8_t>(0, 1), 0x9C);
  EXPECT_EQ(lane<uint8_t>(0, 15), 0x49);
}

TEST_F(VectorInstruction, LeavesTheHostsOwnControlBitsAlone) {
  set_mxcsr(guest.cpu(), 0x7F80 | kMxcsrFlushToZero | kMxcsrDenormalsAreZero);
  EXPECT_EQ(fault_of(kAddps), -1);
  EXPECT_EQ(fault_of(kVaddps), -1);
  EXPECT_EQ(fault_of(kPaddbMmx), -1);
  EXPECT_EQ(fault_of(kFld1), -1);
  uint32_t host;
  uint16_t control;
  asm volatile("stmxcsr %0; fnstcw %1" : "=m"(host), "=m"(control));
  EXPECT_EQ(host & ~uint32_t{kMxcsrFlags}, uint32_t{kMxcsrReset});
  EXPECT_EQ(control, 0x37F);
  volatile long double one = 1, three = 3;
  EXPECT_GT(one / three, 0.33L);
}

}  // namespace
}  // namespace bulkhead::engine::simd
