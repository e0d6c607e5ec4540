// Changes at any places of a VHDX file's structures, with checksums that fit afterwards, without which little would get
// past the headers. They are made to an image by itself, and to one on another. Input: records of a structure (1 byte),
// an offset in it (2), a length (1) and the bytes.
#include <algorithm>

#include "block/format/crc32c.h"
#include "block/format/vhdx/vhdx_image.h"
#include "block/testing/fuzz_image.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::block;
using namespace bulkhead::block::vhdx;

constexpr uint64_t kLogAt = kMiB, kMetadataAt = 2 * kMiB, kTableAt = 3 * kMiB;
constexpr std::array<uint64_t, 8> kStructures{kHeaderAt[0], kHeaderAt[1], kRegionTableAt[0],       kRegionTableAt[1],
                                              kLogAt,       kMetadataAt,  kMetadataAt + 64 * kKiB, kTableAt};

std::vector<uint8_t> made(const CreateOptions& options) {
  MemoryStore store;
  CHECK(vhdx::create(store, options).has_value(), "a new image");
  return store.bytes();
}

const std::vector<uint8_t>& sound_file() {
  static const std::vector<uint8_t> file = made({.size = 4 * kMiB, .settings = {{"block_size", "1048576"}}});
  return file;
}

// A differencing image on the sound file.
const std::vector<uint8_t>& sound_child() {
  static const std::vector<uint8_t> file = [] {
    const auto parent =
        vhdx::open(std::make_unique<MemoryStore>(sound_file()), Access::kReadOnly, ImageOpener("/nonexistent"));
    return made({.size = 4 * kMiB,
                 .backing_name = "parent",
                 .backing_format = "vhdx",
                 .backing_identity = parent.value()->info().identity,
                 .settings = {{"block_size", "1048576"}}});
  }();
  return file;
}

void seal(MutableByteSpan bytes) {
  store(&bytes[4], crc32c_without(bytes, 4));
}

std::vector<uint8_t> changed(std::vector<uint8_t> file, ByteSpan left) {
  while (left.size() >= 4) {
    const uint64_t at = kStructures[left[0] % kStructures.size()] + (left[1] | left[2] << 8);
    const size_t length = std::min<size_t>(left[3], left.size() - 4);
    std::ranges::copy(left.subspan(4, length), file.begin() + static_cast<ptrdiff_t>(at));
    left = left.subspan(4 + length);
  }
  const MutableByteSpan all(file);
  for (const uint64_t at : kHeaderAt) seal(all.subspan(at, kHeaderBytes));
  for (const uint64_t at : kRegionTableAt) seal(all.subspan(at, kRegionTableBytes));
  for (uint64_t at = kLogAt; at < kLogAt + 64 * kKiB; at += 4096) {
    const auto entry = load<uint32_t>(&file[at + 8]);
    if (entry >= 64 && entry <= 64 * kKiB) seal(all.subspan(at, entry));
  }
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  testing::fuzz_files("vhdx", {changed(sound_file(), {data, size})});
  testing::fuzz_files("vhdx", {changed(sound_child(), {data, size}), sound_file()});
  return 0;
}
