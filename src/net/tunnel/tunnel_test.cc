#include "net/tunnel/tunnel.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "net/frame/big_endian.h"
#include "net/frame/checksum.h"
#include "net/frame/frame_builder.h"
#include "net/frame/headers.h"
#include "net/tunnel/testing/hosts.h"

namespace bulkhead::net::tunnel {
namespace {

using frame::FrameBuilder;

frame::MacAddress mac(uint8_t number) {
  return {{2, 0, 0, 0, 0, number}};
}

FrameBuilder between(uint8_t from, uint8_t to) {
  return FrameBuilder().ethernet(mac(from), mac(to)).ipv4(fmt::format("10.0.0.{}", from), fmt::format("10.0.0.{}", to));
}
Frame words(uint8_t from, uint8_t to, std::string_view text) {
  return between(from, to).udp(1, 2).payload(text).build();
}
Frame broadcast(uint8_t from) {
  return FrameBuilder().ethernet(mac(from), frame::MacAddress::broadcast()).type(0x88B5).payload("all").build();
}

// Two hosts that know each other and have met.
struct Two {
  explicit Two(bool meet = true) {
    path.hosts = {&one, &two};
    if (meet) path.run(kSecond_ns);
  }
  Path path;
  Host one{path, endpoint_of(1), config_of(1, {2}), 11};
  Host two{path, endpoint_of(2), config_of(2, {1}), 12};
};

TEST(Tunnel, CarriesFramesBothWays) {
  Two world;
  const Frame there = words(1, 2, "forth"), back = words(2, 1, "back");
  world.one.send(there);
  world.two.send(back);
  world.path.settle();
  EXPECT_EQ(world.two.take(), std::vector<Frame>{there});
  EXPECT_EQ(world.one.take(), std::vector<Frame>{back});
  EXPECT_EQ(world.one.peer().counters.sent_frames, 1u);
  EXPECT_EQ(world.one.peer().counters.received_frames, 1u);
  EXPECT_NE(world.one.tunnel->describe(world.path.now).find("up"), std::string::npos);
}

TEST(Tunnel, ShowsNothingOfAFrameOnTheWay) {
  Two world;
  const std::string secret = "the pressure of tank seven";
  world.one.send(words(1, 2, secret));
  world.path.settle();
  ASSERT_EQ(world.two.take().size(), 1u);
  for (const Datagram& each : world.path.seen) {
    const auto found = std::search(each.bytes.begin(), each.bytes.end(), secret.begin(), secret.begin() + 8);
    EXPECT_EQ(found, each.bytes.end());
    EXPECT_EQ(std::ranges::search(each.bytes, mac(1).bytes).begin(), each.bytes.end());
  }
}

TEST(Tunnel, RefusesWhoHasAnotherKey) {
  Path path;
  Host one(path, endpoint_of(1), config_of(1, {2}), 11);
  // It says that it is host 2, from there, and knows host 1's key.
  TunnelConfig false_config = config_of(2, {1});
  false_config.key = secret_of(3);
  Host impostor(path, endpoint_of(2), false_config, 13);
  path.hosts = {&one, &impostor};
  path.run(20 * kSecond_ns);
  one.send(words(1, 2, "x"));
  impostor.send(words(2, 1, "x"));
  path.settle();
  EXPECT_TRUE(one.take().empty());
  EXPECT_TRUE(impostor.take().empty());
  EXPECT_GT(one.tunnel->counters().strangers, 0u);
  EXPECT_EQ(one.peer().counters.handshakes, 0u);
  EXPECT_EQ(one.peer().counters.no_session, 1u);
}

TEST(Tunnel, TakesEachDatagramOnceInAnyOrder) {
  Two world;
  std::vector<Frame> sent;
  for (uint8_t i = 0; i < 100; ++i) sent.push_back(words(1, 2, std::string(1, static_cast<char>('a' + i % 26)) + "x"));
  for (const Frame& each : sent) world.one.send(each);
  std::vector<Datagram> on_the_way(world.path.waiting.begin(), world.path.waiting.end());
  world.path.waiting.clear();
  std::ranges::reverse(on_the_way);
  for (const Datagram& each : on_the_way) world.path.carry(each);
  std::vector<Frame> came = world.two.take();
  std::ranges::reverse(came);
  EXPECT_EQ(came, sent);
  for (const Datagram& each : on_the_way) world.path.carry(each);
  EXPECT_TRUE(world.two.take().empty());
  EXPECT_EQ(world.two.peer().counters.replayed, 100u);
}

TEST(Tunnel, ReplayedHandshakesChangeNothing) {
  Two world;
  const std::vector<Datagram> seen = world.path.seen;
  world.path.advance(10 * kSecond_ns);
  for (const Datagram& each : seen) world.path.carry(each);
  world.path.waiting.clear();
  EXPECT_EQ(world.one.peer().counters.handshakes + world.two.peer().counters.handshakes, 4u) << "each began one";
  const Frame after = words(1, 2, "after");
  world.one.send(after);
  world.path.settle();
  EXPECT_EQ(world.two.take(), std::vector<Frame>{after});
}

TEST(Tunnel, CountsWhatIsForgedOrNoMessage) {
  Two world;
  world.one.send(words(1, 2, "x"));
  Datagram spoiled = world.path.waiting.front();
  world.path.waiting.clear();
  spoiled.bytes.back() ^= 1;
  world.path.carry(spoiled);
  EXPECT_EQ(world.two.peer().counters.forged, 1u);
  for (const size_t size : {size_t{0}, size_t{3}, size_t{31}, size_t{147}, size_t{149}}) {
    world.path.carry({.from = endpoint_of(9), .to = endpoint_of(2), .bytes = Frame(size, 1)});
  }
  EXPECT_EQ(world.two.tunnel->counters().malformed, 5u);
  EXPECT_TRUE(world.two.take().empty());
}

TEST(Tunnel, ChangesKeysWithoutLosingAFrame) {
  Two world;
  const uint64_t before = world.one.peer().counters.handshakes;
  for (unsigned second = 0; second < 600; ++second) {
    world.path.run(kSecond_ns);
    world.one.send(words(1, 2, fmt::format("{}", second)));
    world.two.send(words(2, 1, fmt::format("{}", second)));
    world.path.settle();
    ASSERT_EQ(world.one.take().size(), 1u) << second;
    ASSERT_EQ(world.two.take().size(), 1u) << second;
  }
  const uint64_t handshakes = world.one.peer().counters.handshakes - before;
  EXPECT_GE(handshakes, 4u);
  EXPECT_LE(handshakes, 12u);
}

TEST(Tunnel, KeepsAnIdleSessionAlive) {
  Two world;
  world.path.run(1000 * kSecond_ns);
  const Frame late = words(1, 2, "late");
  world.one.send(late);
  world.path.settle();
  EXPECT_EQ(world.two.take(), std::vector<Frame>{late});
  EXPECT_LT(world.path.now.ns - *world.two.peer().heard_ns, 12 * kSecond_ns);
}

TEST(Tunnel, SurvivesLossOfAThird) {
  Two world;
  SeededRandom random(5);
  uint64_t sent = 0, came = 0;
  for (unsigned step = 0; step < 1200; ++step) {
    world.path.advance(kSecond_ns / 2);
    world.one.tick();
    world.two.tick();
    world.one.send(words(1, 2, "x"));
    ++sent;
    for (unsigned count = 0; !world.path.waiting.empty() && count < 100; ++count) {
      const Datagram next = std::move(world.path.waiting.front());
      world.path.waiting.pop_front();
      if (random.below(3) != 0) world.path.carry(next);
    }
    came += world.two.take().size();
  }
  EXPECT_GT(came, sent / 2);
}

TEST(Tunnel, AHostThatStartsAgainIsBackAtOnce) {
  Two world;
  // The clock of the new life goes on from the old one's.
  Host again(world.path, endpoint_of(2), config_of(2, {1}), 99);
  world.path.hosts = {&world.one, &again};
  world.path.run(kSecond_ns);
  const Frame there = words(1, 2, "again"), back = words(2, 1, "and back");
  world.one.send(there);
  again.send(back);
  world.path.settle();
  EXPECT_EQ(again.take(), std::vector<Frame>{there});
  EXPECT_EQ(world.one.take(), std::vector<Frame>{back});
}

TEST(Tunnel, ASilentPeerIsFoundDeadAndCalledAgain) {
  // The second host waits to be called: it does not know where the first one is.
  Path path;
  TunnelConfig waits = config_of(2, {1});
  waits.peers[0].endpoint.reset();
  Host one(path, endpoint_of(1), config_of(1, {2}), 11);
  auto two = std::make_unique<Host>(path, endpoint_of(2), waits, 12);
  path.hosts = {&one, two.get()};
  path.run(kSecond_ns);
  ASSERT_EQ(two->peer().endpoint, endpoint_of(1));
  two = std::make_unique<Host>(path, endpoint_of(2), waits, 13);
  path.hosts = {&one, two.get()};
  one.send(words(1, 2, "into the void"));
  path.run(kDeadAfter_ns + kSecond_ns);
  EXPECT_TRUE(two->take().empty());
  const Frame frame = words(1, 2, "there again");
  one.send(frame);
  path.settle();
  EXPECT_EQ(two->take(), std::vector<Frame>{frame});
}

TEST(Tunnel, FollowsAPeerThatMoves) {
  Two world;
  world.two.endpoint = endpoint_of(77);
  world.two.send(words(2, 1, "from elsewhere"));
  world.path.settle();
  EXPECT_EQ(world.one.take().size(), 1u);
  EXPECT_EQ(world.one.peer().endpoint, endpoint_of(77));
  const Frame back = words(1, 2, "follows");
  world.one.send(back);
  world.path.settle();
  EXPECT_EQ(world.two.take(), std::vector<Frame>{back});
  // Whoever repeats a datagram from elsewhere moves nobody.
  Datagram repeated = world.path.seen.back();
  repeated.from = endpoint_of(66);
  world.path.carry(repeated);
  EXPECT_EQ(world.two.peer().endpoint, endpoint_of(1));
}

TEST(Tunnel, FindsAPeerAtHomeThatWasLedAway) {
  Two world;
  // On the way are hands that let one datagram of each pass as if it came from nowhere, and no other.
  world.one.send(words(1, 2, "x"));
  world.two.send(words(2, 1, "x"));
  for (Datagram& each : world.path.waiting) each.from = endpoint_of(66);
  world.path.settle();
  EXPECT_EQ(world.one.peer().endpoint, endpoint_of(66));
  EXPECT_EQ(world.two.peer().endpoint, endpoint_of(66));
  world.one.send(words(1, 2, "lost"));
  world.path.run(kDeadAfter_ns + kRekeyTimeout_ns + kSecond_ns);
  EXPECT_EQ(world.one.peer().endpoint, endpoint_of(2));
  EXPECT_EQ(world.two.peer().endpoint, endpoint_of(1));
}

TEST(Tunnel, AsksForACookieUnderLoad) {
  Two world(false);
  // Strangers that know the public key, from made-up addresses.
  const MacKeys macs(public_key_of(secret_of(1)));
  SeededRandom random(3);
  const auto flood = [&] {
    for (unsigned i = 0; i < 200; ++i) {
      InitiationMessage message{};
      random.fill(as_mutable_bytes(message));
      message.kind = kInitiation;
      put_macs(as_mutable_bytes(message), macs, std::nullopt);
      const ByteSpan bytes = as_bytes(message);
      world.path.carry({.from = endpoint_of(static_cast<uint8_t>(random.below(250))),
                        .to = endpoint_of(1),
                        .bytes = Frame(bytes.begin(), bytes.end())});
      world.path.waiting.clear();
    }
  };
  world.path.hosts = {&world.one, &world.two};
  flood();
  EXPECT_EQ(world.one.tunnel->counters().strangers, Tunnel::kHandshakesASecond);
  EXPECT_EQ(world.one.tunnel->counters().challenged, 200 - Tunnel::kHandshakesASecond);
  // The peer gets a cookie, and is let in with it while the flood goes on.
  world.two.tick();
  world.path.settle();
  EXPECT_EQ(world.one.peer().counters.handshakes, 0u);
  ASSERT_TRUE(world.two.peer().cookie);
  world.path.advance(6 * kSecond_ns);
  flood();
  world.two.tick();
  world.path.settle();
  EXPECT_EQ(world.one.peer().counters.handshakes, 1u);
  // Elsewhere the cookie is none.
  world.path.advance(6 * kSecond_ns);
  flood();
  world.two.endpoint = endpoint_of(77);
  const uint64_t challenged = world.one.tunnel->counters().challenged;
  world.two.tunnel->peers()[0]->current.reset();
  world.two.tick();
  world.path.settle();
  EXPECT_EQ(world.one.peer().counters.handshakes, 1u);
  EXPECT_EQ(world.one.tunnel->counters().challenged, challenged + 1);
}

TEST(Tunnel, CarriesAVlanAsItsOwnNetwork) {
  Two world;
  const Frame tagged = between(1, 2).vlan(10).udp(1, 2).payload("ten").build();
  world.one.send(tagged);
  // A VLAN that has no VNI, and a tag inside another, go nowhere.
  world.one.send(between(1, 2).vlan(11).udp(1, 2).build());
  world.one.send(between(1, 2).vlan(10).vlan(20).udp(1, 2).build());
  world.path.settle();
  EXPECT_EQ(world.two.take(), std::vector<Frame>{tagged});
  EXPECT_EQ(world.one.tunnel->counters().not_carried, 2u);
  // The far side may call it otherwise: the VNI says what it is.
  TunnelConfig other = config_of(2, {1});
  other.segments = {{0, 5010}, {30, 100}};
  Host renamed(world.path, endpoint_of(2), other, 20);
  world.path.hosts = {&world.one, &renamed};
  world.path.run(kSecond_ns);
  world.one.send(tagged);
  world.path.settle();
  EXPECT_EQ(renamed.take(), std::vector<Frame>{between(1, 2).udp(1, 2).payload("ten").build()});
}

// Three hosts, each joined with each.
TEST(Tunnel, SendsNothingOfOnePeerToAnother) {
  Path path;
  Host one(path, endpoint_of(1), config_of(1, {2, 3}), 11), two(path, endpoint_of(2), config_of(2, {1, 3}), 12),
      three(path, endpoint_of(3), config_of(3, {1, 2}), 13);
  path.hosts = {&one, &two, &three};
  path.run(kSecond_ns);
  one.send(broadcast(1));
  path.settle();
  EXPECT_EQ(two.take().size(), 1u);
  EXPECT_EQ(three.take().size(), 1u);
  EXPECT_TRUE(one.take().empty());
  // Then they know where it is.
  two.send(words(2, 1, "for one"));
  path.settle();
  EXPECT_EQ(one.take().size(), 1u);
  EXPECT_TRUE(three.take().empty());
  // What a switch has moved to itself is looked for anew.
  two.send(words(1, 9, "moved here"));
  path.settle();
  (void)one.take();
  (void)three.take();
  two.send(words(2, 1, "flooded"));
  path.settle();
  EXPECT_EQ(three.take().size(), 1u);
}

TEST(Tunnel, HoldsAnAddressThatJumpsBetweenPeers) {
  Path path;
  Host one(path, endpoint_of(1), config_of(1, {2, 3}), 11), two(path, endpoint_of(2), config_of(2, {1, 3}), 12),
      three(path, endpoint_of(3), config_of(3, {1, 2}), 13);
  path.hosts = {&one, &two, &three};
  path.run(kSecond_ns);
  for (unsigned i = 0; i < 50; ++i) {
    two.send(words(7, 1, "here"));
    three.send(words(7, 1, "there"));
  }
  path.settle();
  EXPECT_GT(one.tunnel->counters().restless, 0u);
}

// A peer that has the keys says what it likes.
TEST(Tunnel, RefusesPacketsThatAreNoFramesOfTheirSender) {
  Two world;
  const auto say = [&](Frame packet) {
    Session& session = *world.one.tunnel->peers()[0]->current;
    packet.resize(align_up(packet.size(), kPadding));
    Frame bytes(sizeof(DataHeader) + packet.size() + kTagSize);
    store(bytes.data(), DataHeader{.kind = kData, .receiver = session.remote, .counter = session.next_counter});
    session.sealing.seal(session.next_counter++, packet, {}, MutableByteSpan(bytes).subspan(sizeof(DataHeader)));
    world.path.carry({.from = endpoint_of(1), .to = endpoint_of(2), .bytes = bytes});
    return world.two.take().size();
  };
  const frame::IpAddress own = address_of_key(world.one.tunnel->public_key()),
                         other = address_of_key(world.two.tunnel->public_key());
  const auto wrapped = [&](const Frame& frame, uint32_t vni, const frame::IpAddress& from) {
    Frame packet(kEnvelopeSize);
    packet.insert(packet.end(), frame.begin(), frame.end());
    put_envelope(packet, from, other, vni);
    return packet;
  };
  const Frame frame = words(1, 2, "x");
  EXPECT_EQ(say(wrapped(frame, 100, own)), 1u);
  EXPECT_EQ(say(wrapped(frame, 101, own)), 0u) << "no such network";
  EXPECT_EQ(say(wrapped(frame, 100, other)), 0u) << "somebody else's address";
  EXPECT_EQ(say(wrapped(between(1, 2).vlan(10).udp(1, 2).build(), 100, own)), 0u) << "a tag of its own";
  EXPECT_EQ(say(wrapped(FrameBuilder().ethernet(frame::MacAddress::broadcast(), mac(2)).build(), 100, own)), 0u);
  for (size_t size = 1; size < kEnvelopeSize + frame::kEthernetHeaderSize; ++size) {
    Frame packet = wrapped(frame, 100, own);
    packet.resize(size);
    EXPECT_EQ(say(packet), 0u) << size;
  }
  Frame longer = wrapped(frame, 100, own);
  longer[5] = 255;
  EXPECT_EQ(say(longer), 0u) << "longer than it is";
  EXPECT_EQ(world.two.peer().counters.forged, 0u);
  EXPECT_EQ(world.two.peer().counters.refused, 5 + kEnvelopeSize + frame::kEthernetHeaderSize - 1);
}

// Of a SYN with these options: no-operation so often, then the segment size.
Frame syn(uint16_t segment_size, size_t shift, bool ipv6) {
  FrameBuilder builder = FrameBuilder().ethernet(mac(1), mac(2));
  if (ipv6) builder.ipv6("fd00::1", "fd00::2");
  if (!ipv6) builder.ipv4("10.0.0.1", "10.0.0.2");
  Frame options(shift, 1);
  for (const uint8_t byte :
       {uint8_t{2}, uint8_t{4}, static_cast<uint8_t>(segment_size >> 8), static_cast<uint8_t>(segment_size)}) {
    options.push_back(byte);
  }
  options.resize(8);
  // The options are what the builder takes for data; then the header grows over them.
  Frame made = builder.tcp(1, 2, frame::kTcpSyn).payload(options).build();
  const frame::Headers headers = frame::read_headers(made);
  made[headers.ip->payload_offset + 12] = 7 << 4;
  made[headers.ip->payload_offset + 16] = made[headers.ip->payload_offset + 17] = 0;
  const uint16_t sum = frame::Checksum()
                           .add_pseudo_header(headers.ip->source, headers.ip->destination, frame::kProtocolTcp,
                                              static_cast<uint32_t>(headers.ip->payload_size))
                           .add(ByteSpan(made).subspan(headers.ip->payload_offset, headers.ip->payload_size))
                           .value();
  frame::store_big16(&made[headers.ip->payload_offset + 16], sum);
  return made;
}

TEST(Tunnel, LowersSegmentSizesOfConnectionsThatBegin) {
  for (const bool ipv6 : {false, true}) {
    for (const size_t shift : {0, 1, 2, 3, 4}) {
      Frame frame = syn(1460, shift, ipv6);
      ASSERT_TRUE(clamp_segment_size(frame, 1338));
      EXPECT_EQ(frame, syn(ipv6 ? 1278 : 1298, shift, ipv6)) << shift;
      EXPECT_FALSE(clamp_segment_size(frame, 1338));
    }
  }
  Frame without = between(1, 2).tcp(1, 2, frame::kTcpSyn).build();
  EXPECT_FALSE(clamp_segment_size(without, 1338));
  EXPECT_EQ(inner_mtu(1500), 1338);
  EXPECT_EQ(inner_mtu(100), 0);
}

TEST(Tunnel, AFrameOfTheReportedMtuFitsThePath) {
  Two world;
  const uint16_t mtu = world.one.tunnel->mtu();
  Frame frame = words(1, 2, "");
  frame.resize(mtu + frame::kEthernetHeaderSize);
  world.one.send(frame);
  ASSERT_FALSE(world.path.waiting.empty());
  // By IPv6, which has the larger header.
  EXPECT_LE(world.path.waiting.back().bytes.size() + frame::kIpv6HeaderSize + frame::kUdpHeaderSize, 1500u);
  EXPECT_EQ(world.one.tunnel->counters().in_fragments, 0u);
  frame.resize(frame.size() + 200);
  world.one.send(frame);
  EXPECT_EQ(world.one.tunnel->counters().in_fragments, 1u);
  frame.resize(Tunnel::kMaximumFrame);
  world.one.send(frame);
  world.path.settle();
  EXPECT_EQ(world.two.take().size(), 3u);
  frame.resize(Tunnel::kMaximumFrame + 1);
  world.one.send(frame);
  EXPECT_EQ(world.one.tunnel->counters().too_large, 1u);
}

TEST(Tunnel, SaysWhatIsWrongWithItsConfiguration) {
  SeededRandom random(1);
  const auto complaint = [&](auto&& change) {
    TunnelConfig config = config_of(1, {2, 3});
    change(config);
    const auto made = Tunnel::create(config, random);
    return made ? std::string() : made.error().message;
  };
  EXPECT_EQ(complaint([](TunnelConfig&) {}), "");
  EXPECT_EQ(complaint([](TunnelConfig& config) { config.peers.clear(); }), "0 peers: allowed: 1 to 32");
  EXPECT_EQ(complaint([](TunnelConfig& config) { config.peers[1].key = config.peers[0].key; }),
            "peer 'host3': its name or key stands twice");
  EXPECT_EQ(complaint([](TunnelConfig& config) { config.peers[0].key = public_key_of(config.key); }),
            "peer 'host2': its key is this side's own");
  EXPECT_EQ(complaint([](TunnelConfig& config) { config.peers[0].key = {}; }), "peer 'host2': its key is of no use");
  EXPECT_EQ(complaint([](TunnelConfig& config) { config.segments.push_back({20, 100}); }),
            "VLAN 20 with VNI 100: one of them stands twice");
  EXPECT_EQ(complaint([](TunnelConfig& config) { config.segments[0].vni = 1u << 24; }),
            "VNI 16777216: allowed: 0 to 16777215");
  EXPECT_EQ(complaint([](TunnelConfig& config) { config.path_mtu = 100; }), "path MTU 100: allowed: 576 to 65535");
}

TEST(Endpoint, ReadsAddressesWithPorts) {
  EXPECT_EQ(Endpoint::parse("192.0.2.1:51820").value().to_string(), "192.0.2.1:51820");
  EXPECT_EQ(Endpoint::parse("[2001:db8::1]:7").value().to_string(), "[2001:db8::1]:7");
  for (const char* const bad : {"", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:7x", "2001:db8::1:7",
                                "[192.0.2.1]:7", "host:7"}) {
    EXPECT_FALSE(Endpoint::parse(bad)) << bad;
  }
}

}  // namespace
}  // namespace bulkhead::net::tunnel
