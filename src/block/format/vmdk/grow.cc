// Making a VMDK disk larger: its last extent first, then further ones where extents have a most, and at last the text
// that makes them count. Until then, and after a power cut, the disk is as it was.
#include <algorithm>

#include "block/format/new_files.h"
#include "block/format/vmdk/vmdk_image.h"

namespace bulkhead::block::vmdk {

Result<> VmdkImage::grow(uint64_t new_size) {
  const uint64_t sectors = align_up(new_size, kSector) / kSector;
  if (geometry_.read_only) return fail("resize '{}': opened read-only", name());
  if (sectors > kLargestDiskSectors) {
    return fail("resize '{}' to {} bytes: the limit is {}", name(), new_size, kLargestDiskSectors * kSector);
  }
  if (sectors * kSector < geometry_.size) {
    return fail("resize '{}': from {} to {} bytes would lose data", name(), geometry_.size, new_size);
  }
  if (sectors * kSector == geometry_.size) return {};
  if (flush() != Status::kOk) return fail("resize '{}': flush", name());
  return descriptor_store_ ? grow_extents(sectors) : grow_only_extent(new_size);
}

// The header says how large the disk is, and the descriptor behind it follows.
Result<> VmdkImage::grow_only_extent(uint64_t new_size) {
  Part& part = parts_.front();
  SparseExtent& extent = *part.sparse;
  std::vector<ExtentLine> lines = descriptor_.extents;
  lines[0].sectors = align_up(new_size, kSector) / kSector;
  std::string text = with_extents(TRY(read_text()), lines);
  TRY(check_room(text, "resize"));
  TRY(extent.grow(new_size));
  TRY(write_text(std::move(text)));
  part.size = geometry_.size = extent.geometry().size;
  return {};
}

Result<> VmdkImage::grow_last(uint64_t new_size) {
  Part& last = parts_.back();
  if (last.sparse) {
    const uint64_t there = last.sparse->geometry().size, known = std::min(there, new_size);
    if (there < new_size) TRY(last.sparse->grow(new_size));
    // A growth that was cut short, or another program, may have made it larger than its line: what it holds there, or
    // shows of a backing file, was never the disk's.
    if (known > last.size && (last.sparse->write_zeroes(last.size, known - last.size, Unmap::kYes) != Status::kOk ||
                              last.sparse->flush() != Status::kOk)) {
      return fail("resize '{}': byte {} and what follows cannot be zeroed", last.sparse->file().name(), last.size);
    }
    return {};
  }
  const ExtentLine& line = descriptor_.extents.back();
  if (std::ranges::count(descriptor_.extents, line.file, &ExtentLine::file) > 1) {
    return fail("resize '{}': several extents lie in '{}'", name(), line.file);
  }
  // What lies behind the extent's end is another's, or a hole that an earlier growth left when the power went.
  const uint64_t start = line.offset * kSector, size = TRY(last.store->size());
  std::vector<uint8_t> behind;
  for (uint64_t at = start + last.size; at < size;) {
    const StoreExtent extent = last.store->extent(at);
    behind.resize(extent.hole ? 0 : std::min<uint64_t>(size - at, 64 << 10));
    if (!extent.hole) TRY(last.store->read_all(at, behind));
    if (std::ranges::any_of(behind, [](uint8_t byte) { return byte != 0; })) {
      return fail("resize '{}': behind its last extent, at byte {} of '{}', lies something else", name(), at,
                  line.file);
    }
    at += extent.hole ? std::max<uint64_t>(extent.size, 1) : behind.size();
  }
  for (const uint64_t part : {last.size, new_size}) {
    if (last.store->truncate(start + part) != Status::kOk) {
      return fail("resize '{}' to {} bytes", last.store->name(), start + new_size);
    }
  }
  return last.store->flush_all();
}

Result<VmdkImage::Part> VmdkImage::add_extent(NewFiles& files, uint64_t start, ExtentLine& line) {
  const std::string behind = line.file;
  if (extent_behind(behind, 1).empty()) return fail("resize '{}': the file '{}' has no number", name(), behind);
  // A power cut or somebody else may have left files under the next names.
  std::unique_ptr<Store> made;
  for (unsigned i = 1; !made && i <= kMostExtents; ++i) {
    line.file = extent_behind(behind, i);
    made = TRY(opener_.create_store(files, line.file));
  }
  if (!made) return fail("resize '{}': all names behind '{}' up to '{}' are taken", name(), behind, line.file);
  Part part{.start = start, .size = line.sectors * kSector, .store = std::move(made)};
  if (line.type == ExtentType::kFlat) {
    if (part.store->truncate(part.size) != Status::kOk) {
      return fail("resize '{}' to {} bytes", part.store->name(), part.size);
    }
    TRY(part.store->flush_all());
    part.flat = std::make_unique<raw::Window>(*part.store, 0, part.size, Access::kReadWrite);
    return part;
  }
  TRY(write_sparse(*part.store, line.sectors, ""));
  part.sparse = TRY(SparseExtent::open(std::move(part.store), Access::kReadWrite));
  const uint64_t below = parent_ ? parent_->geometry().size : 0;
  if (parent_) part.sparse->show_through(parent_.get(), start);
  // What lies below must not show through where there was no disk before.
  if (below > start && (part.sparse->write_zeroes(0, std::min(below - start, part.size), Unmap::kYes) != Status::kOk ||
                        part.sparse->flush() != Status::kOk)) {
    return fail("resize '{}': the new part cannot be zeroed", part.sparse->file().name());
  }
  return part;
}

Result<> VmdkImage::grow_extents(uint64_t sectors) {
  Part& last = parts_.back();
  if (last.read_only || (!last.sparse && !last.flat)) {
    return fail("resize '{}': its last extent cannot be written", name());
  }
  const uint64_t all = sectors * kSector;
  uint64_t most = all;
  if (descriptor_.type.starts_with("twoGbMaxExtent")) {
    most = parts_.size() == 1 ? kSplitBytes : std::ranges::max_element(parts_, {}, &Part::size)->size;
  }
  NewFiles files;
  std::vector<ExtentLine> lines = descriptor_.extents;
  std::vector<Part> added;
  const uint64_t last_size = std::min(all - last.start, std::max(most, last.size));
  for (uint64_t start = last.start + last_size; start < all; start += added.back().size) {
    if (lines.size() == kMostExtents) return fail("resize '{}': more than {} extents", name(), kMostExtents);
    ExtentLine line{
        .sectors = std::min(most, all - start) / kSector, .type = lines.back().type, .file = lines.back().file};
    added.push_back(TRY(add_extent(files, start, line)));
    lines.push_back(std::move(line));
  }
  lines[parts_.size() - 1].sectors = last_size / kSector;
  const std::string old_text = TRY(read_text());
  std::string text = with_extents(old_text, lines);
  TRY(check_room(text, "resize"));
  TRY(grow_last(last_size));
  const Result<> written = write_text(std::move(text));
  // Once the text may name them, they stay, whether it is safe or not.
  if (const auto now = read_text(); !now || *now != old_text) files.keep();
  if (!written) return written;
  last.size = last_size;
  if (last.flat) last.flat->set_size(last_size);
  std::ranges::move(added, std::back_inserter(parts_));
  share_table_memory();
  geometry_.size = all;
  return {};
}

}  // namespace bulkhead::block::vmdk
