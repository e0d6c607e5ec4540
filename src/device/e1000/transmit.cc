// From the driver to the network (software developer's manual, 3.3 to 3.5): descriptors bring a frame piece by piece;
// each is copied once, the frame too, and what the driver asks to be done to it is checked against the frame itself.
#include <algorithm>
#include <cstddef>
#include <cstring>

#include "device/e1000/card.h"
#include "net/frame/big_endian.h"
#include "net/frame/checksum.h"

namespace bulkhead::device::e1000 {

using namespace spec::e1000;
using net::frame::store_big16;

namespace {

constexpr uint8_t kKindContext = 0;
constexpr size_t kForChecksums = 0, kForSegments = 1;
constexpr size_t kFcsSize = 4, kTagAt = 2 * net::frame::MacAddress::kSize;

uint8_t command_of(const TransmitDescriptor& descriptor) {
  return static_cast<uint8_t>(descriptor.command >> kTransmitCommandShift);
}

// The sum of [start, end) to a place of its own; nothing where they lie outside the frame.
void insert_checksum(MutableByteSpan frame, size_t start, size_t field, size_t end) {
  if (start >= end || end > frame.size() || !range_fits(field, 2, frame.size())) return;
  const uint16_t value = net::frame::Checksum().add(ByteSpan(frame).subspan(start, end - start)).value();
  store_big16(frame.data() + field, net::frame::checksum_field(value, field - start));
}

// The end stands in the descriptor as the last byte.
size_t end_of(uint16_t end, size_t frame_size) {
  return end == 0 ? frame_size : size_t{end} + 1;
}

}  // namespace

// True when more could be done at once.
bool Card::process_transmit() {
  Registers registers;
  uint32_t generation = 0;
  {
    const LockGuard lock(mutex_);
    registers = registers_;
    generation = transmit_generation_;
  }
  if ((registers.transmit_control & kTransmitEnable) == 0) return false;
  auto ring = ring_of(registers.transmit, generation);
  if (!ring) return false;
  if (assembly_.generation != ring->generation) assembly_ = {.generation = ring->generation};
  uint32_t causes = 0, taken = 0;
  const uint32_t budget = std::min(kTransmitBudget, ring->count());
  for (; ring->head != ring->tail && taken < budget; ++taken) {
    const auto descriptor = memory_.read_object<TransmitDescriptor>(ring->at_head());
    if (!descriptor || !take(*descriptor, registers)) break;
    if ((command_of(*descriptor) & kTransmitReport) != 0) {
      const auto done = static_cast<uint8_t>(descriptor->status | kTransmitDone);
      (void)memory_.write({ring->at_head().value + offsetof(TransmitDescriptor, status)}, as_bytes(done));
      causes |= kCauseTransmitted;
    }
    ring->advance();
  }
  if (taken == 0) return false;
  if (ring->head == ring->tail) causes |= kCauseTransmitEmpty;
  {
    const LockGuard lock(mutex_);
    if (transmit_generation_ == ring->generation) registers_.transmit.head = ring->head;
    raise(causes);
  }
  settle_interrupts();
  return taken == budget;
}

bool Card::take(const TransmitDescriptor& descriptor, const Registers& registers) {
  if (assembly_.held == 0) {
    const uint8_t command = command_of(descriptor);
    const bool extended = (command & kTransmitExtended) != 0;
    if (extended && (descriptor.command >> kTransmitKindShift & 0xF) == kKindContext) {
      take_context(descriptor);
      return true;
    }
    if (assembly_.started == 0) {
      assembly_.started = 1;
      // These count in a frame's first descriptor.
      assembly_.segmented = extended && (command & kTransmitSegment) != 0;
      assembly_.options = extended ? static_cast<uint8_t>(descriptor.status >> 8) : uint8_t{0};
    }
    if ((command & kTransmitVlan) != 0) {
      assembly_.tagged = 1;
      assembly_.vlan = static_cast<uint16_t>(descriptor.status >> 16);
    }
    append(descriptor.address, descriptor.command & (extended ? 0xF'FFFFu : 0xFFFFu));
    if ((command & kTransmitEnd) == 0) return true;
    finish_frame(descriptor, registers);
  }
  if (assembly_.held != 0 && assembly_.spoiled == 0 && !send()) return false;
  assembly_ = {.generation = assembly_.generation};
  return true;
}

void Card::take_context(const TransmitDescriptor& descriptor) {
  const auto place = [](uint64_t bytes) {
    return ChecksumPlace{static_cast<uint8_t>(bytes), static_cast<uint8_t>(bytes >> 8),
                         static_cast<uint16_t>(bytes >> 16)};
  };
  const uint8_t command = command_of(descriptor);
  const bool for_segments = (command & kTransmitSegment) != 0;
  contexts_[for_segments ? kForSegments : kForChecksums] = {
      .ip = place(descriptor.address),
      .transport = place(descriptor.address >> 32),
      .segment_size = static_cast<uint16_t>(descriptor.status >> 16),
      .header_size = static_cast<uint8_t>(descriptor.status >> 8),
      .command = command,
  };
  if (!for_segments) return;
  const LockGuard lock(mutex_);
  count(kSegmentationContexts, 1);
}

void Card::append(uint64_t address, uint32_t size) {
  if (assembly_.spoiled != 0) return;
  const bool fits = range_fits(assembly_.size, size, outgoing_.size());
  if (!fits || !memory_.read({address}, MutableByteSpan(outgoing_).subspan(assembly_.size, size))) {
    assembly_.spoiled = 1;
    return;
  }
  assembly_.size += size;
}

// Leaves it held when it is one that can be sent.
void Card::finish_frame(const TransmitDescriptor& descriptor, const Registers& registers) {
  outgoing_offload_ = {};
  // A driver that brings a frame check sequence of its own has it taken off: nobody here has one.
  const bool has_fcs = (command_of(descriptor) & kTransmitInsertFcs) == 0;
  if (has_fcs) assembly_.size -= std::min<uint32_t>(assembly_.size, kFcsSize);
  bool good = assembly_.spoiled == 0 && assembly_.size >= net::frame::kEthernetHeaderSize;
  good = good && (assembly_.segmented != 0 ? make_segments() : make_checksums(descriptor));
  if (good && assembly_.tagged != 0 && (registers.control & kControlVlanMode) != 0) insert_tag(registers);
  good =
      good && net::frame::settle(MutableByteSpan(outgoing_).first(assembly_.size), outgoing_offload_, largest_frame_);
  if (!good) {
    ++refused_frames_;
    return;
  }
  assembly_.held = 1;
}

// Checksums of a frame that goes out as it is.
bool Card::make_checksums(const TransmitDescriptor& descriptor) {
  const MutableByteSpan frame = MutableByteSpan(outgoing_).first(assembly_.size);
  if ((command_of(descriptor) & kTransmitExtended) == 0) {
    // A legacy one says where by itself: offset in the third byte of the command, start in the second of the status.
    if ((command_of(descriptor) & kTransmitInsertChecksum) != 0) {
      insert_checksum(frame, descriptor.status >> 8 & 0xFF, descriptor.command >> 16 & 0xFF, frame.size());
    }
    return true;
  }
  const Context& context = contexts_[kForChecksums];
  if ((assembly_.options & kOptionIpChecksum) != 0) {
    insert_checksum(frame, context.ip.start, context.ip.field, end_of(context.ip.end, frame.size()));
  }
  if ((assembly_.options & kOptionTransportChecksum) == 0) return true;
  const ChecksumPlace& place = context.transport;
  const size_t end = end_of(place.end, frame.size());
  if (place.field < place.start || end != frame.size()) {
    insert_checksum(frame, place.start, place.field, end);
    return true;
  }
  // Whoever gets it may do without.
  outgoing_offload_ = {.is_checksum_open = true,
                       .checksum_start = place.start,
                       .checksum_offset = static_cast<uint16_t>(place.field - place.start)};
  return true;
}

// A stream of TCP in one frame, whose lengths the driver leaves to the card (3.5).
bool Card::make_segments() {
  const MutableByteSpan frame = MutableByteSpan(outgoing_).first(assembly_.size);
  const Context& context = contexts_[kForSegments];
  const size_t network = context.ip.start;
  if ((context.command & kContextTcp) == 0) return false;
  const bool is_ipv4 = (context.command & kContextIpv4) != 0;
  const size_t least = is_ipv4 ? net::frame::kIpv4HeaderSize : net::frame::kIpv6HeaderSize;
  if (!range_fits(network, least, frame.size()) || frame.size() - network > UINT16_MAX) return false;
  uint8_t* const header = frame.data() + network;
  const size_t size = frame.size() - network;
  if (is_ipv4) {
    const size_t header_size = size_t{4} * (header[0] & 0xF);
    if (header_size < least || header_size > size) return false;
    store_big16(header + 2, static_cast<uint16_t>(size));
    store_big16(header + 10, 0);
    store_big16(header + 10, net::frame::Checksum().add({header, header_size}).value());
  } else {
    store_big16(header + 4, static_cast<uint16_t>(size - least));
  }
  return net::frame::make_segmented(frame, context.segment_size, outgoing_offload_);
}

void Card::insert_tag(const Registers& registers) {
  if (assembly_.size + net::frame::kVlanTagSize > outgoing_.size()) {
    assembly_.size = 0;  // settled as no frame
    return;
  }
  uint8_t* const at = outgoing_.data() + kTagAt;
  std::memmove(at + net::frame::kVlanTagSize, at, assembly_.size - kTagAt);
  store_big16(at, static_cast<uint16_t>(registers.vlan_type));
  store_big16(at + 2, assembly_.vlan);
  assembly_.size += net::frame::kVlanTagSize;
  if (outgoing_offload_.is_checksum_open) {
    outgoing_offload_.checksum_start =
        static_cast<uint16_t>(outgoing_offload_.checksum_start + net::frame::kVlanTagSize);
  }
}

bool Card::send() {
  const ByteSpan frame = ByteSpan(outgoing_).first(assembly_.size);
  // Nobody is at the far end of a link that is down.
  if (port_.link_up() && port_.send(frame, outgoing_offload_) == net::Sent::kNoRoom) return false;
  ++sent_frames_;
  sent_bytes_ += frame.size();
  count_sent();
  return true;
}

void Card::count_sent() {
  const ByteSpan frame = ByteSpan(outgoing_).first(assembly_.size);
  const uint64_t size = frame.size() + kFcsSize;
  const auto to = net::frame::MacAddress::from(frame);
  const LockGuard lock(mutex_);
  count(kGoodTransmitted, 1);
  count(kTotalTransmitted, 1);
  count_octets(kGoodOctetsTransmitted, size);
  count_octets(kOctetsTransmitted, size);
  count(static_cast<uint8_t>(kPacketsTransmitted64 + size_class(size)), 1);
  if (to.is_broadcast()) {
    count(kBroadcastTransmitted, 1);
  } else if (to.is_group()) {
    count(kMulticastTransmitted, 1);
  }
}

}  // namespace bulkhead::device::e1000
