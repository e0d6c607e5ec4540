#include <gtest/gtest.h>

#include <array>
#include <span>
#include <vector>

#include "engine/soft_vcpu.h"
#include "engine/testing.h"

namespace bulkhead::engine::jit {
namespace {

using testing::kCode;

constexpr uint64_t kLinear = 0x2'0000, kPages = 16;

// A kernel whose pages from kLinear on are not side by side in memory.
class PageCrossing : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto translating = vcpu().use_translator(2);
    if (!translating) GTEST_SKIP() << translating.error().message;
    state_ = machine_.long_mode();
    state_.cr4 |= 0x600;  // OSFXSR and OSXMMEXCPT
    constexpr uint64_t kPresentAndWritable = 3;
    for (uint64_t i = 0; i < kPages; ++i) {
      const uint64_t page = kLinear + i * kPageSize;
      machine_.put_object(testing::Machine::pte_address(page), physical(page) | kPresentAndWritable);
    }
    for (uint64_t i = 0; i < kPages * kPageSize; ++i) put_byte(kLinear + i, static_cast<uint8_t>(i * 7 ^ i >> 8));
  }
  SoftVcpu& vcpu() { return static_cast<SoftVcpu&>(*machine_.vcpus[0]); }
  static uint64_t physical(uint64_t linear) {
    return 0x6'0000 + (linear - kLinear) / kPageSize * 5 % kPages * kPageSize + linear % kPageSize;
  }
  uint8_t byte(uint64_t linear) { return machine_.get<uint8_t>(physical(linear)); }
  void put_byte(uint64_t linear, uint8_t value) { machine_.put_object(physical(linear), value); }
  cpu::State run() {
    machine_.set(state_);
    EXPECT_EQ(machine_.run(), cpu::StopReason::kRequested);
    return machine_.state();
  }
  uint64_t statistic(std::string_view name) {
    for (const auto& [key, value] : vcpu().statistics()) {
      if (key == name) return value;
    }
    return 0;
  }

  testing::Machine machine_;
  cpu::State state_;
};

TEST_F(PageCrossing, VectorsReadAndWrittenAcrossPagesNeedNoHandler) {
  // mov ecx, 50000; loop: movdqu xmm0, [rsi]; movdqu [rdi], xmm0; inc byte [rbx]; dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode, {0xB9, 0x50, 0xC3, 0x00, 0x00, 0xF3, 0x0F, 0x6F, 0x06, 0xF3, 0x0F,
                       0x7F, 0x07, 0xFE, 0x03, 0xFF, 0xC9, 0x75, 0xF2, 0xE6, 0xF4});
  for (const uint64_t before : {1, 8, 15}) {
    const uint64_t from = kLinear + kPageSize - before, to = kLinear + 8 * kPageSize - (16 - before);
    state_.gpr[cpu::kRsi] = from;
    state_.gpr[cpu::kRbx] = from + 15;
    state_.gpr[cpu::kRdi] = to;
    const auto first = byte(from + 15);
    const auto below = byte(to - 1), above = byte(to + 16);
    const uint64_t calls = statistic("jit.slow.movdqu");
    run();
    for (uint64_t i = 0; i < 15; ++i) EXPECT_EQ(byte(to + i), byte(from + i)) << before << " " << i;
    EXPECT_EQ(byte(to + 15), static_cast<uint8_t>(first + 49999)) << before;
    EXPECT_EQ(byte(from + 15), static_cast<uint8_t>(first + 50000)) << before;
    EXPECT_EQ(byte(to - 1), below);
    EXPECT_EQ(byte(to + 16), above);
    // Each access is one of a group of all rounds at first.
    EXPECT_LT(statistic("jit.slow.movdqu") - calls, 4 * mmu::Slots::kGroupMisses);
  }
  EXPECT_GE(statistic("jit.blocks"), 1u);
}

TEST_F(PageCrossing, AVectorWrittenToAPageThatIsReadOnlyFaultsWithNothingWritten) {
  // mov ecx, 1000; loop: movdqu [rdi], xmm0; cmp ecx, 500; jne on; mov rdi, rsi; on: dec ecx; jnz loop; out 0xf4, al
  machine_.put(kCode, {0xB9, 0xE8, 0x03, 0x00, 0x00, 0xF3, 0x0F, 0x7F, 0x07, 0x81, 0xF9, 0xF4, 0x01,
                       0x00, 0x00, 0x75, 0x03, 0x48, 0x89, 0xF7, 0xFF, 0xC9, 0x75, 0xED, 0xE6, 0xF4});
  machine_.put(testing::kHandlers + 14 * 16, {0xE6, 0xF4});
  const uint64_t to = kLinear + 3 * kPageSize - 5;
  state_.cr0 |= 1u << 16;  // WP
  machine_.put_object(testing::Machine::pte_address(kLinear + 3 * kPageSize), physical(kLinear + 3 * kPageSize) | 1);
  state_.gpr[cpu::kRdi] = kLinear + 5 * kPageSize - 3;
  state_.gpr[cpu::kRsi] = to;
  const auto before = byte(to);
  const cpu::State after = run();
  EXPECT_EQ(after.cr2, to + 5);
  EXPECT_EQ(after.gpr[cpu::kRcx], 499u);
  EXPECT_EQ(byte(to), before);
  EXPECT_EQ(byte(kLinear + 5 * kPageSize), 0);
}

TEST_F(PageCrossing, StringsOverManyPagesNeedNoHandler) {
  // mov ebp, 100; loop: mov esi, 0x20010; mov edi, 0x24123; mov ecx, 0x2345; rep movsb;
  // mov edi, 0x28ff8; mov ecx, 0x300; rep stosq; dec ebp; jnz loop; out 0xf4, al
  machine_.put(kCode, {0xBD, 0x64, 0x00, 0x00, 0x00, 0xBE, 0x10, 0x00, 0x02, 0x00, 0xBF, 0x23, 0x41, 0x02,
                       0x00, 0xB9, 0x45, 0x23, 0x00, 0x00, 0xF3, 0xA4, 0xBF, 0xF8, 0x8F, 0x02, 0x00, 0xB9,
                       0x00, 0x03, 0x00, 0x00, 0xF3, 0x48, 0xAB, 0xFF, 0xCD, 0x75, 0xDE, 0xE6, 0xF4});
  state_.gpr[cpu::kRax] = 0x8877'6655'4433'2211;
  const cpu::State after = run();
  EXPECT_EQ(after.gpr[cpu::kRsi], 0x2'0010u + 0x2345);
  EXPECT_EQ(after.gpr[cpu::kRdi], 0x2'8FF8u + 0x1800);
  EXPECT_EQ(after.gpr[cpu::kRcx], 0u);
  for (uint64_t i = 0; i < 0x2345; ++i) ASSERT_EQ(byte(0x2'4123 + i), byte(0x2'0010 + i)) << i;
  for (uint64_t i = 0; i < 0x1800; ++i) ASSERT_EQ(byte(0x2'8FF8 + i), 0x11 * (1 + i % 8)) << i;
  EXPECT_EQ(byte(0x2'4123 + 0x2345), static_cast<uint8_t>(0x6468 * 7 ^ 0x6468 >> 8));
  EXPECT_NE(byte(0x2'8FF8 + 0x1800), 0x11);
  EXPECT_LT(statistic("jit.slow"), 20u);
}

TEST_F(PageCrossing, AStringThatComesToAPageThatIsMissingFaultsThere) {
  // mov ebp, 5; loop: mov edi, 0x21000; mov ecx, ebx; rep stosb; add ebx, 0x1000; dec ebp; jnz loop; out 0xf4, al
  machine_.put(kCode, {0xBD, 0x05, 0x00, 0x00, 0x00, 0xBF, 0x00, 0x10, 0x02, 0x00, 0x89, 0xD9, 0xF3,
                       0xAA, 0x81, 0xC3, 0x00, 0x10, 0x00, 0x00, 0xFF, 0xCD, 0x75, 0xED, 0xE6, 0xF4});
  machine_.put(testing::kHandlers + 14 * 16, {0xE6, 0xF4});
  machine_.put_object(testing::Machine::pte_address(0x2'5000), uint64_t{0});
  state_.gpr[cpu::kRbx] = 0x1800;
  const cpu::State after = run();
  EXPECT_EQ(after.cr2, 0x2'5000u);
  EXPECT_EQ(after.gpr[cpu::kRdi], 0x2'5000u);
  EXPECT_EQ(after.gpr[cpu::kRcx], 0x4800u - 0x4000);  // of the fourth round
  EXPECT_EQ(after.gpr[cpu::kRbp], 2u);
}

TEST_F(PageCrossing, AnInstructionThatNoLongerReachesTheNextPageDoesNotFaultThere) {
  // mov esi, 0x40ffe; call rsi; mov word [rsi], 0xc390 (nop; ret); mov esi, 0x50ffe (the same page); call rsi; out
  // 0xf4, al
  machine_.put(kCode, {0xBE, 0xFE, 0x0F, 0x04, 0x00, 0xFF, 0xD6, 0x66, 0xC7, 0x06, 0x90,
                       0xC3, 0xBE, 0xFE, 0x0F, 0x05, 0x00, 0xFF, 0xD6, 0xE6, 0xF4});
  machine_.put(0x4'0FFE, {0xB8, 0x00, 0x00, 0x00, 0x00, 0xC3});  // mov eax, 0; ret
  machine_.put_object(testing::Machine::pte_address(0x5'0000), uint64_t{0x4'0003});
  machine_.put_object(testing::Machine::pte_address(0x5'1000), uint64_t{0});
  machine_.put(testing::kHandlers + 14 * 16, {0xE6, 0xF4});
  const cpu::State after = run();
  EXPECT_EQ(after.rip, kCode + 21);
  EXPECT_EQ(after.cr2, 0u);
}

TEST_F(PageCrossing, AGroupThatIsAlwaysOnTwoPagesEndsUpWithCodeForThat) {
  // mov ecx, 20000; loop: mov rax, [rsi]; add rax, [rsi + 8]; mov [rsi + 16], rax; inc qword [rsi]; dec ecx; jnz loop;
  // out 0xf4, al
  machine_.put(kCode, {0xB9, 0x20, 0x4E, 0x00, 0x00, 0x48, 0x8B, 0x06, 0x48, 0x03, 0x46, 0x08, 0x48,
                       0x89, 0x46, 0x10, 0x48, 0xFF, 0x06, 0xFF, 0xC9, 0x75, 0xEE, 0xE6, 0xF4});
  const uint64_t at = kLinear + 2 * kPageSize - 8;
  machine_.put_object(physical(at), uint64_t{1000});
  machine_.put_object(physical(at + 8), uint64_t{7});
  state_.gpr[cpu::kRsi] = at;
  run();
  EXPECT_EQ(machine_.get<uint64_t>(physical(at)), 21000u);
  EXPECT_EQ(machine_.get<uint64_t>(physical(at + 16)), 20999u + 7);
  EXPECT_GE(statistic("slots.dropped"), 1u);
  EXPECT_LT(statistic("jit.slow"), 5000u);  // of 80000 accesses
}

// More than the code of twelve blocks would stand behind the block: it is bounded.
TEST_F(PageCrossing, ABlockFullOfGroupsOnTwoPagesIsTranslatedWithinBounds) {
  constexpr std::array<uint8_t, 12> kBases = {2, 3, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15};
  constexpr uint8_t kLoad = 0x10, kStore = 0x11;
  std::vector<uint8_t> code = {0x49, 0xC7, 0xC3, 0x88, 0x13, 0x00, 0x00};  // mov r11, 5000
  const size_t loop = code.size();
  const auto movups = [&](uint8_t opcode, uint8_t base, uint8_t displacement) {
    if (base >= 8) code.push_back(0x41);
    code.insert(code.end(), {0x0F, opcode, static_cast<uint8_t>(0x40 | (base & 7))});
    if ((base & 7) == 4) code.push_back(0x24);
    code.push_back(displacement);
  };
  for (const uint8_t base : kBases) movups(kLoad, base, 0);
  for (const uint8_t base : kBases) movups(kStore, base, 16);
  for (const uint8_t base : kBases) movups(kLoad, base, 32);
  for (const uint8_t base : std::span(kBases).first(9)) movups(kStore, base, 48);
  const auto distance = static_cast<int32_t>(static_cast<int64_t>(loop) - static_cast<int64_t>(code.size() + 9));
  code.insert(code.end(), {0x49, 0xFF, 0xCB, 0x0F, 0x85});  // dec r11; jnz loop
  for (int i = 0; i < 4; ++i) code.push_back(static_cast<uint8_t>(distance >> i * 8));
  code.insert(code.end(), {0xE6, 0xF4});  // out 0xf4, al
  for (size_t i = 0; i < code.size(); ++i) machine_.put_object(kCode + i, code[i]);

  const auto edge = [](size_t i) { return kLinear + (i + 1) * kPageSize - 8; };
  // One group after the other is seen on two pages, then all at once.
  for (size_t crossing = 0; crossing <= kBases.size(); ++crossing) {
    const bool all = crossing == kBases.size();
    for (size_t i = 0; i < kBases.size(); ++i) {
      state_.gpr[kBases[i]] = edge(i) - (all || i == crossing ? 0 : 256);
    }
    std::vector<std::vector<uint8_t>> loaded(kBases.size());
    for (size_t i = 0; i < kBases.size(); ++i) {
      for (uint64_t at = 0; at < 64; ++at) loaded[i].push_back(byte(state_.gpr[kBases[i]] + at));
    }
    run();
    for (size_t i = 0; i < kBases.size(); ++i) {
      for (uint64_t at = 0; at < 16; ++at) {
        const uint64_t from = state_.gpr[kBases[i]] + at;
        // What the last of the loads has left in XMM0 is what all the stores behind it wrote.
        EXPECT_EQ(byte(from), loaded[i][at]) << i << " " << at;
        EXPECT_EQ(byte(from + 16), loaded.back()[at]) << i << " " << at;
        EXPECT_EQ(byte(from + 48), i < 9 ? loaded.back()[32 + at] : loaded[i][48 + at]) << i << " " << at;
      }
    }
  }
  EXPECT_GE(statistic("slots.dropped"), kBases.size());
  EXPECT_GE(statistic("jit.blocks"), 1u);
}

}  // namespace
}  // namespace bulkhead::engine::jit
