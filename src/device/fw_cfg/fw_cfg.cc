#include "device/fw_cfg/fw_cfg.h"

#include <algorithm>
#include <array>
#include <bit>

#include "spec/firmware/fw_cfg.h"
#include "support/check.h"

namespace bulkhead::device {
namespace {

using namespace spec::fw_cfg;

constexpr uint16_t kSelectorOffset = kSelectorPort - FwCfg::kFirstPort;
constexpr uint16_t kDataOffset = kDataPort - FwCfg::kFirstPort;
constexpr uint16_t kDmaHighOffset = kDmaPort - FwCfg::kFirstPort;
constexpr uint16_t kDmaLowOffset = kDmaHighOffset + 4;

// Zeros that a DMA read may ask for beyond the end of its item: a guest must not keep the host busy with them.
constexpr uint64_t kPaddingBudget = 1 << 20;
// Guest memory is written in pieces of this size, so that the code watcher hears of DMA before it has gone far.
constexpr uint64_t kPieceSize = 1 << 16;

uint32_t big(uint32_t value) {
  return std::byteswap(value);
}

}  // namespace

FwCfg::FwCfg(memory::GuestMemory& memory) : memory_(memory) {
  set_item(kSignature, {std::begin(kSignatureBytes), std::end(kSignatureBytes)});
  set_number<uint32_t>(kInterfaceVersion, kVersionTraditional | kVersionDma);
  rebuild_directory();
}

void FwCfg::set_item(uint16_t key, std::vector<uint8_t> bytes) {
  Item& item = items_[key];
  item.owned = std::move(bytes);
  item.bytes = item.owned;
}

void FwCfg::set_borrowed_item(uint16_t key, ByteSpan bytes) {
  items_[key] = {{}, bytes};
}

void FwCfg::add_file(std::string_view name, std::vector<uint8_t> bytes) {
  CHECK(name.size() < kFileNameSize, "a file name too long for fw_cfg");
  const auto key = static_cast<uint16_t>(kFirstFile + files_.size());
  const bool is_new = files_.emplace(name, key).second;
  CHECK(is_new, "two files of fw_cfg with one name");
  set_item(key, std::move(bytes));
  rebuild_directory();
}

void FwCfg::rebuild_directory() {
  std::vector<uint8_t> directory(sizeof(uint32_t) + files_.size() * sizeof(FileEntry));
  store(directory.data(), big(static_cast<uint32_t>(files_.size())));
  size_t at = sizeof(uint32_t);
  for (const auto& [name, key] : files_) {
    FileEntry entry{};
    entry.size = big(static_cast<uint32_t>(items_.at(key).bytes.size()));
    entry.key = std::byteswap(key);
    std::ranges::copy(name, entry.name);
    store(&directory[at], entry);
    at += sizeof entry;
  }
  set_item(kFileDirectory, std::move(directory));
}

void FwCfg::reset() {
  LockGuard lock(mutex_);
  position_ = {};
  dma_address_high_ = 0;
}

ByteSpan FwCfg::bytes_from(const Position& position) const {
  const auto item = items_.find(position.key);
  if (item == items_.end() || position.offset >= item->second.bytes.size()) return {};
  return item->second.bytes.subspan(position.offset);
}

uint32_t FwCfg::read_port(uint16_t offset, unsigned size) {
  if (offset == kDataOffset && size == 1) {
    LockGuard lock(mutex_);
    const ByteSpan rest = bytes_from(position_);
    if (rest.empty()) return 0;
    ++position_.offset;
    return rest.front();
  }
  if ((offset == kDmaHighOffset || offset == kDmaLowOffset) && size == 4) {
    return big(static_cast<uint32_t>(kDmaSignature >> (offset == kDmaHighOffset ? 32 : 0)));
  }
  return UINT32_MAX;
}

void FwCfg::write_port(uint16_t offset, unsigned size, uint32_t value) {
  uint64_t dma_address = 0;
  {
    LockGuard lock(mutex_);
    if (offset == kSelectorOffset && size == 2) {
      position_ = {static_cast<uint16_t>(value), 0};
      return;
    }
    if (size != 4) return;
    if (offset == kDmaHighOffset) {
      dma_address_high_ = big(value);
      return;
    }
    if (offset != kDmaLowOffset) return;
    dma_address = (uint64_t{dma_address_high_} << 32) | big(value);
    dma_address_high_ = 0;
  }
  run_dma(dma_address);
}

// Without the lock: writing guest memory may call the engine's code watcher. Two vCPUs that use the one device at once
// get one of their positions, as with the real thing.
void FwCfg::run_dma(uint64_t address) {
  const auto access = memory_.read_object<DmaAccess>({address});
  if (!access) return;
  Position position;
  {
    LockGuard lock(mutex_);
    position = position_;
  }
  const uint32_t control = big(access->control);
  if ((control & kDmaSelect) != 0) position = {static_cast<uint16_t>(control >> kDmaKeyShift), 0};
  const bool done = transfer(control, big(access->length), std::byteswap(uint64_t{access->address}), position);
  {
    LockGuard lock(mutex_);
    position_ = position;
  }
  // The guest polls this word; that it may have moved the structure out of RAM meanwhile is its own affair.
  (void)memory_.write_object<uint32_t>({address}, big(done ? 0 : uint32_t{kDmaError}));
}

bool FwCfg::transfer(uint32_t control, uint32_t length, uint64_t address, Position& position) {
  if ((control & kDmaRead) == 0) {
    if ((control & kDmaWrite) != 0) return false;
    if ((control & kDmaSkip) != 0) {
      position.offset = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{position.offset} + length, UINT32_MAX));
    }
    return true;
  }
  const ByteSpan bytes = bytes_from(position);
  if (length > bytes.size() + kPaddingBudget || !memory_.is_ram({address}, length)) return false;
  static constexpr std::array<uint8_t, kPieceSize> kZeros{};
  for (uint64_t done = 0; done < length;) {
    const ByteSpan rest = done < bytes.size() ? bytes.subspan(done) : ByteSpan(kZeros);
    const ByteSpan piece = rest.first(std::min({rest.size(), length - done, kPieceSize}));
    if (!memory_.write({address + done}, piece)) return false;
    done += piece.size();
  }
  position.offset = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{position.offset} + length, UINT32_MAX));
  return true;
}

void FwCfg::save_state(StateWriter& writer) const {
  LockGuard lock(mutex_);
  writer.put("key", position_.key).put("offset", position_.offset).put("dma_address_high", dma_address_high_);
}

Result<> FwCfg::restore_state(const StateReader& reader) {
  const auto key = static_cast<uint16_t>(TRY(reader.get("key", UINT16_MAX)));
  const auto offset = static_cast<uint32_t>(TRY(reader.get("offset", UINT32_MAX)));
  const auto high = static_cast<uint32_t>(TRY(reader.get("dma_address_high", UINT32_MAX)));
  LockGuard lock(mutex_);
  position_ = {key, offset};
  dma_address_high_ = high;
  return {};
}

}  // namespace bulkhead::device
