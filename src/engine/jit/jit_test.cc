#include "engine/jit/jit.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>

#include "engine/jit/state_layout.h"
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

TEST(StateLayout, WhatIsUsedMostIsWithinReachOfAByte) {
  const auto cpu = std::make_unique<Cpu>();
  const auto is_near = [](Memory memory) { return memory.displacement >= -128 && memory.displacement <= 127; };
  for (uint8_t guest = 12; guest < 16; ++guest) EXPECT_TRUE(is_near(gpr(guest)));
  for (const uint64_t& group : cpu->jit_groups) EXPECT_TRUE(is_near(field(*cpu, group)));
  EXPECT_TRUE(is_near(field(*cpu, cpu->flags)));
  EXPECT_TRUE(is_near(field(*cpu, cpu->attention)));
  EXPECT_TRUE(is_near(field(*cpu, cpu->instruction_count)));
  EXPECT_TRUE(is_near(field(*cpu, cpu->jit_page)));
  EXPECT_TRUE(is_near(field(*cpu, cpu->jit_target_mask)));
  EXPECT_TRUE(is_near(field(*cpu, cpu->tlb.current())));
}

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

// What it calls stands in another page, and is known by its address.
TEST_F(JitTest, AFunctionThatItChangesIsSeenByTheNextCall) {
  // mov ecx, 1000; xor ebx, ebx; loop: call r8; add rbx, rax; inc dword [0x9001]; dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode, {0xB9, 0xE8, 0x03, 0x00, 0x00, 0x31, 0xDB, 0x41, 0xFF, 0xD0, 0x48, 0x01, 0xC3,
                       0xFF, 0x04, 0x25, 0x01, 0x90, 0x00, 0x00, 0xFF, 0xC9, 0x75, 0xEF, 0xE6, 0xF4});
  machine_.put(0x9000, {0xB8, 0x01, 0x00, 0x00, 0x00, 0xC3});  // mov eax, 1; ret
  cpu::State state = machine_.long_mode();
  state.gpr[8] = 0x9000;
  machine_.set(state);
  EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
  EXPECT_EQ(machine_.state().gpr[cpu::kRbx], 1000u * 1001 / 2);
  EXPECT_GE(statistic(vcpu(), "jit.blocks"), 2u);
}

TEST_F(JitTest, AFunctionThatADeviceChangesIsSeenByALoopThatNeverComesBack) {
  // out 0x80, al; mov ecx, 2^30; loop: call r8; cmp eax, 2; je end; dec rcx; jnz loop; end: out 0xf4, al
  machine_.put(kCode, {0xE6, 0x80, 0xB9, 0x00, 0x00, 0x00, 0x40, 0x41, 0xFF, 0xD0, 0x83,
                       0xF8, 0x02, 0x74, 0x05, 0x48, 0xFF, 0xC9, 0x75, 0xF3, 0xE6, 0xF4});
  machine_.put(0x9000, {0xB8, 0x01, 0x00, 0x00, 0x00, 0xC3});  // mov eax, 1; ret
  std::thread device;
  machine_.board().on_port_write = [&](uint16_t, uint32_t) {
    device = std::thread([&] {
      for (int i = 0; i < 20; ++i) std::this_thread::yield();
      machine_.put(0x9001, {2});
    });
  };
  cpu::State state = machine_.long_mode();
  state.gpr[8] = 0x9000;
  machine_.set(state);
  EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
  device.join();
  EXPECT_EQ(machine_.state().gpr[cpu::kRax], 2u);
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

TEST_F(JitTest, WhatKernelsRunAtEveryEntryNeedsNoHandler) {
  // mov ecx, 1000; mov ebx, 67; loop: cli; swapgs; swapgs; pushf; pop rax; push [rsp - 8]; pop rdx; stac; clac;
  // lock bts [rdi], rbx; mov rsi, cr3; mov r12d, ss; cld; sti; dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode,
               {0xB9, 0xE8, 0x03, 0x00, 0x00, 0xBB, 0x43, 0x00, 0x00, 0x00, 0xFA, 0x0F, 0x01, 0xF8, 0x0F, 0x01, 0xF8,
                0x9C, 0x58, 0xFF, 0x74, 0x24, 0xF8, 0x5A, 0x0F, 0x01, 0xCB, 0x0F, 0x01, 0xCA, 0xF0, 0x48, 0x0F, 0xAB,
                0x1F, 0x0F, 0x20, 0xDE, 0x41, 0x8C, 0xD4, 0xFC, 0xFB, 0xFF, 0xC9, 0x75, 0xDB, 0xE6, 0xF4});
  cpu::State state = machine_.long_mode();
  state.gpr[cpu::kRdi] = 0x5000;
  machine_.put_object(0x5000, std::array<uint64_t, 2>{});
  machine_.set(state);
  EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
  const cpu::State after = machine_.state();
  EXPECT_EQ(after.instruction_count, 2u + 1000 * 16 + 1);
  EXPECT_EQ(after.gpr[cpu::kRax] & kFlagInterrupt, 0u);
  EXPECT_EQ(after.gpr[cpu::kRdx], after.gpr[cpu::kRax]);
  EXPECT_EQ(after.rflags & (kFlagInterrupt | kFlagAlignmentCheck), uint64_t{kFlagInterrupt});
  EXPECT_EQ(machine_.get<uint64_t>(0x5000), 0u);
  EXPECT_EQ(machine_.get<uint64_t>(0x5008), 8u);
  EXPECT_EQ(after.gpr[cpu::kRsi], state.cr3);
  EXPECT_EQ(after.gpr[12], state.segments[cpu::kSs].selector);
  EXPECT_LT(statistic(vcpu(), "jit.handler"), 10u);
}

// --- vector instructions ---

class JitSimdTest : public JitTest {
 protected:
  static constexpr size_t kMxcsr = 24, kXmm = 160, kYmmHigh = 576;

  cpu::State vector_mode() {
    cpu::State state = machine_.long_mode();
    state.cr4 |= kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Osxsave;
    state.xcr0 = 7;
    put(state, kMxcsr, uint32_t{0x1F80});
    put(state, 512, uint64_t{7});  // XSTATE_BV
    return state;
  }
  template <typename T>
  static void put(cpu::State& state, size_t offset, T value) {
    std::memcpy(state.xsave.data() + offset, &value, sizeof value);
  }
  template <typename T>
  static T get(const cpu::State& state, size_t offset) {
    T value;
    std::memcpy(&value, state.xsave.data() + offset, sizeof value);
    return value;
  }
};

TEST_F(JitSimdTest, SumsInALoopAndKeepsTheStickyFlags) {
  // mov ecx, 10000; loop: addsd xmm0, xmm1; dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode, {0xB9, 0x10, 0x27, 0x00, 0x00, 0xF2, 0x0F, 0x58, 0xC1, 0xFF, 0xC9, 0x75, 0xF8, 0xE6, 0xF4});
  cpu::State state = vector_mode();
  put(state, kXmm + 16, 0.1);
  put(state, kYmmHigh, uint64_t{0x1234});
  machine_.set(state);
  EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
  double sum = 0;
  for (int i = 0; i < 10000; ++i) sum += 0.1;
  const cpu::State after = machine_.state();
  EXPECT_EQ(get<double>(after, kXmm), sum);
  EXPECT_EQ(get<uint64_t>(after, kYmmHigh), 0x1234u);       // legacy instructions leave it alone
  EXPECT_EQ(get<uint32_t>(after, kMxcsr), 0x1F80u | 0x20);  // precision
  EXPECT_LT(statistic(vcpu(), "jit.entries"), 100u);
}

TEST_F(JitSimdTest, AnUnmaskedExceptionIsTheGuests) {
  // mov ecx, 100; loop: divsd xmm0, xmm1; subsd xmm1, xmm2; dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode, {0xB9, 0x64, 0x00, 0x00, 0x00, 0xF2, 0x0F, 0x5E, 0xC1, 0xF2, 0x0F, 0x5C, 0xCA, 0xFF, 0xC9, 0x75,
                       0xF4, 0xE6, 0xF4});
  machine_.put(testing::kHandlers + 19 * 16, {0xE6, 0xF4});  // #XM's handler: out 0xf4, al
  cpu::State state = vector_mode();
  put(state, kXmm, 1.0);
  put(state, kXmm + 16, 50.0);
  put(state, kXmm + 32, 1.0);
  put(state, kMxcsr, uint32_t{0x1D80});  // division by zero is not masked
  machine_.set(state);
  EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
  const cpu::State after = machine_.state();
  EXPECT_EQ(machine_.get<uint64_t>(after.gpr[cpu::kRsp]), kCode + 5);  // RIP in the frame
  EXPECT_EQ(after.gpr[cpu::kRcx], 50u);
  EXPECT_EQ(get<uint32_t>(after, kMxcsr) & 4, 4u);
}

TEST_F(JitSimdTest, AMisalignedOperandIsAGeneralProtectionFault) {
  // mov ecx, 100
  // loop: movaps xmm3, [rdi]; add rdi, rax; cmp ecx, 50; jne +4; add rdi, 1 (4 bytes); dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode, {0xB9, 0x64, 0x00, 0x00, 0x00, 0x0F, 0x28, 0x1F, 0x48, 0x01, 0xC7, 0x83, 0xF9,
                       0x32, 0x75, 0x04, 0x48, 0x83, 0xC7, 0x01, 0xFF, 0xC9, 0x75, 0xED, 0xE6, 0xF4});
  machine_.put(testing::kHandlers + 13 * 16, {0xE6, 0xF4});  // #GP's handler
  cpu::State state = vector_mode();
  state.gpr[cpu::kRdi] = 0x2'0000;
  state.gpr[cpu::kRax] = 16;
  machine_.set(state);
  EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
  const cpu::State after = machine_.state();
  EXPECT_EQ(machine_.get<uint64_t>(after.gpr[cpu::kRsp] + 8), kCode + 5);
  EXPECT_EQ(after.gpr[cpu::kRcx], 49u);
}

TEST_F(JitSimdTest, WholeRegistersSurviveHandlersInBetween) {
  if (__builtin_cpu_supports("avx") == 0) GTEST_SKIP() << "the host has no AVX";
  // mov ecx, 1000; loop: vaddpd ymm1, ymm1, ymm2; rdtsc; vaddpd xmm3, xmm3, xmm2; dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode, {0xB9, 0xE8, 0x03, 0x00, 0x00, 0xC5, 0xF5, 0x58, 0xCA, 0x0F, 0x31,
                       0xC5, 0xE1, 0x58, 0xDA, 0xFF, 0xC9, 0x75, 0xF2, 0xE6, 0xF4});
  cpu::State state = vector_mode();
  put(state, kXmm + 32, 1.0);
  put(state, kYmmHigh + 32 + 8, 2.0);
  put(state, kYmmHigh + 15 * 16, uint64_t{0x5A});
  put(state, kYmmHigh + 3 * 16, uint64_t{0xFF});
  machine_.set(state);
  EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
  const cpu::State after = machine_.state();
  EXPECT_EQ(get<double>(after, kXmm + 16), 1000.0);
  EXPECT_EQ(get<double>(after, kYmmHigh + 16 + 8), 2000.0);
  EXPECT_EQ(get<double>(after, kXmm + 48), 1000.0);
  EXPECT_EQ(get<uint64_t>(after, kYmmHigh + 3 * 16), 0u);  // VEX.128 clears it
  EXPECT_EQ(get<uint64_t>(after, kYmmHigh + 15 * 16), 0x5Au);
}

TEST_F(JitSimdTest, TheX87UnitKeepsItsRegistersFromBlockToBlock) {
  // mov ecx, 1000; fldz; fld1; loop: fadd st(1), st; dec ecx; jnz loop; fstp st(0); fnstenv [rdi]; fldcw [rdi];
  // fstp qword [rdi]; out 0xf4, al
  machine_.put(kCode, {0xB9, 0xE8, 0x03, 0x00, 0x00, 0xD9, 0xEE, 0xD9, 0xE8, 0xDC, 0xC1, 0xFF, 0xC9,
                       0x75, 0xFA, 0xDD, 0xD8, 0xD9, 0x37, 0xD9, 0x2F, 0xDD, 0x1F, 0xE6, 0xF4});
  cpu::State state = vector_mode();
  put(state, 0, uint16_t{0x37F});
  put(state, 8, uint64_t{0x1234'5678});  // the instruction pointer of an exception long ago
  state.gpr[cpu::kRdi] = 0x2'0000;
  machine_.set(state);
  EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
  EXPECT_EQ(machine_.get<double>(0x2'0000), 1000.0);
  EXPECT_EQ(machine_.get<uint32_t>(0x2'0000 + 12), 0u);  // it is gone, and the host's own does not show
  const cpu::State after = machine_.state();
  EXPECT_EQ(get<uint16_t>(after, 0), 0x37Fu);
  EXPECT_EQ(get<uint16_t>(after, 2) & 0x3800, 0u);  // TOP
  EXPECT_EQ(get<uint8_t>(after, 4), 0u);            // all registers are empty
  EXPECT_LT(statistic(vcpu(), "jit.entries"), 100u);
}

TEST_F(JitSimdTest, AnUnmaskedX87ExceptionIsTheGuests) {
  // mov ecx, 100; loop: fld1; fdiv qword [rdi]; fstp st(0); cmp ecx, 50; jne +2; fldcw [rsi]; dec ecx; jnz loop; out
  machine_.put(kCode, {0xB9, 0x64, 0x00, 0x00, 0x00, 0xD9, 0xE8, 0xDC, 0x37, 0xDD, 0xD8, 0x83,
                       0xF9, 0x32, 0x75, 0x02, 0xD9, 0x2E, 0xFF, 0xC9, 0x75, 0xEF, 0xE6, 0xF4});
  machine_.put(testing::kHandlers + 16 * 16, {0xE6, 0xF4});  // #MF's handler
  cpu::State state = vector_mode();
  state.cr0 |= kCr0Ne;
  put(state, 0, uint16_t{0x37F});
  state.gpr[cpu::kRdi] = 0x2'0000;
  state.gpr[cpu::kRsi] = 0x2'0010;
  machine_.put_object<double>(0x2'0000, 3.0);
  machine_.put_object<uint16_t>(0x2'0010, 0x35F);  // #P is not masked
  machine_.set(state);
  EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
  const cpu::State after = machine_.state();
  // The flag has been set for long, so the next waiting instruction, FLD1, takes it.
  EXPECT_EQ(machine_.get<uint64_t>(after.gpr[cpu::kRsp]), kCode + 5);
  EXPECT_EQ(after.gpr[cpu::kRcx], 49u);
}

}  // namespace
}  // namespace bulkhead::engine::jit
