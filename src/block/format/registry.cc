// The table of formats, and the way from a name to an open image.
#include <array>
#include <filesystem>

#include <fcntl.h>
#include <unistd.h>

#include "block/encrypt/hidden_store.h"
#include "block/format/image.h"
#include "block/format/luks/header.h"
#include "block/format/luks/luks_image.h"
#include "block/format/named_file.h"
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
    Format{"raw", raw::open, raw::create},    Format{"qcow2", qcow2::open, qcow2::create, true},
    Format{"vhd", vhd::open, vhd::create},    Format{"vhdx", vhdx::open, vhdx::create},
    Format{"vmdk", vmdk::open, vmdk::create}, Format{"luks", luks::open, luks::create, true},
};

struct Beginning {
  std::string_view bytes, format;
};
// A VMDK file is a text, a sparse extent, or an extent of ESX: COWD, or seSparse with its 64-bit little-endian magic.
constexpr std::array kBeginnings{
    Beginning{"QFI\xFB", "qcow2"},
    Beginning{"conectix", "vhd"},
    Beginning{"vhdxfile", "vhdx"},
    Beginning{luks::kMagic, "luks"},
    Beginning{"# Disk DescriptorFile", "vmdk"},
    Beginning{"KDMV", "vmdk"},
    Beginning{"COWD", "vmdk"},
    Beginning{std::string_view("\xBE\xBA\xFE\xCA\0\0\0\0", 8), "vmdk"},
};

constexpr size_t kProbedBytes = 512;

// By the first bytes of a file and, as a fixed VHD begins with its guest's, by its last ones. read(offset, bytes) fills
// what is not there with zeroes.
template <typename Read>
Result<std::string_view> format_like(uint64_t size, Read read) {
  std::array<uint8_t, kProbedBytes> bytes{};
  TRY(read(0, bytes));
  for (const Beginning& one : kBeginnings) {
    if (std::memcmp(bytes.data(), one.bytes.data(), one.bytes.size()) == 0) return one.format;
  }
  if (size <= bytes.size()) return "raw";
  const uint64_t end = size - bytes.size();
  TRY(read(end, bytes));
  return vhd::is_footer_of_fixed(bytes, end) ? "vhd" : "raw";
}

Result<std::string_view> format_like(Store& store) {
  return format_like(TRY(store.size()),
                     [&](uint64_t offset, MutableByteSpan bytes) { return store.read_all(offset, bytes); });
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

// It may name files that lie beside it.
Result<std::unique_ptr<Image>> open_in_folder(const Format& format, std::unique_ptr<Store> store,
                                              const std::string& path, Access access, Access backing_access,
                                              HostCache cache, const Unlock& unlock) {
  ImageOpener opener(folder_of(path));
  if (backing_access == Access::kReadWrite) opener.let_backing_be_written();
  opener.use_cache(cache);
  opener.use_key(unlock);
  return with_use_of_key(TRY(format.open(std::move(store), access, opener)), path, unlock);
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
  auto store = TRY(PlainFile::open(path, access, cache));
  return open_in_folder(*found, std::move(store), path, access, backing_access, cache, unlock);
}

Result<std::unique_ptr<Image>> open_image_below(const std::string& folder, const std::string& path,
                                                std::string_view format, Access access, Access backing_access,
                                                HostCache cache, Unlock unlock) {
  const Format* const found = TRY(find_format(format));
  auto store = TRY(PlainFile::open_below(folder, path.substr(folder.size() + 1), access, cache));
  return open_in_folder(*found, std::move(store), path, access, backing_access, cache, unlock);
}

Result<std::unique_ptr<Image>> open_image_alone(const std::string& path, std::string_view format, Access access) {
  const Format* const found = TRY(find_format(format));
  ImageOpener opener(folder_of(path));
  if (found->name == "vmdk") opener.open_extents();
  opener.use_key({.may_stay_locked = true});
  opener.open_no_backing();
  return found->open(TRY(PlainFile::open(path, access)), access, opener);
}

Result<std::unique_ptr<Image>> open_probed_image(const std::string& path, Access access, Unlock unlock) {
  auto store = TRY(open_place(path, access, HostCache::kUsed));
  const Format* const format = TRY(find_format(TRY(format_like(*store))));
  ImageOpener opener = ImageOpener::of_nothing();
  opener.use_key(unlock);
  return with_use_of_key(TRY(format->open(std::move(store), access, opener)), path, unlock);
}

// Without a lock: it may be in use, which whoever opens it for real finds out.
Result<std::string_view> probe_format(const std::string& path) {
  if (nbd::is_uri(path)) return format_like(*TRY(open_place(path, Access::kReadOnly, HostCache::kUsed)));
  const Fd file = TRY(open_file(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  // What cannot be read is like nothing.
  const off_t size = ::lseek(file.get(), 0, SEEK_END);
  return format_like(size < 0 ? 0 : static_cast<uint64_t>(size), [&](uint64_t offset, MutableByteSpan bytes) {
    if (::pread(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)) < 0) bytes[0] = 0;
    return Result<>();
  });
}

Result<DiskKey*> ImageOpener::key_for(const std::string& image) const {
  if (unlock_.key || unlock_.may_stay_locked) return unlock_.key.get();
  return fail("open '{}': it is encrypted; state its secret", image);
}

// As other tools write it.
Result<std::string> name_below(const std::string& folder, const std::string& name) {
  if (!name.starts_with('/')) return name;
  std::error_code error;
  const auto canonical = std::filesystem::weakly_canonical(folder, error);
  std::string found = std::filesystem::path(name).lexically_normal().lexically_relative(canonical);
  if (error || found.empty()) return fail("open '{}': it does not lie in the folder '{}'", name, folder);
  return found;
}

Result<std::string> ImageOpener::relative(const std::string& name) const {
  return name_below(folder_, name);
}

Result<std::unique_ptr<Store>> ImageOpener::open_store(const std::string& name, Access access) const {
  if (closed_) return fail("file '{}': state the image's format to have it followed", name);
  if (!opens_backing_ && !opens_extents_) return locked(name);
  if (source_) return source_(name, access);
  return TRY(PlainFile::open_below(folder_, TRY(relative(name)), access, cache_));
}

Result<std::string> ImageOpener::identity_of(const std::string& name, const std::string& format) const {
  ImageOpener opener = *this;
  opener.opens_backing_ = true;
  opener.backing_access_ = Access::kReadOnly;
  return TRY(opener.open_backing(name, format))->info().identity;
}

Result<std::unique_ptr<Store>> ImageOpener::create_store(NewFiles& files, const std::string& name) const {
  if (closed_ || !opens_backing_) return fail("file '{}': state the image's format to have it followed", name);
  if (maker_) return maker_(name);
  return files.create_below(folder_, TRY(relative(name)));
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
