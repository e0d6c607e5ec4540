#include "block/format/luks/luks_image.h"

#include <algorithm>

#include "block/encrypt/cipher_store.h"
#include "block/format/luks/volume_key.h"
#include "block/format/raw/raw_image.h"
#include "block/format/thick.h"
#include "support/random.h"

namespace bulkhead::block::luks {
namespace {

constexpr uint64_t kZeroPiece = uint64_t{1} << 20;

class LuksImage final : public Image {
 public:
  LuksImage(std::unique_ptr<Store> store, Header header, Access access, uint64_t size)
      : store_(std::move(store)), header_(std::move(header)) {
    geometry_ = {.size = size,
                 .sector_size = header_.sector_size,
                 .physical_block_size = 4096,
                 .read_only = access == Access::kReadOnly};
  }
  Result<> unlock_with(DiskKey& key) {
    const Secret found = TRY(unlock(*store_, 0, header_, key));
    data_ = std::make_unique<CipherStore>(*store_,
                                          TRY(SectorCipher::make(header_.cipher, found.bytes(), header_.sector_size)),
                                          header_.payload_offset, header_.first_number);
    return {};
  }

  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  [[nodiscard]] ImageInfo info() const override {
    ImageInfo info;
    info.format = "luks";
    info.virtual_size = geometry_.size;
    info.encryption = fmt::format("luks{}", header_.version);
    info.details = {{"encryption", info.encryption},
                    {"cipher", header_.cipher.name()},
                    {"key_size", std::to_string(header_.cipher.key_bytes * 8)},
                    {"sector_size", std::to_string(header_.sector_size)},
                    {"keyslots", std::to_string(header_.keyslots.size())},
                    {"uuid", header_.uuid}};
    return info;
  }
  [[nodiscard]] std::optional<uint64_t> allocated() override { return store_->allocated(); }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override {
    return data_ ? data_->read(offset, bytes) : Status::kUnsupported;
  }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override {
    return data_ ? data_->write(offset, bytes) : Status::kUnsupported;
  }
  [[nodiscard]] Status write_zeroes(uint64_t offset, uint64_t size, Unmap) override {
    const std::vector<uint8_t> zeroes(std::min(size, kZeroPiece));
    while (size != 0) {
      const uint64_t part = std::min<uint64_t>(size, zeroes.size());
      if (const Status status = write(offset, ByteSpan(zeroes).first(part)); status != Status::kOk) return status;
      offset += part;
      size -= part;
    }
    return Status::kOk;
  }
  // A hole would tell what is not used.
  [[nodiscard]] Status discard(uint64_t, uint64_t) override { return Status::kOk; }
  [[nodiscard]] Status flush() override { return store_->flush(); }
  [[nodiscard]] Result<Extent> map(uint64_t offset) override {
    return Extent{geometry_.size - offset, ExtentKind::kData};
  }
  [[nodiscard]] bool starts_as_zeroes() const override { return false; }
  [[nodiscard]] Result<CheckReport> check(Repair repair) override {
    CheckReport report;
    if (header_.version == 1) return report;
    for (const std::string& one : TRY(check_copies(*store_))) {
      ++report.errors;
      report.say(one);
    }
    if (repair == Repair::kNone || report.errors == 0) return report;
    TRY(repair_copies(*store_));
    report.left = TRY(check_copies(*store_)).size();
    report.repaired = report.errors - std::min(report.errors, report.left);
    return report;
  }
  [[nodiscard]] Result<> grow(uint64_t new_size) override {
    TRY(may_resize());
    const uint64_t old_size = geometry_.size;
    new_size = align_up(new_size, geometry_.sector_size);
    if (store_->truncate(header_.payload_offset + new_size) != Status::kOk) {
      return fail("resize '{}' to {} bytes", store_->name(), new_size);
    }
    if (const Status status = write_zeroes(old_size, new_size - old_size, Unmap::kNo); status != Status::kOk) {
      return fail("resize '{}': write zeroes: {}", store_->name(), to_string(status));
    }
    TRY(store_->flush_all());
    geometry_.size = new_size;
    return {};
  }
  [[nodiscard]] uint64_t growth_step() const override { return uint64_t{64} << 20; }
  [[nodiscard]] Result<> shrink(uint64_t new_size) override {
    TRY(may_resize());
    new_size = align_up(new_size, geometry_.sector_size);
    if (store_->truncate(header_.payload_offset + new_size) != Status::kOk) {
      return fail("resize '{}' to {} bytes", store_->name(), new_size);
    }
    TRY(store_->flush_all());
    geometry_.size = new_size;
    return {};
  }

 private:
  [[nodiscard]] Result<> may_resize() const {
    if (geometry_.read_only || !data_) return fail("resize '{}': opened read-only", store_->name());
    if (header_.payload_size) return fail("resize '{}': its LUKS2 header states a size", store_->name());
    return {};
  }

  const std::unique_ptr<Store> store_;
  const Header header_;
  Geometry geometry_;                  // changes in grow() and shrink() only
  std::unique_ptr<CipherStore> data_;  // null without a secret
};

Result<uint64_t> disk_size(Store& store, const Header& header) {
  const uint64_t end = TRY(store.size());
  for (const Keyslot& slot : header.keyslots) {
    if (slot.offset + slot.bytes() <= header.payload_offset) continue;
    return fail("open '{}': keyslot {} of {} bytes at {} reaches into the disk, which begins at {}", store.name(),
                slot.number, slot.bytes(), slot.offset, header.payload_offset);
  }
  if (header.payload_offset > end) {
    return fail("open '{}': the disk begins at {}, behind the end of the file ({} bytes)", store.name(),
                header.payload_offset, end);
  }
  const uint64_t there = align_down(end - header.payload_offset, header.sector_size);
  if (header.payload_size.value_or(0) > there) {
    return fail("open '{}': a disk of {} bytes at {} in a file of {}", store.name(), *header.payload_size,
                header.payload_offset, end);
  }
  return header.payload_size.value_or(there);
}

}  // namespace

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener) {
  Header header = TRY(read_header(*store, 0, TRY(store->size())));
  const uint64_t size = TRY(disk_size(*store, header));
  DiskKey* const key = TRY(opener.key_for(store->name()));
  auto image = std::make_unique<LuksImage>(std::move(store), std::move(header), access, size);
  if (key != nullptr) TRY(image->unlock_with(*key));
  return image;
}

Result<> create(Store& store, const CreateOptions& options) {
  Settings settings("luks", options.settings);
  if (!options.key) return fail("create '{}': luks needs a secret", store.name());
  if (!options.backing_name.empty()) return fail("a luks image cannot have a backing file");
  const auto version = static_cast<uint32_t>(TRY(settings.number("version", 2, 1, 2)));
  const Preallocation preallocation = TRY(take_preallocation(settings));
  const NewVolume made = TRY(make_volume(store, 0, version, options.key->passphrase(), settings));
  const Header& header = made.header;
  const uint64_t size = align_up(options.size, 512);
  if (size % header.sector_size != 0) return fail("size {}: no multiple of {}", options.size, header.sector_size);
  if (store.truncate(header.payload_offset + size) != Status::kOk) {
    return fail("resize '{}' to {} bytes", store.name(), header.payload_offset + size);
  }
  TRY(make_thick(store, header.payload_offset, size, preallocation, options.progress));
  // The header last: without it, there is nothing.
  TRY(store.flush_all());
  std::vector<uint8_t> salts(128);
  HostRandom().fill(salts);
  TRY(store.write_all(0, version == 1 ? make1(header) : make2(header, salts)));
  return store.flush_all();
}

}  // namespace bulkhead::block::luks
