#include "net/switch/multicast_table.h"

#include <algorithm>

#include "net/frame/big_endian.h"

namespace bulkhead::net::switching {
namespace {

using frame::load_big16;

constexpr uint8_t kIgmpQuery = 0x11, kIgmpReport1 = 0x12, kIgmpReport2 = 0x16, kIgmpLeave = 0x17, kIgmpReport3 = 0x22;
constexpr uint8_t kMldQuery = 130, kMldReport1 = 131, kMldDone = 132, kMldReport2 = 143;
constexpr uint8_t kModeIsInclude = 1, kModeIsExclude = 2, kChangeToInclude = 3, kChangeToExclude = 4, kAllowNew = 5;
constexpr size_t kIpv4Size = 4, kIpv6Size = 16, kMessageHeader = 8;
constexpr uint64_t kSweepInterval_ns = 1'000'000'000;

}  // namespace

void MulticastTable::Ports::extend(PortId port, uint64_t until_ns) {
  until_ns_[port] = until_ns;
  last_ns_ = std::max(last_ns_, until_ns);
}

void MulticastTable::Ports::shorten(PortId port, uint64_t until_ns) {
  const auto found = until_ns_.find(port);
  if (found == until_ns_.end() || found->second <= until_ns) return;
  const bool was_last = std::exchange(found->second, until_ns) == last_ns_;
  if (was_last) find_last();
}

size_t MulticastTable::Ports::erase(PortId port) {
  const size_t count = until_ns_.erase(port);
  if (count != 0) find_last();
  return count;
}

void MulticastTable::Ports::find_last() {
  last_ns_ = 0;
  for (const auto& [port, until_ns] : until_ns_) last_ns_ = std::max(last_ns_, until_ns);
}

// RFC 1112 6.4 and RFC 2464 7. None for groups of the link itself, which everybody always gets.
std::optional<MulticastTable::Key> MulticastTable::key_of(Segment segment, ByteSpan address) {
  frame::MacAddress mac;
  if (address.size() == kIpv4Size) {
    if ((address[0] & 0xF0) != 0xE0 || (address[0] == 224 && address[1] == 0 && address[2] == 0)) return std::nullopt;
    mac = {{0x01, 0, 0x5E, static_cast<uint8_t>(address[1] & 0x7F), address[2], address[3]}};
    // Another group's address may be told by the same frames as a link's own.
    if (mac.bytes[3] == 0 && mac.bytes[4] == 0) return std::nullopt;
  } else {
    if (address[0] != 0xFF || (address[1] & 0x0F) < 2) return std::nullopt;
    mac = {{0x33, 0x33, address[12], address[13], address[14], address[15]}};
    if (mac.bytes[2] == 0 && mac.bytes[3] == 0 && mac.bytes[4] == 0) return std::nullopt;
  }
  return Key(segment, mac.number());
}

bool MulticastTable::learn(Segment segment, PortId port, bool may_query, const frame::Headers& headers, ByteSpan frame,
                           uint64_t now_ns) {
  if (headers.fault != frame::Fault::kNone || !headers.ip || headers.ip->fragment) return false;
  const frame::Ip& ip = *headers.ip;
  const ByteSpan message = frame.subspan(ip.payload_offset, ip.payload_size);
  // Of this link, or it has been passed on by a router.
  if (message.size() < kMessageHeader || ip.hop_limit != 1) return false;
  const bool is_ipv4 = ip.source.family == frame::Family::kIpv4;
  const uint8_t type = message[0];
  if (is_ipv4 && ip.protocol == frame::kProtocolIgmp) {
    learn_igmp(segment, port, may_query, ip, message, now_ns);
    return type == kIgmpReport1 || type == kIgmpReport2 || type == kIgmpReport3 || type == kIgmpLeave;
  }
  if (is_ipv4 || !headers.icmp) return false;
  learn_mld(segment, port, may_query, ip, message, now_ns);
  return type == kMldReport1 || type == kMldReport2 || type == kMldDone;
}

bool MulticastTable::is_router(Segment segment, PortId port, uint64_t now_ns) const {
  const auto asks = queriers_.find(segment);
  return asks != queriers_.end() && asks->second.routers.has(port, now_ns);
}

void MulticastTable::learn_igmp(Segment segment, PortId port, bool may_query, const frame::Ip& ip, ByteSpan message,
                                uint64_t now_ns) {
  const ByteSpan address = message.subspan(4, kIpv4Size);
  switch (message[0]) {
    case kIgmpQuery:
      // From no address: another switch asks, and is no router (RFC 4541 2.1.1).
      if (may_query && !ip.source.is_unspecified()) query(segment, port, now_ns);
      break;
    case kIgmpReport1:
    case kIgmpReport2:
      join(segment, port, address, now_ns);
      break;
    case kIgmpLeave:
      leave(segment, port, address, now_ns);
      break;
    case kIgmpReport3:
      learn_records(segment, port, message, kIpv4Size, now_ns);
      break;
    default:
      break;
  }
}

void MulticastTable::learn_mld(Segment segment, PortId port, bool may_query, const frame::Ip& ip, ByteSpan message,
                               uint64_t now_ns) {
  const bool has_address = message.size() >= kMessageHeader + kIpv6Size;
  switch (message[0]) {
    case kMldQuery:
      if (may_query && !ip.source.is_unspecified()) query(segment, port, now_ns);
      break;
    case kMldReport1:
      if (has_address) join(segment, port, message.subspan(kMessageHeader, kIpv6Size), now_ns);
      break;
    case kMldDone:
      if (has_address) leave(segment, port, message.subspan(kMessageHeader, kIpv6Size), now_ns);
      break;
    case kMldReport2:
      learn_records(segment, port, message, kIpv6Size, now_ns);
      break;
    default:
      break;
  }
}

// Group records of IGMPv3 and MLDv2: type, words of auxiliary data, number of sources, group, sources.
void MulticastTable::learn_records(Segment segment, PortId port, ByteSpan message, size_t address_size,
                                   uint64_t now_ns) {
  size_t count = load_big16(message.data() + 6);
  for (ByteSpan rest = message.subspan(kMessageHeader); count > 0 && rest.size() >= 4 + address_size; --count) {
    const size_t sources = load_big16(rest.data() + 2);
    const size_t size = 4 + address_size * (1 + sources) + size_t{4} * rest[1];
    const ByteSpan address = rest.subspan(4, address_size);
    const uint8_t type = rest[0];
    const bool includes = type == kModeIsInclude || type == kChangeToInclude;
    if (type == kModeIsExclude || type == kChangeToExclude || type == kAllowNew || (includes && sources != 0)) {
      join(segment, port, address, now_ns);
    } else if (includes) {
      leave(segment, port, address, now_ns);
    }
    if (size > rest.size()) return;
    rest = rest.subspan(size);
  }
}

void MulticastTable::query(Segment segment, PortId port, uint64_t now_ns) {
  const bool goes_on = querier(segment, now_ns) != nullptr;
  Querier& found = queriers_[segment];
  if (!goes_on) found.first_ns = now_ns;
  found.routers.extend(port, now_ns + kQuerier_ns);
}

const MulticastTable::Querier* MulticastTable::querier(Segment segment, uint64_t now_ns) const {
  const auto found = queriers_.find(segment);
  return found != queriers_.end() && found->second.routers.has_any(now_ns) ? &found->second : nullptr;
}

void MulticastTable::join(Segment segment, PortId port, ByteSpan address, uint64_t now_ns) {
  const auto key = key_of(segment, address);
  if (!key) return;
  if (port_counts_[port] >= kMembershipsAPort) sweep(now_ns);
  const auto group = groups_.find(*key);
  const bool is_member = group != groups_.end() && group->second.contains(port);
  if (!is_member && port_counts_[port] >= kMembershipsAPort) return;
  groups_[*key].extend(port, now_ns + kMembership_ns);
  if (is_member) return;
  ++port_counts_[port];
  ++size_;
}

// Others may be behind the same port: they have a moment to say so.
void MulticastTable::leave(Segment segment, PortId port, ByteSpan address, uint64_t now_ns) {
  const auto key = key_of(segment, address);
  const auto group = key ? groups_.find(*key) : groups_.end();
  if (group != groups_.end()) group->second.shorten(port, now_ns + kLastMember_ns);
}

bool MulticastTable::is_known(Segment segment, const frame::MacAddress& group, uint64_t now_ns) const {
  const Querier* const asks = querier(segment, now_ns);
  if (asks == nullptr || now_ns < asks->first_ns + kFirstAnswers_ns) return false;
  const auto found = groups_.find({segment, group.number()});
  return found != groups_.end() && found->second.has_any(now_ns);
}

bool MulticastTable::wants(Segment segment, const frame::MacAddress& group, PortId port, uint64_t now_ns) const {
  const auto members = groups_.find({segment, group.number()});
  const auto asks = queriers_.find(segment);
  return (members != groups_.end() && members->second.has(port, now_ns)) ||
         (asks != queriers_.end() && asks->second.routers.has(port, now_ns));
}

void MulticastTable::forget_port(PortId port) {
  for (auto& [segment, asks] : queriers_) asks.routers.erase(port);
  for (auto group = groups_.begin(); group != groups_.end();) {
    size_ -= group->second.erase(port);
    group = group->second.empty() ? groups_.erase(group) : std::next(group);
  }
  port_counts_.erase(port);
}

void MulticastTable::sweep(uint64_t now_ns) {
  if (swept_ns_ != 0 && now_ns - swept_ns_ < kSweepInterval_ns) return;
  swept_ns_ = now_ns;
  for (auto group = groups_.begin(); group != groups_.end();) {
    group->second.sweep(now_ns, [this](PortId port) {
      --port_counts_[port];
      --size_;
    });
    group = group->second.empty() ? groups_.erase(group) : std::next(group);
  }
}

}  // namespace bulkhead::net::switching
