// FXSAVE, FXRSTOR and the XSAVE family: layouts, header checks, what is written and what is left alone.
#include "engine/interpreter/simd/state.h"

#include <array>

#include <gtest/gtest.h>

#include "engine/interpreter/simd/float_control.h"
#include "engine/interpreter/simd/guest_fixture.h"
#include "engine/interpreter/x87/image.h"

namespace bulkhead::engine::simd {
namespace {

constexpr uint64_t kArea = Guest::kData;
constexpr uint64_t kHeader = kArea + 512, kFormat = kArea + 520, kAvxArea = kArea + 576;
constexpr uint64_t kCompacted = uint64_t{1} << 63;

class VectorState : public testing::Test {
 protected:
  VectorState() {
    Cpu& cpu = guest.cpu();
    cpu.gpr[cpu::kRbx] = kArea;
    request(7);
    std::memset(guest.host(kArea), 0, 4096);
  }
  void request(uint64_t components) {
    guest.cpu().gpr[cpu::kRax] = components;
    guest.cpu().gpr[cpu::kRdx] = 0;
  }
  void fill_registers() {
    Cpu& cpu = guest.cpu();
    for (unsigned number = 0; number < 16; ++number) {
      std::memset(xmm(cpu, number), static_cast<int>(0x10 + number), 16);
      std::memset(ymm_high(cpu, number), static_cast<int>(0x80 + number), 16);
    }
    set_mxcsr(cpu, 0x7FA1);
    EXPECT_FALSE(guest.run({0xD9, 0xE8}));  // FLD1
    EXPECT_FALSE(guest.run({0xD9, 0xEB}));  // FLDPI
  }
  int fault_of(std::initializer_list<uint8_t> bytes) {
    const auto fault = guest.run(bytes);
    return fault ? fault->vector : -1;
  }
  static constexpr std::initializer_list<uint8_t> kFxsave = {0x0F, 0xAE, 0x03}, kFxrstor = {0x0F, 0xAE, 0x0B},
                                                  kXsave = {0x0F, 0xAE, 0x23}, kXrstor = {0x0F, 0xAE, 0x2B},
                                                  kXsaveopt = {0x0F, 0xAE, 0x33}, kXsavec = {0x0F, 0xC7, 0x23};
  Guest guest;
};

TEST_F(VectorState, FxsaveAndFxrstorCarryX87AndSseButNotTheUpperHalves) {
  fill_registers();
  std::array<uint8_t, 1024> before = guest.cpu().xsave;
  EXPECT_FALSE(guest.run(kFxsave));
  EXPECT_EQ(guest.get<uint16_t>(kArea), 0x37F);
  EXPECT_EQ(guest.get<uint16_t>(kArea + 2), 6u << 11);
  EXPECT_EQ(guest.get<uint8_t>(kArea + 4), 0xC0);
  EXPECT_EQ(guest.get<uint32_t>(kArea + 24), 0x7FA1u);
  EXPECT_EQ(guest.get<uint32_t>(kArea + 28), 0xFFFFu);
  initialise_components(guest.cpu(), kStateAll);
  EXPECT_FALSE(guest.run(kFxrstor));
  std::memset(before.data() + kYmmHighOffset, 0, 256);
  EXPECT_EQ(guest.cpu().xsave, before);
}

TEST_F(VectorState, FxsaveLeavesTheBytesBehindTheRegistersToSoftware) {
  std::memset(guest.host(kArea), 0xEE, 512);
  EXPECT_FALSE(guest.run(kFxsave));
  for (uint64_t at = 416; at < 512; ++at) EXPECT_EQ(guest.get<uint8_t>(kArea + at), 0xEE);
}

TEST_F(VectorState, MisalignedAreasRaiseGeneralProtection) {
  guest.cpu().gpr[cpu::kRbx] = kArea + 8;
  EXPECT_EQ(fault_of(kFxsave), kGeneralProtection);
  EXPECT_EQ(fault_of(kFxrstor), kGeneralProtection);
  guest.cpu().gpr[cpu::kRbx] = kArea + 32;
  for (const auto& bytes : {kXsave, kXrstor, kXsaveopt, kXsavec}) EXPECT_EQ(fault_of(bytes), kGeneralProtection);
}

TEST_F(VectorState, ReservedMxcsrBitsRaiseGeneralProtectionAndChangeNothing) {
  fill_registers();
  const auto before = guest.cpu().xsave;
  guest.put<uint32_t>(kArea + 24, 0x10000);
  EXPECT_EQ(fault_of(kFxrstor), kGeneralProtection);
  guest.put<uint64_t>(kHeader, 7);
  EXPECT_EQ(fault_of(kXrstor), kGeneralProtection);
  EXPECT_EQ(fault_of({0x0F, 0xAE, 0x53, 24}), kGeneralProtection);  // LDMXCSR
  EXPECT_EQ(guest.cpu().xsave, before);
}

TEST_F(VectorState, XsaveRoundTripsEveryComponent) {
  fill_registers();
  const auto before = guest.cpu().xsave;
  EXPECT_FALSE(guest.run(kXsave));
  EXPECT_EQ(guest.get<uint64_t>(kHeader), 7u);
  EXPECT_EQ(guest.get<uint64_t>(kFormat), 0u);
  initialise_components(guest.cpu(), kStateAll);
  EXPECT_FALSE(guest.run(kXrstor));
  EXPECT_EQ(guest.cpu().xsave, before);
}

TEST_F(VectorState, XsavecWritesTheCompactedHeaderAndOnlyWhatIsInUse) {
  fill_registers();
  initialise_components(guest.cpu(), kStateX87 | kStateSse);
  std::memset(guest.host(kArea), 0xEE, 576);
  const auto before = guest.cpu().xsave;
  EXPECT_FALSE(guest.run(kXsavec));
  EXPECT_EQ(guest.get<uint64_t>(kHeader), uint64_t{kStateAvx});
  EXPECT_EQ(guest.get<uint64_t>(kFormat), kCompacted | 7);
  EXPECT_EQ(guest.get<uint64_t>(kArea + 160), 0xEEEEEEEEEEEEEEEEu);
  EXPECT_EQ(guest.get<uint8_t>(kAvxArea), 0x80);
  std::memset(guest.host(kArea + 528), 0, 48);
  initialise_components(guest.cpu(), kStateAll);
  EXPECT_FALSE(guest.run(kXrstor));
  EXPECT_EQ(guest.cpu().xsave, before);
}

TEST_F(VectorState, XsaveKeepsHeaderBitsThatWereNotAskedFor) {
  guest.put<uint64_t>(kHeader, 7);
  request(kStateX87);
  EXPECT_FALSE(guest.run(kXsave));
  EXPECT_EQ(guest.get<uint64_t>(kHeader), uint64_t{kStateSse | kStateAvx});
}

TEST_F(VectorState, XsaveoptLeavesInitialComponentsOut) {
  std::memset(guest.host(kArea), 0xEE, 512);
  EXPECT_FALSE(guest.run(kXsaveopt));
  EXPECT_EQ(guest.get<uint64_t>(kHeader), 0u);
  EXPECT_EQ(guest.get<uint16_t>(kArea), 0xEEEE);
  EXPECT_EQ(guest.get<uint64_t>(kArea + 160), 0xEEEEEEEEEEEEEEEEu);
}

TEST_F(VectorState, XrstorInitialisesComponentsWithoutData) {
  fill_registers();
  guest.put<uint32_t>(kArea + 24, 0x1FC0);
  EXPECT_FALSE(guest.run(kXrstor));
  EXPECT_EQ(components_in_use(guest.cpu()), uint64_t{kStateSse});  // for MXCSR, which the standard format always loads
  EXPECT_EQ(mxcsr(guest.cpu()), 0x1FC0u);
}

TEST_F(VectorState, XrstorRefusesHeadersThatNoProcessorWrites) {
  const auto fault_with = [&](uint64_t components, uint64_t format, uint64_t reserved_offset = 0) {
    std::memset(guest.host(kHeader), 0, 64);
    guest.put(kHeader, components);
    guest.put(kFormat, format);
    if (reserved_offset != 0) guest.put<uint64_t>(kHeader + reserved_offset, 1);
    return fault_of(kXrstor);
  };
  EXPECT_EQ(fault_with(8, 0), kGeneralProtection);
  EXPECT_EQ(fault_with(1, 1), kGeneralProtection);
  EXPECT_EQ(fault_with(0, 0, 16), kGeneralProtection);
  EXPECT_EQ(fault_with(7, kCompacted | 3), kGeneralProtection);
  EXPECT_EQ(fault_with(0, kCompacted | 8), kGeneralProtection);
  EXPECT_EQ(fault_with(0, kCompacted | 7, 56), kGeneralProtection);
  EXPECT_EQ(fault_with(0, kCompacted | 7), -1);
}

TEST_F(VectorState, AFaultInTheSecondPageLeavesTheFirstAlone) {
  guest.cpu().gpr[cpu::kRbx] = Guest::kAbsent - 576;
  std::memset(guest.host(Guest::kAbsent - 576), 0xEE, 576);
  fill_registers();
  EXPECT_EQ(fault_of(kXsave), kPageFault);
  for (uint64_t at = 1; at <= 576; ++at) ASSERT_EQ(guest.get<uint8_t>(Guest::kAbsent - at), 0xEE);
}

TEST_F(VectorState, WithoutOsxsaveXsaveIsUndefinedAndWithTaskSwitchedItIsNotAvailable) {
  Cpu& cpu = guest.cpu();
  cpu.cr0 |= kCr0Ts;
  update_mode(cpu);
  EXPECT_EQ(fault_of(kXsave), kDeviceNotAvailable);
  EXPECT_EQ(fault_of(kFxsave), kDeviceNotAvailable);
  cpu.cr4 &= ~uint64_t{kCr4Osxsave};
  update_mode(cpu);
  EXPECT_EQ(fault_of(kXsave), kInvalidOpcode);
}

TEST_F(VectorState, OutsideOf64BitModeOnlyEightRegistersTakePart) {
  fill_registers();
  guest.enter_protected_mode();
  std::memset(guest.host(kArea), 0xEE, 1024);
  guest.put<uint64_t>(kHeader, 0);
  EXPECT_FALSE(guest.run(kXsave));
  EXPECT_EQ(guest.get<uint8_t>(kArea + 160 + 16 * 7), 0x17);
  EXPECT_EQ(guest.get<uint8_t>(kArea + 160 + 16 * 8), 0xEE);
  EXPECT_EQ(guest.get<uint8_t>(kAvxArea + 16 * 8), 0xEE);
  guest.put<uint64_t>(kHeader, 0);
  std::memset(guest.host(kFormat), 0, 56);
  guest.put<uint32_t>(kArea + 24, kMxcsrReset);
  EXPECT_FALSE(guest.run(kXrstor));
  EXPECT_EQ(read_xmm(guest.cpu(), 7).lane[0], 0u);
  EXPECT_EQ(*xmm(guest.cpu(), 8), 0x18);
  EXPECT_EQ(*ymm_high(guest.cpu(), 8), 0x88);
}

TEST_F(VectorState, GoesToAndFromTheSavedState) {
  fill_registers();
  const auto before = guest.cpu().xsave;
  cpu::State state;
  export_state(guest.cpu(), state);
  uint64_t header;
  std::memcpy(&header, state.xsave.data() + 512, sizeof header);
  EXPECT_EQ(header, 7u);
  initialise_components(guest.cpu(), kStateAll);
  import_state(guest.cpu(), state);
  guest.cpu().xsave[28] = before[28], guest.cpu().xsave[29] = before[29];  // MXCSR_MASK
  EXPECT_EQ(guest.cpu().xsave, before);
  header = kStateX87;
  std::memcpy(state.xsave.data() + 512, &header, sizeof header);
  import_state(guest.cpu(), state);
  EXPECT_EQ(read_xmm(guest.cpu(), 3).lane[0], 0u);
}

}  // namespace
}  // namespace bulkhead::engine::simd
