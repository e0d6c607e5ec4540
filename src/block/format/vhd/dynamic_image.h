// A VHD image that grows: blocks behind each other in the file, a table that says where each begins, and in front of
// each block one bit a sector that says whether the sector counts. The footer stands behind the last block and once
// more at the file's beginning, where it is found when a power cut has taken the other.
#pragma once

#include "block/format/unit/unit_image.h"
#include "block/format/vhd/header.h"

namespace bulkhead::block::vhd {

class DynamicImage final : public UnitImage {
 public:
  static Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, const Footer& footer, Access access,
                                             const ImageOpener& opener);
  ~DynamicImage() override;

  [[nodiscard]] ImageInfo info() const override;
  [[nodiscard]] Result<CheckReport> check(Repair repair) override;
  [[nodiscard]] Result<> grow(uint64_t new_size) override;
  [[nodiscard]] Image* backing() override { return parent_.get(); }
  [[nodiscard]] Result<> set_backing(const std::string& name, const std::string& format) override;
  [[nodiscard]] Result<> may_set_backing(const std::string& name, const std::string& format) override;

 private:
  DynamicImage(std::unique_ptr<Store> store, Footer footer, Header header, Access access, const ImageOpener& opener);
  Result<> open_parent();
  Result<> begin(bool footer_is_good);

  Outcome<Unit> find_unit(uint64_t unit) override REQUIRES(mutex_);
  Outcome<Place> allocate() override REQUIRES(mutex_);
  Outcome<> link(uint64_t unit, uint64_t place) override REQUIRES(mutex_);
  [[nodiscard]] bool may_be_data(uint64_t place) const override REQUIRES(mutex_);
  Outcome<> prepare(uint64_t place) override;
  Outcome<> read_special(const Unit& unit, uint64_t guest, MutableByteSpan bytes) override;
  Outcome<> write_tables(const std::vector<TableSectors::Run>& runs) override;

  [[nodiscard]] uint64_t entry_at(uint64_t unit) const { return header_.table_offset + unit * 4; }
  Outcome<> write_last_footer() REQUIRES(mutex_);
  Result<> move_table(uint64_t entries) REQUIRES(mutex_);

  const ImageOpener opener_;
  Footer footer_;
  Header header_;
  std::unique_ptr<Image> parent_;
  std::string parent_name_;
  uint64_t end_ GUARDED_BY(mutex_) = 0;  // of all blocks, the table and the header
  uint64_t footer_at_ GUARDED_BY(mutex_) = 0;
  bool tail_is_clean_ GUARDED_BY(mutex_) = false;
};

}  // namespace bulkhead::block::vhd
