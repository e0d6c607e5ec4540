#include "block/format/vmdk/vmdk_image.h"

#include <algorithm>

#include "block/format/utf16.h"
#include "block/format/vmdk/stream_writer.h"
#include "support/random.h"

namespace bulkhead::block::vmdk {

VmdkImage::VmdkImage(Descriptor descriptor, std::unique_ptr<Store> store, uint64_t text_at, Access access,
                     const ImageOpener& opener)
    : descriptor_(std::move(descriptor)),
      descriptor_store_(std::move(store)),
      text_at_(text_at),
      opener_(opener),
      geometry_{.physical_block_size = 4096, .read_only = access == Access::kReadOnly},
      keeps_id_(access == Access::kCommit) {}

const std::string& VmdkImage::name() const {
  return descriptor_store_ ? descriptor_store_->name() : parts_.front().sparse->file().name();
}

Result<std::unique_ptr<Image>> VmdkImage::open(std::unique_ptr<Store> descriptor_store, uint64_t text_at,
                                               Descriptor descriptor, std::unique_ptr<SparseExtent> only, Access access,
                                               const ImageOpener& opener) {
  if (only && (descriptor.extents.size() != 1 || descriptor.extents[0].type != ExtentType::kSparse)) {
    return fail("open '{}': its descriptor names {} extents, but it is the only one", only->file().name(),
                descriptor.extents.size());
  }
  std::unique_ptr<VmdkImage> image(
      new VmdkImage(std::move(descriptor), std::move(descriptor_store), text_at, access, opener));
  TRY(image->open_parts(std::move(only), access, opener));
  if (image->descriptor_.parent_id != kNoParent) TRY(image->open_parent(opener));
  return image;
}

Result<> VmdkImage::open_parts(std::unique_ptr<SparseExtent> only, Access access, const ImageOpener& opener) {
  uint64_t start = 0;
  for (const ExtentLine& line : descriptor_.extents) {
    Part part{.start = start, .size = line.sectors * kSector, .read_only = line.access == ExtentAccess::kReadOnly};
    if (line.access == ExtentAccess::kNone) return fail("open '{}': the extent '{}' is NOACCESS", name(), line.file);
    const Access wanted = part.read_only ? Access::kReadOnly : access;
    if (only) {
      part.sparse = std::move(only);
      // The header is changed first when an image grows.
      part.size = part.sparse->geometry().size;
    } else if (line.type == ExtentType::kSparse) {
      part.sparse = TRY(SparseExtent::open(TRY(opener.open_store(line.file, wanted)), wanted));
      if (part.sparse->geometry().size < part.size) {
        return fail("open '{}': the extent '{}' has {} bytes, its descriptor says {}", name(), line.file,
                    part.sparse->geometry().size, part.size);
      }
      if (part.sparse->header().of_server && (wanted == Access::kReadWrite || wanted == Access::kCommit)) {
        return fail("open '{}': the extent '{}' is an ESXi snapshot's (COWD), which can only be read; convert it",
                    name(), line.file);
      }
    } else if (line.type == ExtentType::kFlat) {
      part.store = TRY(opener.open_store(line.file, wanted));
      const uint64_t there = TRY(part.store->size());
      if (!range_fits(line.offset * kSector, part.size, there)) {
        return fail("open '{}': the extent '{}' has {} bytes, its descriptor says {} at {}", name(), line.file, there,
                    part.size, line.offset * kSector);
      }
      part.flat = std::make_unique<raw::Window>(*part.store, line.offset * kSector, part.size, wanted);
    }
    if (part.sparse && part.sparse->geometry().read_only) part.read_only = true;
    start += part.size;
    parts_.push_back(std::move(part));
  }
  geometry_.size = start;
  share_table_memory();
  if (std::ranges::all_of(parts_, &Part::read_only)) geometry_.read_only = true;
  return {};
}

void VmdkImage::share_table_memory() {
  if (parts_.size() == 1) return;
  for (Part& part : parts_) {
    if (part.sparse) part.sparse->keep_tables_within(kMetadataLimit / parts_.size());
  }
}

Result<> VmdkImage::open_parent(const ImageOpener& opener) {
  parent_name_ = descriptor_.parent_name;
  if (parent_name_.find('\\') != std::string::npos) parent_name_ = from_windows_name(parent_name_);
  if (parent_name_.empty()) return fail("open '{}': its parent has no name", name());
  parent_ = TRY(opener.open_backing(parent_name_, "vmdk"));
  if (!parent_) return {};
  const std::string expected = fmt::format("{:08x}", descriptor_.parent_id);
  if (const std::string found = parent_->info().identity; found != expected) {
    return fail("open '{}': the parent '{}' has CID {}, made for was {}: it was changed since, or is another", name(),
                parent_name_, found, expected);
  }
  for (const Part& part : parts_) {
    if (part.sparse) part.sparse->show_through(parent_.get(), part.start);
  }
  return {};
}

ImageInfo VmdkImage::info() const {
  ImageInfo info;
  info.format = "vmdk";
  info.virtual_size = geometry_.size;
  info.identity = fmt::format("{:08x}", descriptor_.id);
  info.backing_name = parent_name_;
  if (!parent_name_.empty()) info.backing_format = "vmdk";
  info.details = {{"subformat", descriptor_.type},
                  {"extents", std::to_string(parts_.size())},
                  {"adapter", descriptor_.adapter},
                  {"cid", "0x" + info.identity}};
  if (parts_.front().sparse) {
    info.details.emplace_back("grain_size", std::to_string(parts_.front().sparse->header().grain * kSector));
  }
  return info;
}

std::optional<uint64_t> VmdkImage::allocated() {
  std::optional<uint64_t> all = descriptor_store_ ? descriptor_store_->allocated() : 0;
  for (const Part& part : parts_) {
    if (!part.sparse && !part.store) continue;
    const std::optional<uint64_t> one = part.sparse ? part.sparse->allocated() : part.store->allocated();
    if (!all || !one) return std::nullopt;
    *all += *one;
  }
  return all;
}

template <typename Call>
Status VmdkImage::each_part(uint64_t offset, uint64_t size, Call call) {
  uint64_t done = 0;
  auto part = std::ranges::upper_bound(parts_, offset, {}, &Part::start) - 1;
  for (; done < size; ++part) {
    const uint64_t within = offset + done - part->start;
    const uint64_t here = std::min(size - done, part->size - std::min(part->size, within));
    if (here == 0) continue;
    if (const Status status = call(*part, within, done, here); status != Status::kOk) return status;
    done += here;
  }
  return Status::kOk;
}

Status VmdkImage::read(uint64_t offset, MutableByteSpan bytes) {
  return each_part(offset, bytes.size(), [&](Part& part, uint64_t at, uint64_t from, uint64_t size) {
    const MutableByteSpan piece = bytes.subspan(from, size);
    if (part.sparse) return part.sparse->read(at, piece);
    if (part.flat) return part.flat->read(at, piece);
    std::ranges::fill(piece, uint8_t{0});
    return Status::kOk;
  });
}

Status VmdkImage::begin_writing() {
  if (keeps_id_ || begun_.load()) return Status::kOk;
  const LockGuard lock(mutex_);
  if (begun_.load()) return Status::kOk;
  HostRandom random;
  // As many digits as there are; all ones would mean that there is none.
  const uint32_t mask = descriptor_.id_digits >= 8 ? UINT32_MAX : (1u << (4 * descriptor_.id_digits)) - 1;
  descriptor_.id = static_cast<uint32_t>(random.next_u64()) & mask & ~1u;
  const std::string digits = fmt::format("{:0{}x}", descriptor_.id, descriptor_.id_digits);
  Store& store = descriptor_store_ ? *descriptor_store_ : parts_.front().sparse->file();
  const ByteSpan bytes(reinterpret_cast<const uint8_t*>(digits.data()), digits.size());
  if (const Status status = store.write(text_at_ + descriptor_.id_at, bytes); status != Status::kOk) return status;
  // It need not be safe before the data is: the parent's data that a child shows has not changed until then.
  begun_.store(true);
  return Status::kOk;
}

Status VmdkImage::write(uint64_t offset, ByteSpan bytes) {
  if (const Status status = begin_writing(); status != Status::kOk) return status;
  return each_part(offset, bytes.size(), [&](Part& part, uint64_t at, uint64_t from, uint64_t size) {
    const ByteSpan piece = bytes.subspan(from, size);
    if (part.read_only || (!part.sparse && !part.flat)) return Status::kReadOnly;
    return part.sparse ? part.sparse->write(at, piece) : part.flat->write(at, piece);
  });
}

Status VmdkImage::write_zeroes(uint64_t offset, uint64_t size, Unmap unmap) {
  if (const Status status = begin_writing(); status != Status::kOk) return status;
  return each_part(offset, size, [&](Part& part, uint64_t at, uint64_t, uint64_t piece) {
    if (!part.sparse && !part.flat) return Status::kOk;
    if (part.read_only) return Status::kReadOnly;
    return part.sparse ? part.sparse->write_zeroes(at, piece, unmap) : part.flat->write_zeroes(at, piece, unmap);
  });
}

Status VmdkImage::discard(uint64_t offset, uint64_t size) {
  if (const Status status = begin_writing(); status != Status::kOk) return status;
  return each_part(offset, size, [&](Part& part, uint64_t at, uint64_t, uint64_t piece) {
    if (part.read_only || (!part.sparse && !part.flat)) return Status::kOk;
    return part.sparse ? part.sparse->discard(at, piece) : part.flat->discard(at, piece);
  });
}

Status VmdkImage::flush() {
  if (geometry_.read_only) return Status::kOk;
  if (descriptor_store_ && begun_.load()) {
    if (const Status status = descriptor_store_->flush(); status != Status::kOk) return status;
  }
  for (Part& part : parts_) {
    if (part.read_only) continue;
    Status status = Status::kOk;
    if (part.sparse) status = part.sparse->flush();
    if (part.flat) status = part.flat->flush();
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

Result<Extent> VmdkImage::map(uint64_t offset) {
  const auto part = std::ranges::upper_bound(parts_, offset, {}, &Part::start) - 1;
  const uint64_t within = offset - part->start;
  Extent extent{part->size - within, ExtentKind::kZero};
  if (part->sparse) extent = TRY(part->sparse->map(within));
  if (part->flat) extent = TRY(part->flat->map(within));
  extent.size = std::min(extent.size, part->size - within);
  return extent;
}

Result<CheckReport> VmdkImage::check(Repair repair) {
  CheckReport report;
  for (Part& part : parts_) {
    if (!part.sparse) continue;
    part.sparse->watch([&](uint64_t done, uint64_t) { tell(part.start + done, geometry_.size); });
    const CheckReport one = TRY(part.sparse->check(repair));
    report.errors += one.errors;
    report.leaks += one.leaks;
    report.repaired += one.repaired;
    report.left += one.left;
    for (const std::string& message : one.messages) {
      report.say(parts_.size() == 1 ? message : fmt::format("{}: {}", part.sparse->file().name(), message));
    }
  }
  return report;
}

namespace {

std::string text_of(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string last_part(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

// The image of which the store is one extent, by the name that such files have. is_extent: it begins like one.
Result<std::unique_ptr<Image>> open_by_extent(std::unique_ptr<Store> store, Access access, const ImageOpener& opener,
                                              bool is_extent) {
  const std::string file = last_part(store->name()), descriptor_file = descriptor_of_extent(file);
  if (descriptor_file.empty())
    return fail("open '{}': {}", store->name(),
                is_extent ? "an extent of a VMDK image; name the image's descriptor"
                          : "no VMDK image: it begins neither with a descriptor nor as a sparse extent");
  // The image locks the file again.
  store.reset();
  auto descriptor_store = TRY(opener.open_store(descriptor_file, access));
  std::vector<uint8_t> bytes(std::min(TRY(descriptor_store->size()), kMostDescriptorBytes));
  TRY(descriptor_store->read_all(0, bytes));
  Descriptor descriptor = TRY(parse_descriptor(text_of(bytes), descriptor_store->name()));
  if (std::ranges::find(descriptor.extents, file, &ExtentLine::file) == descriptor.extents.end()) {
    return fail("open '{}': the descriptor '{}' does not name it", file, descriptor_store->name());
  }
  return VmdkImage::open(std::move(descriptor_store), 0, std::move(descriptor), nullptr, access, opener);
}

}  // namespace

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener) {
  // What a flat extent begins with is its guest's and says nothing.
  if (is_flat_extent(last_part(store->name()))) return open_by_extent(std::move(store), access, opener, true);
  const uint64_t file_size = TRY(store->size());
  std::vector<uint8_t> bytes(std::min<uint64_t>(file_size, kSector));
  TRY(store->read_all(0, bytes));
  if (is_descriptor(text_of(bytes))) {
    bytes.resize(std::min(file_size, kMostDescriptorBytes));
    TRY(store->read_all(0, bytes));
    Descriptor descriptor = TRY(parse_descriptor(text_of(bytes), store->name()));
    return VmdkImage::open(std::move(store), 0, std::move(descriptor), nullptr, access, opener);
  }
  if (!is_sparse_header(bytes)) return open_by_extent(std::move(store), access, opener, false);
  const SparseHeader header = TRY(parse_sparse_header(bytes, store->name(), 0, file_size));
  if (header.descriptor_at == 0) return open_by_extent(std::move(store), access, opener, true);
  bytes.resize(header.descriptor_size * kSector);
  TRY(store->read_all(header.descriptor_at * kSector, bytes));
  Descriptor descriptor = TRY(parse_descriptor(text_of(bytes), store->name()));
  if (access == Access::kFill && (header.flags & kCompressed) != 0) {
    return StreamWriter::open(std::move(store), descriptor);
  }
  auto only = TRY(SparseExtent::open(std::move(store), access));
  if ((access == Access::kReadWrite || access == Access::kCommit) && only->compressed()) {
    return fail("open '{}': a streamOptimized image can only be read; convert it", only->file().name());
  }
  return VmdkImage::open(nullptr, header.descriptor_at * kSector, std::move(descriptor), std::move(only), access,
                         opener);
}

}  // namespace bulkhead::block::vmdk
