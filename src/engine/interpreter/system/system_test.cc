#include <gtest/gtest.h>

#include "engine/testing.h"

namespace bulkhead::engine {
namespace {

using cpu::StopReason;
using testing::kCode;
using testing::kCode32;
using testing::kCode64;
using testing::kData;
using testing::kGdt;
using testing::kHandlers;
using testing::kIdt;
using testing::kStack;
using testing::kTss;
using testing::kTssSelector;
using testing::kUserData;
using testing::kUserStack;
using testing::Machine;

constexpr uint16_t kUserCode32 = 0x18;

// A handler that leaves through the exit port with the vector as the value.
void put_exit_handlers(Machine& machine) {
  for (int vector = 0; vector < 256; ++vector) {
    machine.put(kHandlers + static_cast<uint64_t>(vector) * 16, {0xB0, vector, 0xE6, 0xF4});
  }
}

cpu::State user_protected(Machine& machine) {
  cpu::State state = machine.protected_mode();
  for (auto& segment : state.segments)
    segment = {.base = 0, .limit = ~0u, .selector = kUserData | 3, .attributes = 0xC0F3};
  state.segments[cpu::kCs] = {.base = 0, .limit = ~0u, .selector = kUserCode32 | 3, .attributes = 0xC0FB};
  state.gpr[cpu::kRsp] = kUserStack;
  return state;
}

TEST(RealMode, DeliversAnInterruptThroughTheVectorTable) {
  Machine machine;
  cpu::State state = machine.real_mode();
  state.rflags = 0x246;
  machine.set(state);
  machine.put_object<uint32_t>(0x21 * 4, 0x0900'0010);  // 0900:0010
  machine.put(kCode, {0xCD, 0x21, 0xE6, 0xF4});         // int 0x21; out
  machine.put(0x9010, {0x9C, 0x5B, 0xB0, 0x09, 0xCF});  // pushf; pop bx; mov al, 9; iret
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 9u);
  EXPECT_EQ(machine.state().gpr[cpu::kRbx] & 0x300, 0u);
  EXPECT_EQ(machine.state().rflags, 0x246u);
  EXPECT_EQ(machine.state().gpr[cpu::kRsp], kStack);
  EXPECT_EQ(machine.get<uint16_t>(kStack - 6), kCode + 2);
}

TEST(RealMode, EntersProtectedAndLongMode) {
  Machine machine;
  (void)machine.long_mode();  // its tables
  cpu::State state = machine.real_mode();
  state.gdtr = {kGdt, 0xFF};
  machine.set(state);
  // mov eax, 0x6A0; mov cr4, eax; mov eax, 0x10000; mov cr3, eax; mov ecx, 0xC0000080; mov eax, 0x900; xor edx, edx;
  // wrmsr; mov eax, 0x80000033; mov cr0, eax; jmp far 0x08:0xA000
  machine.put(kCode, {0x66, 0xB8, 0xA0, 0x06, 0,    0,    0x0F, 0x22, 0xE0, 0x66, 0xB8, 0,    0,
                      1,    0,    0x0F, 0x22, 0xD8, 0x66, 0xB9, 0x80, 0,    0,    0xC0, 0x66, 0xB8,
                      0,    9,    0,    0,    0x66, 0x31, 0xD2, 0x0F, 0x30, 0x66, 0xB8, 0x33, 0,
                      0,    0x80, 0x0F, 0x22, 0xC0, 0x66, 0xEA, 0,    0xA0, 0,    0,    0x08, 0});
  machine.put(0xA000, {0x48, 0xC7, 0xC0, 0x55, 0, 0, 0, 0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 0x55u);
  EXPECT_EQ(machine.state().efer, 0xD00u);
  EXPECT_EQ(machine.state().segments[cpu::kCs].attributes, 0xA09Bu);
}

TEST(ProtectedMode, SwitchesStacksForAnInterruptAndBack) {
  Machine machine;
  machine.set(user_protected(machine));
  machine.put(kCode, {0xCD, 0x80, 0x0F, 0x0B});            // int 0x80; ud2
  machine.put(kHandlers + 0x80 * 16, {0x8B, 0xDC, 0xCF});  // mov ebx, esp; iret
  machine.put(kHandlers + 6 * 16, {0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.state().gpr[cpu::kRbx], kStack - 20);
  EXPECT_EQ(machine.get<uint32_t>(kStack - 4), kUserData | 3u);
  EXPECT_EQ(machine.get<uint32_t>(kStack - 8), kUserStack);
  EXPECT_EQ(machine.get<uint32_t>(kStack - 20), kCode + 2);  // the #UD went the same way
}

TEST(ProtectedMode, RefusesAGateOfHigherPrivilege) {
  Machine machine;
  machine.set(user_protected(machine));
  put_exit_handlers(machine);
  machine.put_object<uint64_t>(kIdt + 0x40 * 8, Machine::gate(kCode32, 0x9400, 14, 0));
  machine.put(kCode, {0xCD, 0x40});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 13u);
  EXPECT_EQ(machine.get<uint32_t>(kStack - 24), 0x40u * 8 + 2);
}

TEST(ProtectedMode, CopiesTheParametersOfACallGate) {
  Machine machine;
  machine.set(user_protected(machine));
  put_exit_handlers(machine);
  const uint64_t gate = Machine::gate(kCode32, 0xA000, 12, 3) | uint64_t{2} << 32;
  machine.put_object<uint64_t>(kGdt + 0x50, gate);
  // push 0x11; push 0x22; call far 0x50:0; ud2
  machine.put(kCode, {0x6A, 0x11, 0x6A, 0x22, 0x9A, 0, 0, 0, 0, 0x50, 0, 0x0F, 0x0B});
  machine.put(0xA000, {0x8B, 0x5C, 0x24, 0x08, 0x8B, 0x4C, 0x24, 0x0C, 0x8C, 0xCA, 0xCA, 0x08,
                       0});  // ebx=[esp+8]; ecx=[esp+12]; mov edx, cs; retf 8
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 6u);
  const cpu::State state = machine.state();
  EXPECT_EQ(state.gpr[cpu::kRbx], 0x22u);
  EXPECT_EQ(state.gpr[cpu::kRcx], 0x11u);
  EXPECT_EQ(state.gpr[cpu::kRdx], kCode32);
  EXPECT_EQ(machine.get<uint32_t>(kStack - 8), kUserStack);  // parameters released from the outer stack too
}

TEST(ProtectedMode, SwitchesTasksByACallAndBackByIret) {
  Machine machine;
  machine.set(machine.protected_mode());
  put_exit_handlers(machine);
  constexpr uint32_t kOther = 0x3800;
  machine.put_object<uint64_t>(kGdt + 0x50, Machine::descriptor(kOther, 0x67, 0x89, 0));
  machine.put_object<uint32_t>(kOther + 0x20, 0xA000);  // EIP
  machine.put_object<uint32_t>(kOther + 0x24, 2);       // EFLAGS
  machine.put_object<uint32_t>(kOther + 0x28, 0x77);    // EAX
  machine.put_object<uint32_t>(kOther + 0x38, 0x5000);  // ESP
  for (const auto& [offset, selector] : std::initializer_list<std::pair<uint32_t, uint32_t>>{
           {0x48, kData}, {0x4C, kCode32}, {0x50, kData}, {0x54, kData}}) {
    machine.put_object<uint32_t>(kOther + offset, selector);
  }
  machine.put(kCode, {0xB8, 0x12, 0, 0, 0, 0x9A, 0, 0, 0, 0, 0x50, 0, 0xE6, 0xF4});  // mov eax, 0x12; call 0x50:0; out
  machine.put(0xA000, {0xE6, 0x80, 0xCF});                                           // out 0x80, al; iret
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().port_writes, (std::vector<std::pair<uint16_t, uint32_t>>{{0x80, 0x77}}));
  EXPECT_EQ(machine.board().exit_value, 0x12u);
  const cpu::State state = machine.state();
  EXPECT_EQ(state.tr.selector, kTssSelector);
  EXPECT_EQ(state.cr0 & 8, 8u);
  EXPECT_EQ(machine.get<uint16_t>(kOther), kTssSelector);
  EXPECT_EQ(machine.get<uint8_t>(kGdt + 0x55), 0x89);
  EXPECT_EQ(machine.get<uint32_t>(kOther + 0x20), 0xA003u);
}

TEST(ProtectedMode, EntersAndLeavesVirtual8086Mode) {
  Machine machine;
  machine.set(machine.protected_mode());
  put_exit_handlers(machine);
  // push gs fs ds es = 0x500, ss = 0x500, esp = 0x100, eflags = VM | IOPL 3, cs = 0xA00, eip = 0; iret
  machine.put(kCode, {0x68, 0, 5, 0,    0, 0x68, 0, 5, 0,    0, 0x68, 0, 5, 0,    0, 0x68, 0, 5, 0,    0, 0x68, 0,
                      5,    0, 0, 0x68, 0, 1,    0, 0, 0x68, 2, 0x30, 2, 0, 0x68, 0, 0x0A, 0, 0, 0x6A, 0, 0xCF});
  machine.put(0xA000, {0xB8, 0x34, 0x12, 0xA3, 0, 0, 0xCD, 0x40});  // mov ax, 0x1234; mov [0], ax; int 0x40
  machine.put_object<uint64_t>(kIdt + 0x40 * 8, Machine::gate(kCode32, 0x9400, 14, 3));
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 0x40u);
  EXPECT_EQ(machine.get<uint16_t>(0x5000), 0x1234);
  EXPECT_EQ(machine.get<uint32_t>(kStack - 36), 8u);      // EIP
  EXPECT_EQ(machine.get<uint32_t>(kStack - 32), 0xA00u);  // CS
  EXPECT_EQ(machine.get<uint32_t>(kStack - 28), 0x23002u);
  EXPECT_EQ(machine.get<uint32_t>(kStack - 4), 0x500u);  // GS
  EXPECT_EQ(machine.state().segments[cpu::kDs].attributes & cpu::Segment::kUnusable, cpu::Segment::kUnusable);
}

TEST(ProtectedMode, ChecksLimitsOfExpandDownSegments) {
  Machine machine;
  cpu::State state = machine.protected_mode();
  state.segments[cpu::kEs] = {.base = 0, .limit = 0x4FFF, .selector = kData, .attributes = 0x4097};
  machine.set(state);
  put_exit_handlers(machine);
  machine.put(kCode,
              {0x26, 0xA1, 0, 0x50, 0, 0, 0x26, 0xA1, 0xFF, 0x4F, 0, 0});  // mov eax, es:[0x5000]; mov eax, es:[0x4FFF]
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 13u);
  EXPECT_EQ(machine.get<uint32_t>(kStack - 12 - 4), 0u);
  EXPECT_EQ(machine.get<uint32_t>(kStack - 12), kCode + 6);
}

TEST(ProtectedMode, TellsAboutDescriptors) {
  Machine machine;
  machine.set(user_protected(machine));
  put_exit_handlers(machine);
  // mov eax, 0x23; lar ebx, eax; lsl ecx, eax; mov eax, 8 (a DPL 0 segment); lar edx, eax; setz dl; ud2
  machine.put(kCode, {0xB8, 0x23, 0, 0,    0,    0x0F, 0x02, 0xD8, 0x0F, 0x03, 0xC8, 0xB8, 8,
                      0,    0,    0, 0x31, 0xD2, 0x0F, 0x02, 0xD0, 0x0F, 0x94, 0xC2, 0x0F, 0x0B});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.state().gpr[cpu::kRbx], 0xCFF300u);
  EXPECT_EQ(machine.state().gpr[cpu::kRcx], 0xFFFFFFFFu);
  EXPECT_EQ(machine.state().gpr[cpu::kRdx], 0u);
}

TEST(ProtectedMode, NamesTheSelectorThatIsNotPresent) {
  Machine machine;
  machine.set(machine.protected_mode());
  put_exit_handlers(machine);
  machine.put_object<uint64_t>(kGdt + 0x50, Machine::descriptor(0, 0xFFFFF, 0x13, 0xC));
  machine.put(kCode, {0xB8, 0x50, 0, 0, 0, 0x8E, 0xC0});  // mov eax, 0x50; mov es, ax
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 11u);
  EXPECT_EQ(machine.get<uint32_t>(kStack - 16), 0x50u);
}

TEST(LongMode, UsesTheInterruptStackTable) {
  Machine machine;
  machine.set(machine.long_mode());
  machine.put_object<uint64_t>(kTss + 0x24, 0x5008);  // IST1, not aligned
  machine.put_object<uint64_t>(kIdt + 3 * 16, Machine::gate(kCode64, kHandlers + 3 * 16, 14, 3) | uint64_t{1} << 32);
  put_exit_handlers(machine);
  machine.put(kCode, {0xCC});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 3u);
  EXPECT_EQ(machine.state().gpr[cpu::kRsp], 0x5000u - 40);
  EXPECT_EQ(machine.get<uint64_t>(0x5000 - 16), kStack);
}

TEST(LongMode, RefusesToReturnToANonCanonicalAddress) {
  Machine machine;
  cpu::State state = machine.long_mode();
  state.gpr[cpu::kRcx] = 0x8000'0000'0000;
  machine.set(state);
  put_exit_handlers(machine);
  machine.put(kCode, {0x48, 0x0F, 0x07});  // sysretq
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 13u);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 32), kCode64);  // still at CPL 0
}

TEST(LongMode, RefusesReservedBitsOfControlRegisters) {
  for (const auto& code : std::initializer_list<std::initializer_list<int>>{
           {0x0F, 0x20, 0xE0, 0x0D, 0, 0, 0, 1, 0x0F, 0x22, 0xE0},            // CR4 bit 24
           {0x0F, 0x20, 0xE0, 0x83, 0xE0, 0xDF, 0x0F, 0x22, 0xE0},            // CR4.PAE off
           {0x0F, 0x20, 0xC0, 0x0F, 0xBA, 0xF0, 31, 0x0F, 0x22, 0xC0},        // CR0.PG off
           {0x0F, 0x20, 0xD8, 0x48, 0x0F, 0xBA, 0xE8, 50, 0x0F, 0x22, 0xD8},  // CR3 bit 50
           {0x0F, 0x20, 0xC0, 0x0F, 0xBA, 0xE8, 29, 0x0F, 0x22, 0xC0},        // CR0.NW without CD
       }) {
    Machine machine;
    machine.set(machine.long_mode());
    put_exit_handlers(machine);
    machine.put(kCode, code);
    EXPECT_EQ(machine.run(), StopReason::kRequested);
    EXPECT_EQ(machine.board().exit_value, 13u);
  }
}

TEST(LongMode, HoldsNmisOffUntilIret) {
  Machine machine;
  machine.set(machine.long_mode());
  machine.put(kCode, {0xEB, 0xFE});
  machine.put(kHandlers + 2 * 16, {0xFF, 0xC3, 0xE6, 0x80, 0x83, 0xFB, 2, 0x74, 0x02, 0x48, 0xCF, 0xE6,
                                   0xF4});  // inc ebx; out 0x80; cmp ebx,2; je; iretq; out
  machine.vcpus[0]->raise_nmi();
  unsigned depth_at_second = 0;
  machine.board().on_port_write = [&](uint16_t, uint32_t) {
    if (depth_at_second++ == 0) machine.vcpus[0]->raise_nmi();
  };
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.state().gpr[cpu::kRsp], kStack - 40);  // not nested
  EXPECT_TRUE(machine.state().nmi_blocked);
}

TEST(LongMode, HoldsInterruptsOffForOneInstructionAfterSti) {
  Machine machine;
  machine.set(machine.long_mode());
  machine.put(kCode, {0xFB, 0x90, 0x90, 0xF4});
  machine.put(kHandlers + 0x30 * 16, {0xE6, 0xF4});
  machine.board().interrupt = 0x30;
  machine.vcpus[0]->set_interrupt_request(true);
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.get<uint64_t>(kStack - 40), kCode + 2);
}

TEST(LongMode, ChecksTheIoBitmap) {
  Machine machine;
  cpu::State state = machine.user_mode();
  state.tr.limit = 0x67 + 0x20;
  machine.set(state);
  machine.put_object<uint16_t>(kTss + 102, 0x68);
  machine.put_object<uint8_t>(kTss + 0x68 + 0xF4 / 8, 0);
  machine.put_object<uint8_t>(kTss + 0x68 + 0x60 / 8, 1);
  put_exit_handlers(machine);
  machine.put(kCode, {0xB0, 0x33, 0xE6, 0x61, 0xE4, 0x60});  // out 0x61 is allowed, in 0x60 is not
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().port_writes.size(), 1u);
  EXPECT_EQ(machine.board().exit_value, 13u);
}

TEST(LongMode, AnswersCpuidAndMsrs) {
  Machine machine;
  machine.set(machine.long_mode());
  put_exit_handlers(machine);
  // mov ecx, 0xC0000102; mov eax, 5; xor edx, edx; wrmsr; swapgs; mov ecx, 0xC0000101; rdmsr; mov ebx, eax; mov ecx,
  // 0x12345; rdmsr
  machine.put(kCode, {0xB9, 2, 1, 0, 0xC0, 0xB8, 5,    0,    0,    0,    0x31, 0xD2, 0x0F, 0x30, 0x0F, 0x01, 0xF8,
                      0xB9, 1, 1, 0, 0xC0, 0x0F, 0x32, 0x89, 0xC3, 0xB9, 0x45, 0x23, 1,    0,    0x0F, 0x32});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  EXPECT_EQ(machine.board().exit_value, 13u);
  EXPECT_EQ(machine.state().gpr[cpu::kRbx], 5u);
}

TEST(LongMode, PublishesTheParavirtualClock) {
  Machine machine;
  machine.clock.advance(5'000'000);
  machine.set(machine.long_mode());
  machine.put(kCode, {0xB9, 1, 0x4D, 0x56, 0x4B, 0xB8, 1, 0x50, 0, 0, 0x31, 0xD2, 0x0F, 0x30, 0xE6, 0xF4});
  EXPECT_EQ(machine.run(), StopReason::kRequested);
  const uint64_t ticks = machine.clock.tsc() - machine.get<uint64_t>(0x5008);
  const auto shift = machine.get<int8_t>(0x501C);
  const uint64_t shifted = shift >= 0 ? ticks << shift : ticks >> -shift;
  const uint64_t ns =
      static_cast<uint64_t>(static_cast<unsigned __int128>(shifted) * machine.get<uint32_t>(0x5018) >> 32) +
      machine.get<uint64_t>(0x5010);
  EXPECT_NEAR(static_cast<double>(ns), 5e6, 1);
}

}  // namespace
}  // namespace bulkhead::engine
