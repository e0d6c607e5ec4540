// New VHDX images: identifier, headers and region tables in the first MiB, then log, metadata, table, and the blocks of
// a fixed one.
#include "block/format/thick.h"
#include "block/format/vhdx/vhdx_image.h"

namespace bulkhead::block::vhdx {
namespace {

constexpr uint64_t kLogBytes = kMiB, kMetadataBytes = kMiB;
constexpr uint64_t kDifferencingBlock = 2 * kMiB, kDynamicBlock = 32 * kMiB;

// All blocks one behind the other; the table is written in parts, whatever its size.
Result<> write_full_table(Store& store, const Metadata& metadata, const Regions& regions, uint64_t start) {
  std::vector<uint8_t> part;
  uint64_t part_at = regions.table.offset;
  for (uint64_t block = 0; block < metadata.block_count(); ++block) {
    const uint64_t entry = (start + block * metadata.block_bytes) | 6;
    part.insert(part.end(), as_bytes(entry).begin(), as_bytes(entry).end());
    if ((block + 1) % metadata.chunk_ratio() == 0) part.resize(part.size() + 8);
    if (part.size() < kMiB && block + 1 != metadata.block_count()) continue;
    TRY(store.write_all(part_at, part));
    part_at += part.size();
    part.clear();
  }
  return {};
}

Result<Metadata> metadata_of(const CreateOptions& options, Preallocation& preallocation) {
  Settings settings("vhdx", options.settings);
  const bool has_parent = !options.backing_name.empty();
  Metadata metadata{.has_parent = has_parent, .disk_id = random_guid(GuidOrder::kMicrosoft)};
  const std::string subformat = TRY(settings.word("subformat", "dynamic", {"dynamic", "fixed"}));
  metadata.leaves_blocks_allocated = subformat == "fixed";
  metadata.block_bytes = static_cast<uint32_t>(
      TRY(settings.power_of_two("block_size", has_parent ? kDifferencingBlock : kDynamicBlock, kMiB, kMostBlockBytes)));
  const std::string sector = TRY(settings.word("logical_sector_size", "512", {"512", "4096"}));
  metadata.logical_sector = sector == "512" ? 512 : 4096;
  preallocation = TRY(take_preallocation(settings));
  TRY(settings.finish());
  if (subformat != "fixed") TRY(refuse_preallocation(preallocation, "of a fixed VHDX image (subformat=fixed)"));
  metadata.disk_bytes = align_up(options.size, metadata.logical_sector);
  if (metadata.disk_bytes > kLargestDisk) {
    return fail("size {}: the largest VHDX disk is {}", options.size, kLargestDisk);
  }
  if (!has_parent) return metadata;
  if (metadata.leaves_blocks_allocated) return fail("a fixed VHDX image cannot have a backing file");
  if (options.backing_format != "vhdx") {
    return fail("a VHDX image's backing file must be a VHDX image, not {}", options.backing_format);
  }
  metadata.parent_linkage = options.backing_identity;
  metadata.parent_name = options.backing_name;
  return metadata;
}

}  // namespace

Result<> create(Store& store, const CreateOptions& options) {
  Preallocation preallocation = Preallocation::kOff;
  const Metadata metadata = TRY(metadata_of(options, preallocation));
  const uint64_t table_bytes = std::max(kMiB, align_up(metadata.entry_count() * 8, kMiB));
  const Regions regions{.table = {kMiB + kLogBytes + kMetadataBytes, table_bytes},
                        .metadata = {kMiB + kLogBytes, kMetadataBytes}};
  if (table_bytes > UINT32_MAX)
    return fail("size {}: too large for blocks of {} bytes", options.size, metadata.block_bytes);
  const uint64_t start = regions.table.offset + table_bytes;
  const uint64_t blocks = metadata.leaves_blocks_allocated ? metadata.block_count() * metadata.block_bytes : 0;
  if (store.truncate(start + blocks) != Status::kOk)
    return fail("resize '{}' to {} bytes", store.name(), start + blocks);
  TRY(make_thick(store, start, blocks, preallocation, options.progress));
  if (metadata.leaves_blocks_allocated) TRY(write_full_table(store, metadata, regions, start));
  TRY(store.write_all(regions.metadata.offset, TRY(make_metadata(metadata))));
  for (const uint64_t at : kRegionTableAt) TRY(store.write_all(at, make_region_table(regions)));
  Header header{.file_write_id = random_guid(GuidOrder::kMicrosoft),
                .data_write_id = random_guid(GuidOrder::kMicrosoft),
                .log_bytes = kLogBytes,
                .log_offset = kMiB};
  for (const uint64_t at : kHeaderAt) {
    ++header.sequence;
    TRY(store.write_all(at, make_header(header)));
  }
  TRY(store.flush_all());
  TRY(store.write_all(0, make_file_identifier()));
  return store.flush_all();
}

}  // namespace bulkhead::block::vhdx
