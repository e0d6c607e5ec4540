#include "engine/jit/targets.h"

#include <gtest/gtest.h>

namespace bulkhead::engine::jit {
namespace {

const uint8_t kCode[2] = {};

class TargetsTest : public testing::Test {
 protected:
  void use(uint8_t cpl, uint64_t run_context) {
    cpu_->cpl = cpl;
    cpu_->run_context = run_context;
    targets_.choose(*cpu_);
  }
  // As translated code looks.
  const uint8_t* code_for(uint64_t linear) const {
    const auto* table = static_cast<const Targets::Target*>(cpu_->jit_targets);
    const auto& target = table[Targets::offset_of(linear, cpu_->jit_target_mask) >> Targets::kTargetShift];
    return target.linear == linear ? target.code : nullptr;
  }

  std::unique_ptr<Cpu> cpu_ = std::make_unique<Cpu>();
  Targets targets_;
};

TEST_F(TargetsTest, AnEmptyTableKnowsNoAddress) {
  use(0, 1);
  for (uint64_t linear = 0; linear < 1 << 21; ++linear) {
    const auto* table = static_cast<const Targets::Target*>(cpu_->jit_targets);
    ASSERT_NE(table[Targets::offset_of(linear, cpu_->jit_target_mask) >> Targets::kTargetShift].linear, linear);
  }
  EXPECT_EQ(code_for(~0ull), nullptr);
  EXPECT_EQ(code_for(1ull << 63), nullptr);
}

TEST_F(TargetsTest, EachContextHasItsOwn) {
  use(0, 1);
  targets_.remember(0xFFFF'FFFF'8100'0010, &kCode[0]);
  use(3, 2);
  EXPECT_EQ(code_for(0xFFFF'FFFF'8100'0010), nullptr);
  targets_.remember(0x40'1000, &kCode[1]);
  use(0, 1);
  EXPECT_EQ(code_for(0xFFFF'FFFF'8100'0010), &kCode[0]);
  EXPECT_EQ(code_for(0x40'1000), nullptr);
  use(3, 2);
  EXPECT_EQ(code_for(0x40'1000), &kCode[1]);
}

TEST_F(TargetsTest, AContextThatComesAnewFindsNothingOfAnother) {
  for (const uint8_t cpl : {0, 3}) {
    for (uint64_t context = 1; context < 40; ++context) {
      use(cpl, context << 8 | cpl);
      for (uint64_t page = 0; page < 64; ++page) {
        const uint64_t linear = page * 4096 + page * 8;
        ASSERT_EQ(code_for(linear), nullptr) << context;
        targets_.remember(linear, &kCode[0]);
        ASSERT_EQ(code_for(linear), &kCode[0]);
      }
    }
  }
}

TEST_F(TargetsTest, ClearingReachesTablesThatAreNotInUse) {
  use(0, 1);
  targets_.remember(0, &kCode[0]);
  use(3, 2);
  targets_.remember(1, &kCode[0]);
  targets_.clear();
  EXPECT_EQ(code_for(1), nullptr);
  use(0, 1);
  EXPECT_EQ(code_for(0), nullptr);
}

}  // namespace
}  // namespace bulkhead::engine::jit
