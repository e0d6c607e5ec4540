// The table of formats, and the way from a name to an open image.
#include <array>
#include <filesystem>

#include <fcntl.h>
#include <unistd.h>

#include "block/encrypt/hidden_store.h"
#include "block/format/image.h"
#include "block/format/luks/header.h"
#include "block/format/luks/luks_image.h"
#include "block/format/new_files.h"
#include "block/format/qcow2/qcow2_image.h"
#include "block/format/raw/raw_image.h"
#include "block/format/vhd/vhd_image.h"
#include "block/format/vhdx/vhdx_image.h"
#include "block/format/vmdk/vmdk_image.h"
#include "block/store/file/plain_file.h"
#include "block/store/nbd/nbd_store.h"
#include "block/store/nbd/uri.h"
#include "support/os/fd.h"

namespace bulkhead::block {
namespace {

constexpr std::array kFormats{
    Format{"raw", raw::open, raw::create, ""},         Format{"qcow2", qcow2::open, qcow2::create, "QFI\xFB", true},
    Format{"vhd", vhd::open, vhd::create, "conectix"}, Format{"vhdx", vhdx::open, vhdx::create, "vhdxfile"},
    Format{"vmdk", vmdk::open, vmdk::create, "KDMV"},  Format{"luks", luks::open, luks::create, luks::kMagic, true},
};

constexpr size_t kMagicSize = 16;

const Format& format_like(const std::array<uint8_t, kMagicSize>& begin) {
  for (const Format& format : kFormats) {
    if (format.magic.empty()) continue;
    if (std::memcmp(begin.data(), format.magic.data(), format.magic.size()) == 0) return format;
  }
  return kFormats[0];
}

Result<std::unique_ptr<Store>> open_place(const std::string& path, Access access, HostCache cache) {
  if (nbd::is_uri(path)) return nbd::NbdStore::open(path, access);
  return TRY(PlainFile::open(path, access, cache));
}

// A secret for what lies open is a mistake: the user takes for safe what is not.
Result<std::unique_ptr<Image>> with_use_of_key(std::unique_ptr<Image> image, const std::string& path,
                                               const Unlock& unlock) {
  if (!unlock.key) return image;
  for (Image* one = image.get(); one != nullptr; one = one->backing()) {
    if (!one->info().encryption.empty()) return image;
  }
  return fail("open '{}': a secret is stated, but the {} image is not encrypted", path, image->info().format);
}

}  // namespace

Result<const Format*> find_format(std::string_view name) {
  std::string names;
  for (const Format& format : kFormats) {
    if (format.name == name) return &format;
    names += names.empty() ? "" : ", ";
    names += format.name;
  }
  return fail("format '{}': unknown; there are {}", name, names);
}

Result<std::unique_ptr<Image>> open_image(const std::string& path, std::string_view format, Access access,
                                          Access backing_access, HostCache cache, Unlock unlock) {
  const Format* const found = TRY(find_format(format));
  // There is no folder in which an image on a server could name other files.
  if (nbd::is_uri(path)) {
    ImageOpener opener = ImageOpener::of_nothing();
    opener.use_key(unlock);
    return with_use_of_key(TRY(found->open(TRY(open_place(path, access, cache)), access, opener)), path, unlock);
  }
  ImageOpener opener(folder_of(path));
  if (backing_access == Access::kReadWrite) opener.let_backing_be_written();
  opener.use_cache(cache);
  opener.use_key(unlock);
  return with_use_of_key(TRY(found->open(TRY(PlainFile::open(path, access, cache)), access, opener)), path, unlock);
}

Result<std::unique_ptr<Image>> open_image_alone(const std::string& path, std::string_view format, Access access) {
  const Format* const found = TRY(find_format(format));
  // Others look into the files that they name.
  if (found->name != "qcow2") return fail("open '{}' alone: not a qcow2 image", path);
  ImageOpener opener(folder_of(path));
  opener.use_key({.may_stay_locked = true});
  opener.open_no_backing();
  return found->open(TRY(PlainFile::open(path, access)), access, opener);
}

Result<std::unique_ptr<Image>> open_probed_image(const std::string& path, Access access, Unlock unlock) {
  auto store = TRY(open_place(path, access, HostCache::kUsed));
  std::array<uint8_t, kMagicSize> begin{};
  TRY(store->read_all(0, begin));
  const Format* format = &format_like(begin);
  // A fixed VHD begins with its guest's bytes; what names it is the user's name for the file.
  const bool fixed_vhd = format->magic.empty() && path.ends_with(".vhd") && TRY(vhd::ends_with_footer(*store));
  if (fixed_vhd) format = TRY(find_format("vhd"));
  ImageOpener opener = ImageOpener::of_nothing();
  opener.use_key(unlock);
  return with_use_of_key(TRY(format->open(std::move(store), access, opener)), path, unlock);
}

// Without a lock: it may be in use, which whoever opens it for real finds out.
Result<std::string_view> probe_format(const std::string& path) {
  std::array<uint8_t, kMagicSize> begin{};
  if (nbd::is_uri(path)) {
    TRY(TRY(open_place(path, Access::kReadOnly, HostCache::kUsed))->read_all(0, begin));
    return format_like(begin).name;
  }
  const Fd file = TRY(open_file(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  // What cannot be read begins like nothing.
  if (::pread(file.get(), begin.data(), begin.size(), 0) < 0) begin.fill(0);
  return format_like(begin).name;
}

Result<DiskKey*> ImageOpener::key_for(const std::string& image) const {
  if (unlock_.key || unlock_.may_stay_locked) return unlock_.key.get();
  return fail("open '{}': it is encrypted; state its secret", image);
}

// An absolute name is taken when it lies in the folder, as other tools write it.
Result<std::string> ImageOpener::relative(const std::string& name) const {
  if (!name.starts_with('/')) return name;
  std::error_code error;
  const auto folder = std::filesystem::weakly_canonical(folder_, error);
  std::string found = std::filesystem::path(name).lexically_normal().lexically_relative(folder);
  if (error || found.empty()) return fail("open '{}': it does not lie in the folder '{}'", name, folder_);
  return found;
}

Result<std::unique_ptr<Store>> ImageOpener::open_store(const std::string& name, Access access) const {
  if (closed_) return fail("file '{}': state the image's format to have it followed", name);
  if (!opens_backing_) return locked(name);
  if (source_) return source_(name, access);
  return TRY(PlainFile::open_below(folder_, TRY(relative(name)), access, cache_));
}

Result<std::unique_ptr<Image>> ImageOpener::open_backing(const std::string& name, const std::string& format) const {
  if (!opens_backing_) return nullptr;
  if (closed_) return fail("backing file '{}': state the image's format to have it followed", name);
  if (depth_ >= kChainDepthLimit) return fail("backing file '{}': the chain is longer than {}", name, kChainDepthLimit);
  if (format.empty()) return fail("backing file '{}': the image does not state its format", name);
  const Format* const found = TRY_IN(fmt::format("backing file '{}'", name), find_format(format));
  // Further names are relative to the folder of the file that holds them, and stay below that.
  const std::string parent = std::filesystem::path(TRY(relative(name))).parent_path();
  const std::string folder = parent.empty() ? folder_ : folder_ + "/" + parent;
  ImageOpener opener(folder, depth_ + 1);
  opener.use_cache(cache_);
  opener.use_key(unlock_);
  opener.take_files_from(source_);
  return found->open(TRY(open_store(name, backing_access_)), backing_access_, opener);
}

}  // namespace bulkhead::block
