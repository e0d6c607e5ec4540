// The commands of the drives (ACS-3, chapter 7): they become requests to the disk, one at a time for each command, and
// are answered in whatever order the disk completes them.
#include <algorithm>
#include <bit>

#include "device/ahci/controller.h"
#include "support/check.h"

namespace bulkhead::device::ahci {

using namespace spec::ahci;
using AtaCommand = spec::ahci::Command;

namespace {

uint64_t lba48(const HostFis& fis) {
  uint64_t lba = 0;
  for (int i = 2; i >= 0; --i) lba = lba << 8 | fis.lba_high[i];
  for (int i = 2; i >= 0; --i) lba = lba << 8 | fis.lba_low[i];
  return lba;
}

uint64_t lba28(const HostFis& fis) {
  return uint64_t{fis.lba_low[0]} | uint64_t{fis.lba_low[1]} << 8 | uint64_t{fis.lba_low[2]} << 16 |
         uint64_t{fis.device & 0xFu} << 24;
}

uint64_t count48(uint16_t count) {
  return count == 0 ? 65536 : count;
}

uint64_t count28(const HostFis& fis) {
  return (fis.count & 0xFF) == 0 ? 256 : fis.count & 0xFF;
}

uint8_t to_error(block::Status status, bool is_read) {
  switch (status) {
    case block::Status::kOk:
      return 0;
    case block::Status::kOutOfRange:
      return kErrorNoSector | kErrorAbort;
    case block::Status::kReadOnly:
    case block::Status::kUnsupported:
      return kErrorAbort;
    default:
      return is_read ? kErrorUncorrectable : kErrorAbort;
  }
}

// Two characters a word, the first in the upper byte, padded with spaces.
void put_text(std::array<uint16_t, 256>& words, size_t first, size_t count, std::string_view text) {
  const auto at = [text](size_t i) { return static_cast<uint8_t>(i < text.size() ? text[i] : ' '); };
  for (size_t i = 0; i < count; ++i) words[first + i] = static_cast<uint16_t>(at(2 * i) << 8 | at(2 * i + 1));
}

}  // namespace

void Controller::execute(uint32_t index, uint32_t slot, uint16_t flags) {
  Port& port = ports_[index];
  const auto command = static_cast<AtaCommand>(port.commands[slot].fis.command);
  if (port.drive.kind == DriveKind::kDisk) {
    execute_disk(index, slot);
    return;
  }
  switch (command) {
    case AtaCommand::kPacket:
      if ((flags & kHeaderAtapi) != 0) {
        execute_packet(index, slot);
        return;
      }
      break;
    case AtaCommand::kIdentifyPacket:
      answer(index, slot, as_bytes(identify(port)));
      return;
    case AtaCommand::kDeviceReset:
      port.cdrom.reset();
      send_signature(index);
      finish(index, slot, {});
      return;
    case AtaCommand::kSetFeatures:
      set_features(index, slot);
      return;
    case AtaCommand::kStandbyImmediate:
    case AtaCommand::kIdleImmediate:
    case AtaCommand::kFlush:
    case AtaCommand::kFlushExt:
      finish(index, slot, {});
      return;
    case AtaCommand::kCheckPower:
      finish(index, slot, {.count = 0xFF});
      return;
    default:
      break;
  }
  finish(index, slot, {.error = kErrorAbort});
}

void Controller::execute_disk(uint32_t index, uint32_t slot) {
  Port& port = ports_[index];
  Controller::Command& command = port.commands[slot];
  const HostFis& fis = command.fis;
  switch (static_cast<AtaCommand>(fis.command)) {
    case AtaCommand::kReadQueued:
    case AtaCommand::kWriteQueued: {
      // The count stands in the features, the tag in the count; it is the slot (AHCI 5.6.4).
      command.queued = true;
      if (fis.count >> 3 != slot) {
        finish(index, slot, {.error = kErrorAbort});
        return;
      }
      const bool is_read = fis.command == static_cast<uint8_t>(AtaCommand::kReadQueued);
      command.flush_wanted = !is_read && ((fis.device & kForceUnitAccess) != 0 || !port.write_cache);
      transfer(index, slot, is_read, lba48(fis), count48(static_cast<uint16_t>(fis.features | fis.features_high << 8)));
      return;
    }
    case AtaCommand::kReadSectors:
    case AtaCommand::kReadDma:
      transfer(index, slot, true, lba28(fis), count28(fis));
      return;
    case AtaCommand::kReadSectorsExt:
    case AtaCommand::kReadDmaExt:
      transfer(index, slot, true, lba48(fis), count48(fis.count));
      return;
    case AtaCommand::kWriteSectors:
    case AtaCommand::kWriteDma:
      command.flush_wanted = !port.write_cache;
      transfer(index, slot, false, lba28(fis), count28(fis));
      return;
    case AtaCommand::kWriteSectorsExt:
    case AtaCommand::kWriteDmaExt:
    case AtaCommand::kWriteDmaFuaExt:
      command.flush_wanted = !port.write_cache || fis.command == static_cast<uint8_t>(AtaCommand::kWriteDmaFuaExt);
      transfer(index, slot, false, lba48(fis), count48(fis.count));
      return;
    case AtaCommand::kFlush:
    case AtaCommand::kFlushExt:
      submit(index, block::Request::flush(completion(index, slot)));
      return;
    case AtaCommand::kDataSetManagement:
      trim(index, slot);
      return;
    case AtaCommand::kIdentify:
      answer(index, slot, as_bytes(identify(port)));
      return;
    case AtaCommand::kReadLogExt:
      read_log(index, slot);
      return;
    case AtaCommand::kSetFeatures:
      set_features(index, slot);
      return;
    case AtaCommand::kCheckPower:
      finish(index, slot, {.count = 0xFF});
      return;
    // Nothing to look at, and nothing that spins.
    case AtaCommand::kReadVerify:
    case AtaCommand::kReadVerifyExt: {
      const bool is_long = fis.command == static_cast<uint8_t>(AtaCommand::kReadVerifyExt);
      const uint64_t first = is_long ? lba48(fis) : lba28(fis);
      const uint64_t count = is_long ? count48(fis.count) : count28(fis);
      const bool fits = range_fits(first, count, port.drive.disk.geometry().size / kSectorSize);
      finish(index, slot, {.error = fits ? uint8_t{0} : uint8_t{kErrorNoSector}});
      return;
    }
    case AtaCommand::kStandbyImmediate:
    case AtaCommand::kIdleImmediate:
    case AtaCommand::kStandby:
    case AtaCommand::kIdle:
    case AtaCommand::kSleep:
      finish(index, slot, {});
      return;
    default:
      // A packet drive's identity is asked of a disk too; the signature tells what it is.
      finish(index, slot, {.error = kErrorAbort});
      return;
  }
}

void Controller::transfer(uint32_t index, uint32_t slot, bool is_read, uint64_t first, uint64_t count) {
  Port& port = ports_[index];
  Controller::Command& command = port.commands[slot];
  const block::Geometry& geometry = port.drive.disk.geometry();
  if (!range_fits(first, count, geometry.size / kSectorSize)) {
    finish(index, slot, {.error = kErrorNoSector});
    return;
  }
  const uint64_t size = count * kSectorSize;
  if (command.buffer.size() < size || (!is_read && geometry.read_only)) {
    finish(index, slot, {.error = kErrorAbort});
    return;
  }
  command.is_read = is_read;
  command.transferred = size;
  std::vector<MutableByteSpan> bytes = command.buffer.bytes(0, size);
  submit(index, is_read ? block::Request::read(first * kSectorSize, std::move(bytes), completion(index, slot))
                        : block::Request::write(first * kSectorSize, std::move(bytes), completion(index, slot)));
}

// Ranges of 48 bits of address and 16 of count, 64 in each block (ACS-3, 7.5).
void Controller::trim(uint32_t index, uint32_t slot) {
  Port& port = ports_[index];
  Controller::Command& command = port.commands[slot];
  const block::Geometry& geometry = port.drive.disk.geometry();
  const uint16_t blocks = command.fis.count;
  std::vector<uint64_t> entries(size_t{blocks} * kSectorSize / 8);
  if ((command.fis.features & kTrim) == 0 || blocks == 0 || blocks > kMaximumTrimBlocks || geometry.read_only ||
      command.buffer.size() < entries.size() * 8) {
    finish(index, slot, {.error = kErrorAbort});
    return;
  }
  command.buffer.read(0, {reinterpret_cast<uint8_t*>(entries.data()), entries.size() * 8});
  for (const uint64_t entry : entries) {
    const uint64_t first = entry & 0xFFFF'FFFF'FFFF;
    const uint64_t count = entry >> 48;
    if (count == 0) continue;
    if (!range_fits(first, count, geometry.size / kSectorSize)) {
      finish(index, slot, {.error = kErrorNoSector | kErrorAbort});
      return;
    }
    command.ranges.push_back({first * kSectorSize, count * kSectorSize});
  }
  if (!submit_next_range(index, slot)) finish(index, slot, {});
}

bool Controller::submit_next_range(uint32_t index, uint32_t slot) {
  Controller::Command& command = ports_[index].commands[slot];
  if (command.next_range == command.ranges.size()) return false;
  // Neighbours are one piece: a driver cuts a long range into the pieces that an entry holds.
  Controller::Command::Range piece = command.ranges[command.next_range++];
  while (command.next_range < command.ranges.size()) {
    const Controller::Command::Range& next = command.ranges[command.next_range];
    if (next.offset != piece.offset + piece.size || piece.size + next.size > kDiscardPiece) break;
    piece.size += next.size;
    ++command.next_range;
  }
  submit(index, block::Request::discard(piece.offset, piece.size, completion(index, slot)));
  return true;
}

void Controller::set_features(uint32_t index, uint32_t slot) {
  Port& port = ports_[index];
  switch (port.commands[slot].fis.features) {
    case kEnableWriteCache:
      port.write_cache = true;
      finish(index, slot, {});
      return;
    case kDisableWriteCache:
      port.write_cache = false;
      // What is in the cache is made safe first (ACS-3, 7.45).
      if (port.drive.kind == DriveKind::kDisk) return submit(index, block::Request::flush(completion(index, slot)));
      finish(index, slot, {});
      return;
    case kSetTransferMode:
      finish(index, slot, {});
      return;
    default:
      finish(index, slot, {.error = kErrorAbort});
      return;
  }
}

// The log of queued errors (SATA 13.7.1): which tag failed, and how. After an error a driver asks for it.
void Controller::read_log(uint32_t index, uint32_t slot) {
  const Port& port = ports_[index];
  const HostFis& fis = port.commands[slot].fis;
  std::array<uint8_t, kSectorSize> log{};
  if (fis.lba_low[0] == kLogQueuedError && fis.count == 1) {
    log[0] = port.queued_error;
    log[2] = port.error_status;
    log[3] = port.error;
  } else if (fis.lba_low[0] == 0 && fis.count == 1) {
    log[0] = 1;  // the directory's version
    log[2 * kLogQueuedError] = 1;
  } else {
    finish(index, slot, {.error = kErrorAbort});
    return;
  }
  uint8_t sum = 0;
  for (const uint8_t byte : log) sum = static_cast<uint8_t>(sum + byte);
  if (fis.lba_low[0] == kLogQueuedError) log.back() = static_cast<uint8_t>(-sum);
  answer(index, slot, log);
}

// By programmed I/O, as far as there is room.
void Controller::answer(uint32_t index, uint32_t slot, ByteSpan data) {
  Controller::Command& command = ports_[index].commands[slot];
  const uint64_t written = command.buffer.write(0, data);
  finish(index, slot, {.pio = true, .transferred = written});
}

// ---- Packets ----

void Controller::execute_packet(uint32_t index, uint32_t slot) {
  Port& port = ports_[index];
  Controller::Command& command = port.commands[slot];
  std::array<uint8_t, Cdrom::kPacketSize> packet{};
  if (!memory_.read({command.table + kPacketOffset}, packet)) {
    fail_port(index, "a packet that is not in memory");
    return;
  }
  const Cdrom::Answer reply = port.cdrom.execute(packet);
  if (!reply.good) {
    finish(index, slot, {.error = static_cast<uint8_t>(port.cdrom.sense_key() << 4 | kErrorAbort)});
    return;
  }
  if (reply.read_size != 0) {
    const uint64_t size = std::min(reply.read_size, command.buffer.size());
    if (size % kSectorSize != 0 || size == 0) {
      port.cdrom.read_failed();
      finish(index, slot, {.error = static_cast<uint8_t>(port.cdrom.sense_key() << 4 | kErrorAbort)});
      return;
    }
    command.is_read = true;
    command.transferred = size;
    submit(index, block::Request::read(reply.read_offset, command.buffer.bytes(0, size), completion(index, slot)));
    return;
  }
  const uint64_t written = command.buffer.write(0, reply.data);
  const bool by_pio = (command.fis.features & 1) == 0;
  finish(index, slot, {.pio = by_pio, .transferred = written, .count = 3});
}

// ---- The disk ----

void Controller::submit(uint32_t index, block::Request request) {
  ++ports_[index].in_flight;
  ports_[index].drive.disk.submit(std::move(request));
}

// Completions come from the disk's threads, or on the worker within submit(); the worker takes them up.
block::Request::Completion Controller::completion(uint32_t index, uint32_t slot) {
  return [this, index, slot, generation = ports_[index].commands[slot].generation](block::Status status) {
    {
      const LockGuard lock(mutex_);
      finished_.push_back({index, slot, generation, status});
    }
    wake_event_->signal();
  };
}

void Controller::advance(uint32_t index, uint32_t slot, block::Status status) {
  Port& port = ports_[index];
  Controller::Command& command = port.commands[slot];
  if (status == block::Status::kRetry) {
    port.again |= 1u << slot;
    return;
  }
  // A trim is a hint.
  const bool is_hint = !command.ranges.empty() && status == block::Status::kUnsupported;
  uint8_t error = is_hint ? uint8_t{0} : to_error(status, command.is_read);
  if (error == 0) {
    if (submit_next_range(index, slot)) return;
    if (std::exchange(command.flush_wanted, false)) {
      submit(index, block::Request::flush(completion(index, slot)));
      return;
    }
  }
  const bool is_packet = port.drive.kind == DriveKind::kCdrom;
  if (error != 0 && is_packet) {
    port.cdrom.read_failed();
    error = static_cast<uint8_t>(port.cdrom.sense_key() << 4 | kErrorAbort);
  }
  finish(index, slot,
         {.error = error,
          .pio = is_packet && (command.fis.features & 1) == 0,
          .transferred = command.transferred,
          .count = is_packet ? uint16_t{3} : uint16_t{0}});
}

// ---- Identity (ACS-3, 7.12 and 7.13) ----

std::array<uint16_t, 256> Controller::identify(const Port& port) const {
  const bool is_cd = port.drive.kind == DriveKind::kCdrom;
  std::array<uint16_t, 256> words{};
  words[0] = is_cd ? 0x8580 : 0x0040;  // a CD drive with packets of 12 bytes; a disk
  put_text(words, 10, 10, port.drive.serial);
  put_text(words, 23, 4, "1.0");
  put_text(words, 27, 20, is_cd ? "Bulkhead CD drive" : "Bulkhead SATA disk");
  words[49] = 0x0300;  // LBA and DMA
  words[53] = 0x0006;
  words[63] = 0x0007;  // multiword DMA
  words[64] = 0x0003;
  for (size_t i = 65; i <= 68; ++i) words[i] = 120;  // ns
  words[76] = 0x000E;                                // all three generations
  words[80] = 0x01F0;                                // up to ACS-2
  words[82] = is_cd ? 0x0014 : 0x0020;               // packets, reset; write cache
  words[83] = 0x4000;
  words[84] = 0x4000;
  words[85] = is_cd ? 0x0014 : (port.write_cache ? 0x0020 : 0);
  words[86] = 0;
  words[87] = 0x4000;
  words[88] = 0x203F;  // Ultra DMA 5
  words[93] = 0;
  if (is_cd) return words;

  const block::Geometry& geometry = port.drive.disk.geometry();
  const uint64_t sectors = geometry.size / kSectorSize;
  const auto put = [&words](size_t at, uint64_t value, size_t count) {
    for (size_t i = 0; i < count; ++i) words[at + i] = static_cast<uint16_t>(value >> (16 * i));
  };
  words[1] = 16383;
  words[3] = 16;
  words[6] = 63;
  put(60, std::min<uint64_t>(sectors, 0x0FFF'FFFF), 2);
  words[69] = 0x0000;
  words[75] = kSlotCount - 1;
  words[76] |= 0x0100;  // native queueing
  words[83] |= 0x3400;  // flush, flush ext, 48-bit addresses
  words[84] |= 0x0060;  // FUA, logs
  words[86] = 0x3400;
  words[87] |= 0x0060;
  put(100, sectors, 4);
  if (!geometry.read_only) {
    words[105] = kMaximumTrimBlocks;
    words[169] = 1;
  }
  const uint32_t ratio = std::max<uint32_t>(geometry.physical_block_size / static_cast<uint32_t>(kSectorSize), 1);
  words[106] = static_cast<uint16_t>(0x4000 | (ratio > 1 ? 0x2000 | (std::bit_width(ratio) - 1) : 0));
  words[119] = 0x4000;
  words[120] = 0x4000;
  words[217] = 1;  // does not spin
  return words;
}

}  // namespace bulkhead::device::ahci
