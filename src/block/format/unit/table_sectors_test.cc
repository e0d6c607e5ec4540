#include "block/format/unit/table_sectors.h"

#include <gtest/gtest.h>

#include "block/store/memory/memory_store.h"

namespace bulkhead::block {
namespace {

TEST(TableSectors, KeepsNoMoreThanItMayUnlessItHasChanged) {
  MemoryStore store(std::vector<uint8_t>(64 * TableSectors::kSector, 1));
  TableSectors tables(store);
  tables.keep_at_most(16);
  **tables.change(0) = 7;
  for (uint64_t sector = 1; sector < 64; ++sector) EXPECT_EQ(**tables.look(sector * TableSectors::kSector), 1);
  std::ranges::fill(store.bytes(), uint8_t{2});
  // The last ones are remembered, those before have to be read again, and what has changed stays.
  EXPECT_EQ(**tables.look(63 * TableSectors::kSector), 1);
  EXPECT_EQ(**tables.look(20 * TableSectors::kSector), 2);
  EXPECT_EQ(**tables.look(0), 7);
}

}  // namespace
}  // namespace bulkhead::block
