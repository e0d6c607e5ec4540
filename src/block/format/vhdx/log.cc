#include "block/format/vhdx/log.h"

#include <algorithm>

#include "block/format/crc32c.h"

namespace bulkhead::block::vhdx {
namespace {

constexpr uint32_t kEntryMagic = 0x65676F6C, kZeroMagic = 0x6F72657A, kDataMagic = 0x63736564,
                   kSectorMagic = 0x61746164;
constexpr uint64_t kEntryHeaderBytes = 64, kDescriptorBytes = 32;
// Zeroes that a log may ask for, which a reader would have to look through.
constexpr uint64_t kMostZeroBytes = uint64_t{1} << 40;

struct Entry {
  uint64_t at = 0, sequence = 0;
  uint32_t size = 0, tail = 0, descriptors = 0;
  uint64_t flushed_file_size = 0, last_file_size = 0;
};

class Log {
 public:
  Log(std::vector<uint8_t> bytes, const Guid& id, const std::string& name)
      : bytes_(std::move(bytes)), id_(id), name_(name) {}

  Result<Replay> read(uint64_t file_size) {
    TRY(find_entries());
    const std::vector<Entry> active = active_entries();
    Replay replay;
    for (const Entry& entry : active) {
      TRY(add(entry, replay));
      replay.file_size = std::max(replay.file_size, entry.last_file_size);
    }
    if (!active.empty() && active.back().flushed_file_size > file_size) {
      return fail("open '{}': {} bytes long, was {} when its log was written", name_, file_size,
                  active.back().flushed_file_size);
    }
    return replay;
  }

 private:
  // The log is a ring.
  [[nodiscard]] std::vector<uint8_t> part(uint64_t at, uint64_t size) const {
    std::vector<uint8_t> out(size);
    const uint64_t first = std::min(size, bytes_.size() - at);
    std::memcpy(out.data(), &bytes_[at], first);
    std::memcpy(out.data() + first, bytes_.data(), size - first);
    return out;
  }

  Result<> find_entries() {
    // Whole entries do not overlap much; one that claims to is not worth the time of summing it.
    uint64_t summed = 0;
    for (uint64_t at = 0; at < bytes_.size(); at += kLogSector) {
      const uint8_t* const header = &bytes_[at];
      const auto size = load<uint32_t>(header + 8);
      if (load<uint32_t>(header) != kEntryMagic || size < kLogSector || size % kLogSector != 0 ||
          size > bytes_.size() || std::memcmp(header + 32, id_.data(), id_.size()) != 0) {
        continue;
      }
      summed += size;
      if (summed > 16 * bytes_.size()) return fail("open '{}': the entries of its log overlap", name_);
      if (crc32c_without(part(at, size), 4) != load<uint32_t>(header + 4)) continue;
      Entry entry{.at = at,
                  .sequence = load<uint64_t>(header + 16),
                  .size = size,
                  .tail = load<uint32_t>(header + 12),
                  .descriptors = load<uint32_t>(header + 24),
                  .flushed_file_size = load<uint64_t>(header + 48),
                  .last_file_size = load<uint64_t>(header + 56)};
      if (entry.sequence != 0) entries_.emplace(at, entry);
    }
    return {};
  }

  // The latest entry from whose tail an unbroken row of entries leads to it.
  [[nodiscard]] std::vector<Entry> active_entries() const {
    std::vector<const Entry*> heads;
    for (const auto& [at, entry] : entries_) heads.push_back(&entry);
    std::ranges::sort(heads, [](const Entry* a, const Entry* b) { return a->sequence > b->sequence; });
    size_t steps = 0;
    for (const Entry* const head : heads) {
      std::vector<Entry> row;
      for (uint64_t at = head->tail; row.size() <= entries_.size() && steps < 16 * entries_.size(); ++steps) {
        const auto found = entries_.find(at);
        if (found == entries_.end()) break;
        if (!row.empty() && found->second.sequence != row.back().sequence + 1) break;
        row.push_back(found->second);
        if (at == head->at) return row;
        at = (at + found->second.size) % bytes_.size();
      }
    }
    return {};
  }

  Result<> add(const Entry& entry, Replay& replay) const {
    const std::vector<uint8_t> bytes = part(entry.at, entry.size);
    const uint64_t table = align_up(kEntryHeaderBytes + entry.descriptors * kDescriptorBytes, kLogSector);
    if (table > bytes.size())
      return fail("open '{}': log entry {} has {} descriptors", name_, entry.sequence, entry.descriptors);
    uint64_t data_at = table;
    for (uint32_t i = 0; i < entry.descriptors; ++i) {
      const uint8_t* const descriptor = &bytes[kEntryHeaderBytes + i * kDescriptorBytes];
      const auto magic = load<uint32_t>(descriptor);
      Replay::Change change{.offset = load<uint64_t>(descriptor + 16), .size = kLogSector};
      if (magic == kZeroMagic) {
        change.size = load<uint64_t>(descriptor + 8);
      } else if (magic == kDataMagic && range_fits(data_at, kLogSector, bytes.size())) {
        const ByteSpan sector = ByteSpan(bytes).subspan(data_at, kLogSector);
        data_at += kLogSector;
        const uint64_t sequence = uint64_t{load<uint32_t>(&sector[4])} << 32 | load<uint32_t>(&sector[kLogSector - 4]);
        if (load<uint32_t>(&sector[0]) != kSectorMagic || sequence != entry.sequence) {
          return fail("open '{}': log entry {}: its data {} is torn", name_, entry.sequence, i);
        }
        // The first 8 and the last 4 bytes stand in the descriptor.
        change.bytes.assign(sector.begin(), sector.end());
        std::memcpy(change.bytes.data(), descriptor + 8, 8);
        std::memcpy(&change.bytes[kLogSector - 4], descriptor + 4, 4);
      } else {
        return fail("open '{}': log entry {}: its descriptor {} makes no sense", name_, entry.sequence, i);
      }
      if (load<uint64_t>(descriptor + 24) != entry.sequence || change.offset % kLogSector != 0 ||
          change.offset < kMiB || change.size % kLogSector != 0 || change.size > kMostZeroBytes ||
          !range_fits(change.offset, change.size, entry.last_file_size)) {
        return fail("open '{}': log entry {}: {} bytes at {:#x} lie outside what it may change", name_, entry.sequence,
                    change.size, change.offset);
      }
      replay.changes.push_back(std::move(change));
    }
    return {};
  }

  const std::vector<uint8_t> bytes_;
  const Guid id_;
  const std::string& name_;
  std::map<uint64_t, Entry> entries_;
};

class LookThrough final : public Store {
 public:
  LookThrough(std::unique_ptr<Store> below, Replay replay) : below_(std::move(below)), replay_(std::move(replay)) {}

  [[nodiscard]] const std::string& name() const override { return below_->name(); }
  [[nodiscard]] Result<uint64_t> size() override { return std::max(TRY(below_->size()), replay_.file_size); }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override {
    if (const Status status = below_->read(offset, bytes); status != Status::kOk) return status;
    for (const Replay::Change& change : replay_.changes) {
      const uint64_t from = std::max(offset, change.offset);
      const uint64_t to = std::min(offset + bytes.size(), change.offset + change.size);
      if (from >= to) continue;
      if (change.bytes.empty()) {
        std::ranges::fill(bytes.subspan(from - offset, to - from), uint8_t{0});
      } else {
        std::memcpy(&bytes[from - offset], &change.bytes[from - change.offset], to - from);
      }
    }
    return Status::kOk;
  }
  [[nodiscard]] Status write(uint64_t, ByteSpan) override { return Status::kReadOnly; }
  [[nodiscard]] Status flush() override { return Status::kOk; }
  [[nodiscard]] Status punch(uint64_t, uint64_t) override { return Status::kReadOnly; }
  [[nodiscard]] Status truncate(uint64_t) override { return Status::kReadOnly; }
  // Holes below may not be holes any more.
  [[nodiscard]] StoreExtent extent(uint64_t offset) override { return {.size = below_->extent(offset).size}; }

 private:
  const std::unique_ptr<Store> below_;
  const Replay replay_;
};

}  // namespace

Result<Replay> read_log(Store& store, const Header& header) {
  if (!header.has_log() || header.log_bytes == 0) return Replay{};
  std::vector<uint8_t> bytes(header.log_bytes);
  TRY(store.read_all(header.log_offset, bytes));
  return Log(std::move(bytes), header.log_id, store.name()).read(TRY(store.size()));
}

Result<> carry_out(Store& store, const Replay& replay) {
  if (replay.file_size > TRY(store.size()) && store.truncate(replay.file_size) != Status::kOk) {
    return fail("resize '{}' to {} bytes", store.name(), replay.file_size);
  }
  for (const Replay::Change& change : replay.changes) {
    if (!change.bytes.empty()) {
      TRY(store.write_all(change.offset, change.bytes));
      continue;
    }
    if (store.punch(change.offset, change.size) == Status::kOk) continue;
    const std::vector<uint8_t> zeroes(std::min<uint64_t>(change.size, kMiB));
    for (uint64_t done = 0; done < change.size; done += zeroes.size()) {
      TRY(store.write_all(change.offset + done,
                          ByteSpan(zeroes).first(std::min<uint64_t>(zeroes.size(), change.size - done))));
    }
  }
  return store.flush_all();
}

std::unique_ptr<Store> look_through(std::unique_ptr<Store> store, Replay replay) {
  return std::make_unique<LookThrough>(std::move(store), std::move(replay));
}

}  // namespace bulkhead::block::vhdx
