#include "net/switch/virtual_switch.h"

#include <algorithm>

#include "net/frame/big_endian.h"
#include "support/check.h"

namespace bulkhead::net::switching {
namespace {

using frame::kTypeServiceVlan, frame::kTypeVlan, frame::kVlanTagSize;

constexpr size_t kAddressesSize = 2 * frame::MacAddress::kSize;
constexpr uint8_t kNeighbourSolicitation = 135, kNeighbourAdvertisement = 136, kRouterAdvertisement = 134;

// 01:80:C2:00:00:00 to :0F are for the neighbour on the wire and no bridge forwards them (IEEE 802.1Q 8.6.3).
bool is_reserved(const frame::MacAddress& address) {
  return address.number() >> 4 == 0x0180C2'00000;
}

// Types for experiments within one network (IEEE 802); ours says which port the probe left by.
constexpr uint16_t kTypeProbe = 0x88B5;
constexpr size_t kMarkOffset = kAddressesSize + 4;  // behind the port

// A second's worth, and one whole frame of the largest size at least.
RateLimit byte_limit(uint64_t rate) {
  return {rate, std::max<uint64_t>(rate / 10, frame::kMaximumFrameSize)};
}
RateLimit frame_limit(uint64_t rate) {
  return {rate, rate};
}

bool is_link_local(const frame::IpAddress& address) {
  return address.family == frame::Family::kIpv6 && address.bytes[0] == 0xFE && (address.bytes[1] & 0xC0) == 0x80;
}

// The card whose address is in a link-local one (RFC 4291, appendix A).
std::optional<frame::MacAddress> card_of(const frame::IpAddress& address) {
  const auto& bytes = address.bytes;
  if (!is_link_local(address) || bytes[11] != 0xFF || bytes[12] != 0xFE) return std::nullopt;
  return frame::MacAddress{{static_cast<uint8_t>(bytes[8] ^ 2), bytes[9], bytes[10], bytes[13], bytes[14], bytes[15]}};
}

bool is_known_address(const PortConfig& config, const frame::IpAddress& address) {
  return std::ranges::find(config.ip_addresses, address) != config.ip_addresses.end();
}

// Numbers of which one, seen by a guest, does not tell the others.
uint64_t derive(uint64_t secret, uint64_t which) {
  const uint64_t one = secret ^ (0x9E37'79B9'7F4A'7C15 * (which + 1)), other = secret ^ (0xC2B2'AE3D'27D4'EB4F + which);
  const unsigned __int128 product = static_cast<unsigned __int128>(one | 1) * (other | 1);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

Result<> check_vlan(uint16_t vlan, std::string_view what) {
  if (vlan == 0 || vlan > frame::kMaximumVlan) return fail("{} {}: allowed: 1 to {}", what, vlan, frame::kMaximumVlan);
  return {};
}

}  // namespace

std::string_view to_string(Drop drop) {
  constexpr std::array<std::string_view, kDropCount> kNames = {"malformed",
                                                               "VLAN",
                                                               "double tag",
                                                               "forged MAC",
                                                               "forged address",
                                                               "network service",
                                                               "rate",
                                                               "broadcast limit",
                                                               "multicast limit",
                                                               "reserved address",
                                                               "filter",
                                                               "mirror port",
                                                               "loop"};
  return kNames[static_cast<size_t>(drop)];
}

void OutputFrame::copy_to(MutableByteSpan out) const {
  CHECK(out.size() == size(), "a frame's own size");
  for (const ByteSpan part : parts) {
    std::ranges::copy(part, out.begin());
    out = out.subspan(part.size());
  }
}

std::vector<uint8_t> OutputFrame::bytes() const {
  std::vector<uint8_t> all(size());
  copy_to(all);
  return all;
}

// ---- What there is ----

VirtualSwitch::VirtualSwitch(const MacTableLimits& limits, uint64_t secret)
    : addresses_(limits, derive(secret, 0)), mirror_mark_(derive(secret, 1) | 1) {
  const uint64_t source = derive(secret, 2);
  for (size_t i = 0; i < frame::MacAddress::kSize; ++i) probe_source_.bytes[i] = static_cast<uint8_t>(source >> 8 * i);
  probe_source_.bytes[0] = static_cast<uint8_t>((probe_source_.bytes[0] & 0xFC) | 2);
}

Result<GroupId> VirtualSwitch::add_group(GroupPolicy policy) {
  if (groups_.size() >= kMaximumGroups) return fail("more than the {} port groups allowed", kMaximumGroups);
  if (policy.mode == VlanMode::kTrunk) {
    if (policy.native_vlan != 0) TRY(check_vlan(policy.native_vlan, "native VLAN"));
    if (policy.allowed_vlans.test(0) || policy.allowed_vlans.test(4095)) {
      return fail("allowed VLANs: allowed: 1 to {}", frame::kMaximumVlan);
    }
  } else {
    TRY(check_vlan(policy.vlan, "VLAN"));
  }
  if (policy.tag_protocol != kTypeVlan && policy.tag_protocol != kTypeServiceVlan) {
    return fail("tag protocol {:#06x}: allowed: {:#06x} or {:#06x}", policy.tag_protocol, kTypeVlan, kTypeServiceVlan);
  }
  groups_.push_back({.policy = std::move(policy), .counters = {}, .mirrored = 0});
  return static_cast<GroupId>(groups_.size() - 1);
}

Result<PortId> VirtualSwitch::add_port(PortConfig config) {
  if (config.group >= groups_.size()) return fail("no port group {}", config.group);
  if (config.ip_addresses.size() > PortConfig::kMaximumAddresses) {
    return fail("more than the {} addresses allowed", PortConfig::kMaximumAddresses);
  }
  if (config.mac) {
    if (config.mac->is_group() || config.mac->is_zero())
      return fail("{} is no card's address", config.mac->to_string());
    if (const auto taken = assigned_.find(*config.mac); taken != assigned_.end()) {
      return fail("{} belongs to port '{}'", config.mac->to_string(), ports_[taken->second]->config.name);
    }
  }
  auto free = std::ranges::find_if(ports_, [](const auto& each) { return each == nullptr; });
  if (free == ports_.end()) {
    if (ports_.size() >= kMaximumPorts) return fail("more than the {} ports allowed", kMaximumPorts);
    ports_.emplace_back();
    free = ports_.end() - 1;
  }
  const auto id = static_cast<PortId>(free - ports_.begin());
  const GroupId group = config.group;
  const GroupPolicy& policy = groups_[group].policy;
  if (config.mac) assigned_[*config.mac] = id;
  for (const frame::IpAddress& address : config.ip_addresses) owners_[address].push_back(id);
  const bool overhears = config.promiscuous && policy.promiscuous == Permission::kAllow;
  if (overhears) ++overhearing_count_;
  *free = std::make_unique<Port>(Port{.config = std::move(config),
                                      .counters = {},
                                      .rate = byte_limit(policy.rate_bytes_a_second),
                                      .broadcast = frame_limit(policy.broadcast_frames_a_second),
                                      .multicast = frame_limit(policy.multicast_frames_a_second),
                                      .overhears = overhears,
                                      .mirrored = groups_[group].mirrored});
  return id;
}

void VirtualSwitch::remove_port(PortId id) {
  Port* const gone = port(id);
  if (gone == nullptr) return;
  if (const auto target = std::ranges::find(mirror_targets_, id); target != mirror_targets_.end()) {
    stop_mirror(static_cast<size_t>(target - mirror_targets_.begin()));
  }
  if (gone->config.mac) assigned_.erase(*gone->config.mac);
  for (const frame::IpAddress& address : gone->config.ip_addresses) {
    std::vector<PortId>& owners = owners_[address];
    std::erase(owners, id);
    if (owners.empty()) owners_.erase(address);
  }
  if (gone->overhears) --overhearing_count_;
  addresses_.forget_port(id);
  multicast_.forget_port(id);
  ports_[id].reset();
}

Result<> VirtualSwitch::add_mirror(Mirror mirror) {
  if (mirror_targets_.size() >= kMaximumMirrors) return fail("more than the {} mirrors allowed", kMaximumMirrors);
  Port* const target = port(mirror.target);
  if (target == nullptr) return fail("mirror: no port {}", mirror.target);
  if (target->is_mirror) return fail("mirror: port '{}' is another's target", target->config.name);
  for (const PortId id : mirror.ports) {
    if (port(id) == nullptr) return fail("mirror: no port {}", id);
    if (id == mirror.target) return fail("mirror: port '{}' is its own target", target->config.name);
  }
  for (const GroupId id : mirror.groups) {
    if (id >= groups_.size()) return fail("mirror: no port group {}", id);
  }
  const auto bit = static_cast<Mirrors>(1u << mirror_targets_.size());
  for (const GroupId id : mirror.groups) groups_[id].mirrored |= bit;
  for (const auto& each : ports_) {
    if (each && (groups_[each->config.group].mirrored & bit) != 0) each->mirrored |= bit;
  }
  for (const PortId id : mirror.ports) port(id)->mirrored |= bit;
  mirror_targets_.push_back(mirror.target);
  target->is_mirror = true;
  addresses_.forget_port(mirror.target);
  return {};
}

void VirtualSwitch::clear_mirrors() {
  for (Group& group : groups_) group.mirrored = 0;
  for (const auto& each : ports_) {
    if (!each) continue;
    each->mirrored = 0;
    each->is_mirror = false;
  }
  mirror_targets_.clear();
}

// The last one takes its place.
void VirtualSwitch::stop_mirror(size_t index) {
  const size_t last = mirror_targets_.size() - 1;
  const auto without = [index, last](Mirrors mirrored) {
    const bool moves = (mirrored >> last & 1) != 0 && index != last;
    const auto kept = static_cast<Mirrors>(mirrored & ~(1u << last) & ~(1u << index));
    return static_cast<Mirrors>(moves ? kept | 1u << index : kept);
  };
  for (Group& group : groups_) group.mirrored = without(group.mirrored);
  for (const auto& each : ports_) {
    if (each) each->mirrored = without(each->mirrored);
  }
  mirror_targets_[index] = mirror_targets_[last];
  mirror_targets_.pop_back();
}

bool VirtualSwitch::is_heard(GroupId group, const frame::MacAddress& address, uint64_t now_ns) const {
  if (group >= groups_.size()) return false;
  const GroupPolicy& policy = groups_[group].policy;
  if (policy.mode != VlanMode::kTrunk) return addresses_.find(policy.vlan, address, now_ns).has_value();
  for (uint16_t vlan = 1; vlan <= frame::kMaximumVlan; ++vlan) {
    if (carries(policy, vlan) && addresses_.find(vlan, address, now_ns)) return true;
  }
  return false;
}

const Counters* VirtualSwitch::counters(PortId id) const {
  const Port* const found = port(id);
  return found == nullptr ? nullptr : &found->counters;
}

const Counters* VirtualSwitch::group_counters(GroupId group) const {
  return group < groups_.size() ? &groups_[group].counters : nullptr;
}

// ---- Into the switch ----

bool VirtualSwitch::carries(const GroupPolicy& policy, uint16_t vlan) {
  if (policy.mode != VlanMode::kTrunk) return policy.vlan == vlan;
  return policy.native_vlan == vlan || policy.allowed_vlans.test(vlan);
}

std::optional<Drop> VirtualSwitch::classify(const GroupPolicy& policy, Work& work) const {
  const frame::Ethernet& ethernet = work.ethernet;
  const bool tagged = ethernet.vlan_tag_count != 0 && ethernet.vlan_tags[0].protocol == policy.tag_protocol;
  if (policy.mode == VlanMode::kTunnel || !tagged) {
    work.vlan = policy.mode == VlanMode::kTrunk ? policy.native_vlan : policy.vlan;
    return work.vlan == 0 ? std::optional(Drop::kVlan) : std::nullopt;
  }
  const frame::VlanTag& tag = ethernet.vlan_tags[0];
  // A tag with VLAN 0 says a priority only.
  const uint16_t untagged_vlan = policy.mode == VlanMode::kTrunk ? policy.native_vlan : policy.vlan;
  work.vlan = tag.id == 0 ? untagged_vlan : tag.id;
  work.priority_bits = static_cast<uint16_t>(tag.priority << 13 | (tag.drop_eligible ? 0x1000 : 0));
  work.inner_offset = kAddressesSize + kVlanTagSize;
  const bool may = tag.id == 0 || (policy.mode == VlanMode::kTrunk && carries(policy, tag.id));
  return work.vlan == 0 || !may ? std::optional(Drop::kVlan) : std::nullopt;
}

const frame::Headers& VirtualSwitch::headers_of(Work& work) const {
  if (!work.headers) work.headers = frame::read_headers(work.frame);
  return *work.headers;
}

std::optional<Drop> VirtualSwitch::guard(const Port& from, const GroupPolicy& policy, Work& work) const {
  const frame::MacAddress& source = work.ethernet.source;
  if (source.is_group() || source.is_zero()) return Drop::kForgedMac;
  if (policy.forged_mac == Permission::kDeny && from.config.mac && source != *from.config.mac) return Drop::kForgedMac;
  // Whatever its group allows, nobody takes another port's own address.
  if (const auto owner = assigned_.find(source); owner != assigned_.end() && owner->second != work.from) {
    return Drop::kForgedMac;
  }
  // Nor one that was heard in another zone: a zone must not take away what is sent within another.
  const bool is_own = from.config.mac && source == *from.config.mac;
  const auto heard = is_own ? std::nullopt : addresses_.find(work.vlan, source, work.now_ns);
  if (heard && groups_[ports_[*heard]->config.group].policy.zone != policy.zone) return Drop::kForgedMac;
  const bool check_services = policy.network_services == Permission::kDeny;
  const bool check_addresses = policy.forged_address == Permission::kDeny;
  if (!check_services && !check_addresses) return std::nullopt;
  const frame::Headers& headers = headers_of(work);
  if (check_services) {
    const bool dhcp =
        headers.udp && ((headers.ip->source.family == frame::Family::kIpv4 && headers.udp->source_port == 67) ||
                        (headers.ip->source.family == frame::Family::kIpv6 && headers.udp->source_port == 547));
    const bool router =
        headers.icmp && headers.ip->source.family == frame::Family::kIpv6 && headers.icmp->type == kRouterAdvertisement;
    if (dhcp || router) return Drop::kNetworkService;
  }
  return check_addresses ? guard_addresses(from, policy, work) : std::nullopt;
}

bool VirtualSwitch::is_anothers(const frame::IpAddress& address, const Work& work) const {
  const auto shares_vlan = [&](PortId owner) {
    return owner != work.from && carries(groups_[ports_[owner]->config.group].policy, work.vlan);
  };
  if (const auto owners = owners_.find(address); owners != owners_.end()) {
    return std::ranges::find(owners->second, work.from) == owners->second.end() &&
           std::ranges::any_of(owners->second, shares_vlan);
  }
  const auto card = card_of(address);
  const auto owner = card ? assigned_.find(*card) : assigned_.end();
  return owner != assigned_.end() && shares_vlan(owner->second);
}

std::optional<Drop> VirtualSwitch::guard_addresses(const Port& from, const GroupPolicy& policy, Work& work) const {
  const frame::Headers& headers = headers_of(work);
  const bool is_ip =
      headers.type == frame::kTypeArp || headers.type == frame::kTypeIpv4 || headers.type == frame::kTypeIpv6;
  const bool has_addresses = !from.config.ip_addresses.empty();
  // What cannot be read cannot be believed.
  if (is_ip && headers.fault != frame::Fault::kNone && (has_addresses || !headers.ip)) return Drop::kForgedAddress;
  // 0.0.0.0 and :: ask for an address; IPv6 also has its link-local ones.
  const auto may_say = [&](const frame::IpAddress& address) {
    const bool any = !has_addresses || address.is_unspecified() || is_link_local(address);
    return any ? !is_anothers(address, work) : is_known_address(from.config, address);
  };
  if (headers.arp) {
    const bool own_mac =
        !has_addresses || headers.arp->sender_mac == headers.source || policy.forged_mac == Permission::kAllow;
    return own_mac && may_say(headers.arp->sender) ? std::nullopt : std::optional(Drop::kForgedAddress);
  }
  if (!headers.ip) return std::nullopt;
  const frame::IpAddress& source = headers.ip->source;
  if (!may_say(source)) return Drop::kForgedAddress;
  if (!headers.icmp || source.family != frame::Family::kIpv6) return std::nullopt;
  const bool advertises = headers.icmp->type == kNeighbourAdvertisement;
  // From no address: whoever asks wants to have it.
  const bool claims = headers.icmp->type == kNeighbourSolicitation && source.is_unspecified();
  if (!advertises && !claims) return std::nullopt;
  // The target stands behind the header and four reserved bytes (RFC 4861 4.3, 4.4).
  if (headers.transport_payload_size < 16) return Drop::kForgedAddress;
  const frame::IpAddress target = frame::IpAddress::v6(work.frame.subspan(headers.transport_payload_offset, 16));
  const bool may = advertises ? may_say(target) : !is_anothers(target, work);
  return may ? std::nullopt : std::optional(Drop::kForgedAddress);
}

// A frame that is to be cut counts as what it will be.
size_t VirtualSwitch::frames_of(Work& work) const {
  return work.offload.is_segmented() ? frame::segment_count(headers_of(work), work.offload) : 1;
}

std::optional<Drop> VirtualSwitch::limit(Port& from, Work& work, bool is_known) const {
  if (!from.rate.take(work.frame.size(), work.now_ns)) return Drop::kRate;
  const frame::MacAddress& destination = work.ethernet.destination;
  const bool multicast = destination.is_group() && !destination.is_broadcast();
  if (multicast && !from.multicast.take(frames_of(work), work.now_ns)) return Drop::kMulticast;
  if (!multicast && !is_known && !from.broadcast.take(frames_of(work), work.now_ns)) return Drop::kBroadcast;
  return std::nullopt;
}

std::optional<PortId> VirtualSwitch::destination_of(const Work& work) const {
  if (work.ethernet.destination.is_group()) return std::nullopt;
  if (const auto found = addresses_.find(work.vlan, work.ethernet.destination, work.now_ns)) return found;
  const auto owner = assigned_.find(work.ethernet.destination);
  return owner == assigned_.end() ? std::nullopt : std::optional(owner->second);
}

void VirtualSwitch::forward(PortId from, ByteSpan frame, uint64_t now_ns, Output& output,
                            const frame::Offload& offload) {
  Port* const source = port(from);
  CHECK(source != nullptr, "a frame from a port that is there");
  now_ns_ = now_ns;
  Group& group = group_of(*source);
  for (Counters* counters : {&source->counters, &group.counters}) {
    ++counters->received_frames;
    counters->received_bytes += frame.size();
  }
  Work work{.from = from,
            .frame = frame,
            .now_ns = now_ns,
            .output = output,
            .offload = offload,
            .ethernet = frame::read_ethernet(frame)};
  if (work.ethernet.fault != frame::Fault::kNone || frame.size() > frame::kMaximumFrameSize) {
    return count_drop(*source, Drop::kMalformed);
  }
  if (source->is_mirror) return count_drop(*source, Drop::kMirrorPort);
  if (take_probe(*source, work) || source->paused_until_ns > now_ns) return count_drop(*source, Drop::kLoop);
  if (source->mirrored != 0) mirror(from, true, {.parts = {frame, {}, {}}, .offload = offload}, work.copied, output);
  if (is_reserved(work.ethernet.destination)) return count_drop(*source, Drop::kReserved);
  if (const auto drop = classify(group.policy, work)) return count_drop(*source, *drop);
  if (const auto drop = guard(*source, group.policy, work)) return count_drop(*source, *drop);
  const std::optional<PortId> destination = destination_of(work);
  if (const auto drop = limit(*source, work, destination.has_value())) return count_drop(*source, *drop);

  const MacTable::Learned learned = addresses_.learn(work.vlan, work.ethernet.source, from, now_ns);
  // A frame that goes round comes in at another port each time; held at one of them it goes no further.
  if (learned == MacTable::Learned::kRestless) return count_drop(*source, Drop::kLoop);
  if (learned == MacTable::Learned::kNoRoom) ++source->counters.not_learned;
  if (learned == MacTable::Learned::kMoved) ++source->counters.moved_addresses;

  if (!destination) {
    work.is_flooded = !work.ethernet.destination.is_group();
    ++source->counters.flooded_frames;
    ++group.counters.flooded_frames;
  }
  // First: what a filter remembers of a flow is about the port that it is for.
  if (destination && *destination != from) {
    const auto closed = why_closed(*ports_[*destination], work);
    closed ? count_drop(*source, *closed) : send(*destination, work);
  }
  if (destination && overhearing_count_ == 0) return;
  if (destination) work.is_flooded = true;
  const bool is_multicast = work.ethernet.destination.is_group() && !work.ethernet.destination.is_broadcast();
  bool is_report = false;
  if (is_multicast) {
    const bool may_query = group.policy.network_services == Permission::kAllow;
    is_report = multicast_.learn({group.policy.zone, work.vlan}, from, may_query, headers_of(work), frame, now_ns);
  }
  for (PortId to = 0; to < ports_.size(); ++to) {
    if (ports_[to] == nullptr || to == from) continue;
    if (is_multicast && !ports_[to]->overhears && !wants(to, work, is_report)) continue;
    if (destination ? ports_[to]->overhears && *destination != to : true) send(to, work);
  }
}

bool VirtualSwitch::wants(PortId to, const Work& work, bool is_report) const {
  const MulticastTable::Segment segment{groups_[ports_[to]->config.group].policy.zone, work.vlan};
  if (is_report && multicast_.has_router(segment, work.now_ns) && !multicast_.is_router(segment, to, work.now_ns)) {
    return false;
  }
  const frame::MacAddress& group = work.ethernet.destination;
  return !multicast_.is_known(segment, group, work.now_ns) || multicast_.wants(segment, group, to, work.now_ns);
}

// ---- Out of the switch ----

std::optional<Drop> VirtualSwitch::why_closed(const Port& target, const Work& work) {
  if (target.is_mirror) return Drop::kMirrorPort;
  if (target.paused_until_ns > work.now_ns) return Drop::kLoop;
  return carries(group_of(target).policy, work.vlan) ? std::nullopt : std::optional(Drop::kVlan);
}

bool VirtualSwitch::asks_for(PortId to, Work& work) const {
  if (!work.ethernet.destination.is_group() || !headers_of(work).arp) return false;
  const auto owners = owners_.find(headers_of(work).arp->target);
  return owners != owners_.end() && std::ranges::find(owners->second, to) != owners->second.end();
}

void VirtualSwitch::send(PortId to, Work& work) {
  Port& target = *ports_[to];
  Port& source = *ports_[work.from];
  const GroupPolicy& policy = group_of(target).policy;
  if (why_closed(target, work)) return;
  const bool apart = target.config.group == source.config.group && policy.within_group == Permission::kDeny;
  const bool passes = !apart && (filter_ == nullptr || filter_->lets_through({.from = work.from,
                                                                              .to = to,
                                                                              .vlan = work.vlan,
                                                                              .frame = work.frame,
                                                                              .headers = headers_of(work),
                                                                              .now_ns = work.now_ns,
                                                                              .is_flooded = work.is_flooded,
                                                                              .is_asked_for = asks_for(to, work)}));
  if (!passes) return count_drop(source, Drop::kFilter);
  const ByteSpan inner = work.frame.subspan(work.inner_offset);
  const bool with_tag = policy.mode == VlanMode::kTrunk && policy.native_vlan != work.vlan;
  std::array<uint8_t, kVlanTagSize> tag;
  OutputFrame out{.parts = {work.frame.first(kAddressesSize), {}, inner}, .offload = work.offload};
  if (with_tag) {
    frame::store_big16(tag.data(), policy.tag_protocol);
    frame::store_big16(tag.data() + 2, static_cast<uint16_t>(work.priority_bits | work.vlan));
    out.parts[1] = tag;
  } else if (policy.mode != VlanMode::kTunnel) {
    // A tag of the sender's own would be taken for one of ours at the far end, and name any VLAN.
    const uint16_t type = frame::load_big16(inner.data());
    if (type == kTypeVlan || type == kTypeServiceVlan) return count_drop(source, Drop::kDoubleTag);
  }
  if (out.size() > frame::kMaximumFrameSize) return count_drop(source, Drop::kMalformed);
  // Nobody reads headers behind more tags, so nobody could cut what stands there.
  const size_t tags_taken_off = work.inner_offset != kAddressesSize ? 1 : 0;
  const size_t tag_count = work.ethernet.vlan_tag_count - tags_taken_off + (with_tag ? 1 : 0);
  if (out.offload.is_segmented() && tag_count > frame::Ethernet::kMaximumVlanTags) {
    return count_drop(source, Drop::kDoubleTag);
  }
  if (out.offload.is_checksum_open) {
    out.offload.checksum_start = static_cast<uint16_t>(out.offload.checksum_start + out.size() - work.frame.size());
  }
  if (target.mirrored != 0) mirror(to, false, out, work.copied, work.output);
  count_sent(target, out.size());
  work.output.deliver(to, out);
}

void VirtualSwitch::send_own(PortId to, uint16_t vlan, ByteSpan frame, bool for_mirrors, Output& output) {
  Port* const target = port(to);
  if (target == nullptr || target->is_mirror || frame.size() < frame::kEthernetHeaderSize) return;
  const GroupPolicy& policy = group_of(*target).policy;
  if (!carries(policy, vlan)) return;
  std::array<uint8_t, kVlanTagSize> tag;
  OutputFrame out{.parts = {frame.first(kAddressesSize), {}, frame.subspan(kAddressesSize)}};
  if (policy.mode == VlanMode::kTrunk && policy.native_vlan != vlan) {
    frame::store_big16(tag.data(), policy.tag_protocol);
    frame::store_big16(tag.data() + 2, vlan);
    out.parts[1] = tag;
  }
  Mirrors copied = 0;
  if (for_mirrors) mirror(to, false, out, copied, output);
  count_sent(*target, out.size());
  output.deliver(to, out);
}

// ---- Loops outside ----

void VirtualSwitch::probe_for_loops(uint64_t now_ns, Output& output) {
  now_ns_ = now_ns;
  std::array<uint8_t, 60> probe{};
  // To a group that nobody is in, which whoever carries frames on sends everywhere.
  std::ranges::copy(probe_source_.bytes, probe.begin());
  probe[0] |= 1;
  std::ranges::copy(probe_source_.bytes, probe.begin() + frame::MacAddress::kSize);
  frame::store_big16(probe.data() + kAddressesSize, kTypeProbe);
  for (PortId id = 0; id < ports_.size(); ++id) {
    if (ports_[id] == nullptr || ports_[id]->paused_until_ns > now_ns) continue;
    const GroupPolicy& policy = group_of(*ports_[id]).policy;
    // Where the sender's address is checked nothing can come back; what a mirror sends comes back elsewhere.
    if (!ports_[id]->is_mirror && policy.forged_mac == Permission::kDeny && ports_[id]->config.mac) continue;
    frame::store_big16(probe.data() + kAddressesSize + 2, id);
    if (ports_[id]->is_mirror) {
      // As copies go: without a say of its VLAN.
      store(probe.data() + kMarkOffset, mirror_mark_);
      count_sent(*ports_[id], probe.size());
      output.deliver(id, {.parts = {probe, {}, {}}});
      store(probe.data() + kMarkOffset, uint64_t{0});
      continue;
    }
    send_own(id, policy.mode == VlanMode::kTrunk ? policy.native_vlan : policy.vlan, probe, false, output);
  }
}

bool VirtualSwitch::take_probe(Port& from, const Work& work) {
  if (work.ethernet.source != probe_source_) return false;
  const uint64_t until_ns = work.now_ns + kLoopPause_ns;
  const ByteSpan& frame = work.frame;
  if (frame.size() < kMarkOffset + sizeof(uint64_t) || frame::load_big16(frame.data() + kAddressesSize) != kTypeProbe) {
    return true;
  }
  const PortId sent_by = frame::load_big16(frame.data() + kAddressesSize + 2);
  Port* const mirror = port(sent_by);
  if (load<uint64_t>(frame.data() + kMarkOffset) == mirror_mark_ && mirror != nullptr && mirror->is_mirror) {
    mirror->paused_until_ns = until_ns;
    count_drop(*mirror, Drop::kLoop);
  } else if (sent_by <= work.from) {
    // Of the two ends of a loop one stays: that of the smaller number.
    from.paused_until_ns = until_ns;
  }
  return true;
}

// Once for each mirror that has not got the frame yet. What a target itself would send or get is nobody's to see.
void VirtualSwitch::mirror(PortId seen_at, bool is_sent, const OutputFrame& frame, Mirrors& copied, Output& output) {
  const auto fresh = static_cast<Mirrors>(ports_[seen_at]->mirrored & ~copied);
  copied |= fresh;
  for (size_t i = 0; fresh >> i != 0; ++i) {
    if ((fresh >> i & 1) == 0 || ports_[mirror_targets_[i]]->paused_until_ns > now_ns_) continue;
    OutputFrame copy = frame;
    copy.seen = {seen_at, is_sent};
    count_sent(*ports_[mirror_targets_[i]], copy.size());
    output.deliver(mirror_targets_[i], copy);
  }
}

void VirtualSwitch::count_sent(Port& port, size_t size) {
  for (Counters* counters : {&port.counters, &group_of(port).counters}) {
    ++counters->sent_frames;
    counters->sent_bytes += size;
  }
}

void VirtualSwitch::count_drop(Port& port, Drop drop) {
  ++port.counters.drops[static_cast<size_t>(drop)];
  ++group_of(port).counters.drops[static_cast<size_t>(drop)];
}

}  // namespace bulkhead::net::switching
