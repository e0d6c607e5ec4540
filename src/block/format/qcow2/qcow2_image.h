// A QCOW2 image: guest clusters found through L1 and L2 tables, host clusters counted in refcount blocks. Changed
// tables stay in memory until commit(), which writes them, as they were at one moment, in the order that survives a
// power cut at any time:
//
//   refcounts up -> [flush, with all data] -> L2 -> [flush] -> L1 -> [flush] -> refcounts of freed clusters down
//
// so that what a table on disk names is always written and counted; a cut leaks clusters at worst. The lock is not held
// while data moves, nor while commit() writes. Never: a cluster used again before the tables that named it are gone
// from the disk and whoever looked into them has ended. Source: QEMU's docs/interop/qcow2.
#pragma once

#include <array>
#include <atomic>
#include <list>
#include <unordered_map>
#include <unordered_set>

#include "block/encrypt/cipher_store.h"
#include "block/format/bitmaps.h"
#include "block/format/image.h"
#include "block/format/outcome.h"
#include "block/format/qcow2/bitmaps.h"
#include "block/format/qcow2/header.h"
#include "block/format/settings.h"
#include "support/log.h"
#include "support/os/mutex.h"

namespace bulkhead::block::qcow2 {

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener);
// Settings: version (2, 3), cluster_size (512 to 2097152), refcount_bits (1 to 64), compression (zlib, zstd),
// extended_l2 (on, off), data_file (a name beside the image), data_file_raw (on, off), lazy_refcounts (on, off: said of
// the image, while writes here keep to their order), preallocation (thick.h; of plain images); with a key, those of
// luks::make_volume() too.
Result<> create(Store& store, const CreateOptions& options);

// The LUKS1 header of a new image, where its own header says.
Result<> write_crypto(Store& store, const Header& header, DiskKey& key, Settings& settings);

inline constexpr uint64_t kCopied = uint64_t{1} << 63, kCompressed = uint64_t{1} << 62, kZeroFlag = 1;
inline constexpr uint64_t kOffsetMask = 0x00FFFFFFFFFFFE00;

// An L2 entry. Of its 32 subclusters, the lower half of the bits says which lie in the host cluster, the upper half
// which read as zeroes; without extended entries, it is all of them or none.
struct Leaf {
  static constexpr uint64_t kAllData = 0xFFFFFFFF, kAllZero = kAllData << 32;
  uint64_t entry = 0;  // without the flag of zeroes
  uint64_t bits = 0;   // 0 where the cluster is compressed
  bool operator==(const Leaf&) const = default;
  [[nodiscard]] bool compressed() const { return (entry & kCompressed) != 0; }
  [[nodiscard]] uint64_t host() const { return entry & kOffsetMask; }
};

class Qcow2Image final : public Image, public Snapshots, public Bitmaps {
 public:
  // All L2 tables and refcount blocks in memory; at least a few, however large the clusters.
  static constexpr uint64_t kCacheBytes = uint64_t{12} << 20;
  // Clusters that may wait to be freed before writers wait for that.
  static constexpr size_t kReleaseLimit = 1 << 16;
  // One write to the store at most, and with it what may wait for one.
  static constexpr uint64_t kRunBytes = uint64_t{2} << 20;

  static Result<std::unique_ptr<Qcow2Image>> open(std::unique_ptr<Store> store, Access access,
                                                  const ImageOpener& opener);
  // Stores what there is of bitmaps.
  ~Qcow2Image() override;

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
  [[nodiscard]] Status write_compressed(uint64_t offset, ByteSpan bytes) override;
  [[nodiscard]] uint64_t compression_unit() const override {
    return header_.encryption == Encryption::kNone && !header_.external() ? header_.cluster_size() : 0;
  }
  [[nodiscard]] Image* backing() override { return backing_.get(); }
  [[nodiscard]] Snapshots* snapshots() override { return this; }
  [[nodiscard]] Result<> set_backing(const std::string& name, const std::string& format) override;
  [[nodiscard]] Result<> may_set_backing(const std::string& name, const std::string& format) override;
  [[nodiscard]] Result<> shrink(uint64_t new_size) override;

  [[nodiscard]] Result<std::vector<Snapshot>> list() override;
  [[nodiscard]] Result<> create(const std::string& name, uint64_t seconds) override;
  [[nodiscard]] Result<> apply(const std::string& name) override;
  [[nodiscard]] Result<> remove(const std::string& name) override;

  [[nodiscard]] Bitmaps* bitmaps() override { return this; }
  [[nodiscard]] Result<std::vector<Bitmap>> list_bitmaps() override;
  [[nodiscard]] Result<> add_bitmap(const std::string& name, uint64_t granularity) override;
  [[nodiscard]] Result<> remove_bitmap(const std::string& name) override;
  [[nodiscard]] Result<> each_changed(const std::string& name, const Run& run) override;
  [[nodiscard]] Result<> note_changed(const std::string& name, uint64_t offset, uint64_t size) override;

 private:
  enum class TableKind : uint8_t { kL2, kRefcounts };
  struct Table {
    uint64_t offset;
    TableKind kind;
    bool dirty = false;
    bool being_written = false;  // by a commit: what is on the disk is not yet what is here
    std::vector<uint8_t> bytes;
  };
  using TableRef = std::shared_ptr<Table>;
  struct ClusterRange {
    uint64_t first = 0, count = 0;
  };
  struct Batch;

  Qcow2Image(std::unique_ptr<Store> store, Header header, Access access);
  Result<> load();
  Result<> load_tables() REQUIRES(mutex_);
  // The first sector of the image with this backing file.
  // Fails when what it says does not fit, which one write could not put on the disk at once.
  Result<std::vector<uint8_t>> first_sector(const Header& header) const;
  Result<std::vector<uint8_t>> sector_with_backing(const std::string& name, const std::string& format) const;
  Result<> write_incompatible(uint64_t features);
  Result<> write_autoclear();
  Outcome<> corrupt(std::string_view what, uint64_t at, uint64_t value);

  // Tables (tables.cc). A TableRef stays good while the lock is held without a break.
  Outcome<TableRef> table(uint64_t offset, TableKind kind) REQUIRES(mutex_);
  TableRef add_table(uint64_t offset, TableKind kind, std::vector<uint8_t> bytes) REQUIRES(mutex_);
  void forget_table(uint64_t offset) REQUIRES(mutex_);
  // A cluster's bytes, whatever they hold. The threads take turns with them: each would leave as many in its part of
  // the heap otherwise.
  std::vector<uint8_t> take_buffer() REQUIRES(mutex_);
  void keep_buffer(std::vector<uint8_t> bytes) REQUIRES(mutex_) { buffers_.push_back(std::move(bytes)); }
  void make_room() REQUIRES(mutex_);
  // Brings the L2 table for a guest offset into memory with the lock open while it is read.
  Outcome<> fetch_l2(uint64_t guest) REQUIRES(mutex_);
  // The L2 table for a guest offset: null when there is none.
  Outcome<TableRef> l2_to_read(uint64_t guest) REQUIRES(mutex_);
  Outcome<TableRef> l2_to_write(uint64_t guest) REQUIRES(mutex_);
  void set_l1(uint64_t index, uint64_t entry) REQUIRES(mutex_);
  [[nodiscard]] uint64_t l1_index(uint64_t guest) const {
    return (guest >> header_.cluster_bits) / header_.l2_entries();
  }
  [[nodiscard]] uint64_t l2_index(uint64_t guest) const {
    return guest >> header_.cluster_bits & (header_.l2_entries() - 1);
  }

  // Writing tables (commit.cc). Both open the lock meanwhile.
  Outcome<> commit() REQUIRES(mutex_);
  // Before an operation changes tables: commits when too much waits for it, in memory or to be freed.
  Outcome<> keep_bounds() REQUIRES(mutex_);
  Batch take_batch() REQUIRES(mutex_);
  Outcome<> write_batch(const Batch& batch);
  void finish_batch(Batch& batch, bool written) REQUIRES(mutex_);
  Outcome<> free_clusters() REQUIRES(mutex_);
  void begin_operation(unsigned& epoch) REQUIRES(mutex_);
  void end_operation(unsigned epoch) REQUIRES(mutex_);

  // Host clusters by number (refcounts.cc).
  Outcome<uint64_t> refcount(uint64_t cluster) REQUIRES(mutex_);
  Outcome<> set_refcount(uint64_t cluster, uint64_t count) REQUIRES(mutex_);
  Outcome<> add_refcount_block(uint64_t cluster) REQUIRES(mutex_);
  Outcome<> grow_refcount_table() REQUIRES(mutex_);
  // At least one free cluster, and what follows it up to the limit.
  Outcome<ClusterRange> allocate(uint64_t limit) REQUIRES(mutex_);
  // That many in one piece (grow.cc).
  Outcome<ClusterRange> allocate_run(uint64_t wanted) REQUIRES(mutex_);
  // Takes back what no table has ever named.
  void give_back(const ClusterRange& clusters) REQUIRES(mutex_);
  // Lets go of what an L2 entry names, at the end of the next commit.
  void release(const Leaf& leaf) REQUIRES(mutex_);
  // The clusters of this file that an L2 entry names; none where guest clusters lie in another.
  [[nodiscard]] ClusterRange clusters_of(const Leaf& leaf) const;

  // Entries of L2 tables (leaf.cc).
  [[nodiscard]] Leaf leaf_at(ByteSpan l2, uint64_t index) const;
  void set_leaf(Table& l2, uint64_t index, const Leaf& leaf) const;
  // Why an entry makes no sense; null when it does.
  [[nodiscard]] const char* fault_of(const Leaf& leaf) const;
  // The subclusters that a range within one cluster touches.
  [[nodiscard]] uint64_t units_of(uint64_t guest, uint64_t size) const;
  [[nodiscard]] ExtentKind kind_of(const Leaf& leaf, uint64_t guest) const;
  // How much from there on is of the same kind, within the cluster.
  [[nodiscard]] uint64_t run_of(const Leaf& leaf, uint64_t guest) const;
  [[nodiscard]] bool has_host(const Leaf& leaf) const {
    return !leaf.compressed() && (leaf.host() != 0 || (header_.external() && (leaf.entry & kCopied) != 0));
  }
  // It has a host cluster that nobody shares, where more may be written.
  [[nodiscard]] bool owns_host(const Leaf& leaf) const {
    return has_host(leaf) && (leaf.entry & kCopied) != 0 && (header_.extended() || leaf.bits == Leaf::kAllData);
  }
  // Fails when an entry makes no sense, or names what cannot be this guest cluster.
  Outcome<> check_leaf(const Leaf& leaf, uint64_t guest) REQUIRES(mutex_);

  // Where guest clusters lie: through a cipher where the image has one, each by its place in the file. In another file,
  // a cluster lies where it lies on the guest's disk.
  [[nodiscard]] Store& data() const { return cipher_ ? *cipher_ : data_file_ ? *data_file_ : *store_; }
  // data_file.cc
  Result<> open_data_file(Access access, const ImageOpener& opener);
  Outcome<> zero_data_file(uint64_t guest, uint64_t size);
  Result<> resize_data_file(uint64_t old_size, uint64_t new_size);
  // A null key leaves the image locked: everything but its data can be had (encrypt.cc).
  Result<> unlock(DiskKey* key);

  // Data (data.cc).
  struct Piece {
    Leaf leaf;          // of the first guest cluster
    uint64_t size = 0;  // bytes that lie together on the disk, or are all absent or all zero
  };
  Outcome<Piece> find(uint64_t guest, uint64_t size) REQUIRES(mutex_);
  Outcome<uint64_t> read_some(uint64_t guest, MutableByteSpan bytes);
  // Of one kind, which may go on behind the cluster.
  Outcome<> read_leaf(const Leaf& leaf, uint64_t guest, MutableByteSpan bytes);
  Outcome<> read_compressed(uint64_t entry, uint64_t within, MutableByteSpan bytes);
  Outcome<> read_backing(uint64_t guest, MutableByteSpan bytes);
  // The header and the first-level tables are never data, whatever a damaged table says.
  [[nodiscard]] bool may_be_data(uint64_t host) const REQUIRES(mutex_);
  Outcome<> check_host(uint64_t host) REQUIRES(mutex_);

  // Changing data (write.cc).
  struct Plan {
    ClusterRange fresh;  // where the data goes, when it must not go where it is
    bool own = false;    // it is the host cluster that the guest cluster has, with subclusters that are not in use
    uint64_t place = 0;  // else the byte offset
    uint64_t size = 0;   // how much of the guest's bytes
    Leaf old;            // of the first guest cluster
    Leaf next;           // the same afterwards
    unsigned epoch = 0;
  };
  Outcome<> settle(uint64_t guest) REQUIRES(mutex_);
  Outcome<Plan> plan_write(uint64_t guest, uint64_t size) REQUIRES(mutex_);
  Outcome<uint64_t> write_some(uint64_t guest, ByteSpan bytes);
  Outcome<> write_fresh(uint64_t guest, ByteSpan bytes, const Plan& plan);
  // Bytes [from, to) of a cluster: the guest's, and around them what was there.
  Outcome<> write_part(uint64_t guest, ByteSpan bytes, const Plan& plan, uint64_t from, uint64_t to);
  Outcome<> link(uint64_t guest, const Plan& plan) REQUIRES(mutex_);

  // compress.cc
  Outcome<> write_packed(uint64_t guest, ByteSpan packed);
  // A place for that many bytes, behind what was packed before where possible; gives the L2 entry.
  Outcome<uint64_t> allocate_packed(uint64_t size) REQUIRES(mutex_);

  // zero.cc
  Outcome<> zero_piece(uint64_t guest, uint64_t size, bool discard);
  Outcome<> zero_units(uint64_t guest, uint64_t size);
  Outcome<> link_zeroes(uint64_t guest, uint64_t units) REQUIRES(mutex_);

  // grow.cc
  Outcome<> grow_l1(uint64_t entries) REQUIRES(mutex_);
  Result<> write_grown(uint64_t old_size, std::vector<BitmapEntry>& bitmaps);
  // As write_zeroes() and discard(); no bitmap hears of it.
  Status zero(uint64_t offset, uint64_t size, bool discard);

  // snapshot.cc
  struct SnapshotEntry;
  Result<std::vector<SnapshotEntry>> read_snapshots() REQUIRES(mutex_);
  Result<> put_snapshots(const std::vector<SnapshotEntry>& entries, Header& header) REQUIRES(mutex_);
  Result<> begin_snapshot_change(uint64_t more_users) REQUIRES(mutex_);
  Result<> copy_tables(Header& header) REQUIRES(mutex_);
  Result<> take_into_use(const Header& header) REQUIRES(mutex_);
  Result<> count_and_switch() REQUIRES(mutex_);
  Result<uint64_t> write_at_end(ByteSpan bytes) REQUIRES(mutex_);

  // bitmaps.cc
  Result<std::vector<BitmapEntry>> read_bitmaps() REQUIRES(mutex_);
  Result<std::vector<uint64_t>> read_bitmap_table(const BitmapEntry& entry) REQUIRES(mutex_);
  Result<BitmapEntry> find_bitmap(const std::string& name);
  Result<> load_bitmap(BitmapEntry& entry) REQUIRES(mutex_);
  Result<> take_bitmaps();
  Result<> forget_bitmaps() REQUIRES(mutex_);
  // What the directory is to say of a disk of that size; empty when it may stay as it is.
  Result<std::vector<BitmapEntry>> resized_bitmaps(uint64_t size);
  // The disk's size and that directory in one write, so that a power cut leaves what fits together.
  Result<> write_size(uint64_t size, std::vector<BitmapEntry>& entries);
  void track(uint64_t offset, uint64_t size);
  Outcome<uint64_t> write_run(ByteSpan bytes) REQUIRES(mutex_);
  Outcome<> write_bitmap(BitmapEntry& entry) REQUIRES(mutex_);
  std::vector<uint64_t> clusters_of_bitmaps(const std::vector<BitmapEntry>& entries) REQUIRES(mutex_);
  Result<> write_bitmaps(std::vector<BitmapEntry>& entries, const std::vector<BitmapEntry>& gone, uint64_t disk_size)
      REQUIRES(mutex_);
  void store_bitmaps() REQUIRES(mutex_);

  // check.cc, repair.cc
  struct Count;
  template <typename Use, typename BadBlock>
  void each_refcount(uint64_t clusters, Use use, BadBlock bad_block) REQUIRES(mutex_);
  Result<> count_l1(Count& count, uint64_t offset, uint64_t entries, bool active) REQUIRES(mutex_);
  Result<> count_l2_tables(Count& count) REQUIRES(mutex_);
  [[nodiscard]] bool is_place_in_data_file(uint64_t l2_offset, uint64_t index, const Leaf& leaf) const REQUIRES(mutex_);
  Result<> count_snapshots(Count& count) REQUIRES(mutex_);
  Result<> count_bitmaps(Count& count) REQUIRES(mutex_);
  Result<> count_everything(Count& count) REQUIRES(mutex_);
  // Beside the old ones; the header then names them and all else that it says in memory.
  Result<> rebuild_refcounts(Count& count) REQUIRES(mutex_);
  Result<> repair_flags(const Count& count) REQUIRES(mutex_);
  Result<> repair(Count& count) REQUIRES(mutex_);

  const std::unique_ptr<Store> store_;
  std::unique_ptr<Store> data_file_;  // null: guest clusters lie in the store
  std::unique_ptr<Store> cipher_;     // null: not encrypted
  std::string cipher_name_;
  Header header_;
  Geometry geometry_;  // changes in grow() and shrink() only
  std::unique_ptr<Image> backing_;
  log::RateLimit error_limit_;

  Mutex mutex_;
  std::vector<uint64_t> l1_ GUARDED_BY(mutex_);
  uint64_t l1_dirty_first_ GUARDED_BY(mutex_) = UINT64_MAX, l1_dirty_last_ GUARDED_BY(mutex_) = 0;
  std::vector<uint64_t> refcount_table_ GUARDED_BY(mutex_);
  // Most recently used first.
  std::list<TableRef> recent_ GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, std::list<TableRef>::iterator> tables_ GUARDED_BY(mutex_);
  std::vector<std::vector<uint8_t>> buffers_ GUARDED_BY(mutex_);
  uint64_t table_changes_ GUARDED_BY(mutex_) = 0;  // counts tables that came, went or were written
  uint64_t free_hint_ GUARDED_BY(mutex_) = 1;
  uint64_t packed_at_ GUARDED_BY(mutex_) = 0;  // behind the last compressed data, within a cluster; 0: nowhere

  // One commit at a time; who asks while one runs waits for the next.
  bool committing_ GUARDED_BY(mutex_) = false;
  uint64_t commits_asked_ GUARDED_BY(mutex_) = 0, commits_done_ GUARDED_BY(mutex_) = 0;
  ConditionVariable commit_ended_;

  // Clusters on their way to be free: named by tables on disk still; named by none; named by none, and whoever began
  // before that is in the other epoch. They are free when that epoch has ended.
  std::vector<uint64_t> released_ GUARDED_BY(mutex_), unnamed_ GUARDED_BY(mutex_), waiting_ GUARDED_BY(mutex_);
  unsigned epoch_ GUARDED_BY(mutex_) = 0;
  std::array<unsigned, 2> in_flight_ GUARDED_BY(mutex_){};
  ConditionVariable operation_ended_;

  // Taken behind mutex_, if both are.
  Mutex bitmaps_mutex_;
  std::vector<BitmapEntry> bitmaps_ GUARDED_BY(bitmaps_mutex_);  // of an image that is open for writing
  std::atomic<bool> tracks_{false};

  // Guest clusters that get a new host cluster just now; who wants to do the same waits.
  std::unordered_set<uint64_t> busy_ GUARDED_BY(mutex_);
};

}  // namespace bulkhead::block::qcow2
