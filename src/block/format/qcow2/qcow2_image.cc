#include "block/format/qcow2/qcow2_image.h"

#include <algorithm>
#include <bit>

#include "block/format/big_endian.h"
#include "block/format/luks/volume_key.h"
#include "block/format/qcow2/refcount_field.h"
#include "block/format/thick.h"

namespace bulkhead::block::qcow2 {
namespace {

uint32_t log2_of(uint64_t power_of_two) {
  return static_cast<uint32_t>(std::countr_zero(power_of_two));
}

Result<Header> header_of(const CreateOptions& options, Settings& settings, const std::string& data_name) {
  Header header;
  header.version = static_cast<uint32_t>(TRY(settings.number("version", 3, 2, 3)));
  header.cluster_bits = log2_of(TRY(settings.power_of_two("cluster_size", 65536, 512, 2097152)));
  header.refcount_order = log2_of(TRY(settings.power_of_two("refcount_bits", 16, 1, 64)));
  if (TRY(settings.word("compression", "zlib", {"zlib", "zstd"})) == "zstd") header.compression = Compression::kZstd;
  if (header.version == 2 && (header.refcount_order != 4 || header.compression != Compression::kZlib || options.key)) {
    return fail("version 2 has 16-bit refcounts, zlib and no encryption");
  }
  if (header.compression != Compression::kZlib) header.incompatible |= kCompressionType;
  if (options.size > (uint64_t{1} << 62)) return fail("size {}: too large", options.size);
  header.size = align_up(options.size, 512);
  header.backing_name = options.backing_name;
  header.backing_format = options.backing_format;
  if (TRY(settings.word("lazy_refcounts", "off", {"on", "off"})) == "on") {
    if (header.version == 2) return fail("option lazy_refcounts=on: needs version 3");
    header.compatible |= kLazyRefcounts;
  }
  if (TRY(settings.word("extended_l2", "off", {"on", "off"})) == "on") {
    if (header.version == 2 || header.cluster_bits < kMinExtendedBits) {
      return fail("option extended_l2=on: needs version 3 and a cluster_size of {} or more", 1u << kMinExtendedBits);
    }
    header.incompatible |= kExtendedL2;
  }
  header.data_name = data_name;
  const bool raw_data = TRY(settings.word("data_file_raw", "off", {"on", "off"})) == "on";
  if (!header.data_name.empty()) {
    if (header.version == 2) return fail("version 2 has no data file");
    if (header.data_name.contains('/')) return fail("data file '{}': a name beside the image", header.data_name);
    header.incompatible |= kExternalData;
  }
  if (raw_data) {
    if (!header.external() || !header.backing_name.empty() || options.key) {
      return fail("option data_file_raw=on: needs data_file, and neither a backing file nor encryption");
    }
    header.autoclear |= kRawData;
  }
  if (options.key) {
    header.encryption = Encryption::kLuks;
    header.crypto_length = luks::kPayload1;
  }
  return header;
}

// Refcount blocks of so many bytes in all: the first clusters are used once each, the others are free.
Result<> write_counts(Store& store, uint64_t at, uint64_t size, uint64_t used, uint32_t order) {
  constexpr uint64_t kPiece = uint64_t{1} << 20;
  for (uint64_t done = 0; done < size;) {
    std::vector<uint8_t> counts(std::min(size - done, kPiece));
    const uint64_t first = done * 8 >> order, count = uint64_t{counts.size()} * 8 >> order;
    for (uint64_t i = 0; i < count && first + i < used; ++i) set_count(counts, i, order, 1);
    TRY(store.write_all(at + done, counts));
    done += counts.size();
  }
  return {};
}

// All of the disk's clusters one behind the other.
Result<> write_full_tables(Store& store, const Header& header, uint64_t l2_start, uint64_t data_start,
                           uint64_t data_clusters) {
  const uint64_t cluster = header.cluster_size();
  std::vector<uint8_t> l1(uint64_t{header.l1_size} * 8), l2(cluster);
  for (uint64_t i = 0, data = 0; i < header.l1_size; ++i) {
    store64(&l1[i * 8], (l2_start + i * cluster) | kCopied);
    std::ranges::fill(l2, uint8_t{0});
    for (uint64_t entry = 0; entry < header.l2_entries() && data < data_clusters; ++entry, ++data) {
      store64(&l2[entry * 8], (data_start + data * cluster) | kCopied);
    }
    TRY(store.write_all(l2_start + i * cluster, l2));
  }
  return store.write_all(header.l1_offset, l1);
}

}  // namespace

namespace {

Result<> create_data_file(const Header& header, const CreateOptions& options) {
  if (!options.create_beside) return fail("data file '{}': only one file can be made here", header.data_name);
  const auto file = TRY(options.create_beside(header.data_name));
  if (file->truncate(header.size) != Status::kOk) return fail("resize '{}': no space", file->name());
  return file->flush_all();
}

}  // namespace

// Header, refcount table, refcount blocks, L1 table, encryption header: in this order from the start of the file; L2
// tables and data behind them where there is a place for everything from the beginning.
Result<> create(Store& store, const CreateOptions& options) {
  std::map<std::string, std::string> words = options.settings;
  const auto data_name = words.extract("data_file");
  Settings settings("qcow2", std::move(words));
  Header header = TRY(header_of(options, settings, data_name ? data_name.mapped() : ""));
  const Preallocation preallocation = TRY(take_preallocation(settings, true));
  const bool full = preallocation != Preallocation::kOff;
  const bool is_plain = !header.extended() && data_name.empty();
  if (!options.backing_name.empty() || options.key || !is_plain) {
    TRY(refuse_preallocation(preallocation, "without a backing file, encryption, a data file and extended L2 entries"));
  }
  const uint64_t cluster = header.cluster_size(), l2_reach = cluster * header.l2_entries();
  const uint64_t l1_size = std::max<uint64_t>(1, header.size / l2_reach + (header.size % l2_reach != 0));
  if (l1_size * 8 > kMaxL1Bytes) return fail("size {}: too large for clusters of {} bytes", header.size, cluster);
  const uint64_t l1_clusters = align_up(l1_size * 8, cluster) / cluster;
  const uint64_t data_clusters = full ? align_up(header.size, cluster) / cluster : 0, l2_clusters = full ? l1_size : 0;
  const uint64_t behind_counts = l1_clusters + header.crypto_length / cluster + l2_clusters + data_clusters;
  uint64_t table = 1, blocks = 1;
  for (;;) {
    const uint64_t all = 1 + table + blocks + behind_counts, a_block = header.refcounts_a_block();
    const uint64_t blocks_needed = (all + a_block - 1) / a_block;
    const uint64_t table_needed = align_up(blocks_needed * 8, cluster) / cluster;
    if (blocks_needed <= blocks && table_needed <= table) break;
    blocks = std::max(blocks, blocks_needed);
    table = std::max(table, table_needed);
  }
  if (table * cluster > kMaxRefcountTableBytes) {
    return fail("size {}: too large for clusters of {} bytes", header.size, cluster);
  }
  header.l1_size = static_cast<uint32_t>(l1_size);
  header.refcount_table_offset = cluster;
  header.refcount_table_clusters = static_cast<uint32_t>(table);
  header.l1_offset = (1 + table + blocks) * cluster;
  if (options.key) header.crypto_offset = header.l1_offset + l1_clusters * cluster;
  if (!options.key) TRY(settings.finish());
  const std::vector<uint8_t> first = TRY(make_header(header));
  const uint64_t used = 1 + table + blocks + behind_counts;
  if (store.truncate(used * cluster) != Status::kOk) return fail("resize '{}': no space", store.name());
  if (header.external()) TRY(create_data_file(header, options));
  if (options.key) TRY(write_crypto(store, header, *options.key, settings));
  std::vector<uint8_t> entries(table * cluster);
  for (uint64_t i = 0; i < blocks; ++i) store64(&entries[i * 8], (1 + table + i) * cluster);
  TRY(store.write_all(cluster, entries));
  TRY(write_counts(store, (1 + table) * cluster, blocks * cluster, used, header.refcount_order));
  if (full) {
    const uint64_t data_start = (used - data_clusters) * cluster;
    TRY(write_full_tables(store, header, data_start - l2_clusters * cluster, data_start, data_clusters));
    TRY(make_thick(store, data_start, data_clusters * cluster, preallocation, options.progress));
  }
  TRY(store.flush_all());
  TRY(store.write_all(0, first));
  return store.flush_all();
}

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener) {
  return TRY(Qcow2Image::open(std::move(store), access, opener));
}

Qcow2Image::Qcow2Image(std::unique_ptr<Store> store, Header header, Access access)
    : store_(std::move(store)),
      header_(std::move(header)),
      geometry_{
          .size = align_up(header_.size, 512), .physical_block_size = 4096, .read_only = access == Access::kReadOnly} {}

Result<std::unique_ptr<Qcow2Image>> Qcow2Image::open(std::unique_ptr<Store> store, Access access,
                                                     const ImageOpener& opener) {
  const uint64_t file_size = TRY(store->size());
  std::vector<uint8_t> bytes(std::min<uint64_t>(file_size, uint64_t{1} << kMaxClusterBits));
  TRY(store->read_all(0, bytes));
  Header header = TRY(parse_header(bytes, store->name(), file_size));
  std::unique_ptr<Qcow2Image> image(new Qcow2Image(std::move(store), std::move(header), access));
  TRY(image->load());
  TRY(image->open_data_file(access, opener));
  if (image->header_.encryption != Encryption::kNone) {
    TRY(image->unlock(TRY(opener.key_for(image->store_->name()))));
  }
  if (!image->header_.backing_name.empty()) {
    image->backing_ = TRY(opener.open_backing(image->header_.backing_name, image->header_.backing_format));
  }
  if (access != Access::kReadWrite && access != Access::kCommit) return image;
  const Header& kept = image->header_;
  if ((kept.incompatible & kCorrupt) != 0) {
    return fail("open '{}': marked as corrupt (bit 1 at byte 72); repair it, or open it read-only",
                image->store_->name());
  }
  if ((kept.incompatible & kDirty) != 0) {
    const CheckReport report = TRY(image->check(Repair::kAll));
    if (report.left != 0) {
      return fail("open '{}': {} errors are left after the repair of a dirty image", image->store_->name(),
                  report.left);
    }
  }
  // What writes here do not keep up to date must not count as true.
  const uint64_t true_here = (kept.bitmaps.count == 0 ? 0 : kAutoclearBitmaps) | (kept.raw_data() ? kRawData : 0);
  if (kept.autoclear != true_here) {
    image->header_.autoclear = true_here;
    TRY(image->write_autoclear());
  }
  if (kept.bitmaps.count != 0) TRY(image->take_bitmaps());
  return image;
}

Result<> Qcow2Image::load() {
  const LockGuard lock(mutex_);
  return load_tables();
}

Result<> Qcow2Image::load_tables() {
  recent_.clear();
  tables_.clear();
  std::vector<uint8_t> bytes(uint64_t{header_.l1_size} * 8);
  TRY(store_->read_all(header_.l1_offset, bytes));
  l1_.resize(header_.l1_size);
  for (size_t i = 0; i < l1_.size(); ++i) l1_[i] = load64(&bytes[i * 8]);
  bytes.resize(uint64_t{header_.refcount_table_clusters} << header_.cluster_bits);
  TRY(store_->read_all(header_.refcount_table_offset, bytes));
  refcount_table_.resize(bytes.size() / 8);
  for (size_t i = 0; i < refcount_table_.size(); ++i) refcount_table_[i] = load64(&bytes[i * 8]) & kOffsetMask;
  return {};
}

Result<> Qcow2Image::write_incompatible(uint64_t features) {
  if (features == header_.incompatible) return {};
  std::vector<uint8_t> field(8);
  store64(field.data(), features);
  TRY(store_->flush_all());
  TRY(store_->write_all(kIncompatibleField, field));
  TRY(store_->flush_all());
  header_.incompatible = features;
  return {};
}

Result<> Qcow2Image::write_autoclear() {
  std::vector<uint8_t> field(8);
  store64(field.data(), header_.autoclear);
  TRY(store_->write_all(kAutoclearField, field));
  return store_->flush_all();
}

Qcow2Image::~Qcow2Image() {
  if (geometry_.read_only) return;
  const LockGuard lock(mutex_);
  store_bitmaps();
  // The first applies what was released, the second writes that. Nobody is left to be told of an error; what was
  // flushed is safe.
  if (commit()) (void)commit();
}

Outcome<> Qcow2Image::corrupt(std::string_view what, uint64_t at, uint64_t value) {
  if (error_limit_.allow()) log::error("image '{}': {} at {:#x}: {:#x}", store_->name(), what, at, value);
  return std::unexpected(Status::kIoError);
}

ImageInfo Qcow2Image::info() const {
  ImageInfo info;
  info.format = "qcow2";
  info.virtual_size = geometry_.size;
  info.backing_name = header_.backing_name;
  info.backing_format = header_.backing_format;
  info.details = {{"version", std::to_string(header_.version)},
                  {"cluster_size", std::to_string(header_.cluster_size())},
                  {"refcount_bits", std::to_string(1u << header_.refcount_order)},
                  {"compression", header_.compression == Compression::kZstd ? "zstd" : "zlib"},
                  {"lazy_refcounts", (header_.compatible & kLazyRefcounts) != 0 ? "on" : "off"},
                  {"extended_l2", header_.extended() ? "on" : "off"},
                  {"snapshots", std::to_string(header_.snapshot_count)},
                  {"bitmaps", std::to_string(header_.bitmaps.count)}};
  if (header_.external()) {
    info.details.emplace_back("data_file", header_.data_name);
    info.details.emplace_back("data_file_raw", header_.raw_data() ? "on" : "off");
  }
  if (header_.encryption == Encryption::kNone) return info;
  info.encryption = "luks1";
  info.details.emplace_back("encryption", info.encryption);
  info.details.emplace_back("cipher", cipher_name_);
  return info;
}

namespace {

// Calls piece(offset, size) for each guest cluster that the range touches.
template <typename Piece>
Status each_cluster(uint64_t offset, uint64_t size, uint64_t cluster_size, Piece piece) {
  while (size != 0) {
    const uint64_t part = std::min(size, cluster_size - (offset & (cluster_size - 1)));
    const Outcome<> outcome = piece(offset, part);
    if (!outcome) return outcome.error();
    offset += part;
    size -= part;
  }
  return Status::kOk;
}

}  // namespace

Status Qcow2Image::read(uint64_t offset, MutableByteSpan bytes) {
  while (!bytes.empty()) {
    const Outcome<uint64_t> size = read_some(offset, bytes);
    if (!size) return size.error();
    offset += *size;
    bytes = bytes.subspan(*size);
  }
  return Status::kOk;
}

Status Qcow2Image::write(uint64_t offset, ByteSpan bytes) {
  track(offset, bytes.size());
  while (!bytes.empty()) {
    const Outcome<uint64_t> size = write_some(offset, bytes);
    if (!size) return size.error();
    offset += *size;
    bytes = bytes.subspan(*size);
  }
  return Status::kOk;
}

Status Qcow2Image::write_zeroes(uint64_t offset, uint64_t size, Unmap) {
  track(offset, size);
  return zero(offset, size, false);
}

Status Qcow2Image::discard(uint64_t offset, uint64_t size) {
  track(offset, size);
  return zero(offset, size, true);
}

Status Qcow2Image::zero(uint64_t offset, uint64_t size, bool discard) {
  return each_cluster(offset, size, header_.cluster_size(),
                      [&](uint64_t at, uint64_t part) { return zero_piece(at, part, discard); });
}

Status Qcow2Image::flush() {
  if (geometry_.read_only) return Status::kOk;
  const LockGuard lock(mutex_);
  const Outcome<> outcome = commit();
  return outcome ? Status::kOk : outcome.error();
}

Result<Extent> Qcow2Image::map(uint64_t offset) {
  const LockGuard lock(mutex_);
  const auto l2 = l2_to_read(offset);
  if (!l2) return fail("map '{}': L2 table for byte {} cannot be read", store_->name(), offset);
  uint64_t index = l2_index(offset), end = offset;
  Extent extent;
  if (!*l2) end += (header_.l2_entries() - index) * header_.cluster_size() - (offset & (header_.cluster_size() - 1));
  for (; *l2 && index < header_.l2_entries(); ++index) {
    const Leaf leaf = leaf_at((*l2)->bytes, index);
    if (end == offset) extent.kind = kind_of(leaf, offset);
    if (kind_of(leaf, end) != extent.kind) break;
    end += run_of(leaf, end);
    if ((end & (header_.cluster_size() - 1)) != 0) break;
  }
  extent.size = std::min(end, geometry_.size) - offset;
  return extent;
}

}  // namespace bulkhead::block::qcow2
