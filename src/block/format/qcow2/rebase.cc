// Another backing file, or none: what shows through has been made sure of by the caller. And making a disk smaller.
#include <algorithm>
#include <ranges>

#include "block/format/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr uint64_t kSector = 512;

}  // namespace

Result<std::vector<uint8_t>> Qcow2Image::first_sector(const Header& header) const {
  std::vector<uint8_t> bytes = TRY_IN(fmt::format("header of '{}'", store_->name()), make_header(header));
  // Behind the names, or the mark of eight zeroes behind the extensions, there is nothing.
  const auto end = std::ranges::find_if(std::views::reverse(bytes), [](uint8_t byte) { return byte != 0; }).base();
  if (static_cast<uint64_t>(end - bytes.begin()) + (header.backing_name.empty() ? 8 : 0) > kSector) {
    return fail("header of '{}': names of {} and {} bytes are too long", store_->name(), header.backing_name.size(),
                header.data_name.size());
  }
  bytes.resize(kSector);
  return bytes;
}

Result<std::vector<uint8_t>> Qcow2Image::sector_with_backing(const std::string& name, const std::string& format) const {
  if (geometry_.read_only) return fail("rebase '{}': opened read-only", store_->name());
  if (header_.raw_data() && !name.empty()) {
    return fail("rebase '{}': a raw data file cannot have a backing file", store_->name());
  }
  Header header = header_;
  header.backing_name = name;
  header.backing_format = format;
  return TRY_IN("rebase", first_sector(header));
}

Result<> Qcow2Image::may_set_backing(const std::string& name, const std::string& format) {
  const LockGuard lock(mutex_);
  TRY(sector_with_backing(name, format));
  return {};
}

// One sector holds all that changes, so a power cut leaves the old name or the new one.
Result<> Qcow2Image::set_backing(const std::string& name, const std::string& format) {
  const LockGuard lock(mutex_);
  const std::vector<uint8_t> bytes = TRY(sector_with_backing(name, format));
  if (!commit()) return fail("rebase '{}': flush", store_->name());
  TRY(store_->write_all(0, bytes));
  TRY(store_->flush_all());
  header_.backing_name = name;
  header_.backing_format = format;
  return {};
}

Result<> Qcow2Image::shrink(uint64_t new_size) {
  new_size = align_up(new_size, kSector);
  if (geometry_.read_only) return fail("resize '{}': opened read-only", store_->name());
  if (header_.snapshot_count != 0) return fail("resize '{}': it has snapshots; delete them", store_->name());
  std::vector<BitmapEntry> bitmaps = TRY(resized_bitmaps(new_size));
  const uint64_t cluster = header_.cluster_size(), from = align_up(new_size, cluster);
  // The size first: what is cut off must not come back half.
  if (flush() != Status::kOk) return fail("resize '{}': flush", store_->name());
  // A cluster that stays in part holds zeroes behind the disk's end, which it may grow into again.
  const uint64_t old_size = geometry_.size, tail = std::min(from, old_size);
  if (tail > new_size && write_zeroes(new_size, tail - new_size, Unmap::kYes) != Status::kOk) {
    return fail("resize '{}': the end cannot be zeroed", store_->name());
  }
  if (flush() != Status::kOk) return fail("resize '{}': flush", store_->name());
  TRY(write_size(new_size, bitmaps));
  const Status cut_off = old_size > from ? zero(from, old_size - from, true) : Status::kOk;
  geometry_.size = new_size;
  if (cut_off != Status::kOk) return fail("resize '{}': what is cut off cannot be given back", store_->name());
  if (flush() != Status::kOk || flush() != Status::kOk) return fail("resize '{}': flush", store_->name());
  return resize_data_file(old_size, new_size);
}

}  // namespace bulkhead::block::qcow2
