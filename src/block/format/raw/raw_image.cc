#include "block/format/raw/raw_image.h"

#include <algorithm>

namespace bulkhead::block::raw {
namespace {

constexpr uint64_t kZeroPiece = 65536;

class RawImage final : public Image {
 public:
  RawImage(std::unique_ptr<Store> store, uint64_t size, Access access)
      : store_(std::move(store)),
        file_size_(size),
        geometry_{.size = align_up(size, 512), .physical_block_size = 4096, .read_only = access == Access::kReadOnly} {}

  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  [[nodiscard]] ImageInfo info() const override {
    ImageInfo info;
    info.format = "raw";
    info.virtual_size = geometry_.size;
    return info;
  }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override { return store_->read(offset, bytes); }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override { return store_->write(offset, bytes); }
  [[nodiscard]] Status write_zeroes(uint64_t offset, uint64_t size, Unmap unmap) override {
    if (unmap == Unmap::kYes) {
      const Status status = store_->punch(offset, size);
      if (status != Status::kUnsupported) return status;
    }
    const std::vector<uint8_t> zeroes(std::min(size, kZeroPiece));
    while (size != 0) {
      const uint64_t piece = std::min<uint64_t>(size, zeroes.size());
      if (const Status status = store_->write(offset, ByteSpan(zeroes).first(piece)); status != Status::kOk)
        return status;
      offset += piece;
      size -= piece;
    }
    return Status::kOk;
  }
  [[nodiscard]] Status discard(uint64_t offset, uint64_t size) override {
    const Status status = store_->punch(offset, size);
    return status == Status::kUnsupported ? Status::kOk : status;
  }
  [[nodiscard]] Status flush() override { return store_->flush(); }
  [[nodiscard]] Result<Extent> map(uint64_t offset) override {
    if (offset >= file_size_) return Extent{geometry_.size - offset, ExtentKind::kZero};
    const StoreExtent found = store_->extent(offset);
    // File systems answer in their own blocks; ours are sectors.
    const uint64_t size = std::max<uint64_t>(512, align_down(found.size, 512));
    return Extent{std::min(size, geometry_.size - offset),
                  found.hole && found.size >= 512 ? ExtentKind::kZero : ExtentKind::kData};
  }
  [[nodiscard]] Result<CheckReport> check(Repair) override {
    return fail("check '{}': a raw image has nothing that could be checked", store_->name());
  }
  [[nodiscard]] Result<> grow(uint64_t new_size) override {
    if (store_->truncate(new_size) != Status::kOk) return fail("resize '{}' to {} bytes", store_->name(), new_size);
    TRY(store_->flush_all());
    file_size_ = new_size;
    geometry_.size = align_up(new_size, 512);
    return {};
  }

 private:
  const std::unique_ptr<Store> store_;
  uint64_t file_size_;
  Geometry geometry_;
};

}  // namespace

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener&) {
  const uint64_t size = TRY(store->size());
  return std::make_unique<RawImage>(std::move(store), size, access);
}

Result<> create(Store& store, const CreateOptions& options) {
  if (!options.settings.empty()) return fail("option '{}': unknown to raw", options.settings.begin()->first);
  if (!options.backing_name.empty()) return fail("a raw image cannot have a backing file");
  if (store.truncate(options.size) != Status::kOk) return fail("resize '{}' to {} bytes", store.name(), options.size);
  return {};
}

}  // namespace bulkhead::block::raw
