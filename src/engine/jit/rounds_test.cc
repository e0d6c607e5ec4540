// Loops that are translated several rounds at once: what a guest sees of one is what each round on its own would do.
#include <gtest/gtest.h>

#include "engine/soft_vcpu.h"
#include "engine/testing.h"

namespace bulkhead::engine::jit {
namespace {

using testing::kCode, testing::kHandlers;

constexpr uint64_t kData = 0x2'0000;

class Rounds : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto translating = vcpu().use_translator(2);
    if (!translating) GTEST_SKIP() << translating.error().message;
    state_ = machine_.long_mode();
    for (unsigned vector = 0; vector < 32; ++vector) machine_.put(kHandlers + vector * 16, {0xE6, 0xF4});
  }
  SoftVcpu& vcpu() { return static_cast<SoftVcpu&>(*machine_.vcpus[0]); }
  cpu::State run() {
    machine_.set(state_);
    EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
    return machine_.state();
  }
  void unmap(uint64_t page) { machine_.put_object(testing::Machine::pte_address(page), uint64_t{0}); }

  testing::Machine machine_;
  cpu::State state_;
};

// For every number of bytes the pages may end in whatever round.
TEST_F(Rounds, AByteThatIsNotThereFaultsInItsOwnRound) {
  // loop: add al, [rdi]; inc rdi; dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode, {0x02, 0x07, 0x48, 0xFF, 0xC7, 0xFF, 0xC9, 0x75, 0xF7, 0xE6, 0xF4});
  for (uint64_t i = 0; i < 0x1000; ++i) machine_.put_object<uint8_t>(kData + i, static_cast<uint8_t>(i * 3));
  unmap(kData + 0x1000);
  for (uint64_t bytes = 0; bytes < 40; ++bytes) {
    state_.gpr[cpu::kRdi] = kData + 0x1000 - bytes;
    state_.gpr[cpu::kRax] = 0;
    state_.gpr[cpu::kRcx] = 1000;
    state_.instruction_count = 0;
    uint8_t sum = 0;
    for (uint64_t i = 0x1000 - bytes; i < 0x1000; ++i) sum = static_cast<uint8_t>(sum + i * 3);
    const cpu::State after = run();
    EXPECT_EQ(after.cr2, kData + 0x1000) << bytes;
    EXPECT_EQ(after.gpr[cpu::kRcx], 1000 - bytes);
    EXPECT_EQ(after.gpr[cpu::kRax] & 0xFF, sum);
    EXPECT_EQ(machine_.get<uint64_t>(testing::kStack - 40), kCode);  // RIP of the frame: of the instruction itself
    EXPECT_EQ(after.instruction_count, 4 * bytes + 2) << bytes;      // the fault and OUT count too
  }
}

TEST_F(Rounds, FlagsOfEachRoundAreThoseOfTheInstructionBefore) {
  // loop: sub rax, [rdi]; lea rdi, [rdi + 8]; dec ecx; jnz loop; out 0xf4, al. CF is that of SUB.
  machine_.put(kCode, {0x48, 0x2B, 0x07, 0x48, 0x8D, 0x7F, 0x08, 0xFF, 0xC9, 0x75, 0xF5, 0xE6, 0xF4});
  unmap(kData + 0x1000);
  for (uint64_t words = 1; words < 20; ++words) {
    for (uint64_t i = 0; i < words; ++i)
      machine_.put_object<uint64_t>(kData + 0x1000 - 8 * (words - i), i + 1 == words ? 2 : 0);
    state_.gpr[cpu::kRdi] = kData + 0x1000 - 8 * words;
    state_.gpr[cpu::kRax] = 1;
    state_.gpr[cpu::kRcx] = 1000;
    run();
    // 1 - 2 borrows, and DEC of a positive number leaves nothing else but what its parity is.
    const uint64_t rflags = machine_.get<uint64_t>(testing::kStack - 24);
    EXPECT_EQ(rflags & 1, 1u) << words;
    EXPECT_EQ(rflags & 0x8C0, 0u) << words;
  }
}

TEST_F(Rounds, CountIsExactForEveryNumberOfRounds) {
  // loop: add rax, rcx; dec ecx; jnz loop; out 0xf4, al
  for (uint64_t rounds = 1; rounds < 60; ++rounds) {
    machine_.put(kCode, {0x48, 0x01, 0xC8, 0xFF, 0xC9, 0x75, 0xF9, 0xE6, 0xF4});
    state_.gpr[cpu::kRax] = 0;
    state_.gpr[cpu::kRcx] = rounds;
    state_.instruction_count = 0;
    cpu::State after = run();
    EXPECT_EQ(after.gpr[cpu::kRax], rounds * (rounds + 1) / 2);
    EXPECT_EQ(after.instruction_count, 3 * rounds + 1);
    // loop: sgdt [rsi], by its handler; dec ecx; jnz loop; out 0xf4, al
    machine_.put(kCode + 0x100, {0x0F, 0x01, 0x06, 0xFF, 0xC9, 0x75, 0xF9, 0xE6, 0xF4});
    state_.rip = kCode + 0x100;
    state_.gpr[cpu::kRsi] = kData;
    after = run();
    EXPECT_EQ(after.gpr[cpu::kRcx], 0u);
    EXPECT_EQ(after.instruction_count, 3 * rounds + 1) << rounds;
    state_.rip = kCode;
  }
}

TEST_F(Rounds, ALoopThatChangesItsOwnCodeRunsTheNewCodeInTheNextRound) {
  // loop: add eax, 1; cmp ecx, 40; cmove rsi, r8; mov [rsi], dl; dec ecx; jnz loop; out 0xf4, al: from the round on
  // that begins with 40 the store goes to the immediate of ADD.
  machine_.put(kCode, {0x83, 0xC0, 0x01, 0x83, 0xF9, 0x28, 0x49, 0x0F, 0x44, 0xF0, 0x88, 0x16, 0xFF, 0xC9, 0x75, 0xF0,
                       0xE6, 0xF4});
  state_.gpr[cpu::kRcx] = 100;
  state_.gpr[cpu::kRdx] = 7;
  state_.gpr[cpu::kRsi] = kData;
  state_.gpr[8] = kCode + 2;
  EXPECT_EQ(run().gpr[cpu::kRax], 61u + 39 * 7);
}

TEST_F(Rounds, UserCodeGoesOnWhileAnInterruptIsHeldOff) {
  // loop: add rax, rcx; dec ecx; jnz loop; int 0x1f, whose handler writes to the exit port
  machine_.put(kCode, {0x48, 0x01, 0xC8, 0xFF, 0xC9, 0x75, 0xF9, 0xCD, 0x1F});
  state_ = machine_.user_mode();  // RFLAGS.IF is 0
  state_.gpr[cpu::kRcx] = 100'000;
  machine_.board().interrupt = 0x40;
  machine_.vcpus[0]->set_interrupt_request(true);
  const cpu::State after = run();
  EXPECT_EQ(after.gpr[cpu::kRax], 100'000ull * 100'001 / 2);
  EXPECT_TRUE(machine_.board().interrupt.has_value());
}

TEST_F(Rounds, AnInterruptThatWasHeldOffInUserModeComesWithSti) {
  // loop: add rax, rcx; dec ecx; jnz loop; sti; nop; inc rbx; jmp to itself
  machine_.put(kCode, {0x48, 0x01, 0xC8, 0xFF, 0xC9, 0x75, 0xF9, 0xFB, 0x90, 0x48, 0xFF, 0xC3, 0xEB, 0xFB});
  state_ = machine_.user_mode();
  state_.rflags |= 3 << 12;  // IOPL
  state_.gpr[cpu::kRcx] = 1000;
  state_.gpr[cpu::kRbx] = 0;
  machine_.put(kHandlers + 0x40 * 16, {0xE6, 0xF4});
  machine_.board().interrupt = 0x40;
  machine_.vcpus[0]->set_interrupt_request(true);
  const cpu::State after = run();
  EXPECT_EQ(after.gpr[cpu::kRax], 1000ull * 1001 / 2);
  EXPECT_EQ(after.gpr[cpu::kRbx], 0u);
  EXPECT_FALSE(machine_.board().interrupt.has_value());
}

TEST_F(Rounds, StatisticsCountTheInstructionsOfOneRound) {
  // loop: sgdt [rsi], by its handler; dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode, {0x0F, 0x01, 0x06, 0xFF, 0xC9, 0x75, 0xF9, 0xE6, 0xF4});
  state_.gpr[cpu::kRcx] = 1000;
  state_.gpr[cpu::kRsi] = kData;
  run();
  for (const auto& [name, value] : vcpu().statistics()) {
    if (name == "jit.handler_instructions") {
      EXPECT_EQ(value, 1u);
    } else if (name == "jit.native_instructions") {
      EXPECT_EQ(value, 2u);
    }
  }
}

}  // namespace
}  // namespace bulkhead::engine::jit
