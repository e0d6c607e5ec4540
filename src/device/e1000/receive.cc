// From the network to the driver (software developer's manual, 3.2): filters, checksums, VLAN tags, and buffers that
// the driver offers. What does not fit yet waits; the port behind it keeps what comes meanwhile, bounded.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>

#include "device/e1000/card.h"
#include "net/frame/big_endian.h"
#include "net/frame/checksum.h"

namespace bulkhead::device::e1000 {

using namespace spec::e1000;
using net::frame::Family, net::frame::Headers, net::frame::load_big16, net::frame::MacAddress;

namespace {

constexpr size_t kFcsSize = 4, kLeastSize = 60, kTagAt = 2 * MacAddress::kSize;
constexpr size_t kLongestShort = 1522;  // with its checksum, where long ones are not wanted
// Frames that are not for this card, passed over before others have their turn.
constexpr unsigned kPassedOverATurn = 1024;

size_t buffer_size(uint32_t control) {
  const unsigned shift = control >> kReceiveBufferShift & 3;
  // 2048 to 256, or 16 times that; the largest of those is none (13.4.22).
  if ((control & kReceiveBufferExtended) == 0 || shift == 0) return size_t{2048} >> shift;
  return size_t{32768} >> shift;
}

// Twelve bits of an address (13.5.1), at the place that the driver chose.
unsigned multicast_hash(const MacAddress& address, uint32_t control) {
  static constexpr unsigned kShifts[] = {4, 3, 2, 0};
  const unsigned high = address.bytes[4] | unsigned{address.bytes[5]} << 8;
  return high >> kShifts[control >> kReceiveMulticastShift & 3] & 0xFFF;
}

bool is_transport_right(ByteSpan frame, const Headers& headers) {
  const net::frame::Ip& ip = *headers.ip;
  return net::frame::Checksum()
             .add_pseudo_header(ip.source, ip.destination, ip.protocol, static_cast<uint32_t>(ip.payload_size))
             .add(frame.subspan(ip.payload_offset, ip.payload_size))
             .value() == 0;
}

}  // namespace

// True when more could be done at once.
bool Card::process_receive() {
  Registers registers;
  uint32_t generation = 0;
  {
    const LockGuard lock(mutex_);
    registers = registers_;
    generation = receive_generation_;
  }
  if ((registers.receive_control & kReceiveEnable) == 0) {
    discard_waiting();
    return false;
  }
  const bool is_split = layout_of(registers).kind == Layout::Kind::kSplit;
  auto ring = ring_of(registers.receive, generation, is_split ? sizeof(SplitDescriptor) / Ring::kPlaceSize : 1);
  if (!ring) return false;
  const uint32_t threshold = ring->count() >> (1 + (registers.receive_control >> kReceiveThresholdShift & 3));
  const bool was_low = ring->waiting() <= threshold;
  uint32_t done = 0;
  for (; done < kReceiveBudget && fetch(registers); ++done) {
    if (deliver(*ring, registers) == Delivery::kNoDescriptors) break;
  }
  if (done == 0) return false;
  {
    const LockGuard lock(mutex_);
    if (receive_generation_ == ring->generation) registers_.receive.head = ring->head;
    raise(kCauseReceived | (!was_low && ring->waiting() <= threshold ? kCauseReceiveThreshold : 0));
  }
  settle_interrupts();
  return done == kReceiveBudget;
}

// A receiver that is off hears nothing, and nothing of it later.
void Card::discard_waiting() {
  current_ = {};
  segments_ = {};
  net::frame::Offload offload;
  for (unsigned count = 0; count < kPassedOverATurn; ++count) {
    if (port_.receive(incoming_, offload) == 0) return;
  }
  kick_event_->signal();
}

// The next frame for the driver in current_; false when there is none.
bool Card::fetch(const Registers& registers) {
  for (unsigned count = 0; current_.empty(); ++count) {
    if (!segments_.is_done()) {
      const size_t size = segments_.next(piece_);
      if (prepare(MutableByteSpan(piece_).first(size), true, segments_exact_, registers)) return true;
      continue;
    }
    if (count == kPassedOverATurn) {
      kick_event_->signal();
      return false;
    }
    net::frame::Offload offload;
    const size_t size = port_.receive(MutableByteSpan(incoming_).first(net::frame::kMaximumFrameSize), offload);
    if (size == 0) return false;
    const MutableByteSpan frame = MutableByteSpan(incoming_).first(size);
    if (!net::frame::settle(frame, offload, largest_frame_)) {
      ++too_large_frames_;
      continue;
    }
    bool exact = false;
    if (!wants(frame, registers, exact)) continue;
    if (offload.is_segmented()) {
      segments_ = net::frame::Segments(frame, offload);
      segments_exact_ = exact;
      continue;
    }
    const bool is_proven = offload.is_checksum_proven || offload.is_checksum_open;
    net::frame::complete(frame, offload);
    if (prepare(frame, is_proven, exact, registers)) return true;
  }
  return true;
}

bool Card::wants(ByteSpan frame, const Registers& registers, bool& exact) const {
  const uint32_t control = registers.receive_control;
  const auto to = MacAddress::from(frame), from = MacAddress::from(frame.subspan(MacAddress::kSize));
  const bool is_tagged =
      frame.size() >= kTagAt + net::frame::kVlanTagSize && load_big16(frame.data() + kTagAt) == registers.vlan_type;
  if (is_tagged && (control & kReceiveVlanFilter) != 0) {
    const uint16_t tag = load_big16(frame.data() + kTagAt + 2);
    const unsigned vlan = tag & 0xFFF;
    if ((registers.vlans[vlan / 32] >> vlan % 32 & 1) == 0) return false;
    const bool canonical = (tag & 0x1000) != 0;
    if ((control & kReceiveCanonicalFilter) != 0 && canonical != ((control & kReceiveCanonical) != 0)) return false;
  }
  for (size_t i = 0; i < registers.addresses.size(); i += 2) {
    const uint32_t low = registers.addresses[i], high = registers.addresses[i + 1];
    if ((high & kAddressValid) == 0) continue;
    const MacAddress& looked_at = (high & kAddressSource) != 0 ? from : to;
    if (load<uint32_t>(looked_at.bytes.data()) == low && load<uint16_t>(&looked_at.bytes[4]) == (high & 0xFFFF)) {
      return exact = true;
    }
  }
  if (to.is_broadcast()) return (control & (kReceiveBroadcast | kReceiveAllMulticast)) != 0;
  if (!to.is_group()) return (control & kReceiveAllUnicast) != 0;
  if ((control & kReceiveAllMulticast) != 0) return true;
  const unsigned hash = multicast_hash(to, control);
  return (registers.multicast[hash / 32] >> hash % 32 & 1) != 0;
}

// Looks at it as the hardware would, and takes its tag off; room for padding is behind it. False: it is lost.
bool Card::prepare(MutableByteSpan frame, bool is_proven, bool exact, const Registers& registers) {
  const size_t wire_size = std::max(frame.size(), kLeastSize) + kFcsSize;
  const bool is_long = (registers.receive_control & kReceiveLong) != 0;
  {
    const LockGuard lock(mutex_);
    count(kTotalReceived, 1);
    count_octets(kOctetsReceived, wire_size);
    if (wire_size > (is_long ? kLongestFrame : kLongestShort)) {
      count(kOversized, 1);
      ++too_large_frames_;
      return false;
    }
    count(kGoodReceived, 1);
    count_octets(kGoodOctetsReceived, wire_size);
    count(static_cast<uint8_t>(kPacketsReceived64 + size_class(wire_size)), 1);
    const auto to = MacAddress::from(frame);
    if (to.is_group()) count(to.is_broadcast() ? kBroadcastReceived : kMulticastReceived, 1);
  }
  verdict_ = {.status = exact ? uint8_t{0} : kReceiveNotExact};
  const uint32_t wanted = registers.receive_checksum;
  const Headers headers = net::frame::read_headers(frame);
  const bool is_wrong = headers.fault == net::frame::Fault::kIpChecksum;
  bool checked = false;
  if ((headers.ip || is_wrong) && headers.type == net::frame::kTypeIpv4 && (wanted & kChecksumIpv4) != 0) {
    verdict_.status |= kReceiveIpChecked;
    if (is_wrong) verdict_.errors |= kReceiveIpError;
    checked = true;
  }
  const bool takes_family = headers.ip && (headers.ip->source.family == Family::kIpv4 || (wanted & kChecksumIpv6) != 0);
  if (takes_family && (wanted & kChecksumTransport) != 0 && headers.fault == net::frame::Fault::kNone &&
      !headers.ip->fragment && !headers.ip->has_routing_header && (headers.tcp || headers.udp)) {
    // UDP without a checksum has none to be wrong.
    const bool has_sum = headers.tcp || load_big16(&frame[headers.ip->payload_offset + 6]) != 0;
    if (has_sum) verdict_.status |= kReceiveTransportChecked;
    if (has_sum && !is_proven && !is_transport_right(frame, headers)) verdict_.errors |= kReceiveTransportError;
    checked = true;
  }
  if (!checked) verdict_.status |= kReceiveIgnoreChecksum;

  const size_t tag_end = kTagAt + net::frame::kVlanTagSize;
  if ((registers.control & kControlVlanMode) != 0 && frame.size() >= tag_end &&
      load_big16(&frame[kTagAt]) == registers.vlan_type) {
    verdict_.status |= kReceiveVlan;
    verdict_.special = load_big16(&frame[kTagAt + 2]);
    std::memmove(frame.data() + net::frame::kVlanTagSize, frame.data(), kTagAt);
    frame = frame.subspan(net::frame::kVlanTagSize);
  }
  const size_t start = registers.receive_checksum & kChecksumStart;
  if (start < frame.size()) verdict_.checksum = net::frame::Checksum().add(ByteSpan(frame).subspan(start)).value();
  // Padded as on a wire; the check sequence was right, and nobody counts it again: zeroes.
  const size_t fcs_size = (registers.receive_control & kReceiveStripChecksum) != 0 ? 0 : kFcsSize;
  const size_t size = std::max(frame.size(), kLeastSize) + fcs_size;
  std::fill(frame.data() + frame.size(), frame.data() + size, uint8_t{0});
  current_ = {frame.data(), size};
  return true;
}

Card::Layout Card::layout_of(const Registers& registers) {
  if ((registers.receive_filter & kFilterExtended) == 0) return {.sizes = {buffer_size(registers.receive_control)}};
  if ((registers.receive_control & kReceiveDescriptorKind) != kReceiveSplit) {
    return {.kind = Layout::Kind::kExtended, .sizes = {buffer_size(registers.receive_control)}};
  }
  const uint32_t sizes = registers.split_control;
  return {.kind = Layout::Kind::kSplit,
          .sizes = {(sizes & 0x7F) * size_t{128}, (sizes >> 8 & 0x3F) * size_t{1024},
                    (sizes >> 16 & 0x3F) * size_t{1024}, (sizes >> 24 & 0x3F) * size_t{1024}}};
}

Card::Delivery Card::deliver(Ring& ring, const Registers& registers) {
  const Layout layout = layout_of(registers);
  const size_t room = layout.room();
  const size_t needed = room == 0 ? SIZE_MAX : (current_.size() + room - 1) / room;
  if (needed >= ring.count()) {
    // No ring of this size ever holds it.
    ++too_large_frames_;
    current_ = {};
    return Delivery::kDone;
  }
  if (needed > ring.waiting()) return Delivery::kNoDescriptors;
  for (ByteSpan rest = current_; !rest.empty(); ring.advance()) {
    SplitDescriptor descriptor{};
    (void)memory_.read(ring.at_head(), as_mutable_bytes(descriptor).first(ring.stride * Ring::kPlaceSize));
    std::array<uint16_t, kSplitBuffers> lengths{};
    for (size_t i = 0; i < kSplitBuffers; ++i) {
      const ByteSpan part = rest.first(std::min(rest.size(), layout.sizes[i]));
      rest = rest.subspan(part.size());
      lengths[i] = static_cast<uint16_t>(part.size());
      // A buffer that is no RAM gets nothing; its descriptor is used up.
      if (!part.empty()) (void)memory_.write({descriptor.addresses[i]}, part);
    }
    give_back(ring, layout.kind, lengths, rest.empty());
  }
  ++received_frames_;
  received_bytes_ += current_.size();
  current_ = {};
  return Delivery::kDone;
}

// Says what lies in the buffers of the descriptor at the ring's head. What a driver polls is written last, at once.
void Card::give_back(const Ring& ring, Layout::Kind kind, const std::array<uint16_t, kSplitBuffers>& lengths,
                     bool is_last) {
  const Verdict verdict = is_last ? verdict_ : Verdict{};
  const auto status = static_cast<uint8_t>(kReceiveDone | (is_last ? kReceiveEnd : 0) | verdict.status);
  constexpr size_t kHalf = 8;
  std::array<uint8_t, 2 * kHalf> bytes;
  if (kind == Layout::Kind::kLegacy) {
    store(bytes.data(), ReceiveDescriptor{.length = lengths[0],
                                          .checksum = verdict.checksum,
                                          .status = status,
                                          .errors = verdict.errors,
                                          .special = verdict.special});
  } else {
    store(bytes.data(), ExtendedWriteBack{.queue = 0,
                                          .identification = 0,
                                          .checksum = verdict.checksum,
                                          .status = status | uint32_t{verdict.errors} << 24,
                                          .length = lengths[0],
                                          .special = verdict.special});
    (void)memory_.write(ring.at_head(), ByteSpan(bytes).first(kHalf));
  }
  if (kind == Layout::Kind::kSplit) {
    // Headers are not told apart: the first buffer is filled, then the others.
    const std::array<uint16_t, kSplitBuffers> others{0, lengths[1], lengths[2], lengths[3]};
    (void)memory_.write({ring.at_head().value + 2 * kHalf}, as_bytes(others));
  }
  std::atomic_thread_fence(std::memory_order_release);
  (void)memory_.write({ring.at_head().value + kHalf}, ByteSpan(bytes).subspan(kHalf));
}

}  // namespace bulkhead::device::e1000
