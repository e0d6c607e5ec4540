// Fills a new streamOptimized image: compressed grains behind one another in the order of the disk, each table behind
// its grains, then the directory and the footer. It takes whole grains in ascending order, and ends with the first
// flush. Never: a grain written twice.
#pragma once

#include "block/format/vmdk/descriptor.h"
#include "block/format/vmdk/sparse_header.h"
#include "support/os/mutex.h"

namespace bulkhead::block::vmdk {

// What follows the header and the descriptor, beginning at this sector, when the stream holds nothing.
Result<> write_stream_end(Store& store, const SparseHeader& header, uint64_t at, ByteSpan directory);

class StreamWriter final : public Image {
 public:
  static Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, const Descriptor& descriptor);

  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  [[nodiscard]] ImageInfo info() const override;
  [[nodiscard]] Status read(uint64_t, MutableByteSpan) override { return Status::kUnsupported; }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override;
  [[nodiscard]] Status write_zeroes(uint64_t, uint64_t, Unmap) override { return Status::kUnsupported; }
  [[nodiscard]] Status discard(uint64_t, uint64_t) override { return Status::kOk; }
  [[nodiscard]] Status flush() override;
  [[nodiscard]] Result<Extent> map(uint64_t offset) override { return Extent{geometry_.size - offset}; }
  [[nodiscard]] Result<CheckReport> check(Repair) override { return CheckReport{}; }
  [[nodiscard]] Result<> grow(uint64_t) override;
  [[nodiscard]] uint64_t compression_unit() const override { return header_.grain * kSector; }
  [[nodiscard]] FillOrder fill_order() const override { return FillOrder::kAscending; }

 private:
  StreamWriter(std::unique_ptr<Store> store, SparseHeader header);
  Status write_grain(uint64_t grain, ByteSpan bytes) REQUIRES(mutex_);
  Status append(uint64_t value, uint32_t type, ByteSpan bytes) REQUIRES(mutex_);
  Status end_table() REQUIRES(mutex_);

  const std::unique_ptr<Store> store_;
  const SparseHeader header_;
  const Geometry geometry_;
  Mutex mutex_;
  uint64_t at_ GUARDED_BY(mutex_);  // in sectors: where the next thing goes
  uint64_t next_grain_ GUARDED_BY(mutex_) = 0;
  std::vector<uint8_t> table_ GUARDED_BY(mutex_), directory_ GUARDED_BY(mutex_);
  uint64_t table_index_ GUARDED_BY(mutex_) = UINT64_MAX;
  bool ended_ GUARDED_BY(mutex_) = false;
};

}  // namespace bulkhead::block::vmdk
