// What a fuzz target does with any bytes as an image of some format, and as the files that it names: opened, mapped,
// read, checked, written, resized, put on other backing files, its bitmaps and snapshots used, and repaired. Nothing
// may crash, hang or use much memory.
#pragma once

#include <algorithm>

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

inline void fuzz_snapshots(Snapshots& snapshots, bool writable) {
  constexpr size_t kMost = 3;
  const auto listed = snapshots.list();
  if (!writable) return;
  (void)snapshots.create("fuzz", 1);
  for (size_t i = 0; listed && i < std::min(listed->size(), kMost); ++i) {
    (void)snapshots.apply((*listed)[i].id);
    if (i % 2 != 0) (void)snapshots.remove((*listed)[i].name);
  }
  (void)snapshots.apply("fuzz");
  (void)snapshots.remove("fuzz");
}

// An image, and behind it the other files that it names, in the order in which they are opened, over and over.
using FuzzFiles = std::vector<std::vector<uint8_t>>;
inline constexpr std::string_view kBetweenFiles = "\n-- next file --\n";

// Input that holds several files holds kBetweenFiles between them.
inline FuzzFiles split_files(ByteSpan data) {
  FuzzFiles files;
  while (true) {
    const auto next = std::ranges::search(data, kBetweenFiles);
    files.emplace_back(data.begin(), next.begin());
    if (next.empty()) return files;
    data = ByteSpan(next.end(), data.end());
  }
}

// Without a second file, whatever other file the image names is there, of noise.
inline ImageOpener opener_of(const FuzzFiles& files) {
  constexpr size_t kMostOpened = 64, kMostBytes = size_t{32} << 20;
  ImageOpener opener("/nonexistent");
  opener.take_files_from([&files, opened = std::make_shared<size_t>(0), bytes = std::make_shared<size_t>(0)](
                             const std::string& name, Access) -> Result<std::unique_ptr<Store>> {
    const size_t others = files.size() - 1;
    std::vector<uint8_t> file = others == 0 ? std::vector<uint8_t>(64 << 10, 0x5A) : files[1 + (*opened)++ % others];
    *bytes += file.size();
    if (*opened > kMostOpened || *bytes > kMostBytes) return fail("open '{}': enough", name);
    return std::make_unique<MemoryStore>(std::move(file), 8 << 20);
  });
  return opener;
}

inline void fuzz_files(std::string_view format, const FuzzFiles& files) {
  const std::vector<uint8_t>& data = files.front();
  if (data.size() > (size_t{4} << 20)) return;
  const Format* const found = find_format(format).value();
  for (const Access access : {Access::kReadOnly, Access::kReadWrite}) {
    const bool writable = access == Access::kReadWrite;
    const auto image = found->open(std::make_unique<MemoryStore>(data, 8 << 20), access, opener_of(files));
    if (!image) continue;
    const uint64_t disk = (*image)->geometry().size;
    (void)(*image)->info();
    if (Bitmaps* const bitmaps = (*image)->bitmaps()) fuzz_bitmaps(*bitmaps, disk, writable);
    std::vector<uint8_t> bytes(4096, 0x5A);
    for (const uint64_t offset : {uint64_t{0}, disk / 2 & ~uint64_t{4095}, disk < 4096 ? 0 : disk - 4096}) {
      if (disk < offset + bytes.size()) continue;
      (void)(*image)->map(offset);
      (void)(*image)->read(offset, bytes);
      if (!writable) continue;
      (void)(*image)->write(offset, bytes);
      const uint64_t unit = (*image)->compression_unit();
      if (unit != 0) (void)(*image)->write_compressed(offset / unit * unit, bytes);
      (void)(*image)->discard(offset, 4096);
      (void)(*image)->write_zeroes(offset, 4096, Unmap::kYes);
      (void)(*image)->flush();
    }
    if (Snapshots* const snapshots = (*image)->snapshots()) fuzz_snapshots(*snapshots, writable);
    if (writable) {
      const uint64_t now = (*image)->geometry().size;
      (void)(*image)->grow(now + (1 << 20));
      (void)(*image)->shrink(now / 2);
      (void)(*image)->set_backing("next", std::string(format));
      (void)(*image)->set_backing("", "");
    }
    (void)(*image)->check(Repair::kNone);
  }
  if (const auto image = found->open(std::make_unique<MemoryStore>(data, 8 << 20), Access::kRepair, opener_of(files))) {
    (void)(*image)->check(Repair::kAll);
  }
}

inline void fuzz_image(std::string_view format, ByteSpan data) {
  fuzz_files(format, split_files(data));
}

}  // namespace bulkhead::block::testing
