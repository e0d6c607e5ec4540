// The disk's bytes, as they are: a file of them, or a part of a file of another format.
#pragma once

#include "block/format/image.h"

namespace bulkhead::block::raw {

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener);
// Settings: preallocation (thick.h).
Result<> create(Store& store, const CreateOptions& options);

// The bytes of a store from `start` on as a disk. The store outlives it.
class Window {
 public:
  Window(Store& store, uint64_t start, uint64_t size, Access access)
      : store_(store),
        start_(start),
        size_(size),
        geometry_{.size = align_up(size, 512), .physical_block_size = 4096, .read_only = access == Access::kReadOnly} {}

  [[nodiscard]] const Geometry& geometry() const { return geometry_; }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) { return store_.read(start_ + offset, bytes); }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) { return store_.write(start_ + offset, bytes); }
  [[nodiscard]] Status write_zeroes(uint64_t offset, uint64_t size, Unmap unmap);
  [[nodiscard]] Status discard(uint64_t offset, uint64_t size);
  [[nodiscard]] Status flush() { return store_.flush(); }
  [[nodiscard]] Result<Extent> map(uint64_t offset);
  void set_size(uint64_t size) {
    size_ = size;
    geometry_.size = align_up(size, 512);
  }

 private:
  Store& store_;
  uint64_t start_, size_;
  Geometry geometry_;
};

}  // namespace bulkhead::block::raw
