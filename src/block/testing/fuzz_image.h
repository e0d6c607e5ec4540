// What a fuzz target does with any bytes as an image of some format: opened, mapped, read, checked, written, resized,
// its bitmaps used, and repaired. Nothing may crash, hang or use much memory.
#pragma once

#include "block/format/bitmaps.h"
#include "block/format/image.h"
#include "block/store/memory/memory_store.h"
#include "support/check.h"

namespace bulkhead::block::testing {

inline void fuzz_bitmaps(Bitmaps& bitmaps, uint64_t disk, bool writable) {
  constexpr uint64_t kMostBits = 1 << 20;  // to go through; there may be a hundred times as many
  constexpr size_t kMost = 8;
  const auto listed = bitmaps.list_bitmaps();
  for (size_t i = 0; listed && i < std::min(listed->size(), kMost); ++i) {
    const Bitmap& one = (*listed)[i];
    if (disk / one.granularity > kMostBits) continue;
    uint64_t end = 0;
    (void)bitmaps.each_changed(one.name, [&](uint64_t offset, uint64_t size) {
      CHECK(offset >= end && size != 0 && range_fits(offset, size, disk), "runs of a bitmap lie within its disk");
      end = offset + size;
    });
    if (!writable) continue;
    (void)bitmaps.note_changed(one.name, disk / 2, disk - disk / 2);
    if (i % 2 != 0) (void)bitmaps.remove_bitmap(one.name);
  }
  if (writable) (void)bitmaps.add_bitmap("fuzz", uint64_t{1} << 31);
}

inline void fuzz_image(std::string_view format, ByteSpan data) {
  if (data.size() > (size_t{4} << 20)) return;
  const Format* const found = find_format(format).value();
  // Whatever other file an image names is there.
  ImageOpener opener("/nonexistent");
  opener.take_files_from([](const std::string&, Access) {
    return std::make_unique<MemoryStore>(std::vector<uint8_t>(64 << 10, 0x5A), 8 << 20);
  });
  for (const Access access : {Access::kReadOnly, Access::kReadWrite}) {
    auto store = std::make_unique<MemoryStore>(std::vector<uint8_t>(data.begin(), data.end()), 8 << 20);
    const auto image = found->open(std::move(store), access, opener);
    if (!image) continue;
    const uint64_t disk = (*image)->geometry().size;
    (void)(*image)->info();
    if (Bitmaps* const bitmaps = (*image)->bitmaps()) fuzz_bitmaps(*bitmaps, disk, access == Access::kReadWrite);
    std::vector<uint8_t> bytes(4096, 0x5A);
    for (const uint64_t offset : {uint64_t{0}, disk / 2 & ~uint64_t{4095}, disk < 4096 ? 0 : disk - 4096}) {
      if (disk < offset + bytes.size()) continue;
      (void)(*image)->map(offset);
      (void)(*image)->read(offset, bytes);
      if (access == Access::kReadOnly) continue;
      (void)(*image)->write(offset, bytes);
      const uint64_t unit = (*image)->compression_unit();
      if (unit != 0) (void)(*image)->write_compressed(offset / unit * unit, bytes);
      (void)(*image)->discard(offset, 4096);
      (void)(*image)->write_zeroes(offset, 4096, Unmap::kYes);
      (void)(*image)->flush();
    }
    if (access == Access::kReadWrite) {
      (void)(*image)->grow(disk + (1 << 20));
      (void)(*image)->shrink(disk / 2);
    }
    (void)(*image)->check(Repair::kNone);
  }
  auto store = std::make_unique<MemoryStore>(std::vector<uint8_t>(data.begin(), data.end()), 8 << 20);
  if (const auto image = found->open(std::move(store), Access::kRepair, opener)) {
    (void)(*image)->check(Repair::kAll);
  }
}

}  // namespace bulkhead::block::testing
