#include "net/frame/offload.h"

#include <algorithm>

#include "net/frame/big_endian.h"
#include "net/frame/checksum.h"

namespace bulkhead::net::frame {
namespace {

constexpr uint16_t kTcpChecksumOffset = 16, kUdpChecksumOffset = 6;
constexpr size_t kTcpFlagsOffset = 13, kTcpDataOffset = 12;
constexpr uint8_t kTcpCongestionReduced = 0x80;
constexpr size_t kLeastSegment = 32;

// virtio_net_hdr.
constexpr uint8_t kFlagNeedsChecksum = 1, kFlagDataValid = 2;
constexpr uint8_t kGsoNone = 0, kGsoTcpIpv4 = 1, kGsoTcpIpv6 = 4, kGsoUdp = 5;
constexpr size_t kFlagsAt = 0, kGsoTypeAt = 1, kHeadersSizeAt = 2, kGsoSizeAt = 4, kStartAt = 6, kOffsetAt = 8,
                 kBufferCountAt = 10;

// Its own place in the frame, when all of the packet is there.
bool is_transport_checksum(const Headers& headers, const Offload& offload, ByteSpan frame) {
  if (headers.fault != Fault::kNone || !headers.ip || headers.ip->fragment) return false;
  if (!headers.tcp && !headers.udp) return false;
  if (offload.checksum_start != headers.ip->payload_offset) return false;
  // What lies behind the packet would be summed up too.
  if (headers.ip->payload_offset + headers.ip->payload_size != frame.size()) return false;
  return offload.checksum_offset == (headers.tcp ? kTcpChecksumOffset : kUdpChecksumOffset);
}

bool is_cuttable(const Headers& headers, const Offload& offload, size_t frame_size, size_t largest) {
  const bool is_ipv4 = headers.ip->source.family == Family::kIpv4;
  switch (offload.segmentation) {
    case Segmentation::kTcpIpv4:
    case Segmentation::kTcpIpv6: {
      if (!headers.tcp || is_ipv4 != (offload.segmentation == Segmentation::kTcpIpv4)) return false;
      // Each piece would begin, break or urge the connection anew.
      if ((headers.tcp->flags & (kTcpSyn | kTcpReset | kTcpUrgent)) != 0) return false;
      break;
    }
    case Segmentation::kUdp:
      if (!headers.udp) return false;
      break;
    case Segmentation::kNone:
      return false;
  }
  // A routing header's last address, not the packet's destination, is what the checksum is made of.
  if (headers.ip->has_routing_header || offload.segment_size < kLeastSegment) return false;
  if (headers.transport_payload_size == 0 ||
      headers.transport_payload_offset + headers.transport_payload_size != frame_size) {
    return false;
  }
  if (segment_count(headers, offload) > kMaximumSegments) return false;
  return headers.transport_payload_offset + std::min<size_t>(offload.segment_size, headers.transport_payload_size) <=
         largest;
}

}  // namespace

size_t segment_count(const Headers& headers, const Offload& offload) {
  if (!offload.is_segmented() || offload.segment_size == 0) return 1;
  return std::max<size_t>((headers.transport_payload_size + offload.segment_size - 1) / offload.segment_size, 1);
}

bool OffloadSupport::takes(const Offload& offload, ByteSpan frame) const {
  if (offload.is_checksum_open && !checksum) return false;
  switch (offload.segmentation) {
    case Segmentation::kNone:
      return true;
    case Segmentation::kTcpIpv4:
      return tcp_ipv4;
    case Segmentation::kTcpIpv6:
      return tcp_ipv6;
    case Segmentation::kUdp:
      return read_ethernet(frame).type == kTypeIpv4 ? udp_ipv4 : udp_ipv6;
  }
  return false;
}

bool settle(MutableByteSpan frame, Offload& offload, size_t largest) {
  if (frame.size() < kEthernetHeaderSize || frame.size() > kMaximumFrameSize) return false;
  if (!offload.is_segmented() && frame.size() > largest) return false;
  if (offload.is_whole()) return true;
  // A segmented frame without an open checksum is not allowed (5.1.6.2.1).
  if (!offload.is_checksum_open) return false;
  const Headers headers = read_headers(frame);
  if (is_transport_checksum(headers, offload, frame)) {
    return !offload.is_segmented() || is_cuttable(headers, offload, frame.size(), largest);
  }
  if (offload.is_segmented()) return false;
  if (!complete_checksum(frame, offload.checksum_start, offload.checksum_offset)) return false;
  offload = {};
  return true;
}

void complete(MutableByteSpan frame, Offload& offload) {
  if (offload.is_checksum_open) (void)complete_checksum(frame, offload.checksum_start, offload.checksum_offset);
  offload = {};
}

bool make_segmented(MutableByteSpan frame, uint16_t segment_size, Offload& offload) {
  const Headers headers = read_headers(frame);
  if (headers.fault != Fault::kNone || !headers.ip || headers.ip->fragment || !headers.tcp) return false;
  Offload made{
      .segmentation = headers.ip->source.family == Family::kIpv4 ? Segmentation::kTcpIpv4 : Segmentation::kTcpIpv6,
      .segment_size = segment_size,
      .is_checksum_open = true,
      .checksum_start = static_cast<uint16_t>(headers.ip->payload_offset),
      .checksum_offset = kTcpChecksumOffset,
  };
  if (!is_transport_checksum(headers, made, frame) || !is_cuttable(headers, made, frame.size(), frame.size()))
    return false;
  const uint16_t open = Checksum()
                            .add_pseudo_header(headers.ip->source, headers.ip->destination, headers.ip->protocol,
                                               static_cast<uint32_t>(headers.ip->payload_size))
                            .value();
  store_big16(frame.data() + made.checksum_start + made.checksum_offset, static_cast<uint16_t>(~open));
  offload = made;
  return true;
}

// ---- Pieces ----

Segments::Segments(ByteSpan frame, const Offload& offload) : frame_(frame), offload_(offload) {
  if (!offload.is_segmented()) {
    segment_size_ = frame.size();
    count_ = 1;
    return;
  }
  const Headers headers = read_headers(frame);
  // Not a settled frame: there are no pieces of it.
  if (headers.fault != Fault::kNone || !headers.ip || (!headers.tcp && !headers.udp)) return;
  is_ipv4_ = headers.ip->source.family == Family::kIpv4;
  network_offset_ = headers.ip->header_offset;
  headers_size_ = headers.transport_payload_offset;
  segment_size_ = offload.segment_size;
  count_ = segment_count(headers, offload);
}

size_t Segments::next(MutableByteSpan out) {
  if (is_done()) return 0;
  if (!offload_.is_segmented()) {
    next_ = count_;
    std::ranges::copy(frame_, out.begin());
    Offload left = offload_;
    complete(out.first(frame_.size()), left);
    return frame_.size();
  }
  const ByteSpan payload = frame_.subspan(headers_size_);
  const size_t from = next_ * segment_size_;
  const size_t size = std::min(segment_size_, payload.size() - from);
  const MutableByteSpan piece = out.first(headers_size_ + size);
  std::ranges::copy(frame_.first(headers_size_), piece.begin());
  std::ranges::copy(payload.subspan(from, size), piece.begin() + static_cast<ptrdiff_t>(headers_size_));
  finish_headers(piece, size);
  ++next_;
  return piece.size();
}

// Lengths, numbers, flags and checksums of one piece (what RFC 9293 and 768 want of a packet of its own).
void Segments::finish_headers(MutableByteSpan piece, size_t payload_size) const {
  uint8_t* const network = piece.data() + network_offset_;
  uint8_t* const transport = piece.data() + offload_.checksum_start;
  const size_t transport_size = piece.size() - offload_.checksum_start;
  const bool is_last = next_ + 1 == count_;
  IpAddress source, destination;
  if (is_ipv4_) {
    const size_t header_size = size_t{4} * (network[0] & 0xF);
    store_big16(network + 2, static_cast<uint16_t>(piece.size() - network_offset_));
    store_big16(network + 4, static_cast<uint16_t>(load_big16(network + 4) + next_));
    store_big16(network + 10, 0);
    store_big16(network + 10, Checksum().add({network, header_size}).value());
    source = IpAddress::v4({network + 12, 4});
    destination = IpAddress::v4({network + 16, 4});
  } else {
    store_big16(network + 4, static_cast<uint16_t>(piece.size() - network_offset_ - kIpv6HeaderSize));
    source = IpAddress::v6({network + 8, 16});
    destination = IpAddress::v6({network + 24, 16});
  }
  const bool is_udp = offload_.segmentation == Segmentation::kUdp;
  if (is_udp) {
    store_big16(transport + 4, static_cast<uint16_t>(kUdpHeaderSize + payload_size));
  } else {
    store_big32(transport + 4, static_cast<uint32_t>(load_big32(transport + 4) + next_ * segment_size_));
    uint8_t& flags = transport[kTcpFlagsOffset];
    if (!is_last) flags = static_cast<uint8_t>(flags & ~(kTcpFin | kTcpPush));
    if (next_ != 0) flags = static_cast<uint8_t>(flags & ~kTcpCongestionReduced);
  }
  uint8_t* const field = transport + offload_.checksum_offset;
  store_big16(field, 0);
  const uint16_t value = Checksum()
                             .add_pseudo_header(source, destination, is_udp ? kProtocolUdp : kProtocolTcp,
                                                static_cast<uint32_t>(transport_size))
                             .add({transport, transport_size})
                             .value();
  store_big16(field, checksum_field(value, offload_.checksum_offset));
}

// ---- The header of a virtqueue ----

std::optional<Offload> read_virtio_header(ByteSpan header, const OffloadSupport& allowed) {
  Offload offload;
  offload.is_checksum_open = (header[kFlagsAt] & kFlagNeedsChecksum) != 0;
  if (offload.is_checksum_open) {
    if (!allowed.checksum) return std::nullopt;
    offload.checksum_start = load<uint16_t>(header.data() + kStartAt);
    offload.checksum_offset = load<uint16_t>(header.data() + kOffsetAt);
  }
  switch (header[kGsoTypeAt]) {
    case kGsoNone:
      return offload;
    case kGsoTcpIpv4:
      if (!allowed.tcp_ipv4) return std::nullopt;
      offload.segmentation = Segmentation::kTcpIpv4;
      break;
    case kGsoTcpIpv6:
      if (!allowed.tcp_ipv6) return std::nullopt;
      offload.segmentation = Segmentation::kTcpIpv6;
      break;
    case kGsoUdp:
      if (!allowed.udp_ipv4 && !allowed.udp_ipv6) return std::nullopt;
      offload.segmentation = Segmentation::kUdp;
      break;
    default:
      return std::nullopt;
  }
  offload.segment_size = load<uint16_t>(header.data() + kGsoSizeAt);
  return offload;
}

std::array<uint8_t, kVirtioHeaderSize> make_virtio_header(const Offload& offload, ByteSpan frame,
                                                          uint16_t buffer_count) {
  std::array<uint8_t, kVirtioHeaderSize> header{};
  store<uint16_t>(header.data() + kBufferCountAt, buffer_count);
  if (offload.is_checksum_proven) header[kFlagsAt] = kFlagDataValid;
  if (!offload.is_checksum_open) return header;
  header[kFlagsAt] = kFlagNeedsChecksum;
  store<uint16_t>(header.data() + kStartAt, offload.checksum_start);
  store<uint16_t>(header.data() + kOffsetAt, offload.checksum_offset);
  if (!offload.is_segmented()) return header;
  constexpr std::array<uint8_t, 4> kTypes = {kGsoNone, kGsoTcpIpv4, kGsoTcpIpv6, kGsoUdp};
  header[kGsoTypeAt] = kTypes[static_cast<size_t>(offload.segmentation)];
  store<uint16_t>(header.data() + kGsoSizeAt, offload.segment_size);
  // Settled: the header's own size is there.
  const size_t transport_size = offload.segmentation == Segmentation::kUdp
                                    ? kUdpHeaderSize
                                    : size_t{4} * (frame[offload.checksum_start + kTcpDataOffset] >> 4);
  store<uint16_t>(header.data() + kHeadersSizeAt, static_cast<uint16_t>(offload.checksum_start + transport_size));
  return header;
}

}  // namespace bulkhead::net::frame
