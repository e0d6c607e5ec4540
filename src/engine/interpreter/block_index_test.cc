#include "engine/interpreter/block_index.h"

#include <gtest/gtest.h>

namespace bulkhead::engine {
namespace {

Block* block(uintptr_t number) {
  return reinterpret_cast<Block*>(number * 64);
}

TEST(BlockIndex, FindsWhatItHasBeenGivenAfterGrowing) {
  BlockIndex index;
  for (uint64_t i = 0; i < 20'000; ++i) index.insert(block_key(i * 7, 0x8022), block(i + 1));
  EXPECT_EQ(index.size(), 20'000u);
  for (uint64_t i = 0; i < 20'000; ++i) EXPECT_EQ(index.find(block_key(i * 7, 0x8022)), block(i + 1));
  EXPECT_EQ(index.find(block_key(1, 0x8022)), nullptr);
  EXPECT_EQ(index.find(block_key(7, 0x8023)), nullptr);
}

TEST(BlockIndex, KeepsTheLastBlockOfAKey) {
  BlockIndex index;
  index.insert(5, block(1));
  index.insert(5, block(2));
  EXPECT_EQ(index.find(5), block(2));
  EXPECT_EQ(index.size(), 1u);
}

TEST(BlockIndex, FindsWhatStandsBehindARemovedKey) {
  BlockIndex index;
  for (uint64_t i = 1; i < 400; ++i) index.insert(i << 20, block(i));
  for (uint64_t i = 1; i < 400; i += 2) index.remove(i << 20);
  for (uint64_t i = 1; i < 400; ++i) EXPECT_EQ(index.find(i << 20), i % 2 == 0 ? block(i) : nullptr);
}

TEST(BlockIndex, DoesNotGrowByRemovedKeys) {
  BlockIndex index;
  const uint64_t mask = index.mask();
  for (uint64_t i = 1; i < 100'000; ++i) {
    index.insert(i << 12, block(i));
    index.remove(i << 12);
  }
  EXPECT_EQ(index.mask(), mask);
}

TEST(BlockIndex, IsEmptyAfterClear) {
  BlockIndex index;
  index.insert(0, block(1));
  index.clear();
  EXPECT_EQ(index.find(0), nullptr);
  EXPECT_EQ(index.size(), 0u);
}

TEST(CodePages, KnowThePageForOneRunContextOnly) {
  CodePages pages;
  pages.remember(0x40'1234, 77, block_key(0x9000, 0x22));
  EXPECT_EQ(pages.find(0x40'1ABC, 77), block_key(0x9ABC, 0x22));
  EXPECT_EQ(pages.find(0x40'1ABC, 78), 0u);
  EXPECT_EQ(pages.find(0x40'2ABC, 77), 0u);
  pages.remember(0x40'1000 + (CodePages::kEntries << kPageShift), 77, block_key(0xA000, 0x22));
  EXPECT_EQ(pages.find(0x40'1ABC, 77), 0u);
}

}  // namespace
}  // namespace bulkhead::engine
