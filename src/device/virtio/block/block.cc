#include "device/virtio/block/block.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "spec/pci.h"
#include "support/check.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

namespace {

uint8_t to_virtio(block::Status status) {
  switch (status) {
    case block::Status::kOk:
      return kBlockStatusOk;
    case block::Status::kUnsupported:
      return kBlockStatusUnsupported;
    default:
      return kBlockStatusIoError;
  }
}

}  // namespace

BlockModel::BlockModel(std::string name, block::Disk& disk, std::string serial, uint16_t queue_count)
    : name_(std::move(name)),
      disk_(disk),
      serial_(std::move(serial)),
      queue_count_(queue_count),
      told_size_(disk.geometry().size) {
  CHECK(queue_count >= 1 && queue_count <= kMaximumQueues, "a disk has 1 to 16 queues");
}

uint32_t BlockModel::pci_class() const {
  return spec::pci::kClassStorageOther;
}

uint64_t BlockModel::features() const {
  const uint64_t always = kBlockSizeMax | kBlockSegMax | kBlockBlockSize | kBlockFlush | kBlockTopology;
  return always | (queue_count_ > 1 ? kBlockMultiqueue : 0) |
         (disk_.geometry().read_only ? kBlockReadOnly : kBlockDiscard | kBlockWriteZeroes);
}

std::vector<uint16_t> BlockModel::queue_sizes() const {
  return std::vector<uint16_t>(queue_count_, kQueueSize);
}

void BlockModel::read_config(uint64_t offset, MutableByteSpan out) const {
  const block::Geometry& geometry = disk_.geometry();
  BlockConfig config{};
  config.capacity = told_size_ / kBlockSectorSize;
  config.size_max = kMaximumSegmentSize;
  config.seg_max = kMaximumSegments;
  config.block_size = geometry.sector_size;
  const uint32_t ratio = std::max(geometry.physical_block_size / geometry.sector_size, 1u);
  config.physical_block_exponent = static_cast<uint8_t>(std::bit_width(ratio) - 1);
  config.minimum_io_size = static_cast<uint16_t>(ratio);
  config.queue_count = queue_count_;
  config.max_discard_sectors = kMaximumRangeSectors;
  config.max_discard_segments = kMaximumRanges;
  config.discard_sector_alignment = std::max(geometry.physical_block_size, geometry.sector_size) / kBlockSectorSize;
  config.max_write_zeroes_sectors = kMaximumRangeSectors;
  config.max_write_zeroes_segments = kMaximumRanges;
  config.write_zeroes_may_unmap = 1;
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = offset + i < sizeof config ? as_bytes(config)[offset + i] : uint8_t{0};
}

bool BlockModel::process(unsigned index) {
  Queue* queue = transport_->queue(index);
  if (queue == nullptr) return false;
  {
    const LockGuard lock(mutex_);
    collecting_ = true;
  }
  bool sane = true;
  Chain chain;
  const Drained drained = drain(*queue, chain, [&](Chain& taken) {
    const uint32_t slot = take_slot(index);
    std::swap(pending_[slot].chain, taken);
    sane = begin(slot);
    return sane;
  });
  give_finished_back();
  tell_driver();
  if (drained == Drained::kBroken) transport_->needs_reset("a request queue makes no sense");
  return sane && drained == Drained::kMore;
}

// A queue gives out no more chains than it has entries, so there are never more slots than entries of all queues.
uint32_t BlockModel::take_slot(unsigned queue) {
  if (free_slots_.empty()) {
    CHECK(pending_.size() < size_t{queue_count_} * kQueueSize, "more chains in flight than the queues hold");
    free_slots_.push_back(static_cast<uint32_t>(pending_.size()));
    pending_.emplace_back();
  }
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  reuse_slot(slot);
  pending_[slot].queue = queue;
  return slot;
}

void BlockModel::reuse_slot(uint32_t slot) {
  Pending& pending = pending_[slot];
  ++pending.generation;
  pending.parts_left = 0;
  pending.data_size = 0;
  pending.status = kBlockStatusOk;
  pending.flush_wanted = false;
  pending.retry = false;
  pending.used = true;
  ++in_flight_;
}

bool BlockModel::begin(uint32_t slot) {
  const Chain& chain = pending_[slot].chain;
  BlockRequestHeader header{};
  if (chain.writable_size() < 1 || !chain.read(0, as_mutable_bytes(header))) {
    // Nobody can be told in the ring, so the driver is told by the device's state.
    pending_[slot].used = false;
    free_slots_.push_back(slot);
    --in_flight_;
    transport_->needs_reset("a disk request without room for header and status");
    return false;
  }
  switch (header.type) {
    case kBlockIn:
    case kBlockOut:
      begin_transfer(slot, header);
      break;
    case kBlockFlushRequest:
      submit(slot, block::Request::flush(completion(slot)));
      break;
    case kBlockGetId:
      answer_id(slot);
      break;
    case kBlockDiscardRequest:
    case kBlockWriteZeroesRequest:
      begin_ranges(slot, header.type);
      break;
    default:
      give_back(slot, kBlockStatusUnsupported);
      break;
  }
  return true;
}

void BlockModel::begin_transfer(uint32_t slot, const BlockRequestHeader& header) {
  const Chain& chain = pending_[slot].chain;
  const auto offset = checked_multiply(header.sector, kBlockSectorSize);
  if (!offset) {
    give_back(slot, kBlockStatusIoError);
    return;
  }
  if (header.type == kBlockIn) {
    const uint32_t size = chain.writable_size() - 1;
    pending_[slot].data_size = size;
    submit(slot, block::Request::read(*offset, chain.writable_bytes(0, size), completion(slot)));
  } else {
    const uint32_t size = chain.readable_size() - sizeof header;
    pending_[slot].flush_wanted = write_through_;
    submit(slot, block::Request::write(*offset, chain.readable_bytes(sizeof header, size), completion(slot)));
  }
}

void BlockModel::begin_ranges(uint32_t slot, uint32_t type) {
  const Chain& chain = pending_[slot].chain;
  const uint32_t size = chain.readable_size() - sizeof(BlockRequestHeader);
  std::array<BlockRange, kMaximumRanges> ranges;
  const uint32_t count = size / sizeof(BlockRange);
  if (size % sizeof(BlockRange) != 0 || count == 0 || count > kMaximumRanges) {
    give_back(slot, kBlockStatusUnsupported);
    return;
  }
  const bool copied = chain.read(sizeof(BlockRequestHeader), {reinterpret_cast<uint8_t*>(ranges.data()), size});
  CHECK(copied, "the size was looked at");
  const uint32_t allowed_flags = type == kBlockWriteZeroesRequest ? kBlockUnmap : 0;
  for (uint32_t i = 0; i < count; ++i) {
    if ((ranges[i].flags & ~allowed_flags) != 0) {
      give_back(slot, kBlockStatusUnsupported);
      return;
    }
    if (ranges[i].sector_count > kMaximumRangeSectors || !checked_multiply(ranges[i].sector, kBlockSectorSize)) {
      give_back(slot, kBlockStatusIoError);
      return;
    }
  }
  // All are counted before the first is submitted, because it may complete at once.
  pending_[slot].parts_left = count;
  pending_[slot].flush_wanted = write_through_;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t offset = ranges[i].sector * kBlockSectorSize;
    const uint64_t bytes = uint64_t{ranges[i].sector_count} * kBlockSectorSize;
    if (type == kBlockDiscardRequest) {
      disk_.submit(block::Request::discard(offset, bytes, completion(slot)));
    } else {
      const auto unmap = (ranges[i].flags & kBlockUnmap) != 0 ? block::Unmap::kYes : block::Unmap::kNo;
      disk_.submit(block::Request::write_zeroes(offset, bytes, unmap, completion(slot)));
    }
  }
}

void BlockModel::answer_id(uint32_t slot) {
  std::array<uint8_t, kBlockIdSize> id{};
  std::copy_n(serial_.begin(), std::min<size_t>(serial_.size(), id.size()), id.begin());
  Pending& pending = pending_[slot];
  if (pending.chain.writable_size() - 1 < id.size()) {
    give_back(slot, kBlockStatusIoError);
    return;
  }
  pending.data_size = kBlockIdSize;
  const bool written = pending.chain.write(0, id);
  CHECK(written, "the size was looked at");
  give_back(slot, kBlockStatusOk);
}

void BlockModel::submit(uint32_t slot, block::Request request) {
  pending_[slot].parts_left = 1;
  disk_.submit(std::move(request));
}

// Completions come from the disk's threads, or on the worker itself; the worker takes them up.
block::Request::Completion BlockModel::completion(uint32_t slot) {
  return [this, slot, generation = pending_[slot].generation](block::Status status) {
    {
      const LockGuard lock(mutex_);
      finished_.push_back({slot, generation, status});
      if (collecting_) return;
    }
    transport_->wake();
  };
}

void BlockModel::on_wake() {
  give_finished_back();
  tell_driver();
  if (!transport_->paused()) tell_of_growth();
}

// What a driver reads in two pieces never is of two sizes, as the disk itself may be between them.
void BlockModel::tell_of_growth() {
  const uint64_t size = disk_.geometry().size;
  if (size == told_size_) return;
  transport_->change_config([&] { told_size_ = size; });
}

void BlockModel::give_finished_back() {
  std::vector<Finished> finished;
  {
    const LockGuard lock(mutex_);
    collecting_ = false;
    finished.swap(finished_);
  }
  for (const Finished& part : finished) {
    Pending& pending = pending_[part.slot];
    CHECK(pending.used && pending.generation == part.generation, "a completion for a request that is gone");
    pending.retry |= part.status == block::Status::kRetry;
    pending.status = std::max(pending.status, to_virtio(part.status));
    if (--pending.parts_left != 0) continue;
    if (pending.retry) {
      waiting_.push_back(part.slot);
      --in_flight_;
      continue;
    }
    if (std::exchange(pending.flush_wanted, false) && pending.status == kBlockStatusOk) {
      submit(part.slot, block::Request::flush(completion(part.slot)));
    } else {
      give_back(part.slot, pending.status);
    }
  }
}

void BlockModel::tell_driver() {
  for (uint32_t left = std::exchange(given_back_, 0); left != 0; left &= left - 1) {
    transport_->used(static_cast<unsigned>(std::countr_zero(left)));
  }
}

// Each begins from its chain again, as if it had just come: every part of a request may be done twice.
void BlockModel::resume() {
  const std::vector<uint32_t> slots = std::exchange(waiting_, {});
  for (const uint32_t slot : slots) {
    reuse_slot(slot);
    (void)begin(slot);
  }
  tell_driver();
  tell_of_growth();
}

// The status is the last byte of the writable part, wherever the driver cut it.
void BlockModel::give_back(uint32_t slot, uint8_t status) {
  Pending& pending = pending_[slot];
  const Chain& chain = pending.chain;
  chain.mark_written(0, pending.data_size);
  const bool written = chain.write(chain.writable_size() - 1, as_bytes(status));
  CHECK(written, "a request has a byte for its status");
  if (Queue* queue = transport_->queue(pending.queue); queue != nullptr) queue->push(chain, pending.data_size + 1);
  given_back_ |= 1u << pending.queue;
  pending.used = false;
  free_slots_.push_back(slot);
  --in_flight_;
}

void BlockModel::stop() {
  CHECK(in_flight_ == 0, "a disk was reset with requests in flight");
  for (const uint32_t slot : std::exchange(waiting_, {})) {
    pending_[slot].used = false;
    free_slots_.push_back(slot);
  }
}

void BlockModel::save_state(StateWriter& writer) const {
  writer.put("size", told_size_.load());
}

Result<> BlockModel::restore_state(const StateReader& reader) {
  const uint64_t size = TRY(reader.get("size"));
  // It may have grown since, of which the driver is told when the machine goes on.
  if (size > disk_.geometry().size) {
    return fail("{}: the disk had {} bytes, this one has {}", reader.path(), size, disk_.geometry().size);
  }
  told_size_ = size;
  return {};
}

}  // namespace bulkhead::device::virtio
