// An image that cuts its disk into units of one size and finds each through a table: what VHD, VHDX and VMDK have in
// common. A format says where a unit is, gives it a place, and puts that into its tables; this class moves the data.
//
// A unit never moves once it has a place. Changed tables stay in memory until commit(), which writes them behind the
// data, so that what a table on the disk names has been written:
//
//   data -> [flush] -> tables -> [flush]
//
// A power cut loses places at worst, which the next opening finds again. The lock is not held while data moves. Data
// that is discarded becomes a hole of the store in its place. Never here: a write to a place that a damaged table gives
// and that is no unit's.
#pragma once

#include <memory>
#include <unordered_set>

#include "block/format/image.h"
#include "block/format/outcome.h"
#include "block/format/unit/table_sectors.h"
#include "support/log.h"
#include "support/os/mutex.h"

namespace bulkhead::block {

class UnitImage : public Image {
 public:
  // What is copied at once to make a unit whole, and what one call writes to the store.
  static constexpr uint64_t kPieceBytes = uint64_t{2} << 20;

  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override;
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override;
  [[nodiscard]] Status write_zeroes(uint64_t offset, uint64_t size, Unmap unmap) override;
  [[nodiscard]] Status discard(uint64_t offset, uint64_t size) override;
  [[nodiscard]] Status flush() override;
  [[nodiscard]] Result<Extent> map(uint64_t offset) override;
  [[nodiscard]] std::optional<uint64_t> allocated() override { return store_->allocated(); }

  // What shows through where this image holds nothing; offset: of this image's first byte in it.
  void show_through(Image* backing, uint64_t offset) {
    backing_ = backing;
    backing_offset_ = offset;
  }

 protected:
  enum class UnitKind : uint8_t {
    kAbsent,
    kZero,
    kData,
    kPartial,  // at its place, some sectors count and the others are absent
    kPacked,   // compressed; such an image is read-only
  };
  struct Unit {
    UnitKind kind = UnitKind::kAbsent;
    uint64_t place = 0;
    uint64_t count = 1;  // so many units from here on are absent all the same
  };
  struct Place {
    uint64_t offset = 0;
    bool clean = false;  // reads as zeroes
  };

  UnitImage(std::unique_ptr<Store> store, uint64_t size, uint64_t unit_size, Access access);

  virtual Outcome<Unit> find_unit(uint64_t unit) REQUIRES(mutex_) = 0;
  // A place for a unit that has none.
  virtual Outcome<Place> allocate() REQUIRES(mutex_) = 0;
  // In the tables in memory: the unit's data is whole, and there.
  virtual Outcome<> link(uint64_t unit, uint64_t place) REQUIRES(mutex_) = 0;
  // Whether a unit may lie there.
  [[nodiscard]] virtual bool may_be_data(uint64_t place) const REQUIRES(mutex_) = 0;
  // Before data goes to a new place, without the lock: what has to stand beside it.
  virtual Outcome<> prepare(uint64_t) { return {}; }
  // In the tables in memory: the unit reads as zeroes. kUnsupported when the format cannot say so.
  virtual Outcome<> link_zero(uint64_t) REQUIRES(mutex_) { return std::unexpected(Status::kUnsupported); }
  // Once, before the first change of the disk's contents.
  virtual Outcome<> begin_writing() REQUIRES(mutex_) { return {}; }
  // Some bytes of a unit that is partial or packed.
  virtual Outcome<> read_special(const Unit& unit, uint64_t guest, MutableByteSpan bytes);
  // Everything that has to stand in the file behind the units, once their data is safe and before the tables are.
  virtual Outcome<> write_tables(const std::vector<TableSectors::Run>& runs);

  // For the destructors of formats: writes what a guest was not promised.
  void close();
  Outcome<> commit() REQUIRES(mutex_);
  Outcome<> corrupt(std::string_view what, uint64_t at, uint64_t value);
  Outcome<> read_backing(uint64_t guest, MutableByteSpan bytes);
  // Reports units outside [low, high) or the allowed places, and those that overlap. Each unit takes `before` bytes in
  // front of its place as well. used: all their bytes, and those between them that are too few for another unit.
  Result<> check_units(CheckReport& report, uint64_t before, uint64_t high, uint64_t& used) REQUIRES(mutex_);
  // Before the disk grows: a longer backing file would show where there was no disk before.
  [[nodiscard]] Result<> check_nothing_below(uint64_t new_size) const;
  // Units of which some sectors are the backing file's, or zeroes without one, get those too: it is about to be
  // another. Not for an image that was opened alone, which does not see what they are.
  Result<> fill_partial_units();
  // The end of the last unit, 0 without any: what a new one may be put behind.
  Result<uint64_t> end_of_units() REQUIRES(mutex_);

  [[nodiscard]] uint64_t unit_count() const { return (geometry_.size + unit_size_ - 1) / unit_size_; }

  const std::unique_ptr<Store> store_;
  const uint64_t unit_size_;
  Geometry geometry_;  // changes in grow() only
  Image* backing_ = nullptr;
  uint64_t backing_offset_ = 0;
  Mutex mutex_;
  TableSectors tables_ GUARDED_BY(mutex_);

 private:
  struct Plan {
    uint64_t place = 0;  // of the first byte written
    uint64_t size = 0;
    uint64_t fresh = 0;  // units that get a place; 0: they have one
    bool clean = false;
    Unit old;
  };
  struct Piece {
    Unit unit;
    uint64_t size = 0;
  };
  Outcome<Piece> find(uint64_t guest, uint64_t size) REQUIRES(mutex_);
  Outcome<uint64_t> read_some(uint64_t guest, MutableByteSpan bytes);
  Outcome<> read_unit(const Unit& unit, uint64_t guest, MutableByteSpan bytes);
  Outcome<> settle(uint64_t unit) REQUIRES(mutex_);
  Outcome<Plan> plan_write(uint64_t guest, uint64_t size) REQUIRES(mutex_);
  Outcome<Plan> plan_fresh(uint64_t guest, uint64_t size, const Unit& old) REQUIRES(mutex_);
  Outcome<Place> take_place() REQUIRES(mutex_);
  Outcome<uint64_t> write_some(uint64_t guest, ByteSpan bytes);
  Outcome<> write_fresh(uint64_t guest, ByteSpan bytes, const Plan& plan);
  Outcome<> make_whole(uint64_t guest, ByteSpan bytes, const Plan& plan);
  enum class Zeroing : uint8_t { kWrite, kUnmap, kHint };
  Outcome<uint64_t> zero_some(uint64_t guest, uint64_t size, Zeroing how);
  Status zero(uint64_t offset, uint64_t size, Zeroing how);

  log::RateLimit error_limit_;
  bool begun_ GUARDED_BY(mutex_) = false;
  // Places whose data could not be written, with whatever is left of it there.
  std::vector<uint64_t> spare_ GUARDED_BY(mutex_);
  // Units that get a place just now; who wants to do the same waits.
  std::unordered_set<uint64_t> busy_ GUARDED_BY(mutex_);
  ConditionVariable busy_ended_;

  // One commit at a time; who asks while one runs waits for the next.
  bool committing_ GUARDED_BY(mutex_) = false;
  uint64_t commits_asked_ GUARDED_BY(mutex_) = 0, commits_done_ GUARDED_BY(mutex_) = 0;
  ConditionVariable commit_ended_;
};

}  // namespace bulkhead::block
