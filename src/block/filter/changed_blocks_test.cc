#include "block/filter/changed_blocks.h"

#include <gtest/gtest.h>

namespace bulkhead::block {
namespace {

TEST(ChangedBlocks, CountsWhatIsAddedAndRemovedInAnyWay) {
  ChangedBlocks some(10 * 65536), all(10 * 65536);
  some.add(3 * 65536, 65536);
  some.add(9 * 65536, 65536);
  all.add_all();
  EXPECT_EQ(all.bytes(), 10 * 65536u);
  EXPECT_TRUE(some.any(3 * 65536 + 100, 1));
  EXPECT_TRUE(some.any(0, 10 * 65536));
  EXPECT_FALSE(some.any(4 * 65536, 5 * 65536));
  EXPECT_FALSE(some.any(2 * 65536, 65536));
  all.remove(0, 3 * 65536);
  all.remove(0, 65536);
  EXPECT_EQ(all.bytes(), 7 * 65536u);
  all.add_those_of(some);
  EXPECT_EQ(all.bytes(), 7 * 65536u);
  some.add_those_of(all);
  EXPECT_EQ(some.find(0, UINT64_MAX)->size, 7 * 65536u);
}

TEST(ChangedBlocks, GivesRunsOnceAndUpToTheEndOfTheDisk) {
  ChangedBlocks changes(10 * 65536 + 512);
  EXPECT_FALSE(changes.take(0, UINT64_MAX));
  changes.add(65535, 2);
  changes.add(5 * 65536, 1);
  changes.add(10 * 65536, 512);
  EXPECT_EQ(changes.bytes(), 4 * 65536u);
  const auto first = changes.take(0, 1 << 20), second = changes.take(2 * 65536, 1 << 20);
  EXPECT_EQ(first->offset, 0u);
  EXPECT_EQ(first->size, 2 * 65536u);
  EXPECT_EQ(second->offset, 5 * 65536u);
  EXPECT_EQ(changes.take(6 * 65536, 1 << 20)->size, 512u);
  EXPECT_FALSE(changes.take(0, UINT64_MAX));
  changes.add(0, 4 * 65536);
  EXPECT_EQ(changes.take(0, 2 * 65536)->size, 2 * 65536u);
  EXPECT_EQ(changes.bytes(), 2 * 65536u);
}

}  // namespace
}  // namespace bulkhead::block
