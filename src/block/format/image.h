// An open disk image of some format, and what every format offers. Calls are synchronous and may come from several
// threads at once: ImageDisk runs them on workers for a guest, the image tool calls them directly.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "block/disk.h"
#include "block/encrypt/secret.h"
#include "block/store/store.h"

namespace bulkhead::block {

// What an image may keep of its tables in memory, whatever its size.
inline constexpr uint64_t kMetadataLimit = uint64_t{64} << 20;
inline constexpr unsigned kChainDepthLimit = 32;

enum class ExtentKind : uint8_t {
  kData,
  kZero,    // reads as zeroes, whatever lies below
  kAbsent,  // not in this image: the backing file's, or zeroes
};
struct Extent {
  uint64_t size = 0;
  ExtentKind kind = ExtentKind::kAbsent;
};

struct ImageInfo {
  std::string format;
  uint64_t virtual_size = 0;
  std::string backing_name, backing_format;
  std::string identity;    // what an image on top of this one remembers of it; empty when the format has no such thing
  std::string encryption;  // luks1 or luks2; empty: its data lies open
  std::vector<std::pair<std::string, std::string>> details;  // of the format: name, value
};

enum class Repair : uint8_t { kNone, kAll };
struct CheckReport {
  static constexpr size_t kMessageLimit = 100;
  uint64_t errors = 0;    // data may be wrong
  uint64_t leaks = 0;     // space that nothing uses
  uint64_t repaired = 0;  // of both
  uint64_t left = 0;      // errors that a repair could not set right
  std::vector<std::string> messages;
  void say(std::string message) {
    if (messages.size() < kMessageLimit) messages.push_back(std::move(message));
  }
};

// States of the disk that an image keeps inside itself. Nothing else runs while one of these calls does.
struct Snapshot {
  std::string id, name;
  uint64_t disk_size = 0;
  uint64_t seconds = 0;  // since 1970
};
class Snapshots {
 public:
  virtual ~Snapshots() = default;
  [[nodiscard]] virtual Result<std::vector<Snapshot>> list() = 0;
  // By their name or their id.
  [[nodiscard]] virtual Result<> create(const std::string& name, uint64_t seconds) = 0;
  [[nodiscard]] virtual Result<> apply(const std::string& name) = 0;
  [[nodiscard]] virtual Result<> remove(const std::string& name) = 0;
};

// Of what takes long: bytes that are done, of so many.
using Progress = std::function<void(uint64_t done, uint64_t all)>;

enum class FillOrder : uint8_t { kAny, kAscending };

class Bitmaps;

class Image {
 public:
  virtual ~Image() = default;
  [[nodiscard]] virtual const Geometry& geometry() const = 0;
  [[nodiscard]] virtual ImageInfo info() const = 0;
  // The range lies within the geometry; it may begin and end within a sector, as the pieces of a scatter list do.
  [[nodiscard]] virtual Status read(uint64_t offset, MutableByteSpan bytes) = 0;
  [[nodiscard]] virtual Status write(uint64_t offset, ByteSpan bytes) = 0;
  [[nodiscard]] virtual Status write_zeroes(uint64_t offset, uint64_t size, Unmap unmap) = 0;
  [[nodiscard]] virtual Status discard(uint64_t offset, uint64_t size) = 0;
  // What was written before is found again after a power cut.
  [[nodiscard]] virtual Status flush() = 0;
  // Takes storage for a range that is about to be written, where that makes writing it faster; what it reads as stays.
  [[nodiscard]] virtual Status reserve(uint64_t, uint64_t) { return Status::kUnsupported; }
  // The run that begins at offset, which lies within the disk; at least one sector long.
  [[nodiscard]] virtual Result<Extent> map(uint64_t offset) = 0;
  [[nodiscard]] virtual Result<CheckReport> check(Repair repair) = 0;
  // Of the checks that follow, from the thread that calls them.
  void watch(Progress progress) { progress_ = std::move(progress); }
  // Nothing else runs meanwhile. What is new reads as zeroes.
  [[nodiscard]] virtual Result<> grow(uint64_t new_size) = 0;
  // Where growing writes all that is new: how many bytes at most at once, while a guest waits. 0: it does not.
  [[nodiscard]] virtual uint64_t growth_step() const { return 0; }
  // Gives up what is behind the new end. Nothing else runs meanwhile.
  [[nodiscard]] virtual Result<> shrink(uint64_t) { return fail("{} images cannot shrink", info().format); }
  // What shows through where this image holds nothing; null when there is none.
  [[nodiscard]] virtual Image* backing() { return nullptr; }
  // Names another file, or none: the caller has seen to it that the disk's contents stay.
  [[nodiscard]] virtual Result<> set_backing(const std::string& name, const std::string& format) {
    return may_set_backing(name, format);
  }
  // Why that would fail, before any work is done for it.
  [[nodiscard]] virtual Result<> may_set_backing(const std::string&, const std::string&) {
    return fail("the backing file of {} images cannot be changed", info().format);
  }
  // Null when the format has none.
  [[nodiscard]] virtual Snapshots* snapshots() { return nullptr; }
  // Null when the format keeps none.
  [[nodiscard]] virtual Bitmaps* bitmaps() { return nullptr; }
  // As write(), for contents that will hardly change: smaller on the disk where the format can do that.
  [[nodiscard]] virtual Status write_compressed(uint64_t offset, ByteSpan bytes) { return write(offset, bytes); }
  // The unit in which compressed data is best written; 0 when the format cannot compress.
  [[nodiscard]] virtual uint64_t compression_unit() const { return 0; }
  // Whether what nobody has written in a new image reads as zeroes.
  [[nodiscard]] virtual bool starts_as_zeroes() const { return true; }
  // Bytes of the host's storage that its own files take; none when nobody knows.
  [[nodiscard]] virtual std::optional<uint64_t> allocated() { return std::nullopt; }
  // In what order data must come; when ascending, in whole units of compression by write_compressed(), from one thread.
  [[nodiscard]] virtual FillOrder fill_order() const { return FillOrder::kAny; }

 protected:
  void tell(uint64_t done, uint64_t all) const {
    if (progress_) progress_(done, all);
  }

 private:
  Progress progress_;
};

// What encrypted images are opened with. Without a key they are refused, unless nobody wants their data.
struct Unlock {
  std::shared_ptr<DiskKey> key;
  bool may_stay_locked = false;
};

class NewFiles;

// Opens the other files that an image names (backing, extents), only below one folder and never too deep.
class ImageOpener {
 public:
  explicit ImageOpener(std::string folder, unsigned depth = 0) : folder_(std::move(folder)), depth_(depth) {}
  // The format of a file that an image names is the one the image states; without one, it is refused.
  // For an image whose format was probed: it may name no other file, because whoever wrote it may have been a guest.
  static ImageOpener of_nothing() {
    ImageOpener opener("");
    opener.closed_ = true;
    return opener;
  }
  // Leaves backing files alone, which need not be there: for what looks at no data and changes the name alone.
  void open_no_backing() { opens_backing_ = false; }
  [[nodiscard]] bool opens_backing() const { return opens_backing_; }
  // The extents of such an image nevertheless, which it cannot be opened without.
  void open_extents() { opens_extents_ = true; }
  // Lets the backing file be written, to commit to it; those below it are only read all the same.
  void let_backing_be_written() { backing_access_ = Access::kCommit; }
  // Takes files from somewhere else than the host's folder, for tests.
  using Source = std::function<Result<std::unique_ptr<Store>>(const std::string& name, Access access)>;
  void take_files_from(Source source) { source_ = std::move(source); }
  using Maker = std::function<Result<std::unique_ptr<Store>>(const std::string& name)>;
  void make_files_by(Maker maker) { maker_ = std::move(maker); }
  // Of the files that it opens.
  void use_cache(HostCache cache) { cache_ = cache; }
  // For the image, and for those that it stands on.
  void use_key(Unlock unlock) { unlock_ = std::move(unlock); }
  // Null for an image that stays locked.
  [[nodiscard]] Result<DiskKey*> key_for(const std::string& image) const;
  // Null when backing files are left alone.
  [[nodiscard]] Result<std::unique_ptr<Image>> open_backing(const std::string& name, const std::string& format) const;
  // What an image that is to stand on this one has to remember of it (ImageInfo::identity).
  [[nodiscard]] Result<std::string> identity_of(const std::string& name, const std::string& format) const;
  [[nodiscard]] Result<std::unique_ptr<Store>> open_store(const std::string& name, Access access) const;
  // A file that there is not yet, for an image that grows by one; gone again unless `files` keep it. Null where there
  // is such a file.
  [[nodiscard]] Result<std::unique_ptr<Store>> create_store(NewFiles& files, const std::string& name) const;

 private:
  [[nodiscard]] Result<std::string> relative(const std::string& name) const;

  std::string folder_;
  unsigned depth_;
  Access backing_access_ = Access::kReadOnly;
  HostCache cache_ = HostCache::kUsed;
  Unlock unlock_;
  Source source_;
  Maker maker_;
  bool closed_ = false;
  bool opens_backing_ = true, opens_extents_ = false;
};

struct CreateOptions {
  uint64_t size = 0;
  std::string backing_name, backing_format, backing_identity;
  std::map<std::string, std::string> settings;  // of the format; an unknown one is an error
  std::shared_ptr<DiskKey> key;                 // of formats that can be encrypted; null: its data lies open
  // The store's name in its folder, and a way to more files there, for formats that need several.
  std::string file_name;
  std::function<Result<std::unique_ptr<Store>>(const std::string& name)> create_beside;
  Progress progress;  // where the image is thick; may be null
};

struct Format {
  std::string_view name;
  Result<std::unique_ptr<Image>> (*open)(std::unique_ptr<Store> store, Access access, const ImageOpener& opener);
  Result<> (*create)(Store& store, const CreateOptions& options);
  bool encrypts = false;  // create() knows what to do with a key
};

// The format of this name; the error lists those that there are.
[[nodiscard]] Result<const Format*> find_format(std::string_view name);
// The image at a path that the user gave; its folder is where other files may lie. The format is stated, never guessed.
[[nodiscard]] Result<std::unique_ptr<Image>> open_image(const std::string& path, std::string_view format, Access access,
                                                        Access backing_access = Access::kReadOnly,
                                                        HostCache cache = HostCache::kUsed, Unlock unlock = {});
// The image alone, without what it stands on: to name another backing file, and nothing else.
[[nodiscard]] Result<std::unique_ptr<Image>> open_image_alone(const std::string& path, std::string_view format,
                                                              Access access);
// The same for a file at rest whose format nobody stated: by its first bytes, or its last ones where they are a fixed
// VHD's; raw when they say nothing. Never for a guest's disk. Since a guest may have written those bytes, the image may
// not name other files.
[[nodiscard]] Result<std::unique_ptr<Image>> open_probed_image(const std::string& path, Access access,
                                                               Unlock unlock = {});
// The format that a file's first or last bytes are like, "raw" when like none: to refuse a mistake, not to open it by.
[[nodiscard]] Result<std::string_view> probe_format(const std::string& path);

}  // namespace bulkhead::block
