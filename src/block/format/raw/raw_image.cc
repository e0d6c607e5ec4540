#include "block/format/raw/raw_image.h"

#include <algorithm>

#include "block/format/thick.h"

namespace bulkhead::block::raw {
namespace {

constexpr uint64_t kZeroPiece = 65536;

class RawImage final : public Image {
 public:
  RawImage(std::unique_ptr<Store> store, uint64_t size, Access access)
      : store_(std::move(store)), window_(*store_, 0, size, access) {}

  [[nodiscard]] const Geometry& geometry() const override { return window_.geometry(); }
  [[nodiscard]] ImageInfo info() const override {
    ImageInfo info;
    info.format = "raw";
    info.virtual_size = geometry().size;
    return info;
  }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override { return window_.read(offset, bytes); }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override { return window_.write(offset, bytes); }
  [[nodiscard]] Status write_zeroes(uint64_t offset, uint64_t size, Unmap unmap) override {
    return window_.write_zeroes(offset, size, unmap);
  }
  [[nodiscard]] Status discard(uint64_t offset, uint64_t size) override { return window_.discard(offset, size); }
  [[nodiscard]] Status flush() override { return window_.flush(); }
  [[nodiscard]] Status reserve(uint64_t offset, uint64_t size) override { return store_->reserve(offset, size); }
  [[nodiscard]] bool starts_as_zeroes() const override { return store_->starts_as_zeroes(); }
  [[nodiscard]] std::optional<uint64_t> allocated() override { return store_->allocated(); }
  [[nodiscard]] Result<Extent> map(uint64_t offset) override { return window_.map(offset); }
  [[nodiscard]] Result<CheckReport> check(Repair) override {
    return fail("check '{}': a raw image has nothing that could be checked", store_->name());
  }
  [[nodiscard]] Result<> grow(uint64_t new_size) override {
    if (store_->truncate(new_size) != Status::kOk) return fail("resize '{}' to {} bytes", store_->name(), new_size);
    TRY(store_->flush_all());
    window_.set_size(new_size);
    return {};
  }
  [[nodiscard]] Result<> shrink(uint64_t new_size) override { return grow(new_size); }

 private:
  const std::unique_ptr<Store> store_;
  Window window_;
};

}  // namespace

Status Window::write_zeroes(uint64_t offset, uint64_t size, Unmap unmap) {
  if (unmap == Unmap::kYes) {
    const Status status = store_.punch(start_ + offset, size);
    if (status != Status::kUnsupported) return status;
  }
  const std::vector<uint8_t> zeroes(std::min(size, kZeroPiece));
  while (size != 0) {
    const uint64_t piece = std::min<uint64_t>(size, zeroes.size());
    if (const Status status = write(offset, ByteSpan(zeroes).first(piece)); status != Status::kOk) return status;
    offset += piece;
    size -= piece;
  }
  return Status::kOk;
}

Status Window::discard(uint64_t offset, uint64_t size) {
  const Status status = store_.punch(start_ + offset, size);
  return status == Status::kUnsupported ? Status::kOk : status;
}

Result<Extent> Window::map(uint64_t offset) {
  const uint64_t left = geometry_.size - offset;
  if (offset >= size_ || start_ + offset >= TRY(store_.size())) return Extent{left, ExtentKind::kZero};
  const StoreExtent found = store_.extent(start_ + offset);
  // File systems answer in their own blocks; ours are sectors.
  const uint64_t size = std::max<uint64_t>(512, align_down(found.size, 512));
  return Extent{std::min(size, left), found.hole && found.size >= 512 ? ExtentKind::kZero : ExtentKind::kData};
}

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener&) {
  const uint64_t size = TRY(store->size());
  return std::make_unique<RawImage>(std::move(store), size, access);
}

Result<> create(Store& store, const CreateOptions& options) {
  Settings settings("raw", options.settings);
  const Preallocation preallocation = TRY(take_preallocation(settings));
  TRY(settings.finish());
  if (!options.backing_name.empty()) return fail("a raw image cannot have a backing file");
  if (store.truncate(options.size) != Status::kOk) return fail("resize '{}' to {} bytes", store.name(), options.size);
  if (preallocation == Preallocation::kOff) return {};
  TRY(make_thick(store, 0, options.size, preallocation, options.progress));
  return store.flush_all();
}

}  // namespace bulkhead::block::raw
