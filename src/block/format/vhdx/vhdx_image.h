// VHDX images: blocks of 1 to 256 MiB found through one table, fixed, dynamic or differencing. A block's data is
// flushed before its table entry is written, and an entry lies in one sector, so that the log is read and never needed.
// Source: Microsoft's [MS-VHDX].
#pragma once

#include "block/format/unit/unit_image.h"
#include "block/format/vhdx/metadata.h"

namespace bulkhead::block::vhdx {

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener);
// Settings: subformat (fixed, dynamic; with a backing file it is differencing), block_size, logical_sector_size,
// preallocation (of fixed ones).
Result<> create(Store& store, const CreateOptions& options);

class VhdxImage final : public UnitImage {
 public:
  static Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener);
  ~VhdxImage() override;

  [[nodiscard]] ImageInfo info() const override;
  [[nodiscard]] Result<CheckReport> check(Repair repair) override;
  [[nodiscard]] Result<> grow(uint64_t new_size) override;
  [[nodiscard]] Image* backing() override { return parent_.get(); }
  [[nodiscard]] Result<> set_backing(const std::string& name, const std::string& format) override;
  [[nodiscard]] Result<> may_set_backing(const std::string& name, const std::string& format) override;

 private:
  VhdxImage(std::unique_ptr<Store> store, CurrentHeader header, Regions regions, Metadata metadata, Access access,
            const ImageOpener& opener);
  Result<> open_parent();
  Result<> find_end();
  Result<uint64_t> used_end(uint64_t file_size) REQUIRES(mutex_);
  // To where there is room for so many entries.
  Result<> move_table(uint64_t entries) REQUIRES(mutex_);
  // What used to be at an old place is given back to the host; it counts no more.
  Result<> name_regions(const Regions& regions) REQUIRES(mutex_);
  Result<> write_grown(const Metadata& metadata) REQUIRES(mutex_);

  Outcome<Unit> find_unit(uint64_t unit) override REQUIRES(mutex_);
  Outcome<Place> allocate() override REQUIRES(mutex_);
  Outcome<> link(uint64_t unit, uint64_t place) override REQUIRES(mutex_);
  Outcome<> link_zero(uint64_t unit) override REQUIRES(mutex_);
  Outcome<> begin_writing() override REQUIRES(mutex_);
  [[nodiscard]] bool may_be_data(uint64_t place) const override REQUIRES(mutex_);
  Outcome<> read_special(const Unit& unit, uint64_t guest, MutableByteSpan bytes) override;
  Outcome<> write_tables(const std::vector<TableSectors::Run>& runs) override;

  [[nodiscard]] uint64_t entry_at(uint64_t unit) const {
    return regions_.table.offset + (unit + unit / metadata_.chunk_ratio()) * 8;
  }
  [[nodiscard]] uint64_t bitmap_entry_at(uint64_t chunk) const {
    return regions_.table.offset + (chunk * (metadata_.chunk_ratio() + 1) + metadata_.chunk_ratio()) * 8;
  }
  [[nodiscard]] uint64_t chunks_with_bitmaps() const {
    if (!metadata_.has_parent) return 0;
    return (metadata_.block_count() + metadata_.chunk_ratio() - 1) / metadata_.chunk_ratio();
  }
  [[nodiscard]] Metadata on_another(const std::string& name, const std::string& identity) const;
  Result<> forget_bitmaps() REQUIRES(mutex_);
  // Why an image that was opened alone cannot do without its backing file.
  Result<> check_no_partial_blocks();
  // Calls each(place) for the bitmap blocks there are.
  template <typename Each>
  Result<> each_bitmap(Each each) REQUIRES(mutex_);

  const ImageOpener opener_;
  const bool keeps_id_;
  Header header_;
  size_t header_slot_;
  Regions regions_;  // changes in grow() only
  Metadata metadata_;
  std::unique_ptr<Image> parent_;
  uint64_t end_ GUARDED_BY(mutex_) = 0;
  bool tail_is_clean_ GUARDED_BY(mutex_) = false;
  uint64_t file_end_ GUARDED_BY(mutex_) = 0;
};

}  // namespace bulkhead::block::vhdx
