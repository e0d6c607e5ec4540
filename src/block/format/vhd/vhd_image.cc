#include "block/format/vhd/vhd_image.h"

#include "block/format/raw/raw_image.h"
#include "block/format/thick.h"
#include "block/format/vhd/dynamic_image.h"

namespace bulkhead::block::vhd {
namespace {

// The disk's bytes lie in the file as they are; the footer behind them moves when they grow.
class FixedImage final : public Image {
 public:
  FixedImage(std::unique_ptr<Store> store, Footer footer, Access access)
      : store_(std::move(store)), footer_(std::move(footer)), window_(*store_, 0, footer_.disk_size(), access) {}

  [[nodiscard]] const Geometry& geometry() const override { return window_.geometry(); }
  [[nodiscard]] ImageInfo info() const override {
    ImageInfo info;
    info.format = "vhd";
    info.virtual_size = window_.geometry().size;
    info.identity = to_text(footer_.id, GuidOrder::kAsWritten);
    info.details = {{"subformat", "fixed"}, {"creator", footer_.creator}, {"id", info.identity}};
    return info;
  }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override { return window_.read(offset, bytes); }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override { return window_.write(offset, bytes); }
  [[nodiscard]] Status write_zeroes(uint64_t offset, uint64_t size, Unmap unmap) override {
    return window_.write_zeroes(offset, size, unmap);
  }
  [[nodiscard]] Status discard(uint64_t offset, uint64_t size) override { return window_.discard(offset, size); }
  [[nodiscard]] Status flush() override { return window_.flush(); }
  [[nodiscard]] std::optional<uint64_t> allocated() override { return store_->allocated(); }
  [[nodiscard]] Result<Extent> map(uint64_t offset) override { return window_.map(offset); }
  // Its footer was checked when it was opened, and there is nothing else.
  [[nodiscard]] Result<CheckReport> check(Repair) override { return CheckReport{}; }
  [[nodiscard]] Result<> grow(uint64_t new_size) override {
    if (new_size > kLargestDisk) {
      return fail("resize '{}' to {} bytes: the limit is {}", store_->name(), new_size, kLargestDisk);
    }
    const uint64_t old_size = footer_.disk_size();
    footer_.current_size = align_up(new_size, kSector);
    footer_.creator = "win ";
    set_geometry(footer_);
    // The old footer is taken away only when the new one is safe.
    TRY(store_->write_all(footer_.current_size, make_footer(footer_)));
    TRY(store_->flush_all());
    if (footer_.current_size > old_size) TRY(store_->write_all(old_size, std::vector<uint8_t>(kSector)));
    TRY(store_->flush_all());
    window_.set_size(footer_.current_size);
    return {};
  }

 private:
  const std::unique_ptr<Store> store_;
  Footer footer_;
  raw::Window window_;
};

Result<> create_fixed(Store& store, Footer footer, Preallocation preallocation, const Progress& progress) {
  footer.type = DiskType::kFixed;
  if (store.truncate(footer.current_size) != Status::kOk) {
    return fail("resize '{}' to {} bytes", store.name(), footer.current_size);
  }
  TRY(make_thick(store, 0, footer.current_size, preallocation, progress));
  TRY(store.write_all(footer.current_size, make_footer(footer)));
  return store.flush_all();
}

}  // namespace

Result<> create(Store& store, const CreateOptions& options) {
  Settings settings("vhd", options.settings);
  const std::string subformat = TRY(settings.word("subformat", "dynamic", {"dynamic", "fixed"}));
  const uint64_t block =
      TRY(settings.power_of_two("block_size", kDefaultBlockBytes, kLeastBlockBytes, kMostBlockBytes));
  const Preallocation preallocation = TRY(take_preallocation(settings));
  TRY(settings.finish());
  if (subformat != "fixed") TRY(refuse_preallocation(preallocation, "of a fixed VHD image (subformat=fixed)"));
  if (options.size > kLargestDisk) return fail("size {}: the largest VHD disk is {}", options.size, kLargestDisk);
  Footer footer{.timestamp = seconds_since_2000(), .id = random_guid(GuidOrder::kAsWritten)};
  footer.original_size = footer.current_size = align_up(options.size, kSector);
  set_geometry(footer);
  if (subformat == "fixed") {
    if (!options.backing_name.empty()) return fail("a fixed VHD image cannot have a backing file");
    return create_fixed(store, std::move(footer), preallocation, options.progress);
  }
  footer.type = options.backing_name.empty() ? DiskType::kDynamic : DiskType::kDifferencing;
  footer.header_offset = kSector;
  Header header{.table_offset = kSector + kHeaderBytes,
                .entries = static_cast<uint32_t>((footer.current_size + block - 1) / block),
                .block_bytes = static_cast<uint32_t>(block)};
  if (footer.type == DiskType::kDifferencing) {
    if (options.backing_format != "vhd") {
      return fail("a VHD image's backing file must be a VHD image, not {}", options.backing_format);
    }
    const std::vector<uint8_t> name = TRY(name_parent(header, options.backing_name, options.backing_identity));
    header.locators[0].offset = kSector + kHeaderBytes;
    header.table_offset += kSector;
    TRY(store.write_all(header.locators[0].offset, name));
  }
  const std::vector<uint8_t> table(header.table_bytes(), 0xFF);
  TRY(store.write_all(header.table_offset, table));
  TRY(store.write_all(kSector, make_header(header)));
  TRY(store.write_all(header.table_offset + table.size(), make_footer(footer)));
  TRY(store.flush_all());
  TRY(store.write_all(0, make_footer(footer)));
  return store.flush_all();
}

bool is_footer_of_fixed(ByteSpan bytes, uint64_t offset) {
  const auto footer = parse_footer(bytes, "", offset);
  return footer && *footer && (*footer)->type == DiskType::kFixed && (*footer)->disk_size() <= offset;
}

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener) {
  const uint64_t file_size = TRY(store->size());
  std::vector<uint8_t> bytes(kSector);
  if (file_size < kSector) return fail("open '{}': no VHD image", store->name());
  const uint64_t end = align_down(file_size, kSector) - kSector;
  TRY(store->read_all(0, bytes));
  const std::optional<Footer> first = TRY(parse_footer(bytes, store->name(), 0));
  TRY(store->read_all(end, bytes));
  const std::optional<Footer> last = TRY(parse_footer(bytes, store->name(), end));
  // The first sector of a fixed disk is its guest's, and after a crash so may be the last one of a file that was about
  // to grow. No guest knows the other footer's id, and none may say which files its disk is made of.
  if (first && last && first->id != last->id) {
    return fail("open '{}': its first and its last 512 bytes are footers of two images, {} and {}", store->name(),
                to_text(first->id, GuidOrder::kAsWritten), to_text(last->id, GuidOrder::kAsWritten));
  }
  const std::optional<Footer>& footer = first ? first : last;
  if (footer && footer->type != DiskType::kFixed) {
    return DynamicImage::open(std::move(store), *footer, access, opener);
  }
  if (last && last->type == DiskType::kFixed && last->disk_size() <= end) {
    return std::make_unique<FixedImage>(std::move(store), *last, access);
  }
  return fail("open '{}': no VHD image: neither its first nor its last 512 bytes are a footer", store->name());
}

}  // namespace bulkhead::block::vhd
