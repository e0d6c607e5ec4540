// The verbs of "bulkhead image" that change an image and what it stands on: snapshot, commit, rebase.
#include <algorithm>
#include <chrono>

#include "block/format/bitmaps.h"
#include "block/format/new_files.h"
#include "cli/image/image_verb.h"
#include "cli/progress_line.h"

namespace bulkhead::cli {
namespace {

constexpr uint64_t kPiece = uint64_t{1} << 20, kGrain = 65536;

Result<> check_status(block::Status status, std::string_view what, uint64_t offset) {
  if (status == block::Status::kOk) return {};
  return fail("{} at byte {}: {}", what, offset, to_string(status));
}

// Calls piece(offset, size) for each part of the disk whose kind is wanted.
template <typename Wanted, typename Piece>
Result<> each_piece(block::Image& image, bool quiet, Wanted wanted, Piece piece) {
  ProgressLine progress(image.geometry().size, quiet);
  for (uint64_t offset = 0; offset < image.geometry().size;) {
    const block::Extent extent = TRY(image.map(offset));
    for (uint64_t at = 0; wanted(extent.kind) && at < extent.size; at += kPiece) {
      TRY(piece(offset + at, std::min(kPiece, extent.size - at), extent.kind));
      progress.set(offset + at);
    }
    offset += extent.size;
    progress.set(offset);
  }
  return {};
}

// The bytes of an image as they show through one that may be longer.
Result<> read_below(block::Image* image, uint64_t offset, MutableByteSpan bytes) {
  const uint64_t size = image != nullptr ? image->geometry().size : 0;
  const uint64_t there = offset < size ? std::min<uint64_t>(bytes.size(), size - offset) : 0;
  std::ranges::fill(bytes.subspan(there), uint8_t{0});
  if (there == 0) return {};
  return check_status(image->read(offset, bytes.first(there)), "read the new backing file", offset);
}

}  // namespace

// A file whose format nobody stated may be raw with a guest's bytes, and must not be changed by a guess.
Result<> ImageVerb::must_state_format(std::string_view verb) const {
  if (format_.empty()) return fail("{} '{}': state its format", verb, file_);
  return {};
}

Result<std::unique_ptr<block::Image>> ImageVerb::open_below() const {
  block::ImageOpener opener(block::folder_of(file_));
  opener.use_key({.key = TRY(key())});
  return opener.open_backing(backing_, backing_format_);
}

Result<int> ImageVerb::snapshot() {
  const bool listing = action_ == "list";
  if (!listing) TRY(must_state_format("snapshot"));
  if (!listing && name_.empty()) return fail("snapshot '{}': {} needs a name", file_, action_);
  const auto image = TRY(open(file_, format_, listing ? block::Access::kReadOnly : block::Access::kReadWrite));
  block::Snapshots* const snapshots = image->snapshots();
  if (snapshots == nullptr) return fail("snapshot '{}': {} images have none", file_, image->info().format);
  if (listing) {
    std::string text;
    for (const block::Snapshot& one : TRY(snapshots->list())) {
      const std::string name = json_text(one.name);
      if (json()) {
        text += fmt::format("{}{{\"id\": {}, \"name\": {}, \"virtual_size\": {}, \"seconds\": {}}}",
                            text.empty() ? "" : ",\n ", json_text(one.id), name, one.disk_size, one.seconds);
      } else {
        const std::string id = json_text(one.id);
        text += fmt::format("{} {} {} {}\n", std::string_view(id).substr(1, id.size() - 2), one.disk_size, one.seconds,
                            std::string_view(name).substr(1, name.size() - 2));
      }
    }
    print(json() ? "[" + text + "]\n" : text);
    return 0;
  }
  if (action_ == "create") {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    TRY(snapshots->create(name_, static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(now).count())));
  } else {
    TRY(action_ == "apply" ? snapshots->apply(name_) : snapshots->remove(name_));
  }
  if (json()) print(fmt::format("{{\"name\": {}}}\n", json_text(name_)));
  return 0;
}

Result<int> ImageVerb::bitmap() {
  const bool reads = action_ == "list" || action_ == "changed";
  if (!reads) TRY(must_state_format("bitmap"));
  if (action_ != "list" && name_.empty()) return fail("bitmap '{}': {} needs a name", file_, action_);
  const auto image =
      TRY(reads ? open_locked(block::Access::kReadOnly) : open(file_, format_, block::Access::kReadWrite));
  block::Bitmaps* const bitmaps = image->bitmaps();
  if (bitmaps == nullptr) return fail("bitmap '{}': {} images have none", file_, image->info().format);
  std::string text;
  if (action_ == "add") TRY(bitmaps->add_bitmap(name_, TRY(parse_size(size_.empty() ? "64K" : size_))));
  if (action_ == "delete") TRY(bitmaps->remove_bitmap(name_));
  if (action_ == "list") {
    for (const block::Bitmap& one : TRY(bitmaps->list_bitmaps())) {
      const std::string name = json_text(one.name);
      text += json() ? fmt::format("{}{{\"name\": {}, \"granularity\": {}, \"automatic\": {}, \"known\": {}}}",
                                   text.empty() ? "" : ",\n ", name, one.granularity, one.automatic, one.known)
                     : fmt::format("{} {} {} {}\n", one.granularity, one.automatic ? "automatic" : "disabled",
                                   one.known ? "known" : "lost", std::string_view(name).substr(1, name.size() - 2));
    }
  }
  if (action_ == "changed") {
    TRY(bitmaps->each_changed(name_, [&](uint64_t offset, uint64_t size) {
      text += json() ? fmt::format("{}{{\"offset\": {}, \"size\": {}}}", text.empty() ? "" : ",\n ", offset, size)
                     : fmt::format("{:#014x} {:#014x}\n", offset, size);
    }));
  }
  if (reads) print(json() ? "[" + text + "]\n" : text);
  if (!reads && json()) print(fmt::format("{{\"name\": {}}}\n", json_text(name_)));
  return 0;
}

// The backing file is flushed at the end; until then, and after a power cut, the image still holds everything.
Result<int> ImageVerb::commit() {
  TRY(must_state_format("commit"));
  const auto image = TRY(block::open_image(file_, format_, block::Access::kReadOnly, block::Access::kReadWrite,
                                           block::HostCache::kUsed, {.key = TRY(key())}));
  block::Image* const below = image->backing();
  if (below == nullptr) return fail("commit '{}': it has no backing file", file_);
  if (image->geometry().size > below->geometry().size) TRY(below->grow(image->geometry().size));
  std::vector<uint8_t> bytes(kPiece);
  uint64_t written = 0;
  TRY(each_piece(
      *image, quiet_, [](block::ExtentKind kind) { return kind != block::ExtentKind::kAbsent; },
      [&](uint64_t offset, uint64_t size, block::ExtentKind kind) -> Result<> {
        written += size;
        if (kind == block::ExtentKind::kZero) {
          return check_status(below->write_zeroes(offset, size, block::Unmap::kYes), "write the backing file", offset);
        }
        const MutableByteSpan piece = MutableByteSpan(bytes).first(size);
        TRY(check_status(image->read(offset, piece), "read", offset));
        return check_status(below->write(offset, piece), "write the backing file", offset);
      }));
  TRY(check_status(below->flush(), "flush the backing file", 0));
  if (json()) print(fmt::format("{{\"bytes\": {}}}\n", written));
  return 0;
}

// Where another file would show something else, what showed so far is written into the image first.
Result<int> ImageVerb::rebase() {
  TRY(must_state_format("rebase"));
  if (!backing_.empty() && backing_format_.empty()) return fail("rebase '{}': state the backing file's format", file_);
  if (unsafe_) {
    TRY(TRY(block::open_image_alone(file_, format_, block::Access::kCommit))->set_backing(backing_, backing_format_));
    if (json()) print("{\"bytes\": 0}\n");
    return 0;
  }
  // What it shows stays the same, so images that stand on it stay good.
  const auto image = TRY(open(file_, format_, block::Access::kCommit));
  TRY(image->may_set_backing(backing_, backing_format_));
  std::unique_ptr<block::Image> below;
  if (!backing_.empty()) below = TRY(open_below());
  std::vector<uint8_t> now(kPiece), then(kPiece);
  uint64_t written = 0;
  const auto keep = [&](uint64_t offset, uint64_t size, block::ExtentKind) -> Result<> {
    TRY(check_status(image->read(offset, MutableByteSpan(now).first(size)), "read", offset));
    TRY(read_below(below.get(), offset, MutableByteSpan(then).first(size)));
    for (uint64_t at = 0; at < size; at += kGrain) {
      const uint64_t part = std::min(kGrain, size - at);
      if (std::memcmp(&now[at], &then[at], part) == 0) continue;
      TRY(check_status(image->write(offset + at, ByteSpan(now).subspan(at, part)), "write", offset + at));
      written += part;
    }
    return {};
  };
  TRY(each_piece(*image, quiet_, [](block::ExtentKind kind) { return kind == block::ExtentKind::kAbsent; }, keep));
  TRY(check_status(image->flush(), "flush", 0));
  TRY(image->set_backing(backing_, backing_format_));
  if (json()) print(fmt::format("{{\"bytes\": {}}}\n", written));
  return 0;
}

}  // namespace bulkhead::cli
