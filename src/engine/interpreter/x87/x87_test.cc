// The x87 unit's memory images in every layout, its pending exceptions, and its life beside MMX. Arithmetic is compared
// with the host in simd/differential_test.cc.
#include <array>

#include <gtest/gtest.h>

#include "engine/interpreter/simd/guest_fixture.h"
#include "engine/interpreter/x87/image.h"

namespace bulkhead::engine::x87 {
namespace {

class X87 : public testing::Test {
 protected:
  X87() {
    guest.cpu().gpr[cpu::kRbx] = simd::Guest::kData;
    std::memset(guest.host(simd::Guest::kData), 0x55, 256);
  }
  int fault_of(std::initializer_list<uint8_t> bytes) {
    const auto fault = guest.run(bytes);
    return fault ? fault->vector : -1;
  }
  template <typename T>
  T at(uint64_t offset) {
    return guest.get<T>(simd::Guest::kData + offset);
  }
  void put_double(uint64_t offset, double value) { guest.put(simd::Guest::kData + offset, value); }
  simd::Guest guest;
};

TEST_F(X87, ComputesOnTheStack) {
  put_double(0, 1.5);
  EXPECT_EQ(fault_of({0xDD, 0x03}), -1);        // FLD qword [rbx]
  EXPECT_EQ(fault_of({0xD8, 0xC0}), -1);        // FADD ST, ST
  EXPECT_EQ(fault_of({0xDD, 0x5B, 0x08}), -1);  // FSTP qword [rbx+8]
  EXPECT_EQ(at<double>(8), 3.0);
  EXPECT_EQ(tags(guest.cpu()), 0);
}

TEST_F(X87, AnUnmaskedErrorWaitsForTheNextWaitingInstruction) {
  guest.put<uint16_t>(simd::Guest::kData, 0x37B);  // zero divide unmasked
  EXPECT_EQ(fault_of({0xD9, 0x2B}), -1);           // FLDCW
  EXPECT_EQ(fault_of({0xD9, 0xE8}), -1);           // FLD1
  EXPECT_EQ(fault_of({0xD9, 0xEE}), -1);           // FLDZ
  EXPECT_EQ(fault_of({0xDE, 0xF9}), -1);           // FDIVP: raises
  EXPECT_NE(status(guest.cpu()) & kStatusErrorSummary, 0);
  EXPECT_EQ(fault_of({0xDF, 0xE0}), -1);  // FNSTSW does not wait
  EXPECT_EQ(guest.cpu().gpr[cpu::kRax] & 0xFF, 0x84u);
  EXPECT_EQ(fault_of({0xD9, 0xE8}), kX87Error);
  EXPECT_EQ(fault_of({0x9B}), kX87Error);              // FWAIT
  EXPECT_EQ(fault_of({0x0F, 0xFC, 0xC1}), kX87Error);  // PADDB mm
  EXPECT_EQ(fault_of({0xDB, 0xE2}), -1);               // FNCLEX
  EXPECT_EQ(fault_of({0xD9, 0xE8}), -1);
}

TEST_F(X87, WithoutNumericErrorAPendingErrorIsIgnored) {
  guest.put<uint16_t>(simd::Guest::kData, 0x37B);
  EXPECT_EQ(fault_of({0xD9, 0x2B}), -1);
  EXPECT_EQ(fault_of({0xD9, 0xE8}), -1);
  EXPECT_EQ(fault_of({0xD9, 0xEE}), -1);
  EXPECT_EQ(fault_of({0xDE, 0xF9}), -1);
  guest.cpu().cr0 &= ~uint64_t{kCr0Ne};
  EXPECT_EQ(fault_of({0xD9, 0xE8}), -1);
  EXPECT_EQ(control(guest.cpu()), 0x37B);
  EXPECT_NE(status(guest.cpu()) & kStatusErrorSummary, 0);
}

TEST_F(X87, AnUnmaskedInvalidStoreWritesNothing) {
  guest.put<uint16_t>(simd::Guest::kData, 0x37E);
  EXPECT_EQ(fault_of({0xD9, 0x2B}), -1);
  EXPECT_EQ(fault_of({0xDD, 0x5B, 0x08}), -1);  // FSTP with an empty stack
  EXPECT_EQ(at<uint64_t>(8), 0x5555555555555555u);
  EXPECT_EQ(top(guest.cpu()), 0u);
  EXPECT_EQ(fault_of({0x9B}), kX87Error);
}

TEST_F(X87, AFaultingStoreDoesNotPop) {
  EXPECT_EQ(fault_of({0xD9, 0xE8}), -1);
  guest.cpu().gpr[cpu::kRbx] = simd::Guest::kAbsent - 4;
  EXPECT_EQ(fault_of({0xDD, 0x1B}), kPageFault);
  EXPECT_EQ(top(guest.cpu()), 7u);
}

TEST_F(X87, StoresTheEnvironmentInTheWideProtectedLayout) {
  EXPECT_EQ(fault_of({0xD9, 0xE8}), -1);
  EXPECT_EQ(fault_of({0xD9, 0xEE}), -1);
  EXPECT_EQ(fault_of({0xD9, 0x33}), -1);  // FNSTENV
  EXPECT_EQ(at<uint32_t>(0), 0xFFFF037Fu);
  EXPECT_EQ(at<uint32_t>(4), 0xFFFF3000u);
  EXPECT_EQ(at<uint32_t>(8), 0xFFFF1FFFu);  // 7 valid, 6 zero, others empty
  for (const uint64_t offset : {12, 16, 20}) EXPECT_EQ(at<uint32_t>(offset), 0u);
  EXPECT_EQ(at<uint32_t>(24), 0xFFFF0000u);
}

TEST_F(X87, StoresTheEnvironmentInTheNarrowLayout) {
  EXPECT_EQ(fault_of({0xD9, 0xE8}), -1);
  EXPECT_EQ(fault_of({0x66, 0xD9, 0x33}), -1);
  EXPECT_EQ(at<uint16_t>(0), 0x37F);
  EXPECT_EQ(at<uint16_t>(2), 0x3800);
  EXPECT_EQ(at<uint16_t>(4), 0x3FFF);
  EXPECT_EQ(at<uint16_t>(14), 0x5555);
}

TEST_F(X87, RealModeSplitsThePointers) {
  guest.enter_real_mode();
  guest.cpu().gpr[cpu::kRbx] = 0x8000;
  std::array<uint32_t, 7> wide = {0x37F, 0, 0xFFFF, 0x5678, 0x1234u << 12 | 0x123, 0xCDEF, 0x89ABu << 12};
  guest.put(0x8000, wide);
  EXPECT_EQ(fault_of({0x66, 0xD9, 0x27}), -1);  // FLDENV, 32-bit layout
  EXPECT_EQ(fault_of({0x66, 0xD9, 0x37}), -1);  // FNSTENV
  for (unsigned index = 0; index < 6; ++index) wide[index] |= index == 4 ? 0 : 0xFFFF0000u;
  wide[6] = 0x89ABu << 12;
  EXPECT_EQ((guest.get<std::array<uint32_t, 7>>(0x8000)), wide);
  EXPECT_EQ(fault_of({0xD9, 0x37}), -1);  // 16-bit layout
  EXPECT_EQ(guest.get<uint16_t>(0x8006), 0x5678);
  EXPECT_EQ(guest.get<uint16_t>(0x8008), 0x4123);
  EXPECT_EQ(guest.get<uint16_t>(0x800A), 0xCDEF);
  EXPECT_EQ(guest.get<uint16_t>(0x800C), 0xB000);
}

TEST_F(X87, LoadsWhatItStoredInBothLayouts) {
  for (const bool narrow : {false, true}) {
    EXPECT_EQ(fault_of({0xDB, 0xE3}), -1);
    EXPECT_EQ(fault_of({0xD9, 0xE8}), -1);
    EXPECT_EQ(fault_of({0xD9, 0xEB}), -1);
    const auto before = guest.cpu().xsave;
    EXPECT_EQ(narrow ? fault_of({0x66, 0xDD, 0x33}) : fault_of({0xDD, 0x33}), -1);  // FNSAVE
    EXPECT_EQ(tags(guest.cpu()), 0);
    EXPECT_EQ(control(guest.cpu()), kControlReset);
    EXPECT_EQ(narrow ? fault_of({0x66, 0xDD, 0x23}) : fault_of({0xDD, 0x23}), -1);  // FRSTOR
    EXPECT_EQ(guest.cpu().xsave, before);
  }
}

TEST_F(X87, LoadingAnEnvironmentMovesTheTopButNotTheRegisters) {
  EXPECT_EQ(fault_of({0xD9, 0xE8}), -1);  // FLD1 into physical register 7
  std::array<uint32_t, 7> environment = {0x37F, 0, 0xFFFF, 0, 0, 0, 0};
  environment[1] = 6u << 11;
  environment[2] = 0x3FFF;
  guest.put(simd::Guest::kData, environment);
  EXPECT_EQ(fault_of({0xD9, 0x23}), -1);  // FLDENV
  EXPECT_EQ(fault_of({0xDD, 0xD9}), -1);  // FSTP ST(1): an empty top
  EXPECT_NE(status(guest.cpu()) & kStatusStackFault, 0);
}

TEST_F(X87, MmxTakesTheUnitOver) {
  EXPECT_EQ(fault_of({0xD9, 0xE8}), -1);
  guest.put<uint64_t>(simd::Guest::kData, 0x1122334455667788);
  EXPECT_EQ(fault_of({0x0F, 0x6F, 0x1B}), -1);  // MOVQ mm3, [rbx]
  EXPECT_EQ(tags(guest.cpu()), 0xFF);
  EXPECT_EQ(top(guest.cpu()), 0u);
  EXPECT_EQ(fault_of({0x48, 0x0F, 0x7E, 0xF8}), -1);  // MOVQ rax, mm7: the 1.0 of before
  EXPECT_EQ(guest.cpu().gpr[cpu::kRax], 0x8000000000000000u);
  EXPECT_EQ(fault_of({0x0F, 0x77}), -1);  // EMMS
  EXPECT_EQ(tags(guest.cpu()), 0);
  uint64_t significand;
  std::memcpy(&significand, stack_register(guest.cpu(), 3), sizeof significand);
  EXPECT_EQ(significand, 0x1122334455667788u);
}

TEST_F(X87, MaskmovqWritesTheChosenBytes) {
  guest.put<uint64_t>(simd::Guest::kData, 0x8877665544332211);
  guest.put<uint64_t>(simd::Guest::kData + 8, 0x80007F0080000080);
  guest.put<uint64_t>(simd::Guest::kData + 16, 0);
  guest.cpu().gpr[cpu::kRdi] = simd::Guest::kData + 16;
  EXPECT_EQ(fault_of({0x0F, 0x6F, 0x03}), -1);
  EXPECT_EQ(fault_of({0x0F, 0x6F, 0x4B, 0x08}), -1);
  EXPECT_EQ(fault_of({0x0F, 0xF7, 0xC1}), -1);
  EXPECT_EQ(at<uint64_t>(16), 0x8800000044000011u);
}

}  // namespace
}  // namespace bulkhead::engine::x87
