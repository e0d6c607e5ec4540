#include "net/frame/frame_builder.h"

#include "net/frame/big_endian.h"
#include "net/frame/checksum.h"

namespace bulkhead::net::frame {
namespace {

void append(std::vector<uint8_t>& out, ByteSpan bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}
void append16(std::vector<uint8_t>& out, uint16_t value) {
  uint8_t bytes[2];
  store_big16(bytes, value);
  append(out, bytes);
}
void append32(std::vector<uint8_t>& out, uint32_t value) {
  uint8_t bytes[4];
  store_big32(bytes, value);
  append(out, bytes);
}

}  // namespace

FrameBuilder& FrameBuilder::ethernet(const MacAddress& source, const MacAddress& destination) {
  source_ = source;
  destination_ = destination;
  return *this;
}
FrameBuilder& FrameBuilder::vlan(uint16_t id, uint8_t priority, uint16_t protocol) {
  tags_.push_back({.protocol = protocol, .id = id, .priority = priority});
  return *this;
}
FrameBuilder& FrameBuilder::type(uint16_t type) {
  type_ = type;
  return *this;
}
FrameBuilder& FrameBuilder::arp(const Arp& arp) {
  arp_ = arp;
  return *this;
}
FrameBuilder& FrameBuilder::ipv4(std::string_view source, std::string_view destination) {
  ip_ = Ip{.source = IpAddress::parse(source).value(), .destination = IpAddress::parse(destination).value()};
  return *this;
}
FrameBuilder& FrameBuilder::ipv6(std::string_view source, std::string_view destination) {
  return ipv4(source, destination);
}
FrameBuilder& FrameBuilder::fragment(const Fragment& fragment) {
  ip_->fragment = fragment;
  return *this;
}
FrameBuilder& FrameBuilder::protocol(uint8_t protocol) {
  protocol_ = protocol;
  return *this;
}
FrameBuilder& FrameBuilder::tcp(uint16_t source_port, uint16_t destination_port, uint8_t flags, uint32_t sequence,
                                uint32_t acknowledgement, uint16_t window) {
  tcp_ = Tcp{.source_port = source_port,
             .destination_port = destination_port,
             .sequence = sequence,
             .acknowledgement = acknowledgement,
             .flags = flags,
             .window = window};
  return *this;
}
FrameBuilder& FrameBuilder::tcp_options(ByteSpan options) {
  tcp_options_.assign(options.begin(), options.end());
  return *this;
}
FrameBuilder& FrameBuilder::udp(uint16_t source_port, uint16_t destination_port) {
  udp_ = Udp{source_port, destination_port};
  return *this;
}
FrameBuilder& FrameBuilder::icmp(uint8_t type, uint8_t code, uint16_t identifier) {
  icmp_ = Icmp{type, code, identifier};
  return *this;
}
FrameBuilder& FrameBuilder::payload(std::string_view text) {
  return payload({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}
FrameBuilder& FrameBuilder::payload(ByteSpan bytes) {
  payload_.assign(bytes.begin(), bytes.end());
  return *this;
}

std::vector<uint8_t> FrameBuilder::transport() const {
  std::vector<uint8_t> out;
  size_t checksum_offset = 0;
  if (tcp_) {
    append16(out, tcp_->source_port);
    append16(out, tcp_->destination_port);
    append32(out, tcp_->sequence);
    append32(out, tcp_->acknowledgement);
    append16(out, static_cast<uint16_t>((5 + tcp_options_.size() / 4) << 12 | tcp_->flags));
    append16(out, tcp_->window);
    append32(out, 0);
    append(out, tcp_options_);
    checksum_offset = 16;
  } else if (udp_) {
    append16(out, udp_->source_port);
    append16(out, udp_->destination_port);
    append16(out, static_cast<uint16_t>(kUdpHeaderSize + payload_.size()));
    append16(out, 0);
    checksum_offset = 6;
  } else if (icmp_) {
    out = {icmp_->type, icmp_->code, 0, 0};
    append16(out, icmp_->identifier);
    append16(out, 1);
    checksum_offset = 2;
  }
  append(out, payload_);
  if (checksum_offset == 0) return out;
  Checksum sum;
  if (ip_ && !(icmp_ && ip_->source.family == Family::kIpv4)) {
    const uint8_t protocol = tcp_ ? kProtocolTcp : udp_ ? kProtocolUdp : kProtocolIcmpv6;
    sum.add_pseudo_header(ip_->source, ip_->destination, protocol, static_cast<uint32_t>(out.size()));
  }
  store_big16(out.data() + checksum_offset, sum.add(out).value());
  return out;
}

void FrameBuilder::append_ipv4(std::vector<uint8_t>& out, const std::vector<uint8_t>& transport) const {
  const size_t start = out.size();
  append16(out, 0x4500);
  append16(out, static_cast<uint16_t>(kIpv4HeaderSize + transport.size()));
  const Fragment fragment = ip_->fragment.value_or(Fragment{});
  append16(out, static_cast<uint16_t>(fragment.identification));
  append16(out, static_cast<uint16_t>(fragment.offset / 8 | (fragment.more ? 0x2000 : 0)));
  const uint8_t protocol = tcp_ ? kProtocolTcp : udp_ ? kProtocolUdp : kProtocolIcmp;
  append16(out, static_cast<uint16_t>(64 << 8 | protocol_.value_or(protocol)));
  append16(out, 0);
  append(out, ByteSpan(ip_->source.bytes).first(4));
  append(out, ByteSpan(ip_->destination.bytes).first(4));
  store_big16(out.data() + start + 10, Checksum().add(ByteSpan(out).subspan(start)).value());
}

void FrameBuilder::append_ipv6(std::vector<uint8_t>& out, const std::vector<uint8_t>& transport) const {
  const uint8_t protocol = protocol_.value_or(tcp_ ? kProtocolTcp : udp_ ? kProtocolUdp : kProtocolIcmpv6);
  append32(out, 0x60000000);
  append16(out, static_cast<uint16_t>(transport.size() + (ip_->fragment ? 8 : 0)));
  append16(out, static_cast<uint16_t>((ip_->fragment ? kProtocolFragment : protocol) << 8 | 64));
  append(out, ip_->source.bytes);
  append(out, ip_->destination.bytes);
  if (!ip_->fragment) return;
  append16(out, static_cast<uint16_t>(protocol << 8));
  append16(out, static_cast<uint16_t>(ip_->fragment->offset | (ip_->fragment->more ? 1 : 0)));
  append32(out, ip_->fragment->identification);
}

std::vector<uint8_t> FrameBuilder::build() const {
  std::vector<uint8_t> out;
  append(out, destination_.bytes);
  append(out, source_.bytes);
  for (const VlanTag& tag : tags_) {
    append16(out, tag.protocol);
    append16(out, static_cast<uint16_t>(tag.priority << 13 | (tag.drop_eligible ? 0x1000 : 0) | tag.id));
  }
  const bool is_v6 = ip_ && ip_->source.family == Family::kIpv6;
  append16(out, type_.value_or(arp_ ? kTypeArp : !ip_ ? uint16_t{0x88B5} : is_v6 ? kTypeIpv6 : kTypeIpv4));
  if (arp_) {
    append16(out, 1);
    append16(out, kTypeIpv4);
    append16(out, 0x0604);
    append16(out, arp_->operation);
    append(out, arp_->sender_mac.bytes);
    append(out, ByteSpan(arp_->sender.bytes).first(4));
    append(out, arp_->target_mac.bytes);
    append(out, ByteSpan(arp_->target.bytes).first(4));
    return out;
  }
  // What follows a later fragment's header is a piece of the packet, given as the payload.
  const bool piece = ip_ && ip_->fragment && ip_->fragment->offset != 0;
  const std::vector<uint8_t> inner = piece ? payload_ : transport();
  if (ip_ && is_v6) append_ipv6(out, inner);
  if (ip_ && !is_v6) append_ipv4(out, inner);
  append(out, inner);
  return out;
}

}  // namespace bulkhead::net::frame
