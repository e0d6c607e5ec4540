// New VMDK images of every sub-format.
#include <algorithm>

#include "block/format/thick.h"
#include "block/format/vmdk/stream_writer.h"
#include "block/format/vmdk/vmdk_image.h"
#include "support/random.h"

namespace bulkhead::block::vmdk {
namespace {

constexpr uint64_t kDescriptorSectors = 20;
constexpr uint64_t kLeastSplitBytes = 65536;

uint32_t new_id() {
  HostRandom random;
  return static_cast<uint32_t>(random.next_u64()) & ~1u;
}

}  // namespace

// Header, room for the descriptor, then twice a directory with its tables: grains begin behind them.
Result<> write_sparse(Store& store, uint64_t sectors, std::string_view descriptor) {
  SparseHeader header{.flags = 1 | kHasRedundantTables, .capacity = sectors};
  uint64_t at = 1;
  if (!descriptor.empty()) {
    header.descriptor_at = at;
    header.descriptor_size = kDescriptorSectors;
    at += kDescriptorSectors;
  }
  const uint64_t table_sectors = header.table_bytes() / kSector;
  for (uint64_t* const directory : {&header.redundant_directory, &header.directory}) {
    *directory = at;
    std::vector<uint8_t> bytes(header.directory_bytes());
    at += bytes.size() / kSector;
    for (uint64_t table = 0; table < header.table_count(); ++table, at += table_sectors) {
      bulkhead::store(&bytes[table * 4], static_cast<uint32_t>(at));
    }
    TRY(store.write_all(*directory * kSector, bytes));
  }
  header.overhead = align_up(at, header.grain);
  // The tables are empty: what a new file holds.
  if (store.truncate(header.overhead * kSector) != Status::kOk) return fail("resize '{}'", store.name());
  if (!descriptor.empty()) {
    TRY(store.write_all(kSector, {reinterpret_cast<const uint8_t*>(descriptor.data()), descriptor.size()}));
  }
  TRY(store.flush_all());
  TRY(store.write_all(0, make_sparse_header(header)));
  return store.flush_all();
}

namespace {

Result<> write_stream(Store& store, uint64_t sectors, std::string_view descriptor) {
  SparseHeader header{.version = 3, .flags = 1 | kCompressed | kHasMarkers, .capacity = sectors};
  header.descriptor_at = 1;
  header.descriptor_size = kDescriptorSectors;
  header.directory = kDirectoryAtEnd;
  header.overhead = header.grain;
  TRY(store.write_all(kSector, {reinterpret_cast<const uint8_t*>(descriptor.data()), descriptor.size()}));
  TRY(store.write_all(0, make_sparse_header(header)));
  return write_stream_end(store, header, header.overhead, std::vector<uint8_t>(header.directory_bytes()));
}

Result<> add_parent(Descriptor& descriptor, const CreateOptions& options) {
  if (options.backing_format != "vmdk") {
    return fail("a VMDK image's backing file must be a VMDK image, not {}", options.backing_format);
  }
  descriptor.parent_id = TRY(parse_parent_id(options.backing_identity, options.backing_name));
  if (options.backing_name.find_first_of("\"\n") != std::string::npos) return fail("backing file name with a quote");
  descriptor.parent_name = options.backing_name;
  return {};
}

Result<> create_extents(Descriptor& descriptor, const CreateOptions& options, uint64_t sectors, uint64_t most,
                        Preallocation preallocation) {
  const bool flat = descriptor.type.ends_with("Flat"), split = descriptor.type.starts_with("two");
  if (!options.create_beside) return fail("{} needs files of its own beside the first", descriptor.type);
  const std::string& name = options.file_name;
  const std::string stem = name.ends_with(".vmdk") ? name.substr(0, name.size() - 5) : name;
  uint64_t number = 1;
  for (uint64_t done = 0; done < sectors || number == 1; ++number) {
    ExtentLine line{.sectors = split ? std::min(most, sectors - done) : sectors,
                    .type = flat ? ExtentType::kFlat : ExtentType::kSparse};
    line.file = split ? fmt::format("{}-{}{:03}.vmdk", stem, flat ? 'f' : 's', number) : stem + "-flat.vmdk";
    const auto store = TRY(options.create_beside(line.file));
    if (flat) {
      if (store->truncate(line.sectors * kSector) != Status::kOk) {
        return fail("resize '{}' to {} bytes", store->name(), line.sectors * kSector);
      }
      // Progress is that of all extents together.
      const auto tell = [&](uint64_t part, uint64_t) {
        if (options.progress) options.progress(done * kSector + part, sectors * kSector);
      };
      TRY(make_thick(*store, 0, line.sectors * kSector, preallocation, tell));
      TRY(store->flush_all());
    } else {
      TRY(write_sparse(*store, line.sectors, ""));
    }
    done += line.sectors;
    descriptor.extents.push_back(std::move(line));
  }
  return {};
}

}  // namespace

Result<> create(Store& store, const CreateOptions& options) {
  Settings settings("vmdk", options.settings);
  Descriptor descriptor{.id = new_id()};
  descriptor.type = TRY(settings.word(
      "subformat", "monolithicSparse",
      {"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"}));
  descriptor.adapter = TRY(settings.word("adapter", "lsilogic", {"lsilogic", "ide", "buslogic"}));
  const uint64_t split = TRY(settings.number("extent_size", kSplitBytes, kLeastSplitBytes, kSplitBytes));
  const Preallocation preallocation = TRY(take_preallocation(settings));
  TRY(settings.finish());
  if (!descriptor.type.ends_with("Flat")) {
    TRY(refuse_preallocation(preallocation, "of a flat VMDK image (subformat=monolithicFlat or twoGbMaxExtentFlat)"));
  }
  const uint64_t sectors = align_up(options.size, kSector) / kSector;
  if (sectors > kLargestDiskSectors) {
    return fail("size {}: the largest VMDK disk is {}", options.size, kLargestDiskSectors * kSector);
  }
  const bool sparse = descriptor.type.ends_with("Sparse");
  if (!options.backing_name.empty()) {
    if (!sparse) return fail("a {} image cannot have a backing file", descriptor.type);
    TRY(add_parent(descriptor, options));
  }
  const bool single = descriptor.type == "monolithicSparse" || descriptor.type == "streamOptimized";
  if (single) {
    const std::string file = options.file_name.empty() ? "disk.vmdk" : options.file_name;
    descriptor.extents.push_back({.sectors = sectors, .type = ExtentType::kSparse, .file = file});
  } else {
    TRY(create_extents(descriptor, options, sectors, align_down(split, kOurGrainSectors * kSector) / kSector,
                       preallocation));
  }
  const std::string text = make_descriptor(descriptor);
  if (options.file_name.find_first_of("\"\n") != std::string::npos) return fail("file name with a quote");
  if (single && text.size() > kDescriptorSectors * kSector) return fail("the descriptor has {} bytes", text.size());
  if (descriptor.type == "monolithicSparse") return write_sparse(store, sectors, text);
  if (descriptor.type == "streamOptimized") return write_stream(store, sectors, text);
  TRY(store.write_all(0, {reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return store.flush_all();
}

}  // namespace bulkhead::block::vmdk
