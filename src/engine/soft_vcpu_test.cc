#include <thread>

#include <gtest/gtest.h>

#include "engine/testing.h"

namespace bulkhead::engine {
namespace {

using cpu::StopReason;
using testing::kCode;
using testing::kHandlers;
using testing::kStack;
using testing::Machine;

TEST(SoftVcpu, RunsRealModeCode) {
  Machine machine;
  machine.set(machine.real_mode());
  // mov ax, 0x1234; mov [0x500], ax; add al, [0x501]; out 0xf4, al
  machine.put(kCode, {0xB8, 0x34, 0x12, 0xA3, 0x00, 0x05, 0x02, 0x06, 0x01, 0x05, 0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 0x46u);
  EXPECT_EQ(machine.get<uint16_t>(0x500), 0x1234);
  EXPECT_EQ(machine.state().instruction_count, 4u);
}

TEST(SoftVcpu, StartsAtTheResetVector) {
  Machine machine;
  machine.vcpus[0]->request_stop();
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.state().segments[cpu::kCs].base, 0xFFFF0000u);
  EXPECT_EQ(machine.state().rip, 0xFFF0u);
}

TEST(SoftVcpu, RunsLongModeLoops) {
  Machine machine;
  machine.set(machine.long_mode());
  // xor eax, eax; mov ecx, 1000; again: add rax, rcx; dec ecx; jnz again; push rax; pop rbx; out 0xf4, al
  machine.put(kCode, {0x31, 0xC0, 0xB9, 0xE8, 0x03, 0x00, 0x00, 0x48, 0x01, 0xC8, 0xFF, 0xC9, 0x75, 0xF9, 0x50, 0x5B,
                      0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.state().gpr[cpu::kRbx], 500500u);
  EXPECT_EQ(machine.state().gpr[cpu::kRsp], kStack);
  EXPECT_EQ(machine.state().instruction_count, 2 + 3000 + 3u);
}

TEST(SoftVcpu, RunsProtectedModeCode) {
  Machine machine;
  machine.set(machine.protected_mode());
  // mov eax, 0x11223344; push eax; pop word [0x500]; pop word [0x502]; mov al, [0x503]; out 0xf4, al
  machine.put(kCode, {0xB8, 0x44, 0x33, 0x22, 0x11, 0x50, 0x66, 0x8F, 0x05, 0x00, 0x05, 0x00, 0x00, 0x66,
                      0x8F, 0x05, 0x02, 0x05, 0x00, 0x00, 0xA0, 0x03, 0x05, 0x00, 0x00, 0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 0x11u);
}

TEST(SoftVcpu, DeliversAPageFaultWithItsFrame) {
  Machine machine;
  machine.set(machine.user_mode());
  machine.put_object<uint64_t>(Machine::pte_address(0x200000), 0);
  // mov [0x200123], eax
  machine.put(kCode, {0x89, 0x04, 0x25, 0x23, 0x01, 0x20, 0x00});
  machine.put(kHandlers + 14 * 16, {0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  const cpu::State state = machine.state();
  EXPECT_EQ(state.cr2, 0x200123u);
  EXPECT_EQ(state.gpr[cpu::kRsp], kStack - 48);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 48), 6u);  // user, write, not present
  EXPECT_EQ(machine.get<uint64_t>(kStack - 40), kCode);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 32), testing::kUserCode64 | 3u);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 24) & 0x10002, 0x10002u);  // RF
  EXPECT_EQ(machine.get<uint64_t>(kStack - 16), testing::kUserStack);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 8), testing::kUserData | 3u);
  EXPECT_EQ(state.segments[cpu::kSs].selector, 0);
  EXPECT_EQ(state.instruction_count, 2u);  // the delivery and the handler's OUT
}

TEST(SoftVcpu, ReturnsFromAnExceptionAndGoesOn) {
  Machine machine;
  machine.set(machine.user_mode());
  machine.put_object<uint64_t>(Machine::pte_address(0x200000), 0);
  machine.put(kCode, {0xB8, 0x07, 0, 0, 0, 0x89, 0x04, 0x25, 0x23, 0x01, 0x20, 0x00, 0x0F,
                      0x0B});  // mov eax,7; mov [..],eax; ud2
  // mov qword [pte], 0x200007; invlpg [0x200000]; add rsp, 8; iretq
  const auto pte = static_cast<int>(Machine::pte_address(0x200000));
  machine.put(kHandlers + 14 * 16, {0xE9, 0xFB, 0x0F, 0, 0});
  machine.put(kHandlers + 14 * 16 + 0x1000,
              {0x48, 0xC7, 0x04, 0x25, pte & 255, pte >> 8 & 255, pte >> 16, 0,    7,    0,    0x20, 0,    0x0F,
               0x01, 0x3C, 0x25, 0,    0,         0x20,           0,         0x48, 0x83, 0xC4, 8,    0x48, 0xCF});
  machine.put(kHandlers + 6 * 16, {0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.get<uint32_t>(0x200123), 7u);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 40), kCode + 12);
  EXPECT_EQ(machine.get<uint64_t>(Machine::pte_address(0x200000)), 0x200067u);  // A and D
}

TEST(SoftVcpu, SystemCallsGoThereAndBack) {
  Machine machine;
  cpu::State state = machine.user_mode();
  state.msr_star = uint64_t{0x18 | 3} << 48 | uint64_t{testing::kCode64} << 32;
  state.msr_lstar = 0xA000;
  state.msr_sfmask = 0x200;
  state.rflags = 0x202;
  state.cr4 |= 1 << 9;
  machine.set(state);
  machine.put(kCode, {0x0F, 0x05, 0x0F, 0x0B});         // syscall; ud2
  machine.put(0xA000, {0x9C, 0x5B, 0x48, 0x0F, 0x07});  // pushfq; pop rbx; sysretq (stack is still the user's)
  machine.put(kHandlers + 6 * 16, {0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  const cpu::State after = machine.state();
  EXPECT_EQ(after.gpr[cpu::kRbx] & 0x200, 0u);
  EXPECT_EQ(after.gpr[cpu::kRcx], kCode + 2);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 40), kCode + 2);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 32), testing::kUserCode64 | 3u);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 24) & 0x200, 0x200u);
}

TEST(SoftVcpu, NoticesThatItsCodeChanges) {
  Machine machine;
  machine.set(machine.long_mode());
  // again: mov al, 1; inc byte [rip - 7 + 1 ...]: each round the immediate of the first instruction grows
  // 8000: B0 01           mov al, 1
  // 8002: FE 05 F9FFFFFF  inc byte [0x8001]
  // 8008: 3C 05           cmp al, 5
  // 800A: 75 F4           jne 8000
  // 800C: E6 F4           out 0xf4, al
  machine.put(kCode, {0xB0, 0x01, 0xFE, 0x05, 0xF9, 0xFF, 0xFF, 0xFF, 0x3C, 0x05, 0x75, 0xF4, 0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 5u);
  EXPECT_EQ(machine.get<uint8_t>(0x8001), 6);
}

TEST(SoftVcpu, SeesAStoreToTheNextInstruction) {
  Machine machine;
  machine.set(machine.long_mode());
  // mov byte [rip + 1], 9 (the immediate of the next); mov al, 1; out 0xf4, al
  machine.put(kCode, {0xC6, 0x05, 0x01, 0, 0, 0, 9, 0xB0, 0x01, 0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 9u);
}

TEST(SoftVcpu, SeesDmaIntoItsCode) {
  Machine machine;
  machine.set(machine.long_mode());
  machine.put(kCode, {0xE6, 0x80, 0xB0, 0x01, 0x3C, 0x02, 0x75, 0xF8, 0xE6,
                      0xF4});  // out 0x80, al; mov al,1; cmp al,2; jne; out
  int rounds = 0;
  machine.board().on_port_write = [&](uint16_t, uint32_t) {
    if (++rounds == 3) machine.put(kCode + 3, {2});
  };
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(rounds, 3);
}

TEST(SoftVcpu, WaitsInHaltForAnInterrupt) {
  Machine machine;
  machine.set(machine.long_mode());
  machine.put(kCode, {0xFB, 0xF4, 0xB0, 0x42, 0xE6, 0xF4});      // sti; hlt; mov al, 0x42; out
  machine.put(kHandlers + 0x30 * 16, {0xB3, 0x01, 0x48, 0xCF});  // mov bl, 1; iretq
  std::thread interrupter([&] {
    machine.board().interrupt = 0x30;
    machine.vcpus[0]->set_interrupt_request(true);
  });
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  interrupter.join();
  EXPECT_EQ(machine.board().exit_value, 0x42u);
  EXPECT_EQ(machine.state().gpr[cpu::kRbx], 1u);
}

TEST(SoftVcpu, StopsWhileHalted) {
  Machine machine;
  machine.set(machine.long_mode());
  machine.put(kCode, {0xF4, 0xEB, 0xFD});
  std::thread stopper([&] { machine.vcpus[0]->request_stop(); });
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  stopper.join();
  EXPECT_TRUE(machine.state().activity == cpu::Activity::kHalted || machine.state().rip == kCode);
}

TEST(SoftVcpu, StopsAnEndlessLoop) {
  Machine machine;
  machine.set(machine.long_mode());
  machine.put(kCode, {0xEB, 0xFE});
  std::thread stopper([&] { machine.vcpus[0]->request_stop(); });
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  stopper.join();
}

TEST(SoftVcpu, ShutsDownOnATripleFault) {
  Machine machine;
  cpu::State state = machine.long_mode();
  state.idtr.limit = 0;
  machine.set(state);
  machine.put(kCode, {0x0F, 0x0B});
  EXPECT_EQ(machine.run(), StopReason::kShutdown);
  EXPECT_EQ(machine.state().activity, cpu::Activity::kShutdown);
}

TEST(SoftVcpu, MakesADoubleFaultOfTwoContributoryOnes) {
  Machine machine;
  machine.set(machine.long_mode());
  machine.put_object<uint64_t>(testing::kIdt + 13 * 16, uint64_t{0});  // #GP has no gate
  machine.put(kCode, {0xB9, 0, 0, 0, 0x10, 0x0F, 0x32});               // mov ecx, 0x10000000; rdmsr: #GP
  machine.put(kHandlers + 8 * 16, {0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 48), 0u);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 40), kCode + 5);
}

TEST(SoftVcpu, TrapsAfterEachSingleStep) {
  Machine machine;
  cpu::State state = machine.long_mode();
  state.rflags = 0x102;
  machine.set(state);
  machine.put(kCode, {0x90, 0x90});
  machine.put(kHandlers + 1 * 16, {0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 40), kCode + 1);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 24) & 0x10100, 0x100u);
  EXPECT_EQ(machine.state().dr6, 0xFFFF4FF0u);
}

TEST(SoftVcpu, TrapsOnAWatchedWrite) {
  Machine machine;
  cpu::State state = machine.long_mode();
  state.dr[0] = 0x5004;
  state.dr7 = 0x400 | 2 | 1 << 16 | 3 << 18;  // write, 4 bytes
  machine.set(state);
  machine.put(kCode, {0x8B, 0x04, 0x25, 4, 0x50, 0, 0, 0x88, 0x04, 0x25, 7, 0x50, 0, 0,
                      0x90});  // mov eax,[0x5004]; mov [0x5007],al
  machine.put(kHandlers + 1 * 16, {0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 40), kCode + 14);
  EXPECT_EQ(machine.state().dr6, 0xFFFF0FF1u);
}

TEST(SoftVcpu, FaultsBeforeABreakpointedInstruction) {
  Machine machine;
  cpu::State state = machine.long_mode();
  state.dr[1] = kCode + 1;
  state.dr7 = 0x400 | 8;
  machine.set(state);
  machine.put(kCode, {0x90, 0x90, 0xE6, 0xF4});
  machine.put(kHandlers + 1 * 16,
              {0x80, 0x4C, 0x24, 0x12, 1, 0xFF, 0xC3, 0x48, 0xCF});  // or byte [rsp+18], 1 (RF); inc ebx; iretq
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.state().gpr[cpu::kRbx], 1u);
  EXPECT_EQ(machine.state().dr6, 0xFFFF0FF2u);
}

TEST(SoftVcpu, StepsForADebugger) {
  Machine machine;
  machine.set(machine.long_mode());
  machine.put(kCode, {0x90, 0x90, 0x90});
  ASSERT_TRUE(machine.vcpus[0]->set_debug({.single_step = true, .points = {}}));
  EXPECT_EQ(machine.run(), StopReason::kDebug);
  EXPECT_EQ(machine.state().rip, kCode + 1);
  ASSERT_TRUE(machine.vcpus[0]->set_debug({.points = {{cpu::DebugRequest::Point::Kind::kExecute, kCode + 2, 1}}}));
  EXPECT_EQ(machine.run(), StopReason::kDebug);
  EXPECT_EQ(machine.state().rip, kCode + 2);
}

TEST(SoftVcpu, ReachesDevicesOnceAnAccess) {
  Machine machine;
  machine.set(machine.protected_mode());
  // mov eax, [0xFED00000]; mov [0xFED00010], ax; out 0xf4, al
  machine.put(kCode, {0xA1, 0, 0, 0xD0, 0xFE, 0x66, 0xA3, 0x10, 0, 0xD0, 0xFE, 0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().reads, std::vector<uint64_t>({0xFED00000}));
  EXPECT_EQ(machine.board().writes, (std::vector<std::pair<uint64_t, uint64_t>>{{0xFED00010, 0xA5A5}}));
}

TEST(SoftVcpu, StartsAnotherProcessorBySipi) {
  Machine machine(2);
  machine.put(0x8000, {0xB0, 0x07, 0xE6, 0xF4});
  machine.vcpus[1]->raise_init();
  machine.vcpus[1]->raise_sipi(0x08);
  EXPECT_EQ(machine.run(1), StopReason::kRequested);
  EXPECT_EQ(machine.board(1).exit_value, 7u);
  EXPECT_EQ(machine.state(1).segments[cpu::kCs].selector, 0x800);
}

TEST(SoftVcpu, RunsAcrossAPageEnd) {
  Machine machine;
  machine.set(machine.long_mode());
  // An instruction of 7 bytes that begins 3 bytes before a page end, run twice.
  machine.put(kCode, {0xE9, 0xF8, 0x2F, 0, 0});
  machine.put(0xAFFD, {0x48, 0xC7, 0xC0, 0x05, 0, 0, 0, 0xFF, 0xC3, 0x83, 0xFB, 2, 0x75, 0xF2, 0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.state().gpr[cpu::kRax], 5u);
  EXPECT_EQ(machine.state().gpr[cpu::kRbx], 2u);
}

TEST(SoftVcpu, KeepsItsStateThroughGetAndSet) {
  Machine machine;
  cpu::State state = machine.long_mode();
  state.gpr[cpu::kR9] = 77;
  machine.set(state);
  const cpu::State kept = machine.state();
  EXPECT_EQ(kept.gpr, state.gpr);
  EXPECT_EQ(kept.segments, state.segments);
  EXPECT_EQ(kept.cr3, state.cr3);
  machine.set(kept);
  EXPECT_EQ(machine.state(), kept);
}

TEST(SoftVcpu, SavesAStartupRequestThatItHasNotSeenYet) {
  Machine machine(2);
  machine.vcpus[1]->raise_init();
  machine.vcpus[1]->raise_sipi(0x12);
  EXPECT_EQ(machine.state(1).activity, cpu::Activity::kRunning);
  EXPECT_EQ(machine.state(1).segments[cpu::kCs].base, 0x12000u);
}

std::unique_ptr<Machine> counted_machine() {
  EngineOptions options;
  options.counted = true;
  return std::make_unique<Machine>(1, std::move(options));
}

TEST(SoftVcpu, StepsIntoTheHandlerOfAFault) {
  Machine machine;
  machine.set(machine.long_mode());
  machine.put(kCode, {0x0F, 0x0B});
  machine.put(kHandlers + 6 * 16, {0x0F, 0x0B});  // and again, for ever
  ASSERT_TRUE(machine.vcpus[0]->set_debug({.single_step = true, .points = {}}));
  for (unsigned step = 1; step < 4; ++step) {
    EXPECT_EQ(machine.run(), StopReason::kDebug);
    EXPECT_EQ(machine.state().rip, kHandlers + 6 * 16);
    EXPECT_EQ(machine.state().gpr[cpu::kRsp], kStack - 40 - (step - 1) * 48);
  }
}

TEST(SoftVcpu, StepsThroughARepeatedStringBehindMovSs) {
  Machine machine;
  machine.set(machine.long_mode());
  // mov eax, ss; mov ecx, 0x40000000; mov edi, 0x4000; mov ss, eax; rep stosb
  machine.put(kCode, {0x8C, 0xD0, 0xB9, 0, 0, 0, 0x40, 0xBF, 0, 0x40, 0, 0, 0x8E, 0xD0, 0xF3, 0xAA});
  ASSERT_TRUE(machine.vcpus[0]->set_debug({.single_step = true, .points = {}}));
  for (unsigned step = 0; step < 3; ++step) EXPECT_EQ(machine.run(), StopReason::kDebug);
  // The shadow of MOV SS is as long as one element, not as what the count says.
  for (unsigned step = 1; step < 4; ++step) {
    EXPECT_EQ(machine.run(), StopReason::kDebug);
    EXPECT_EQ(machine.state().rip, kCode + 14);
    EXPECT_EQ(machine.state().gpr[cpu::kRcx], 0x40000000u - step);
  }
}

TEST(CountedVcpu, CountsAHandlerThatFaultsForEver) {
  const auto made = counted_machine();
  Machine& machine = *made;
  machine.set(machine.long_mode());
  machine.put(kCode, {0x0F, 0x0B});
  machine.put_object<uint64_t>(testing::kIdt + 6 * 16, Machine::gate(testing::kCode64, kCode, 14, 3));
  machine.vcpus[0]->stop_at(50);
  EXPECT_EQ(machine.run(), StopReason::kCountReached);
  EXPECT_EQ(machine.state().instruction_count, 50u);
}

TEST(CountedVcpu, StopsAtEveryCount) {
  // xor eax, eax; mov ecx, 3; again: add rax, rcx; dec ecx; jnz again; push rax; pop rbx; out 0xf4, al
  constexpr uint64_t kAddresses[] = {0, 2, 7, 10, 12, 7, 10, 12, 7, 10, 12, 14, 15, 16};
  for (uint64_t first = 0; first < std::size(kAddresses); ++first) {
    const auto made = counted_machine();
    Machine& machine = *made;
    machine.set(machine.long_mode());
    machine.put(kCode, {0x31, 0xC0, 0xB9, 0x03, 0x00, 0x00, 0x00, 0x48, 0x01, 0xC8, 0xFF, 0xC9, 0x75, 0xF9, 0x50, 0x5B,
                        0xE6, 0xF4});
    for (uint64_t count = first; count < std::size(kAddresses); count += 1 + first % 3) {
      machine.vcpus[0]->stop_at(count);
      ASSERT_EQ(machine.run(), StopReason::kCountReached);
      ASSERT_EQ(machine.state().instruction_count, count);
      ASSERT_EQ(machine.state().rip, kCode + kAddresses[count]);
    }
    machine.vcpus[0]->stop_at(1000);
    EXPECT_EQ(machine.run(), StopReason::kRequested);
    EXPECT_EQ(machine.board().exit_value, 6u);
    EXPECT_EQ(machine.state().instruction_count, std::size(kAddresses));
  }
}

TEST(CountedVcpu, KnowsItsCountInACallOfTheBoardAndStopsBehindIt) {
  const auto made = counted_machine();
  Machine& machine = *made;
  machine.set(machine.long_mode());
  // nop; nop; out 0x80, al; nop; nop
  machine.put(kCode, {0x90, 0x90, 0xE6, 0x80, 0x90, 0x90, 0xEB, 0xFE});
  std::vector<uint64_t> counts;
  machine.board().on_port_write = [&](uint16_t, uint32_t) {
    counts.push_back(machine.vcpus[0]->instruction_count());
    machine.vcpus[0]->stop_at(0);  // as soon as possible
  };
  machine.vcpus[0]->stop_at(100);
  EXPECT_EQ(machine.run(), StopReason::kCountReached);
  EXPECT_EQ(counts, std::vector<uint64_t>{2});
  EXPECT_EQ(machine.state().instruction_count, 3u);
  EXPECT_EQ(machine.state().rip, kCode + 4);
}

TEST(CountedVcpu, TakesAnInterruptRightBehindTheAccessThatRaisedIt) {
  const auto made = counted_machine();
  Machine& machine = *made;
  machine.set(machine.long_mode());
  // sti; nop; out 0x80, al; inc eax; inc eax
  machine.put(kCode, {0xFB, 0x90, 0xE6, 0x80, 0xFF, 0xC0, 0xFF, 0xC0, 0xEB, 0xFE});
  machine.put(kHandlers + 16 * 0x20, {0xE6, 0xF4});  // out 0xf4, al
  machine.board().on_port_write = [&](uint16_t, uint32_t) {
    machine.board().interrupt = 0x20;
    machine.vcpus[0]->set_interrupt_request(true);
  };
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 40), kCode + 4);
  EXPECT_EQ(machine.state().instruction_count, 4u);
}

TEST(CountedVcpu, DoesNotWaitWhileHalted) {
  const auto made = counted_machine();
  Machine& machine = *made;
  machine.set(machine.long_mode());
  machine.put(kCode, {0x90, 0xF4});  // nop; hlt
  machine.vcpus[0]->stop_at(10);
  EXPECT_EQ(machine.run(), StopReason::kHalted);
  EXPECT_EQ(machine.run(), StopReason::kHalted);
  EXPECT_EQ(machine.state().instruction_count, 2u);
}

}  // namespace
}  // namespace bulkhead::engine
