// A store that remembers every change in order, and builds from that what a disk may hold after the power went away:
// all that was flushed, and of the rest any choice, sector by sector. For tests.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "block/store/memory/memory_store.h"

namespace bulkhead::block::testing {

inline constexpr uint64_t kSector = 512;

struct Change {
  enum class Kind : uint8_t { kWrite, kPunch, kTruncate, kReplace, kFlush };
  Kind kind;
  uint64_t offset = 0, size = 0;
  std::vector<uint8_t> bytes;
  size_t file = 0;  // of several whose changes are in one log
};
using CrashLog = std::vector<Change>;

class RecordingStore final : public Store {
 public:
  RecordingStore(MemoryStore& below, CrashLog& log, size_t file = 0) : below_(below), log_(log), file_(file) {}
  [[nodiscard]] const std::string& name() const override { return below_.name(); }
  [[nodiscard]] Result<uint64_t> size() override { return below_.size(); }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override { return below_.read(offset, bytes); }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override {
    log_.push_back({Change::Kind::kWrite, offset, bytes.size(), {bytes.begin(), bytes.end()}, file_});
    return below_.write(offset, bytes);
  }
  [[nodiscard]] Status flush() override {
    log_.push_back({.kind = Change::Kind::kFlush, .file = file_});
    return below_.flush();
  }
  [[nodiscard]] Status punch(uint64_t offset, uint64_t size) override {
    log_.push_back({.kind = Change::Kind::kPunch, .offset = offset, .size = size, .file = file_});
    return below_.punch(offset, size);
  }
  [[nodiscard]] Status truncate(uint64_t size) override {
    log_.push_back({.kind = Change::Kind::kTruncate, .size = size, .file = file_});
    return below_.truncate(size);
  }
  [[nodiscard]] Result<> replace(ByteSpan bytes) override {
    log_.push_back({Change::Kind::kReplace, 0, bytes.size(), {bytes.begin(), bytes.end()}, file_});
    return below_.replace(bytes);
  }
  [[nodiscard]] StoreExtent extent(uint64_t offset) override { return below_.extent(offset); }

 private:
  MemoryStore& below_;
  CrashLog& log_;
  const size_t file_;
};

// Applies a change; keep(sector) says whether each of its 512-byte sectors reached the disk.
template <typename Keep>
void apply(MemoryStore& disk, const Change& change, Keep keep) {
  if (change.kind == Change::Kind::kFlush) return;
  if (change.kind == Change::Kind::kReplace) {
    (void)disk.replace(change.bytes);
    return;
  }
  if (change.kind == Change::Kind::kTruncate) {
    if (keep(0)) (void)disk.truncate(change.size);
    return;
  }
  for (uint64_t at = change.offset; at < change.offset + change.size;) {
    const uint64_t part = std::min(align_down(at, kSector) + kSector, change.offset + change.size) - at;
    if (keep(at / kSector)) {
      if (change.kind == Change::Kind::kPunch) {
        (void)disk.punch(at, part);
      } else {
        (void)disk.write(at, ByteSpan(change.bytes).subspan(at - change.offset, part));
      }
    }
    at += part;
  }
}

// One of the states that a power cut after the changes [0, end) may leave; flushed is the state at the last flush among
// them, which is change number flush.
inline MemoryStore cut_state(const MemoryStore& flushed, const CrashLog& log, size_t flush, size_t end,
                             std::mt19937_64& random) {
  MemoryStore disk = flushed;
  std::vector<const Change*> open;
  for (size_t i = flush; i < end; ++i) open.push_back(&log[i]);
  // Some cuts reorder, some tear, some lose or keep whole changes.
  const uint64_t mode = random() % 5;
  if (mode >= 2) std::ranges::shuffle(open, random);
  for (const Change* const change : open) {
    const bool whole = random() % 2 == 0;
    apply(disk, *change, [&](uint64_t) {
      if (mode == 0) return true;
      return mode == 1 || mode == 2 ? whole : random() % 2 == 0;
    });
  }
  return disk;
}

}  // namespace bulkhead::block::testing
