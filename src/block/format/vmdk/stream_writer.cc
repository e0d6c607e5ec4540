#include "block/format/vmdk/stream_writer.h"

#include <algorithm>

#include "block/format/deflate.h"

namespace bulkhead::block::vmdk {
namespace {

enum MarkerType : uint32_t { kEndOfStream = 0, kGrainTable = 1, kGrainDirectory = 2, kFooter = 3 };
constexpr uint64_t kGrainMarkerBytes = 12;

std::vector<uint8_t> marker(uint64_t value, uint32_t type) {
  std::vector<uint8_t> bytes(kSector);
  store(&bytes[0], value);
  store(&bytes[12], type);
  return bytes;
}

}  // namespace

Result<> write_stream_end(Store& store, const SparseHeader& header, uint64_t at, ByteSpan directory) {
  SparseHeader footer = header;
  footer.directory = at + 1;
  std::vector<uint8_t> bytes = marker(directory.size() / kSector, kGrainDirectory);
  bytes.insert(bytes.end(), directory.begin(), directory.end());
  for (const std::vector<uint8_t>& more : {marker(1, kFooter), make_sparse_header(footer), marker(0, kEndOfStream)}) {
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  TRY(store.write_all(at * kSector, bytes));
  if (store.truncate(at * kSector + bytes.size()) != Status::kOk) return fail("resize '{}'", store.name());
  return store.flush_all();
}

StreamWriter::StreamWriter(std::unique_ptr<Store> store, SparseHeader header)
    : store_(std::move(store)),
      header_(header),
      geometry_{.size = header.capacity * kSector},
      at_(header.overhead),
      table_(align_up(header.table_bytes(), kSector)),
      directory_(header.directory_bytes()) {}

Result<std::unique_ptr<Image>> StreamWriter::open(std::unique_ptr<Store> store, const Descriptor&) {
  std::vector<uint8_t> bytes(kSector);
  TRY(store->read_all(0, bytes));
  const SparseHeader header = TRY(parse_sparse_header(bytes, store->name(), 0, TRY(store->size())));
  if (header.directory != kDirectoryAtEnd || (header.flags & kHasMarkers) == 0) {
    return fail("open '{}': no empty streamOptimized image", store->name());
  }
  return std::unique_ptr<Image>(new StreamWriter(std::move(store), header));
}

ImageInfo StreamWriter::info() const {
  ImageInfo info;
  info.format = "vmdk";
  info.virtual_size = geometry_.size;
  info.details = {{"subformat", "streamOptimized"}};
  return info;
}

Result<> StreamWriter::grow(uint64_t) {
  return fail("resize '{}': a streamOptimized image cannot grow; convert it", store_->name());
}

Status StreamWriter::append(uint64_t value, uint32_t type, ByteSpan bytes) {
  std::vector<uint8_t> all = marker(value, type);
  all.insert(all.end(), bytes.begin(), bytes.end());
  const Status status = store_->write(at_ * kSector, all);
  at_ += all.size() / kSector;
  return status;
}

Status StreamWriter::end_table() {
  if (table_index_ == UINT64_MAX) return Status::kOk;
  const Status status = append(table_.size() / kSector, kGrainTable, table_);
  store(&directory_[table_index_ * 4], static_cast<uint32_t>(at_ - table_.size() / kSector));
  std::ranges::fill(table_, uint8_t{0});
  return status;
}

Status StreamWriter::write_grain(uint64_t grain, ByteSpan bytes) {
  next_grain_ = grain + 1;
  if (grain / header_.table_entries != table_index_) {
    if (const Status status = end_table(); status != Status::kOk) return status;
    table_index_ = grain / header_.table_entries;
  }
  std::vector<uint8_t> whole(bytes.begin(), bytes.end());
  whole.resize(header_.grain * kSector);
  // Some more than the grain itself, for one that cannot be compressed.
  const std::vector<uint8_t> body = deflate(whole, DeflateForm::kZlib, whole.size() + whole.size() / 64 + 64);
  if (body.empty()) return Status::kIoError;
  std::vector<uint8_t> packed(kGrainMarkerBytes);
  packed.insert(packed.end(), body.begin(), body.end());
  packed.resize(align_up(packed.size(), kSector));
  store(&packed[0], grain * header_.grain);
  store(&packed[8], static_cast<uint32_t>(body.size()));
  if (at_ + packed.size() / kSector > UINT32_MAX) return Status::kNoSpace;
  const Status status = store_->write(at_ * kSector, packed);
  store(&table_[grain % header_.table_entries * 4], static_cast<uint32_t>(at_));
  at_ += packed.size() / kSector;
  return status;
}

Status StreamWriter::write(uint64_t offset, ByteSpan bytes) {
  const uint64_t unit = compression_unit();
  const LockGuard lock(mutex_);
  if (ended_ || offset % unit != 0 || offset / unit < next_grain_) return Status::kUnsupported;
  for (uint64_t at = 0; at < bytes.size(); at += unit) {
    const uint64_t size = std::min(unit, bytes.size() - at);
    if (size < unit && offset + at + size != geometry_.size) return Status::kUnsupported;
    if (const Status status = write_grain((offset + at) / unit, bytes.subspan(at, size)); status != Status::kOk) {
      // What is behind it cannot be told from it any more.
      ended_ = true;
      return status;
    }
  }
  return Status::kOk;
}

Status StreamWriter::flush() {
  const LockGuard lock(mutex_);
  if (ended_) return Status::kUnsupported;
  ended_ = true;
  if (const Status status = end_table(); status != Status::kOk) return status;
  return write_stream_end(*store_, header_, at_, directory_) ? Status::kOk : Status::kIoError;
}

}  // namespace bulkhead::block::vmdk
