#include "net/tunnel/tunnel.h"

#include <algorithm>

#include "net/frame/big_endian.h"
#include "net/frame/headers.h"

namespace bulkhead::net::tunnel {
namespace {

using frame::load_big16, frame::store_big16;

constexpr size_t kTypeOffset = 2 * frame::MacAddress::kSize;
constexpr uint32_t kPeerBits = TunnelConfig::kMaximumPeers - 1;
static_assert((TunnelConfig::kMaximumPeers & kPeerBits) == 0);
// The switch's own addresses, in the table of who is where.
constexpr switching::PortId kHere = TunnelConfig::kMaximumPeers;
constexpr uint64_t kJitter_ns = 333'000'000;

template <typename Message>
Message read_message(ByteSpan datagram) {
  return load<Message>(datagram.data());
}

bool is_tag(uint16_t type) {
  return type == frame::kTypeVlan || type == frame::kTypeServiceVlan;
}

}  // namespace

// ---- Made ----

Tunnel::Tunnel(const TunnelConfig& config, RandomSource& random)
    : own_(config.key),
      own_macs_(own_.public_key),
      own_address_(address_of_key(own_.public_key)),
      path_mtu_(config.path_mtu),
      mtu_(inner_mtu(config.path_mtu)),
      segments_(config.segments),
      random_(random),
      addresses_({}, random.next_u64()),
      cookies_(random),
      outgoing_(kMaximumDatagram) {
  random_.fill(source_secret_.bytes);
  sources_.fill(switching::RateLimit(kHandshakesASource, kHandshakesASource));
}

Result<> check_tunnel(const TunnelConfig& config) {
  if (config.peers.empty() || config.peers.size() > TunnelConfig::kMaximumPeers) {
    return fail("{} peers: allowed: 1 to {}", config.peers.size(), TunnelConfig::kMaximumPeers);
  }
  if (config.segments.empty() || config.segments.size() > TunnelConfig::kMaximumSegments) {
    return fail("{} VNIs: allowed: 1 to {}", config.segments.size(), TunnelConfig::kMaximumSegments);
  }
  for (auto each = config.segments.begin(); each != config.segments.end(); ++each) {
    if (each->vlan > frame::kMaximumVlan) return fail("VLAN {}: allowed: 0 to {}", each->vlan, frame::kMaximumVlan);
    if (each->vni > kMaximumVni) return fail("VNI {}: allowed: 0 to {}", each->vni, kMaximumVni);
    const auto same = [each](const Segment& other) { return other.vlan == each->vlan || other.vni == each->vni; };
    if (std::any_of(config.segments.begin(), each, same)) {
      return fail("VLAN {} with VNI {}: one of them stands twice", each->vlan, each->vni);
    }
  }
  if (config.path_mtu < TunnelConfig::kLeastPathMtu) {
    return fail("path MTU {}: allowed: {} to 65535", config.path_mtu, TunnelConfig::kLeastPathMtu);
  }
  for (auto each = config.peers.begin(); each != config.peers.end(); ++each) {
    const auto same = [each](const auto& other) { return other.key == each->key || other.name == each->name; };
    if (std::any_of(config.peers.begin(), each, same))
      return fail("peer '{}': its name or key stands twice", each->name);
  }
  return {};
}

Result<std::unique_ptr<Tunnel>> Tunnel::create(const TunnelConfig& config, RandomSource& random) {
  TRY(check_tunnel(config));
  std::unique_ptr<Tunnel> made(new Tunnel(config, random));
  for (const PeerConfig& each : config.peers) {
    if (each.key == made->own_.public_key) return fail("peer '{}': its key is this side's own", each.name);
    const auto shared = agree(made->own_.private_key, each.key);
    if (!shared) return fail("peer '{}': its key is of no use", each.name);
    made->peers_.push_back(std::make_unique<Peer>(each.name, each.key, *shared, each.endpoint));
  }
  return made;
}

uint32_t Tunnel::new_index(PeerId id) {
  const Peer& peer = *peers_[id];
  while (true) {
    const auto index = static_cast<uint32_t>((random_.next_u64() & ~uint64_t{kPeerBits}) | id);
    const bool taken = peers_[id]->find(index) != nullptr || (peer.pending && peer.pending->index == index);
    if (!taken) return index;
  }
}

Peer* Tunnel::peer_of(uint32_t index) const {
  const uint32_t id = index & kPeerBits;
  return id < peers_.size() ? peers_[id].get() : nullptr;
}

// ---- Out ----

void Tunnel::send(MutableByteSpan frame, const Now& now, TunnelOutput& output) {
  if (frame.size() < frame::kEthernetHeaderSize) return;
  uint16_t vlan = 0;
  if (load_big16(frame.data() + kTypeOffset) == frame::kTypeVlan &&
      frame.size() >= frame::kEthernetHeaderSize + frame::kVlanTagSize) {
    vlan = load_big16(frame.data() + kTypeOffset + 2) & 0x0FFF;
    std::copy_backward(frame.begin(), frame.begin() + kTypeOffset, frame.begin() + kTypeOffset + frame::kVlanTagSize);
    frame = frame.subspan(frame::kVlanTagSize);
  }
  const auto segment = std::ranges::find(segments_, vlan, &Segment::vlan);
  // A tag inside would be another network's at the far end (RFC 7348, 6.1).
  if (segment == segments_.end() || is_tag(load_big16(frame.data() + kTypeOffset))) {
    ++counters_.not_carried;
    return;
  }
  if (frame.size() > kMaximumFrame) {
    ++counters_.too_large;
    return;
  }
  if (clamp_segment_size(frame, mtu_)) ++counters_.clamped;
  (void)addresses_.learn(vlan, frame::MacAddress::from(frame.subspan(frame::MacAddress::kSize)), kHere, now.ns);
  const auto destination = frame::MacAddress::from(frame);
  const auto at = destination.is_group() ? std::nullopt : addresses_.find(vlan, destination, now.ns);
  if (at && *at != kHere) return send_to(*at, frame, segment->vni, now, output);
  for (PeerId id = 0; id < peers_.size(); ++id) send_to(id, frame, segment->vni, now, output);
}

void Tunnel::send_to(PeerId id, ByteSpan frame, uint32_t vni, const Now& now, TunnelOutput& output) {
  Peer& peer = *peers_[id];
  Session* const session = peer.usable(now.ns);
  if (session == nullptr) {
    ++peer.counters.no_session;
    return;
  }
  const MutableByteSpan packet = MutableByteSpan(outgoing_).subspan(sizeof(DataHeader), kEnvelopeSize + frame.size());
  std::ranges::copy(frame, packet.subspan(kEnvelopeSize).begin());
  put_envelope(packet, own_address_, peer.address, vni);
  ++peer.counters.sent_frames;
  peer.counters.sent_bytes += frame.size();
  seal_and_send(id, *session, packet.size(), now, output);
}

void Tunnel::seal_and_send(PeerId id, Session& session, size_t packet_size, const Now& now, TunnelOutput& output) {
  Peer& peer = *peers_[id];
  const size_t padded = align_up(packet_size, kPadding);
  const MutableByteSpan datagram = MutableByteSpan(outgoing_).first(sizeof(DataHeader) + padded + kTagSize);
  std::ranges::fill(datagram.subspan(sizeof(DataHeader) + packet_size, padded - packet_size), 0);
  const uint64_t counter = session.next_counter++;
  store(datagram.data(), DataHeader{.kind = kData, .receiver = session.remote, .counter = counter});
  session.sealing.seal(counter, datagram.subspan(sizeof(DataHeader), padded), {}, datagram.subspan(sizeof(DataHeader)));
  const bool is_ipv4 = peer.endpoint->address.family == frame::Family::kIpv4;
  const size_t outside = (is_ipv4 ? frame::kIpv4HeaderSize : frame::kIpv6HeaderSize) + frame::kUdpHeaderSize;
  if (outside + datagram.size() > path_mtu_) ++counters_.in_fragments;
  output.transmit(*peer.endpoint, datagram);
  peer.note_sent(now.ns, packet_size != 0);
}

void Tunnel::send_keepalive(PeerId id, const Now& now, TunnelOutput& output) {
  if (Session* const session = peers_[id]->usable(now.ns)) seal_and_send(id, *session, 0, now, output);
}

// Grows, whatever the clock does.
Timestamp Tunnel::next_timestamp(const Now& now) {
  Timestamp stamp = timestamp_of(now.wall_ns);
  if (stamp <= latest_) {
    constexpr uint64_t kLeastStep = 1u << 24;
    stamp = latest_;
    const uint64_t more = __builtin_bswap64(load<uint64_t>(stamp.data() + 4)) + kLeastStep;
    store(stamp.data() + 4, __builtin_bswap64(more));
  }
  return latest_ = stamp;
}

void Tunnel::send_initiation(PeerId id, const Now& now, TunnelOutput& output) {
  Peer& peer = *peers_[id];
  peer.pending.reset();
  Initiation state;
  InitiationMessage message =
      make_initiation(own_, peer.key, peer.shared, new_index(id), next_timestamp(now), random_, state);
  const bool has_cookie = peer.cookie && now.ns - peer.cookie_ns < kCookieLife_ns;
  put_macs(as_mutable_bytes(message), peer.macs, has_cookie ? peer.cookie : std::nullopt);
  peer.pending = state;
  peer.pending_mac1 = mac1_of(as_bytes(message));
  peer.attempt_ns = now.ns + kRekeyTimeout_ns + random_.next_u64() % kJitter_ns;
  output.transmit(*peer.endpoint, as_bytes(message));
  if (peer.home && peer.home != peer.endpoint) output.transmit(*peer.home, as_bytes(message));
}

void Tunnel::run_timers(const Now& now, TunnelOutput& output) {
  for (PeerId id = 0; id < peers_.size(); ++id) {
    Peer& peer = *peers_[id];
    for (auto* session : {&peer.current, &peer.previous, &peer.next}) {
      if (*session && !(*session)->is_usable(now.ns)) session->reset();
    }
    if (now.ns >= peer.attempt_ns && peer.wants_handshake(now.ns)) send_initiation(id, now, output);
    if (now.ns - peer.sent_ns >= kKeepaliveTimeout_ns) send_keepalive(id, now, output);
  }
  addresses_.age(now.ns);
}

// ---- In ----

void Tunnel::receive(const Endpoint& from, MutableByteSpan datagram, const Now& now, TunnelOutput& output) {
  const uint32_t kind = datagram.size() < sizeof(uint32_t) ? 0 : load<uint32_t>(datagram.data());
  if (kind == kData && datagram.size() >= sizeof(DataHeader) + kTagSize) return on_data(from, datagram, now, output);
  if (kind == kInitiation && datagram.size() == sizeof(InitiationMessage)) {
    return on_initiation(from, datagram, now, output);
  }
  if (kind == kResponse && datagram.size() == sizeof(ResponseMessage)) return on_response(from, datagram, now, output);
  if (kind == kCookieReply && datagram.size() == sizeof(CookieReplyMessage)) return on_cookie(datagram, now);
  ++counters_.malformed;
}

bool Tunnel::admit(const Endpoint& from, ByteSpan message, uint32_t sender, const Now& now, TunnelOutput& output) {
  if (!is_mac1_right(message, own_macs_)) {
    ++counters_.strangers;
    return false;
  }
  if (calm_.take(1, now.ns)) return true;
  if (!cookies_.is_mac2_right(message, from, now.ns)) {
    if (!replies_.take(1, now.ns)) {
      ++counters_.refused;
      return false;
    }
    ++counters_.challenged;
    const CookieReplyMessage reply = cookies_.reply(message, sender, from, own_macs_, now.ns);
    output.transmit(from, as_bytes(reply));
    return false;
  }
  const Mac place = keyed_hash(source_secret_.bytes, {from.address.bytes});
  if (sources_[place[0]].take(1, now.ns)) return true;
  ++counters_.refused;
  return false;
}

void Tunnel::on_initiation(const Endpoint& from, ByteSpan datagram, const Now& now, TunnelOutput& output) {
  const auto message = read_message<InitiationMessage>(datagram);
  if (!admit(from, datagram, message.sender, now, output)) return;
  auto opened = open_initiation(own_, message);
  const auto known =
      opened ? std::ranges::find(peers_, opened->peer, [](const auto& each) { return each->key; }) : peers_.end();
  if (known == peers_.end()) {
    ++counters_.strangers;
    return;
  }
  Peer& peer = **known;
  const auto id = static_cast<PeerId>(known - peers_.begin());
  const auto timestamp = accept(*opened, message, peer.shared);
  if (!timestamp) {
    ++counters_.strangers;
    return;
  }
  const bool too_soon = peer.latest && now.ns - peer.accepted_ns < kLeastInterval_ns;
  if (too_soon || (peer.latest && *timestamp <= *peer.latest)) {
    ++counters_.stale;
    return;
  }
  auto response = make_response(*opened, new_index(id), random_);
  if (!response) {
    ++counters_.strangers;
    return;
  }
  peer.latest = *timestamp;
  peer.accepted_ns = now.ns;
  const bool has_cookie = peer.cookie && now.ns - peer.cookie_ns < kCookieLife_ns;
  put_macs(as_mutable_bytes(response->message), peer.macs, has_cookie ? peer.cookie : std::nullopt);
  peer.begin(std::make_unique<Session>(response->message.sender, message.sender, response->keys, false, now.ns));
  peer.endpoint = from;
  peer.note_heard(now.ns);
  output.transmit(from, as_bytes(response->message));
  peer.note_sent(now.ns, false);
}

void Tunnel::on_response(const Endpoint& from, ByteSpan datagram, const Now& now, TunnelOutput& output) {
  const auto message = read_message<ResponseMessage>(datagram);
  Peer* const peer = peer_of(message.receiver);
  if (peer == nullptr || !peer->pending || peer->pending->index != message.receiver) {
    ++counters_.stale;
    return;
  }
  if (!admit(from, datagram, message.sender, now, output)) return;
  const auto keys = open_response(own_, *peer->pending, message);
  if (!keys) {
    ++counters_.strangers;
    return;
  }
  peer->begin(std::make_unique<Session>(message.receiver, message.sender, *keys, true, now.ns));
  peer->pending.reset();
  peer->endpoint = from;
  peer->note_heard(now.ns);
  // The other side may send under it only when it has heard something under it.
  send_keepalive(static_cast<PeerId>(message.receiver & kPeerBits), now, output);
}

void Tunnel::on_cookie(ByteSpan datagram, const Now& now) {
  const auto message = read_message<CookieReplyMessage>(datagram);
  Peer* const peer = peer_of(message.receiver);
  if (peer == nullptr || !peer->pending || peer->pending->index != message.receiver) {
    ++counters_.stale;
    return;
  }
  const auto cookie = open_cookie(message, peer->macs, peer->pending_mac1);
  if (!cookie) {
    ++counters_.strangers;
    return;
  }
  peer->cookie = cookie;
  peer->cookie_ns = now.ns;
}

void Tunnel::on_data(const Endpoint& from, MutableByteSpan datagram, const Now& now, TunnelOutput& output) {
  const auto header = read_message<DataHeader>(datagram);
  Peer* const peer = peer_of(header.receiver);
  Session* const session = peer == nullptr ? nullptr : peer->find(header.receiver);
  if (session == nullptr || session->age_ns(now.ns) >= kRejectAfter_ns || header.counter >= kRejectAfterMessages) {
    ++counters_.stale;
    return;
  }
  const MutableByteSpan sealed = datagram.subspan(sizeof(DataHeader));
  const MutableByteSpan packet = sealed.first(sealed.size() - kTagSize);
  if (!session->opening.open(header.counter, sealed, {}, packet)) {
    ++peer->counters.forged;
    return;
  }
  if (!session->window.take(header.counter)) {
    ++peer->counters.replayed;
    return;
  }
  if (session == peer->next.get()) peer->confirm();
  peer->endpoint = from;
  peer->note_heard(now.ns);
  if (!packet.empty()) deliver(static_cast<PeerId>(header.receiver & kPeerBits), packet, now, output);
}

void Tunnel::deliver(PeerId id, MutableByteSpan packet, const Now& now, TunnelOutput& output) {
  Peer& peer = *peers_[id];
  const auto unwrapped = take_envelope(packet, peer.address, own_address_);
  const auto segment = unwrapped ? std::ranges::find(segments_, unwrapped->vni, &Segment::vni) : segments_.end();
  // A tag of the peer's own would name a VLAN that its VNI does not.
  if (segment == segments_.end() || is_tag(load_big16(unwrapped->frame.data() + kTypeOffset))) {
    ++peer.counters.refused;
    return;
  }
  MutableByteSpan frame = unwrapped->frame;
  const auto source = frame::MacAddress::from(frame.subspan(frame::MacAddress::kSize));
  if (source.is_group() || source.is_zero()) {
    ++peer.counters.refused;
    return;
  }
  if (addresses_.learn(segment->vlan, source, id, now.ns) == switching::MacTable::Learned::kRestless) {
    ++counters_.restless;
    return;
  }
  if (clamp_segment_size(frame, mtu_)) ++counters_.clamped;
  ++peer.counters.received_frames;
  peer.counters.received_bytes += frame.size();
  if (segment->vlan != 0) {
    // The tag takes the place of the last bytes of the VXLAN header.
    frame = packet.subspan(kEnvelopeSize - frame::kVlanTagSize, frame.size() + frame::kVlanTagSize);
    std::copy_n(frame.begin() + frame::kVlanTagSize, kTypeOffset, frame.begin());
    store_big16(frame.data() + kTypeOffset, frame::kTypeVlan);
    store_big16(frame.data() + kTypeOffset + 2, segment->vlan);
  }
  output.deliver(frame);
}

// ---- Said ----

std::string Tunnel::describe(const Now& now) const {
  std::string text = fmt::format("public key {}, address {}, MTU of cards {} (of the path {})\n",
                                 key_text(own_.public_key), own_address_.to_string(), mtu_, path_mtu_);
  text += fmt::format("{:<16} {:<12} {:<28} {:>8} {:>5} {:>12} {:>12} {:>8} {:>8} {:>8} {:>8}\n", "PEER", "STATE",
                      "ENDPOINT", "HEARD", "KEYS", "FRAMES IN", "FRAMES OUT", "LOST", "REPLAYED", "FORGED", "REFUSED");
  for (const auto& peer : peers_) {
    const bool is_up = peer->usable(now.ns) != nullptr && !peer->is_lost(now.ns);
    const PeerCounters& counted = peer->counters;
    text += fmt::format("{:<16} {:<12} {:<28} {:>8} {:>5} {:>12} {:>12} {:>8} {:>8} {:>8} {:>8}\n", peer->name,
                        is_up            ? "up"
                        : peer->endpoint ? "connecting"
                                         : "waiting",
                        peer->endpoint ? peer->endpoint->to_string() : "-",
                        peer->heard_ns ? fmt::format("{}s ago", (now.ns - *peer->heard_ns) / kSecond_ns) : "never",
                        counted.handshakes, counted.received_frames, counted.sent_frames, counted.no_session,
                        counted.replayed, counted.forged, counted.refused);
  }
  for (const auto& [count, what] : {std::pair(counters_.malformed, "datagrams are no messages"),
                                    {counters_.strangers, "handshakes of strangers"},
                                    {counters_.stale, "datagrams of handshakes and sessions that are over"},
                                    {counters_.challenged, "handshakes answered with a cookie"},
                                    {counters_.refused, "handshakes refused under load"},
                                    {counters_.not_carried, "frames of a VLAN that has no VNI"},
                                    {counters_.too_large, "frames too large for a datagram"},
                                    {counters_.in_fragments, "datagrams larger than the path's MTU"},
                                    {counters_.clamped, "TCP segment sizes lowered"},
                                    {counters_.restless, "frames of addresses that jump between peers"}}) {
    if (count != 0) text += fmt::format("{:>12}  {}\n", count, what);
  }
  return text;
}

}  // namespace bulkhead::net::tunnel
