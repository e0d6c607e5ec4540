#include "block/format/thick.h"

#include <algorithm>

namespace bulkhead::block {
namespace {

// What one call takes, and then progress is told.
constexpr uint64_t kReservedAtOnce = uint64_t{1} << 30, kWrittenAtOnce = uint64_t{2} << 20;

}  // namespace

Result<Preallocation> take_preallocation(Settings& settings, bool has_tables) {
  const std::string word = has_tables
                               ? TRY(settings.word("preallocation", "off", {"off", "metadata", "falloc", "full"}))
                               : TRY(settings.word("preallocation", "off", {"off", "falloc", "full"}));
  if (word == "metadata") return Preallocation::kMetadata;
  if (word == "falloc") return Preallocation::kReserved;
  return word == "full" ? Preallocation::kWritten : Preallocation::kOff;
}

Result<> refuse_preallocation(Preallocation how, std::string_view instead) {
  if (how == Preallocation::kOff) return {};
  return fail("option preallocation: only {}", instead);
}

Result<> make_thick(Store& store, uint64_t offset, uint64_t size, Preallocation how, const Progress& progress) {
  if (how != Preallocation::kReserved && how != Preallocation::kWritten) return {};
  const bool writes = how == Preallocation::kWritten;
  const std::vector<uint8_t> zeroes(writes ? std::min(size, kWrittenAtOnce) : 0);
  for (uint64_t done = 0; done < size;) {
    const uint64_t part = std::min(size - done, writes ? kWrittenAtOnce : kReservedAtOnce);
    const Status status =
        writes ? store.write(offset + done, ByteSpan(zeroes).first(part)) : store.reserve(offset + done, part);
    if (status == Status::kUnsupported) {
      return fail("reserve '{}': its storage cannot do that; preallocation=full writes zeroes instead", store.name());
    }
    if (status != Status::kOk) {
      return fail("{} {} bytes of '{}' at byte {}: {}", writes ? "write" : "reserve", part, store.name(), offset + done,
                  to_string(status));
    }
    done += part;
    if (progress) progress(done, size);
  }
  return {};
}

}  // namespace bulkhead::block
