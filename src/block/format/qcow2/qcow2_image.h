// A QCOW2 image: guest clusters found through L1 and L2 tables, host clusters counted in refcount blocks. Changed
// tables stay in memory until commit(), which writes them in the order that survives a power cut at any moment:
//
//   refcounts up -> [flush, with all data] -> L2 -> [flush] -> L1 -> [flush] -> refcounts of freed clusters down
//
// so that what a table on disk names is always written and counted; a cut leaks clusters at worst. Never: a cluster
// used again before the tables that named it are gone from the disk. Source: QEMU's docs/interop/qcow2.
#pragma once

#include <atomic>
#include <expected>
#include <list>
#include <unordered_map>

#include "block/format/image.h"
#include "block/format/qcow2/header.h"
#include "support/log.h"
#include "support/os/mutex.h"

namespace bulkhead::block::qcow2 {

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener);
// Settings: version (2, 3), cluster_size (512 to 2097152), refcount_bits (1 to 64), compression (zlib, zstd).
Result<> create(Store& store, const CreateOptions& options);

template <typename T = void>
using Outcome = std::expected<T, Status>;

class Qcow2Image final : public Image {
 public:
  // All L2 tables and refcount blocks in memory; at least a few, however large the clusters.
  static constexpr uint64_t kCacheBytes = uint64_t{16} << 20;

  static Result<std::unique_ptr<Qcow2Image>> open(std::unique_ptr<Store> store, Access access,
                                                  const ImageOpener& opener);
  ~Qcow2Image() override;

  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  [[nodiscard]] ImageInfo info() const override;
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override;
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override;
  [[nodiscard]] Status write_zeroes(uint64_t offset, uint64_t size, Unmap unmap) override;
  [[nodiscard]] Status discard(uint64_t offset, uint64_t size) override;
  [[nodiscard]] Status flush() override;
  [[nodiscard]] Result<Extent> map(uint64_t offset) override;
  [[nodiscard]] Result<CheckReport> check(Repair repair) override;

 private:
  enum class TableKind : uint8_t { kL2, kRefcounts };
  struct Table {
    uint64_t offset;
    TableKind kind;
    bool dirty = false;
    std::vector<uint8_t> bytes;
  };
  using TableRef = std::shared_ptr<Table>;

  Qcow2Image(std::unique_ptr<Store> store, Header header, Access access);
  Result<> load();
  Outcome<> corrupt(std::string_view what, uint64_t at, uint64_t value);

  // Tables (tables.cc).
  Outcome<TableRef> table(uint64_t offset, TableKind kind) REQUIRES(mutex_);
  Outcome<TableRef> new_table(uint64_t offset, TableKind kind) REQUIRES(mutex_);
  Outcome<> make_room() REQUIRES(mutex_);
  Outcome<> write_dirty(TableKind kind) REQUIRES(mutex_);
  Outcome<> commit() REQUIRES(mutex_);
  // The L2 table for a guest offset: null when there is none.
  Outcome<TableRef> l2_to_read(uint64_t guest) REQUIRES(mutex_);
  Outcome<TableRef> l2_to_write(uint64_t guest) REQUIRES(mutex_);
  void set_l1(uint64_t index, uint64_t entry) REQUIRES(mutex_);
  [[nodiscard]] uint64_t l2_index(uint64_t guest) const {
    return guest >> header_.cluster_bits & (header_.l2_entries() - 1);
  }

  // Host clusters by number (refcounts.cc).
  Outcome<uint64_t> refcount(uint64_t cluster) REQUIRES(mutex_);
  Outcome<> set_refcount(uint64_t cluster, uint64_t count) REQUIRES(mutex_);
  Outcome<> add_refcount_block(uint64_t cluster) REQUIRES(mutex_);
  Outcome<> grow_refcount_table() REQUIRES(mutex_);
  // Gives the byte offset.
  Outcome<uint64_t> allocate() REQUIRES(mutex_);
  // Lets go of what an L2 entry names, at the end of the next commit.
  void release(uint64_t l2_entry) REQUIRES(mutex_);
  Outcome<> apply_releases() REQUIRES(mutex_);

  // Data (data.cc); a piece lies within one guest cluster.
  Outcome<> read_piece(uint64_t guest, MutableByteSpan bytes);
  Outcome<> read_entry(uint64_t entry, uint64_t guest, MutableByteSpan bytes);
  Outcome<> read_compressed(uint64_t entry, uint64_t within, MutableByteSpan bytes);
  Outcome<> read_backing(uint64_t guest, MutableByteSpan bytes);
  Outcome<> write_piece(uint64_t guest, ByteSpan bytes);
  Outcome<> zero_piece(uint64_t guest, uint64_t size, bool discard);
  Outcome<> check_host(uint64_t host);
  [[nodiscard]] ExtentKind kind_of(uint64_t entry) const;

  // check.cc
  struct Count;
  Result<> count_everything(Count& count) REQUIRES(mutex_);
  Result<> count_l1(Count& count, uint64_t offset, uint64_t entries, bool active) REQUIRES(mutex_);
  Result<> count_snapshots(Count& count) REQUIRES(mutex_);

  const std::unique_ptr<Store> store_;
  Header header_;
  const Geometry geometry_;
  std::unique_ptr<Image> backing_;
  log::RateLimit error_limit_;

  Mutex mutex_;
  std::vector<uint64_t> l1_ GUARDED_BY(mutex_);
  uint64_t l1_dirty_first_ GUARDED_BY(mutex_) = UINT64_MAX, l1_dirty_last_ GUARDED_BY(mutex_) = 0;
  std::vector<uint64_t> refcount_table_ GUARDED_BY(mutex_);
  // Most recently used first.
  std::list<TableRef> recent_ GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, std::list<TableRef>::iterator> tables_ GUARDED_BY(mutex_);
  uint64_t free_hint_ GUARDED_BY(mutex_) = 1;
  // Clusters to count down once no table on disk names them; a piece in flight may still be on its way to one.
  std::vector<uint64_t> released_ GUARDED_BY(mutex_);
  unsigned in_flight_ GUARDED_BY(mutex_) = 0;
};

inline constexpr uint64_t kCopied = uint64_t{1} << 63, kCompressed = uint64_t{1} << 62, kZeroFlag = 1;
inline constexpr uint64_t kOffsetMask = 0x00FFFFFFFFFFFE00;

}  // namespace bulkhead::block::qcow2
