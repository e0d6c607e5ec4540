// Debugging of code that is translated already: the guest's debug registers and flags, and a debugger from outside.
#include <array>

#include <gtest/gtest.h>

#include "engine/soft_vcpu.h"
#include "engine/testing.h"

namespace bulkhead::engine::jit {
namespace {

using cpu::DebugRequest;
using cpu::StopReason;
using testing::kCode;

constexpr uint64_t kCell = 0x2'0000;
constexpr uint64_t kRounds = 1000, kSum = kRounds * (kRounds + 1) / 2;

uint64_t translated(const cpu::Vcpu& vcpu) {
  for (const auto& [key, value] : vcpu.statistics()) {
    if (key == "jit.blocks") return value;
  }
  return 0;
}

// mov ecx, 1000; xor eax, eax; 7: add [rdi], rcx; 10: add rax, rcx; dec ecx; jnz 7; 17: out 0x81, al
constexpr std::array<uint8_t, 19> kLoop = {0xB9, 0xE8, 0x03, 0x00, 0x00, 0x31, 0xC0, 0x48, 0x01, 0x0F,
                                           0x48, 0x01, 0xC8, 0xFF, 0xC9, 0x75, 0xF6, 0xE6, 0x81};
// or byte [rsp+18], 1 (RF); inc ebx; iretq
constexpr std::array<uint8_t, 9> kCountAndResume = {0x80, 0x4C, 0x24, 0x12, 1, 0xFF, 0xC3, 0x48, 0xCF};

class DebuggedMachine {
 public:
  explicit DebuggedMachine(bool translates) : machine(1, {.translate = translates, .translate_after = 1}) {
    machine.put_object(kCode, kLoop);
    machine.put_object(testing::kHandlers + 1 * 16, kCountAndResume);
  }
  cpu::State first_state() {
    cpu::State state = machine.long_mode();
    state.gpr[cpu::kRdi] = kCell;
    state.gpr[cpu::kRbx] = 0;
    return state;
  }
  testing::Machine machine;
};

struct GuestCase {
  const char* name;
  std::array<uint8_t, 3> arm;  // between the first time through the loop and the second, with what it takes from RSI
  uint64_t rsi;
  uint64_t address;  // DR0
  uint64_t hits;     // 0: as many as the interpreter has
};

class JitGuestDebugTest : public ::testing::TestWithParam<GuestCase> {};

TEST_P(JitGuestDebugTest, MeetsHotCodeExactlyLikeTheInterpreter) {
  std::array<cpu::State, 2> after;
  std::array<uint64_t, 2> cell{};
  for (const bool translates : {false, true}) {
    DebuggedMachine debugged(translates);
    testing::Machine& machine = debugged.machine;
    // arm; dec edx; jnz to the beginning; out 0xf4, al
    machine.put_object(kCode + kLoop.size(), GetParam().arm);
    const std::array<uint8_t, 6> rest = {0xFF, 0xCA, 0x75, 0xE6, 0xE6, 0xF4};
    machine.put_object(kCode + kLoop.size() + 3, rest);
    cpu::State state = debugged.first_state();
    state.gpr[cpu::kRdx] = 2;
    state.gpr[cpu::kRsi] = GetParam().rsi;
    state.dr[0] = GetParam().address;
    state.cr4 |= kCr4De;
    machine.set(state);
    EXPECT_EQ(machine.run(), StopReason::kRequested);
    after[translates] = machine.state();
    cell[translates] = machine.get<uint64_t>(kCell);
    if (translates && translated(*machine.vcpus[0]) == 0) GTEST_SKIP() << "nothing is translated here";
  }
  EXPECT_TRUE(after[0] == after[1]);
  EXPECT_EQ(after[1].gpr[cpu::kRax], kSum);
  EXPECT_EQ(cell[0], 2 * kSum);
  EXPECT_EQ(cell[1], 2 * kSum);
  EXPECT_EQ(after[1].gpr[cpu::kRbx], after[0].gpr[cpu::kRbx]);
  if (GetParam().hits != 0) {
    EXPECT_EQ(after[1].gpr[cpu::kRbx], GetParam().hits);
  }
  EXPECT_GT(after[1].gpr[cpu::kRbx], 0u);
}

constexpr std::array<uint8_t, 3> kMovDr7Rsi = {0x0F, 0x23, 0xFE}, kPushRsiPopf = {0x56, 0x9D, 0x90};
INSTANTIATE_TEST_SUITE_P(Debug, JitGuestDebugTest,
                         ::testing::Values(GuestCase{"code", kMovDr7Rsi, 0x402, kCode + 10, kRounds},
                                           GuestCase{"write", kMovDr7Rsi, 0x402 | 1 << 16 | 2 << 18, kCell, kRounds},
                                           GuestCase{"read_or_write_of_a_byte", kMovDr7Rsi, 0x402 | 3 << 16, kCell + 5,
                                                     kRounds},
                                           GuestCase{"port", kMovDr7Rsi, 0x402 | 2 << 16, 0x81, 1},
                                           GuestCase{"single_step", kPushRsiPopf, 0x102, 0, 0}),
                         [](const auto& parameter) { return std::string(parameter.param.name); });

TEST(JitDebuggerTest, APointOrAStepStopsHotCodeExactly) {
  DebuggedMachine debugged(true);
  testing::Machine& machine = debugged.machine;
  const std::array<uint8_t, 2> again = {0xEB, 0xEB};  // jmp to the beginning
  machine.put_object(kCode + kLoop.size(), again);
  machine.set(debugged.first_state());
  machine.boards[0]->on_port_write = [&](uint16_t, uint32_t) { machine.vcpus[0]->request_stop(); };
  const auto run_and_expect = [&](StopReason reason, uint64_t offset, uint64_t rcx, uint64_t rax) {
    EXPECT_EQ(machine.run(), reason);
    EXPECT_EQ(machine.state().rip, kCode + offset);
    EXPECT_EQ(machine.state().gpr[cpu::kRcx], rcx);
    EXPECT_EQ(machine.state().gpr[cpu::kRax], rax);
  };
  run_and_expect(StopReason::kRequested, 19, 0, kSum);
  if (translated(*machine.vcpus[0]) == 0) GTEST_SKIP() << "nothing is translated here";

  cpu::Vcpu& vcpu = *machine.vcpus[0];
  ASSERT_TRUE(vcpu.set_debug({.points = {{DebugRequest::Point::Kind::kExecute, kCode + 10, 1}}}));
  run_and_expect(StopReason::kDebug, 10, 1000, 0);
  run_and_expect(StopReason::kDebug, 10, 999, 1000);
  ASSERT_TRUE(vcpu.set_debug({.points = {{DebugRequest::Point::Kind::kWrite, kCell + 4, 2}}}));
  run_and_expect(StopReason::kDebug, 10, 998, 1999);
  EXPECT_EQ(machine.get<uint64_t>(kCell), kSum + 1000 + 999 + 998);
  ASSERT_TRUE(vcpu.set_debug({.single_step = true, .points = {}}));
  run_and_expect(StopReason::kDebug, 13, 998, 2997);
  run_and_expect(StopReason::kDebug, 15, 997, 2997);
  ASSERT_TRUE(vcpu.set_debug({}));
  run_and_expect(StopReason::kRequested, 19, 0, kSum);
  EXPECT_EQ(machine.get<uint64_t>(kCell), 2 * kSum);
}

}  // namespace
}  // namespace bulkhead::engine::jit
