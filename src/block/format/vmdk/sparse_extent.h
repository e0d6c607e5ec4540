// A VMDK sparse extent: grains found through a directory of grain tables, both kept twice. Also two that can only be
// read: the extent of a streamOptimized image, whose grains are compressed, and that of an ESXi snapshot.
#pragma once

#include "block/format/unit/unit_image.h"
#include "block/format/vmdk/sparse_header.h"

namespace bulkhead::block::vmdk {

class SparseExtent final : public UnitImage {
 public:
  static Result<std::unique_ptr<SparseExtent>> open(std::unique_ptr<Store> store, Access access);
  ~SparseExtent() override;

  [[nodiscard]] const SparseHeader& header() const { return header_; }
  [[nodiscard]] bool compressed() const { return (header_.flags & kCompressed) != 0; }
  // Whether there is a way to write it.
  [[nodiscard]] bool is_read_only() const { return compressed() || header_.of_server; }
  // For the descriptor that may stand inside.
  [[nodiscard]] Store& file() { return *store_; }
  [[nodiscard]] bool has_grains();
  // What it may keep of its tables in memory, where it is one extent of many.
  void keep_tables_within(uint64_t bytes);

  [[nodiscard]] ImageInfo info() const override { return {}; }
  [[nodiscard]] Result<CheckReport> check(Repair repair) override;
  [[nodiscard]] Result<> grow(uint64_t new_size) override;

 private:
  SparseExtent(std::unique_ptr<Store> store, SparseHeader header, uint64_t file_size, Access access);
  Result<> recover();

  Outcome<Unit> find_unit(uint64_t unit) override REQUIRES(mutex_);
  Outcome<Place> allocate() override REQUIRES(mutex_);
  Outcome<> link(uint64_t unit, uint64_t place) override REQUIRES(mutex_);
  Outcome<> link_zero(uint64_t unit) override REQUIRES(mutex_);
  Outcome<> begin_writing() override REQUIRES(mutex_);
  [[nodiscard]] bool may_be_data(uint64_t place) const override REQUIRES(mutex_);
  // The bytes of a compressed grain, of which the disk's last one may have fewer than others.
  Outcome<std::shared_ptr<const std::vector<uint8_t>>> unpack(uint64_t place, uint64_t guest);
  Outcome<> read_special(const Unit& unit, uint64_t guest, MutableByteSpan bytes) override;
  Outcome<> write_tables(const std::vector<TableSectors::Run>& runs) override;

  // Where the entry of a unit stands, by the directory at a sector; 0 when there is no table for it.
  Outcome<uint64_t> entry_at(uint64_t directory, uint64_t unit) REQUIRES(mutex_);
  Outcome<> add_tables(uint64_t table) REQUIRES(mutex_);
  Outcome<> set_entry(uint64_t unit, uint32_t value) REQUIRES(mutex_);
  Result<> make_room(uint64_t capacity);
  Result<> write_header(const SparseHeader& header) REQUIRES(mutex_);
  Result<> each_difference(CheckReport& report, bool repair) REQUIRES(mutex_);
  Result<> check_packed(CheckReport& report) REQUIRES(mutex_);
  Result<> check_server(CheckReport& report) REQUIRES(mutex_);

  SparseHeader header_;
  // The grain that was unpacked last: a reader of small pieces comes back for the rest.
  Mutex unpacked_mutex_;
  uint64_t unpacked_at_ GUARDED_BY(unpacked_mutex_) = 0;  // its place in the file; 0: none
  std::shared_ptr<const std::vector<uint8_t>> unpacked_ GUARDED_BY(unpacked_mutex_);
  uint64_t end_ GUARDED_BY(mutex_);       // of what is in use, in bytes
  uint64_t file_end_ GUARDED_BY(mutex_);  // how long the file is known to be
};

}  // namespace bulkhead::block::vmdk
