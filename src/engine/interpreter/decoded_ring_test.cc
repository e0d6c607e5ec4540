#include "engine/interpreter/decoded_ring.h"

#include <array>
#include <vector>

#include <gtest/gtest.h>

#include "engine/interpreter/block.h"

namespace bulkhead::engine {
namespace {

void add(DecodedRing& ring, Block& block, uint16_t mark, size_t count) {
  std::array<Op, 4> ops{};
  std::array<decoder::Instruction, 4> instructions{};
  for (size_t i = 0; i < count; ++i) {
    ops[i].offset = static_cast<uint16_t>(mark + i);
    instructions[i].length = static_cast<uint8_t>(mark + i);
  }
  ring.add(block, std::span(ops).first(count), std::span(instructions).first(count));
}

bool holds(const Block& block, uint16_t mark, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (block.ops[i].offset != mark + i || block.ops[i].instruction->length != static_cast<uint8_t>(mark + i))
      return false;
  }
  return true;
}

TEST(DecodedRing, TakesTheRoomOfTheOldestOnly) {
  DecodedRing ring(2000);
  std::vector<Block> blocks(60);
  for (size_t i = 0; i < blocks.size(); ++i) {
    const size_t count = 1 + i % 4;
    add(ring, blocks[i], static_cast<uint16_t>(i), count);
    bool may_be_there = false;  // once one is there, all younger ones are
    size_t there = 0;
    for (size_t j = 0; j <= i; ++j) {
      if (blocks[j].ops == nullptr) {
        EXPECT_FALSE(may_be_there) << j << " of " << i;
        continue;
      }
      may_be_there = true;
      ++there;
      EXPECT_TRUE(holds(blocks[j], static_cast<uint16_t>(j), 1 + j % 4)) << j << " of " << i;
    }
    if (i > 10) {
      EXPECT_GE(there, 3u);
    }
  }
}

TEST(DecodedRing, ForgetsOwnersWhenCleared) {
  DecodedRing ring(1000);
  Block gone, kept;
  add(ring, gone, 1, 4);
  ring.clear();
  const Op* ops = gone.ops;
  add(ring, kept, 2, 4);
  EXPECT_EQ(gone.ops, ops);
  EXPECT_TRUE(holds(kept, 2, 4));
}

}  // namespace
}  // namespace bulkhead::engine
