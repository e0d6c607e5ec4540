// The NVM command set (NVM Express 1.4, chapter 6): commands become requests to the disk, one at a time for each
// command, and are answered in whatever order the disk completes them.
#include <algorithm>

#include "device/nvme/controller.h"
#include "device/nvme/prp.h"
#include "support/check.h"

namespace bulkhead::device::nvme {

using namespace spec::nvme;

namespace {

Status to_nvme(block::Status status, NvmOpcode opcode) {
  switch (status) {
    case block::Status::kOk:
      return Status::kSuccess;
    case block::Status::kNoSpace:
      return Status::kCapacityExceeded;
    case block::Status::kOutOfRange:
      return Status::kLbaOutOfRange;
    case block::Status::kReadOnly:
      return Status::kNamespaceWriteProtected;
    case block::Status::kUnsupported:
      // A deallocation is a hint.
      return opcode == NvmOpcode::kDatasetManagement ? Status::kSuccess : Status::kInvalidOpcode;
    case block::Status::kIoError:
    case block::Status::kLost:
    case block::Status::kRetry:
      break;
  }
  return opcode == NvmOpcode::kRead ? Status::kUnrecoveredReadError : Status::kWriteFault;
}

}  // namespace

bool Controller::is_flush_of_all(const Entry& entry) {
  return static_cast<NvmOpcode>(entry.opcode) == NvmOpcode::kFlush && entry.namespace_id == kAllNamespaces;
}

void Controller::execute_io(uint16_t queue, const Entry& entry) {
  if (find_namespace(entry.namespace_id) == nullptr && !is_flush_of_all(entry)) {
    post(queue, entry.command_id, Status::kInvalidNamespace, 0, entry.namespace_id);
    return;
  }
  if ((entry.flags & (kFusedMask | kTransferMask)) != 0) {
    post(queue, entry.command_id, Status::kInvalidField, 0, entry.namespace_id);
    return;
  }
  CHECK(!free_slots_.empty(), "a command is taken when there is a slot");
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  commands_[slot].queue = queue;
  commands_[slot].entry = entry;
  begin(slot);
}

// From the copy of its entry: also once more, when the disk asked for that.
void Controller::begin(uint32_t slot) {
  Command& command = commands_[slot];
  const Entry& entry = command.entry;
  command.buffer.clear();
  command.used = true;
  ++command.generation;
  command.opcode = static_cast<NvmOpcode>(entry.opcode);
  command.transferred = 0;
  command.flush_wanted = false;
  command.ranges.clear();
  command.next_range = 0;
  command.next_flush = 0;
  ++in_flight_;

  Status status = Status::kSuccess;
  switch (command.opcode) {
    case NvmOpcode::kFlush:
      if (is_flush_of_all(entry)) {
        (void)submit_next_flush(slot);
      } else {
        disk_of(entry).submit(block::Request::flush(completion(slot)));
      }
      break;
    case NvmOpcode::kRead:
    case NvmOpcode::kWrite:
      status = begin_transfer(slot, entry);
      break;
    case NvmOpcode::kWriteZeroes:
      status = begin_write_zeroes(slot, entry);
      break;
    case NvmOpcode::kDatasetManagement:
      status = begin_deallocation(slot, entry);
      break;
    default:
      status = Status::kInvalidOpcode;
      break;
  }
  if (status != Status::kSuccess) give_back(slot, status);
}

// In bytes, checked against the disk.
Controller::Status Controller::block_range(const Entry& entry, uint64_t& offset, uint64_t& size) const {
  const block::Geometry& geometry = disk_of(entry).geometry();
  const uint64_t first = entry.dword10 | uint64_t{entry.dword11} << 32;
  const uint64_t count = (entry.dword12 & 0xFFFF) + 1;
  if (!range_fits(first, count, geometry.size / geometry.sector_size)) return Status::kLbaOutOfRange;
  offset = first * geometry.sector_size;
  size = count * geometry.sector_size;
  return Status::kSuccess;
}

Controller::Status Controller::begin_transfer(uint32_t slot, const Entry& entry) {
  Command& command = commands_[slot];
  const bool reads = command.opcode == NvmOpcode::kRead;
  uint64_t offset = 0;
  uint64_t size = 0;
  if (const Status status = block_range(entry, offset, size); status != Status::kSuccess) return status;
  if (size > kMaximumTransfer) return Status::kInvalidField;
  block::Disk& disk = disk_of(entry);
  if (!reads && disk.geometry().read_only) return Status::kNamespaceWriteProtected;
  const Status status = collect_pages(memory_, page_size_, entry.prp1, entry.prp2, size, command.buffer);
  if (status != Status::kSuccess) return status;
  if (reads) {
    command.transferred = size;
    ++counters_.reads;
    counters_.bytes_read += size;
    disk.submit(block::Request::read(offset, command.buffer.bytes(0, size), completion(slot)));
  } else {
    command.flush_wanted = (entry.dword12 & kForceUnitAccess) != 0 || features_.write_cache == 0;
    ++counters_.writes;
    counters_.bytes_written += size;
    disk.submit(block::Request::write(offset, command.buffer.bytes(0, size), completion(slot)));
  }
  return Status::kSuccess;
}

Controller::Status Controller::begin_write_zeroes(uint32_t slot, const Entry& entry) {
  uint64_t offset = 0;
  uint64_t size = 0;
  if (const Status status = block_range(entry, offset, size); status != Status::kSuccess) return status;
  block::Disk& disk = disk_of(entry);
  if (disk.geometry().read_only) return Status::kNamespaceWriteProtected;
  commands_[slot].flush_wanted = (entry.dword12 & kForceUnitAccess) != 0 || features_.write_cache == 0;
  const auto unmap = (entry.dword12 & kDeallocate) != 0 ? block::Unmap::kYes : block::Unmap::kNo;
  disk.submit(block::Request::write_zeroes(offset, size, unmap, completion(slot)));
  return Status::kSuccess;
}

Controller::Status Controller::begin_deallocation(uint32_t slot, const Entry& entry) {
  Command& command = commands_[slot];
  const block::Geometry& geometry = disk_of(entry).geometry();
  const uint32_t count = (entry.dword10 & 0xFF) + 1;
  std::vector<DatasetRange> ranges(count);
  const uint64_t size = count * sizeof(DatasetRange);
  // Copied once; the driver's list is not looked at again.
  const Status status = collect_pages(memory_, page_size_, entry.prp1, entry.prp2, size, command.buffer);
  if (status != Status::kSuccess) return status;
  command.buffer.read(0, {reinterpret_cast<uint8_t*>(ranges.data()), size});
  for (const DatasetRange& range : ranges) {
    if (!range_fits(range.first_block, range.block_count, geometry.size / geometry.sector_size)) {
      return Status::kLbaOutOfRange;
    }
  }
  if ((entry.dword11 & kDatasetDeallocate) != 0) {
    if (geometry.read_only) return Status::kNamespaceWriteProtected;
    for (const DatasetRange& range : ranges) {
      if (range.block_count == 0) continue;
      command.ranges.push_back(
          {range.first_block * geometry.sector_size, uint64_t{range.block_count} * geometry.sector_size});
    }
  }
  // Attributes are hints that nothing here follows.
  if (!submit_next_range(slot)) give_back(slot, Status::kSuccess);
  return Status::kSuccess;
}

// False when none is left.
bool Controller::submit_next_range(uint32_t slot) {
  Command& command = commands_[slot];
  if (command.next_range == command.ranges.size()) return false;
  Command::Range& range = command.ranges[command.next_range];
  const Command::Range piece{range.offset, std::min(range.size, kDiscardPiece)};
  range = {range.offset + piece.size, range.size - piece.size};
  if (range.size == 0) ++command.next_range;
  disk_of(command.entry).submit(block::Request::discard(piece.offset, piece.size, completion(slot)));
  return true;
}

// Of a flush of all namespaces; false when none is left, and for every other command.
bool Controller::submit_next_flush(uint32_t slot) {
  Command& command = commands_[slot];
  if (!is_flush_of_all(command.entry) || command.next_flush == namespaces_.size()) return false;
  namespaces_[command.next_flush++].disk.submit(block::Request::flush(completion(slot)));
  return true;
}

// Completions come from the disk's threads, or on the worker within submit(); the worker takes them up.
block::Request::Completion Controller::completion(uint32_t slot) {
  return [this, slot, generation = commands_[slot].generation](block::Status status) {
    {
      const LockGuard lock(mutex_);
      finished_.push_back({slot, generation, status});
    }
    wake_event_->signal();
  };
}

// One request of the command came back: the next one, or the answer.
void Controller::advance(uint32_t slot, block::Status status) {
  Command& command = commands_[slot];
  if (status == block::Status::kRetry && phase_ == Phase::kReady) {
    waiting_.push_back(slot);
    --in_flight_;
    return;
  }
  const Status answer = to_nvme(status, command.opcode);
  if (answer == Status::kSuccess && phase_ == Phase::kReady) {
    if (submit_next_range(slot) || submit_next_flush(slot)) return;
    if (std::exchange(command.flush_wanted, false)) {
      disk_of(command.entry).submit(block::Request::flush(completion(slot)));
      return;
    }
  }
  if (status == block::Status::kIoError) ++counters_.media_errors;
  if (command.transferred != 0) command.buffer.mark_written(command.transferred);
  give_back(slot, answer);
}

void Controller::give_back(uint32_t slot, Status status) {
  Command& command = commands_[slot];
  command.used = false;
  command.buffer.clear();
  free_slots_.push_back(slot);
  --in_flight_;
  if (phase_ == Phase::kReady) post(command.queue, command.entry.command_id, status, 0, command.entry.namespace_id);
}

}  // namespace bulkhead::device::nvme
