#include "engine/jit/jit.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "engine/soft_vcpu.h"
#include "engine/testing.h"

namespace bulkhead::engine::jit {
namespace {

using testing::kCode;
using testing::kExitPort;

uint64_t statistic(const cpu::Vcpu& vcpu, std::string_view name) {
  for (const auto& [key, value] : vcpu.statistics()) {
    if (key == name) return value;
  }
  return ~0ull;
}

class JitTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto translating = vcpu().use_translator(2);
    if (!translating) GTEST_SKIP() << translating.error().message;
  }
  SoftVcpu& vcpu() { return static_cast<SoftVcpu&>(*machine_.vcpus[0]); }

  testing::Machine machine_;
};

TEST_F(JitTest, RunsALoopInTranslatedCodeAndCountsItsInstructions) {
  // mov ecx, 100000; xor eax, eax; loop: add rax, rcx; dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode, {0xB9, 0xA0, 0x86, 0x01, 0x00, 0x31, 0xC0, 0x48, 0x01, 0xC8, 0xFF, 0xC9, 0x75, 0xF9, 0xE6, 0xF4});
  machine_.set(machine_.long_mode());
  EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
  EXPECT_EQ(machine_.state().gpr[cpu::kRax], 100000ull * 100001 / 2);
  EXPECT_EQ(machine_.state().instruction_count, 2u + 3 * 100000 + 1);
  EXPECT_GE(statistic(vcpu(), "jit.blocks"), 1u);
  EXPECT_LT(statistic(vcpu(), "jit.entries"), 100u);  // the loop links to itself
}

TEST_F(JitTest, CodeThatItChangesIsSeenAtOnce) {
  // The loop's immediate grows by one each round, written by the loop itself:
  // mov ecx, 1000; xor eax, eax; loop: add eax, 1 (imm32 at +9); inc dword [kCode + 9]; dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode, {0xB9, 0xE8, 0x03, 0x00, 0x00, 0x31, 0xC0, 0x81, 0xC0, 0x01, 0x00, 0x00, 0x00,
                       0xFF, 0x04, 0x25, 0x09, 0x80, 0x00, 0x00, 0xFF, 0xC9, 0x75, 0xEF, 0xE6, 0xF4});
  machine_.set(machine_.long_mode());
  EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
  EXPECT_EQ(machine_.state().gpr[cpu::kRax], 1000u * 1001 / 2);
}

TEST_F(JitTest, AFaultInTheMiddleOfABlockIsPrecise) {
  // mov ecx, 100; loop: add rdi, 0x10000; add ebx, 5; mov rdx, [rdi]; dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode, {0xB9, 0x64, 0x00, 0x00, 0x00, 0x48, 0x81, 0xC7, 0x00, 0x00, 0x01, 0x00,
                       0x83, 0xC3, 0x05, 0x48, 0x8B, 0x17, 0xFF, 0xC9, 0x75, 0xEF, 0xE6, 0xF4});
  // #PF's handler: out 0xf4, al
  machine_.put(testing::kHandlers + 14 * 16, {0xE6, 0xF4});
  cpu::State state = machine_.long_mode();
  state.gpr[cpu::kRdi] = 0xE0'0000;    // the 32nd round leaves what is mapped
  state.gpr[cpu::kRbx] = 0xFFFF'FF64;  // and its addition carries
  machine_.set(state);
  EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
  const cpu::State after = machine_.state();
  EXPECT_GE(statistic(vcpu(), "jit.blocks"), 1u);
  EXPECT_EQ(after.cr2, 0x100'0000u);
  EXPECT_EQ(machine_.get<uint64_t>(after.gpr[cpu::kRsp] + 8), kCode + 15);      // RIP in the frame
  EXPECT_EQ(machine_.get<uint64_t>(after.gpr[cpu::kRsp] + 24) & 0x8D5, 0x11u);  // CF and AF of the addition
  EXPECT_EQ(after.gpr[cpu::kRbx], 4u);
  EXPECT_EQ(after.gpr[cpu::kRcx], 100u - 31);
  EXPECT_EQ(after.instruction_count, 1u + 31 * 5 + 2 + 2);  // and the delivery and the handler's OUT
}

}  // namespace
}  // namespace bulkhead::engine::jit
