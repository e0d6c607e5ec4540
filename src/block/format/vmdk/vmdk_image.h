// VMDK images: a descriptor and the extents that it names, each a file of its own or the one in which it stands.
#pragma once

#include <atomic>

#include "block/format/raw/raw_image.h"
#include "block/format/vmdk/descriptor.h"
#include "block/format/vmdk/sparse_extent.h"

namespace bulkhead::block::vmdk {

// Takes any one of the image's files.
Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener);
inline constexpr uint64_t kSplitBytes = uint64_t{4192256} * kSector;
// An empty sparse extent, with a descriptor inside unless that is empty.
Result<> write_sparse(Store& store, uint64_t sectors, std::string_view descriptor);
// Settings: subformat (monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat, streamOptimized),
// adapter (lsilogic, ide, buslogic), extent_size (bytes, of the twoGb ones), preallocation (of
// the flat ones).
Result<> create(Store& store, const CreateOptions& options);

class VmdkImage final : public Image {
 public:
  // descriptor_store: where the text stands, at an offset; null when the only extent's store holds it.
  static Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> descriptor_store, uint64_t text_at,
                                             Descriptor descriptor, std::unique_ptr<SparseExtent> only, Access access,
                                             const ImageOpener& opener);

  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  [[nodiscard]] ImageInfo info() const override;
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override;
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override;
  [[nodiscard]] Status write_zeroes(uint64_t offset, uint64_t size, Unmap unmap) override;
  [[nodiscard]] Status discard(uint64_t offset, uint64_t size) override;
  [[nodiscard]] Status flush() override;
  [[nodiscard]] Result<Extent> map(uint64_t offset) override;
  [[nodiscard]] std::optional<uint64_t> allocated() override;
  [[nodiscard]] Result<CheckReport> check(Repair repair) override;
  [[nodiscard]] Result<> grow(uint64_t new_size) override;
  [[nodiscard]] Image* backing() override { return parent_.get(); }
  [[nodiscard]] Result<> set_backing(const std::string& name, const std::string& format) override;
  [[nodiscard]] Result<> may_set_backing(const std::string& name, const std::string& format) override;

 private:
  // Neither sparse nor flat: zeroes.
  struct Part {
    uint64_t start = 0, size = 0;
    bool read_only = false;
    std::unique_ptr<SparseExtent> sparse;
    std::unique_ptr<Store> store;
    std::unique_ptr<raw::Window> flat;
  };

  VmdkImage(Descriptor descriptor, std::unique_ptr<Store> store, uint64_t text_at, Access access,
            const ImageOpener& opener);
  Result<> open_parts(std::unique_ptr<SparseExtent> only, Access access, const ImageOpener& opener);
  Result<> open_parent(const ImageOpener& opener);
  [[nodiscard]] const std::string& name() const;
  // The parts a range touches: call(part, offset in the part, offset in the range, size).
  template <typename Call>
  Status each_part(uint64_t offset, uint64_t size, Call call);
  void share_table_memory();
  Result<std::string> read_text();
  // Puts other text into the descriptor's place, and takes what it says.
  Result<> write_text(std::string text);
  // Within the only extent, the text has a place, in which it must be whole after a power cut.
  Result<> check_room(const std::string& text, std::string_view verb);
  // grow.cc
  Result<> grow_only_extent(uint64_t new_size);
  Result<> grow_extents(uint64_t sectors);
  Result<> grow_last(uint64_t new_size);
  Result<Part> add_extent(NewFiles& files, uint64_t start, ExtentLine& line);
  // Before the first change: an image on top of this one must no longer fit.
  Status begin_writing();

  Descriptor descriptor_;
  const std::unique_ptr<Store> descriptor_store_;
  const uint64_t text_at_;
  const ImageOpener opener_;  // for more extents
  Geometry geometry_;
  const bool keeps_id_;
  std::vector<Part> parts_;
  std::unique_ptr<Image> parent_;
  std::string parent_name_;
  Mutex mutex_;
  std::atomic<bool> begun_{false};
};

}  // namespace bulkhead::block::vmdk
