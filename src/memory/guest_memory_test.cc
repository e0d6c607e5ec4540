#include "memory/guest_memory.h"

#include <gtest/gtest.h>

namespace bulkhead::memory {
namespace {

struct RecordingWatcher final : CodeWatcher {
  void on_code_written(GuestAddress address, uint64_t size) override { written.emplace_back(address.value, size); }
  std::vector<std::pair<uint64_t, uint64_t>> written;
};

TEST(GuestMemory, LeavesAHoleBelowFourGiB) {
  const auto memory = GuestMemory::create(5ull << 30).value();
  EXPECT_EQ(memory->low_size(), GuestMemory::kHoleStart);
  EXPECT_EQ(memory->high_size(), (5ull << 30) - GuestMemory::kHoleStart);
  EXPECT_TRUE(memory->is_ram({GuestMemory::kHoleStart - 1}, 1));
  EXPECT_FALSE(memory->is_ram({GuestMemory::kHoleStart - 1}, 2));
  EXPECT_FALSE(memory->is_ram({GuestMemory::kHoleEnd - 1}, 2));
  EXPECT_TRUE(memory->is_ram({GuestMemory::kHoleEnd}, 4096));
}

TEST(GuestMemory, RefusesAccessOutsideRamWithoutEffect) {
  const auto memory = GuestMemory::create(16ull << 20).value();
  const std::vector<uint8_t> bytes(8, 0xAA);
  EXPECT_FALSE(memory->write({(16ull << 20) - 4}, bytes));
  EXPECT_EQ(memory->read_object<uint32_t>({(16ull << 20) - 4}), 0u);
  EXPECT_FALSE(memory->write({UINT64_MAX - 3}, bytes));
  EXPECT_EQ(memory->data({16ull << 20}, 1), nullptr);
}

TEST(GuestMemory, MarksWrittenPagesDirtyUntilTaken) {
  const auto memory = GuestMemory::create(16ull << 20).value();
  EXPECT_TRUE(memory->write_object<uint32_t>({0x2FFE}, 1));
  std::vector<uint64_t> pages;
  memory->take_dirty([&](uint64_t page) { pages.push_back(page); });
  EXPECT_EQ(pages, (std::vector<uint64_t>{2, 3}));
  pages.clear();
  memory->take_dirty([&](uint64_t page) { pages.push_back(page); });
  EXPECT_TRUE(pages.empty());
}

TEST(GuestMemory, TakesNothingFromNowhere) {
  const auto memory = GuestMemory::create(GuestMemory::kMinimumSize).value();
  EXPECT_TRUE(memory->read({0x1000}, {}));
  EXPECT_TRUE(memory->write({0x1000}, {}));
  EXPECT_FALSE(memory->write({GuestMemory::kMinimumSize + 1}, {}));
}

TEST(GuestMemory, TellsTheWatcherAboutWritesToCodePagesOnly) {
  const auto memory = GuestMemory::create(16ull << 20).value();
  RecordingWatcher watcher;
  memory->set_code_watcher(&watcher);
  memory->page_flags(5).fetch_or(kPageCode);
  EXPECT_TRUE(memory->write_object<uint8_t>({0x4FFF}, 1));
  EXPECT_TRUE(watcher.written.empty());
  EXPECT_TRUE(memory->write_object<uint8_t>({0x5000}, 1));
  EXPECT_EQ(watcher.written.size(), 1u);
}

TEST(GuestMemory, NamesTheRuleWhenTheSizeIsWrong) {
  EXPECT_FALSE(GuestMemory::create(1 << 20));
  EXPECT_FALSE(GuestMemory::create((16ull << 20) + 1));
}

}  // namespace
}  // namespace bulkhead::memory
