#include "engine/jit/deferred_flags.h"

#include <memory>
#include <random>

#include <gtest/gtest.h>

#include "engine/interpreter/cpu.h"
#include "engine/interpreter/integer/alu.h"
#include "engine/jit/testing.h"

namespace bulkhead::engine::jit {
namespace {

using testing::Bytes, testing::Code, testing::decoded;

// The flags of what has left RAX at `result`, from RAX and RCX as they are now.
uint16_t made(Bytes bytes, uint64_t rax, uint64_t rcx, uint64_t rdx = 0, bool bit = false) {
  auto deferred = DeferredFlags::of(decoded(bytes));
  if (!deferred) deferred = DeferredFlags::with_bit(decoded(bytes));
  EXPECT_TRUE(deferred);
  if (!deferred) return 0;
  auto cpu = std::make_unique<Cpu>();
  cpu->gpr[cpu::kRax] = rax;
  cpu->gpr[cpu::kRcx] = rcx;
  cpu->gpr[cpu::kRdx] = rdx;
  cpu->flags.ax = static_cast<uint16_t>(deferred->note());
  cpu->flags_note = static_cast<uint16_t>(deferred->note() >> 16);
  cpu->flags_immediate = deferred->wide_immediate().value_or(bit ? 1 : 0);
  DeferredFlags::make(cpu.get());
  EXPECT_EQ(cpu->flags.ax & DeferredFlags::kMark, 0);
  return cpu->flags.ax;
}

TEST(DeferredFlags, AreThoseThatTheInstructionHadMade) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 2000; ++i) {
    const uint64_t a = random() >> (random() % 64), b = i % 5 == 0 ? a : random() >> (random() % 64);
    ArithmeticFlags flags;
    alu::Cmp::apply<uint64_t>(a, b, flags);
    EXPECT_EQ(made({0x48, 0x39, 0xC8}, a, b), flags.ax);      // cmp rax, rcx
    EXPECT_EQ(made({0x48, 0x29, 0xC8}, a - b, b), flags.ax);  // sub rax, rcx
    alu::Cmp::apply<uint8_t>(static_cast<uint8_t>(a), static_cast<uint8_t>(b), flags);
    EXPECT_EQ(made({0x38, 0xC8}, a, b), flags.ax);  // cmp al, cl
    alu::Cmp::apply<uint32_t>(static_cast<uint32_t>(a), 0x12345678, flags);
    EXPECT_EQ(made({0x3D, 0x78, 0x56, 0x34, 0x12}, a, b), flags.ax);  // cmp eax, 0x12345678
    alu::Cmp::apply<uint16_t>(static_cast<uint16_t>(a), static_cast<uint16_t>(-2), flags);
    EXPECT_EQ(made({0x66, 0x83, 0xF8, 0xFE}, a, b), flags.ax);  // cmp ax, -2
    alu::Add::apply<uint64_t>(a, b, flags);
    EXPECT_EQ(made({0x48, 0x01, 0xC8}, a + b, b), flags.ax);  // add rax, rcx
    alu::Test::apply<uint32_t>(static_cast<uint32_t>(a), static_cast<uint32_t>(b), flags);
    EXPECT_EQ(made({0x85, 0xC8}, a, b), flags.ax);      // test eax, ecx
    EXPECT_EQ(made({0x21, 0xC8}, a & b, b), flags.ax);  // and eax, ecx
    const auto product = static_cast<unsigned __int128>(a) * b;
    flags.from_rflags(product >> 64 != 0 ? decoder::kFlagCf | decoder::kFlagOf : 0);
    EXPECT_EQ(made({0x48, 0xF7, 0xE1}, static_cast<uint64_t>(product), b, static_cast<uint64_t>(product >> 64)),
              flags.ax);  // mul rcx
    const bool fits =
        static_cast<int64_t>(a) * static_cast<__int128>(static_cast<int64_t>(b)) == static_cast<int64_t>(a * b);
    flags.from_rflags(fits ? 0 : decoder::kFlagCf | decoder::kFlagOf);
    EXPECT_EQ(made({0x48, 0x0F, 0xAF, 0xC1}, a * b, b, 0, !fits), flags.ax);  // imul rax, rcx
    alu::Shl::apply<uint64_t>(a, 1, flags);
    EXPECT_EQ(made({0x48, 0xD1, 0xE0}, a << 1, b, 0, flags.carry()), flags.ax);  // shl rax, 1
    alu::Shr::apply<uint64_t>(a, 1, flags);
    EXPECT_EQ(made({0x48, 0xD1, 0xE8}, a >> 1, b, 0, flags.carry()), flags.ax);  // shr rax, 1
    alu::Shr::apply<uint32_t>(static_cast<uint32_t>(a), 7, flags);
    EXPECT_EQ(made({0xC1, 0xE8, 0x07}, static_cast<uint32_t>(a) >> 7, b, 0, flags.carry()), flags.ax);  // shr eax, 7
    const auto shifted = static_cast<uint32_t>(static_cast<int32_t>(a) >> 1);
    alu::Sar::apply<uint32_t>(static_cast<uint32_t>(a), 1, flags);
    EXPECT_EQ(made({0xD1, 0xF8}, shifted, b, 0, flags.carry()), flags.ax);  // sar eax, 1
    alu::Neg::apply<uint64_t>(a, flags);
    EXPECT_EQ(made({0x48, 0xF7, 0xD8}, 0 - a, b), flags.ax);  // neg rax
  }
}

TEST(DeferredFlags, AreNotOfWhatHasLeftTooLittle) {
  EXPECT_FALSE(DeferredFlags::of(decoded({0x48, 0x01, 0xC0})));  // add rax, rax
  EXPECT_FALSE(DeferredFlags::of(decoded({0x48, 0x3B, 0x07})));  // cmp rax, [rdi]
  EXPECT_FALSE(DeferredFlags::of(decoded({0x38, 0xE0})));        // cmp al, ah
  EXPECT_FALSE(DeferredFlags::of(decoded({0xFF, 0xC8})));        // dec eax
  EXPECT_FALSE(DeferredFlags::of(decoded({0xC1, 0xE0, 0x03})));  // shl eax, 3
  EXPECT_FALSE(DeferredFlags::of(decoded({0x11, 0xC8})));        // adc eax, ecx
  EXPECT_FALSE(DeferredFlags::of(decoded({0xF6, 0xE1})));        // mul cl
}

uint32_t before_flags(std::initializer_list<Bytes> code, uint64_t by_handler = 0) {
  return registers_before_flags(Code(code).ops(), by_handler);
}

TEST(DeferredFlags, ABlockNamesTheRegistersThatItWritesBeforeItShowsThem) {
  constexpr uint32_t kRaxBit = 1, kRdxBit = 4;
  // mov rax, [rdi]; add rax, rcx: the access is before the change.
  EXPECT_EQ(before_flags({{0x48, 0x8B, 0x07}, {0x48, 0x01, 0xC8}}), 0u);
  // mov eax, edx; mov edx, [rdi]; mov ecx, [rsi]; add eax, ecx
  EXPECT_EQ(before_flags({{0x89, 0xD0}, {0x8B, 0x17}, {0x8B, 0x0E}, {0x01, 0xC8}}), kRaxBit | kRdxBit);
  EXPECT_EQ(before_flags({{0x0F, 0x92, 0xC0}, {0x01, 0xC8}}), kNeedsFlags);  // setc al; add eax, ecx
  EXPECT_EQ(before_flags({{0x89, 0xD0}}), kNeedsFlags);                      // mov eax, edx, and the block ends
  EXPECT_EQ(before_flags({{0x11, 0xC8}}), kNeedsFlags);                      // adc eax, ecx
  // ror eax, 7; add eax, ecx; and the same with an access in between
  EXPECT_EQ(before_flags({{0xC1, 0xC8, 0x07}, {0x01, 0xC8}}), 0u);
  EXPECT_EQ(before_flags({{0xC1, 0xC8, 0x07}, {0x8B, 0x17}, {0x01, 0xC8}}), kNeedsFlags);
  // mov eax, edx; cpuid by its handler, which finds the flags made
  EXPECT_EQ(before_flags({{0x89, 0xD0}, {0x0F, 0xA2}}, 2), kRaxBit);
}

}  // namespace
}  // namespace bulkhead::engine::jit
