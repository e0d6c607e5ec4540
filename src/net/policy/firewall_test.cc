#include "net/policy/firewall.h"

#include <gtest/gtest.h>

#include "net/frame/frame_builder.h"

namespace bulkhead::net::policy {
namespace {

using namespace frame;

constexpr uint64_t kSecond = 1'000'000'000;
constexpr switching::PortId kHistorian = 1, kPlc = 2, kOffice = 3, kSensor = 4, kSecondPlc = 5;

Plan plant() {
  return {
      .zones = {"dmz", "production", "office", "field"},
      .address_sets = {{.name = "plcs",
                        .prefixes = {IpPrefix::parse("10.2.0.0/24").value(), IpPrefix::parse("fd02::/64").value()}}},
      .conduits = {{.name = "polling",
                    .from = "dmz",
                    .to = "production",
                    .services = {"modbus", "ntp", "ping"},
                    .to_addresses = "plcs"},
                   {.name = "discovery", .from = "dmz", .to = "production", .services = {"profinet-dcp"}},
                   {.name = "telemetry",
                    .from = "field",
                    .to = "dmz",
                    .services = {"syslog"},
                    .direction = Direction::kOneWay}}};
}

// One frame at a time between two ports, by the rules of a plant.
struct World {
  explicit World(const ConnectionLimits& limits = {}) : firewall(CompiledPlan::compile(plant()).value(), limits, 99) {
    for (const auto& [port, zone] :
         {std::pair(kHistorian, "dmz"), std::pair(kPlc, "production"), std::pair(kSecondPlc, "production"),
          std::pair(kOffice, "office"), std::pair(kSensor, "field")}) {
      firewall.set_zone(port, firewall.plan().zone(zone).value());
    }
  }
  Reason send(switching::PortId from, switching::PortId to, const FrameBuilder& builder) {
    const auto bytes = builder.build();
    const Headers headers = read_headers(bytes);
    return firewall.judge({.from = from, .to = to, .vlan = 1, .frame = bytes, .headers = headers, .now_ns = now})
        .reason;
  }
  // TCP with these flags, from the historian's port 4000 to the PLC's 502, or back.
  Reason there(uint8_t flags) { return send(kHistorian, kPlc, ip("10.1.0.1", "10.2.0.1").tcp(4000, 502, flags)); }
  Reason back(uint8_t flags) { return send(kPlc, kHistorian, ip("10.2.0.1", "10.1.0.1").tcp(502, 4000, flags)); }
  static FrameBuilder ip(const char* source, const char* destination) {
    return FrameBuilder().ipv4(source, destination);
  }
  void handshake() {
    EXPECT_EQ(there(kTcpSyn), Reason::kRule);
    EXPECT_EQ(back(kTcpSyn | kTcpAcknowledge), Reason::kConnection);
    EXPECT_EQ(there(kTcpAcknowledge), Reason::kConnection);
  }

  Firewall firewall;
  uint64_t now = kSecond;
};

TEST(Service, IsKnownByNameOrByPorts) {
  EXPECT_EQ(find_service("modbus")->ports, (std::vector<ServicePorts>{{Transport::kTcp, 502, 502}}));
  EXPECT_EQ(find_service("ethernet-ip")->ports.size(), 3u);
  EXPECT_EQ(find_service("udp/5000-5010")->ports, (std::vector<ServicePorts>{{Transport::kUdp, 5000, 5010}}));
  for (const char* wrong : {"", "modbuz", "tcp/", "tcp/0", "tcp/65536", "tcp/10-9", "sctp/1", "tcp/1-", "tcp/1-x"}) {
    EXPECT_FALSE(find_service(wrong)) << wrong;
  }
  for (const std::string_view name : service_names()) EXPECT_TRUE(find_service(name)) << name;
}

TEST(Plan, RefusesWhatCannotBeMeant) {
  const auto error_of = [](auto&& change) {
    Plan plan = plant();
    change(plan);
    const auto compiled = CompiledPlan::compile(plan);
    return compiled ? std::string() : compiled.error().message;
  };
  EXPECT_EQ(error_of([](Plan&) {}), "");
  EXPECT_EQ(error_of([](Plan& plan) { plan.conduits[0].from = "dnz"; }),
            "conduit 'polling': no zone 'dnz'; allowed: dmz, production, office, field");
  EXPECT_NE(error_of([](Plan& plan) { plan.conduits[0].to = "dmz"; }), "");
  EXPECT_NE(error_of([](Plan& plan) { plan.conduits[0].services = {}; }), "");
  EXPECT_NE(error_of([](Plan& plan) { plan.conduits[0].to_addresses = "plc"; }), "");
  EXPECT_NE(error_of([](Plan& plan) { plan.address_sets[0].prefixes = {}; }), "");
  EXPECT_NE(error_of([](Plan& plan) { plan.zones.push_back("dmz"); }), "");
  EXPECT_EQ(error_of([](Plan& plan) { plan.conduits[2].services = {"modbus"}; }),
            "conduit 'telemetry': service 'modbus' needs answers; a one-way conduit carries UDP alone");
}

TEST(Firewall, LetsAConnectionThroughThatAConduitNames) {
  World world;
  world.handshake();
  EXPECT_EQ(world.back(kTcpAcknowledge | kTcpPush), Reason::kConnection);
  EXPECT_EQ(world.firewall.passed_by(0), 4u);
  // Not the other way, not from elsewhere, not to another port or address.
  EXPECT_EQ(world.send(kPlc, kHistorian, World::ip("10.2.0.1", "10.1.0.1").tcp(4000, 502, kTcpSyn)), Reason::kNoRule);
  EXPECT_EQ(world.send(kOffice, kPlc, World::ip("10.3.0.1", "10.2.0.1").tcp(4000, 502, kTcpSyn)), Reason::kNoRule);
  EXPECT_EQ(world.send(kHistorian, kPlc, World::ip("10.1.0.1", "10.2.0.1").tcp(4000, 503, kTcpSyn)), Reason::kNoRule);
  EXPECT_EQ(world.send(kHistorian, kPlc, World::ip("10.1.0.1", "10.2.1.1").tcp(4000, 502, kTcpSyn)), Reason::kNoRule);
  EXPECT_EQ(world.send(99, kPlc, World::ip("10.1.0.1", "10.2.0.1").tcp(4000, 502, kTcpSyn)), Reason::kNoZone);
  EXPECT_EQ(world.send(kPlc, kSecondPlc, World::ip("10.2.0.1", "10.2.0.2").tcp(1, 2, kTcpSyn)), Reason::kWithinZone);
}

TEST(Firewall, FollowsTcpFromItsBeginningToItsEnd) {
  World world;
  EXPECT_EQ(world.there(kTcpAcknowledge), Reason::kNoStart);
  EXPECT_EQ(world.there(kTcpSyn | kTcpAcknowledge), Reason::kNoStart);
  EXPECT_EQ(world.there(kTcpReset), Reason::kNoStart);
  EXPECT_EQ(world.there(kTcpSyn), Reason::kRule);
  EXPECT_EQ(world.there(kTcpSyn), Reason::kConnection);
  EXPECT_EQ(world.there(kTcpAcknowledge), Reason::kWrongState);
  EXPECT_EQ(world.back(kTcpAcknowledge), Reason::kWrongState);
  EXPECT_EQ(world.back(kTcpSyn), Reason::kWrongState);
  EXPECT_EQ(world.back(kTcpSyn | kTcpAcknowledge), Reason::kConnection);
  EXPECT_EQ(world.there(kTcpAcknowledge), Reason::kConnection);
  EXPECT_EQ(world.there(0), Reason::kWrongState);
  EXPECT_EQ(world.there(kTcpSyn | kTcpAcknowledge), Reason::kWrongState);
  EXPECT_EQ(world.there(kTcpFin | kTcpAcknowledge), Reason::kConnection);
  EXPECT_EQ(world.back(kTcpAcknowledge), Reason::kConnection);
  EXPECT_EQ(world.back(kTcpFin | kTcpAcknowledge), Reason::kConnection);
  EXPECT_EQ(world.there(kTcpAcknowledge), Reason::kConnection);
  world.now += 11 * kSecond;
  EXPECT_EQ(world.back(kTcpAcknowledge), Reason::kNoStart);
  EXPECT_EQ(world.firewall.connections().size(), 0u);
}

TEST(Firewall, LetsThePortsBeUsedAgainAfterTheEnd) {
  World world;
  world.handshake();
  EXPECT_EQ(world.back(kTcpReset | kTcpAcknowledge), Reason::kConnection);
  EXPECT_EQ(world.there(kTcpSyn), Reason::kRule);
  EXPECT_EQ(world.back(kTcpSyn | kTcpAcknowledge), Reason::kConnection);
}

TEST(Firewall, ForgetsAConnectionThatIsSilent) {
  World world;
  world.handshake();
  world.now += 3601 * kSecond;
  EXPECT_EQ(world.back(kTcpAcknowledge), Reason::kNoStart);
  EXPECT_EQ(world.there(kTcpAcknowledge), Reason::kNoStart);
}

TEST(Firewall, AnswersOfUdpAndEchoPassWhereTheyWereAskedFor) {
  World world;
  EXPECT_EQ(world.send(kPlc, kHistorian, World::ip("10.2.0.1", "10.1.0.1").udp(123, 5000)), Reason::kNoRule);
  EXPECT_EQ(world.send(kHistorian, kPlc, World::ip("10.1.0.1", "10.2.0.1").udp(5000, 123)), Reason::kRule);
  EXPECT_EQ(world.send(kPlc, kHistorian, World::ip("10.2.0.1", "10.1.0.1").udp(123, 5000)), Reason::kConnection);
  EXPECT_EQ(world.send(kSecondPlc, kHistorian, World::ip("10.2.0.1", "10.1.0.1").udp(123, 5000)), Reason::kWrongState);
  EXPECT_EQ(world.send(kPlc, kHistorian, World::ip("10.2.0.1", "10.1.0.1").icmp(0, 0, 7)), Reason::kNoRule);
  EXPECT_EQ(world.send(kHistorian, kPlc, World::ip("10.1.0.1", "10.2.0.1").icmp(8, 0, 7)), Reason::kRule);
  EXPECT_EQ(world.send(kPlc, kHistorian, World::ip("10.2.0.1", "10.1.0.1").icmp(0, 0, 7)), Reason::kConnection);
  EXPECT_EQ(world.send(kPlc, kHistorian, World::ip("10.2.0.1", "10.1.0.1").icmp(8, 0, 7)), Reason::kWrongState);
  EXPECT_EQ(world.send(kHistorian, kPlc, World::ip("fd01::1", "fd02::1").udp(5000, 123)), Reason::kRule);
  EXPECT_EQ(world.send(kPlc, kHistorian, World::ip("fd02::1", "fd01::1").udp(123, 5000)), Reason::kConnection);
}

TEST(Firewall, LetsErrorsThroughOnlyAboutConnections) {
  World world;
  const auto error = [](const char* from, const char* to, const FrameBuilder& about) {
    const auto quoted = about.build();
    return FrameBuilder().ipv4(from, to).icmp(3, 1).payload(ByteSpan(quoted).subspan(kEthernetHeaderSize, 28));
  };
  const auto sent = World::ip("10.1.0.1", "10.2.0.1").tcp(4000, 502, kTcpSyn);
  EXPECT_EQ(world.send(kPlc, kHistorian, error("10.2.0.1", "10.1.0.1", sent)), Reason::kNoStart);
  world.handshake();
  EXPECT_EQ(world.send(kPlc, kHistorian, error("10.2.0.1", "10.1.0.1", sent)), Reason::kErrorMessage);
  const auto other = World::ip("10.1.0.1", "10.2.0.1").tcp(4001, 502, kTcpSyn);
  EXPECT_EQ(world.send(kPlc, kHistorian, error("10.2.0.1", "10.1.0.1", other)), Reason::kNoStart);
  EXPECT_EQ(world.send(kOffice, kHistorian, error("10.2.0.1", "10.1.0.1", sent)), Reason::kNoStart);
  EXPECT_EQ(world.send(kPlc, kHistorian, error("10.2.0.1", "10.1.0.9", sent)), Reason::kNoStart);
}

TEST(Firewall, LetsNothingBackThroughAOneWayConduit) {
  World world;
  const auto syslog = World::ip("10.4.0.1", "10.1.0.1").udp(514, 514);
  const auto answer = World::ip("10.1.0.1", "10.4.0.1").udp(514, 514);
  EXPECT_EQ(world.send(kSensor, kHistorian, syslog), Reason::kRule);
  EXPECT_EQ(world.send(kHistorian, kSensor, answer), Reason::kNoRule);
  EXPECT_EQ(world.send(kHistorian, kSensor, World::ip("10.1.0.1", "10.4.0.1").icmp(3, 3)), Reason::kNoStart);
  EXPECT_EQ(world.send(kHistorian, kSensor, FrameBuilder().arp({.operation = kArpReply})), Reason::kNoRule);
  EXPECT_EQ(world.send(kHistorian, kSensor, FrameBuilder().payload("any type")), Reason::kNoRule);
  EXPECT_EQ(
      world.send(kHistorian, kSensor,
                 World::ip("10.1.0.1", "10.4.0.1").fragment({7, 1480, false}).protocol(kProtocolUdp).payload("x")),
      Reason::kLateFragment);
  EXPECT_EQ(world.firewall.connections().size(), 0u);
}

TEST(Firewall, LetsNeighboursFindEachOtherWhereAConduitJoinsThem) {
  World world;
  const FrameBuilder arp = FrameBuilder().arp({.operation = kArpRequest});
  EXPECT_EQ(world.send(kHistorian, kPlc, arp), Reason::kNeighbours);
  EXPECT_EQ(world.send(kPlc, kHistorian, arp), Reason::kNeighbours);
  EXPECT_EQ(world.send(kOffice, kPlc, arp), Reason::kNoRule);
}

TEST(Firewall, LetsDiscoveryThroughAndNothingElseOfProfinet) {
  World world;
  const auto profinet = [](std::string_view payload) { return FrameBuilder().type(kTypeProfinet).payload(payload); };
  for (const char* id : {"\xFE\xFC", "\xFE\xFD...", "\xFE\xFE", "\xFE\xFF"}) {
    EXPECT_EQ(world.send(kHistorian, kPlc, profinet(id)), Reason::kRule);
    EXPECT_EQ(world.send(kPlc, kHistorian, profinet(id)), Reason::kRule);
    EXPECT_EQ(world.send(kOffice, kPlc, profinet(id)), Reason::kNoRule);
  }
  // Cyclic values, alarms, and less than a FrameID.
  for (const char* id : {"\x80\x01", "\xFE\xFB", "\xFC\x01", "\xFE", ""}) {
    EXPECT_EQ(world.send(kHistorian, kPlc, profinet(id)), Reason::kNoRule);
  }
}

TEST(Firewall, WhoTakesAPortOverHasNoneOfItsFragments) {
  World world;
  EXPECT_EQ(world.send(kHistorian, kPlc,
                       World::ip("10.1.0.1", "10.2.0.1").fragment({1, 0, true}).udp(5000, 123).payload("8 bytes.")),
            Reason::kRule);
  world.firewall.remove_port(kHistorian, "historian");
  world.firewall.set_zone(kHistorian, world.firewall.plan().zone("office").value());
  EXPECT_EQ(
      world.send(kHistorian, kPlc,
                 World::ip("10.1.0.1", "10.2.0.1").fragment({1, 16, false}).protocol(kProtocolUdp).payload("the rest")),
      Reason::kLateFragment);
}

// A card that overhears stands before the one that a connection is with.
TEST(Firewall, LetsAConnectionBeginWithWhomItIsFor) {
  struct Ports final : switching::Output {
    void deliver(switching::PortId port, const switching::OutputFrame& /*frame*/) override { out.push_back(port); }
    std::vector<switching::PortId> out;
  };
  switching::VirtualSwitch fabric{{}, 1};
  const auto group = fabric.add_group({.promiscuous = switching::Permission::kAllow}).value();
  const MacAddress client{{2, 0, 0, 0, 0, 1}}, server{{2, 0, 0, 0, 0, 2}};
  const auto monitor = fabric.add_port({.group = group, .promiscuous = true}).value();
  const auto here = fabric.add_port({.group = group, .mac = client}).value();
  const auto there = fabric.add_port({.group = group, .mac = server}).value();
  Firewall firewall(CompiledPlan::compile(plant()).value(), {}, 99);
  for (const auto& [port, zone] :
       {std::pair(here, "dmz"), std::pair(there, "production"), std::pair(monitor, "production")}) {
    firewall.set_zone(port, firewall.plan().zone(zone).value());
  }
  fabric.set_filter(&firewall);
  Ports ports;
  fabric.forward(here,
                 FrameBuilder().ethernet(client, server).ipv4("10.1.0.1", "10.2.0.1").tcp(4000, 502, kTcpSyn).build(),
                 kSecond, ports);
  EXPECT_EQ(ports.out, std::vector{there});
}

TEST(Firewall, JudgesAFragmentedPacketByItsFirstFragment) {
  World world;
  const auto first = [](uint32_t id) {
    return World::ip("10.1.0.1", "10.2.0.1").fragment({id, 0, true}).udp(5000, 123).payload("16 bytes of data");
  };
  const auto later = [](uint32_t id, uint16_t offset) {
    return World::ip("10.1.0.1", "10.2.0.1").fragment({id, offset, false}).protocol(kProtocolUdp).payload("the rest");
  };
  EXPECT_EQ(world.send(kHistorian, kPlc, later(1, 24)), Reason::kLateFragment);
  EXPECT_EQ(world.send(kHistorian, kPlc, first(1)), Reason::kRule);
  EXPECT_EQ(world.send(kHistorian, kPlc, later(1, 24)), Reason::kFragment);
  // Over the bytes that were judged, of another packet, or from another place.
  EXPECT_EQ(world.send(kHistorian, kPlc, later(1, 8)), Reason::kLateFragment);
  EXPECT_EQ(world.send(kHistorian, kPlc, later(2, 24)), Reason::kLateFragment);
  EXPECT_EQ(world.send(kHistorian, kSecondPlc, later(1, 24)), Reason::kLateFragment);
  world.now += 31 * kSecond;
  EXPECT_EQ(world.send(kHistorian, kPlc, later(1, 24)), Reason::kLateFragment);
  // A first fragment too short for its ports is no first fragment.
  EXPECT_EQ(world.send(kHistorian, kPlc,
                       World::ip("10.1.0.1", "10.2.0.1").fragment({3, 0, true}).protocol(kProtocolTcp).payload("")),
            Reason::kMalformed);
}

TEST(Firewall, JudgesFragmentsOfIpv6AsThoseOfIpv4) {
  World world;
  const auto first = World::ip("fd01::1", "fd02::1").fragment({1, 0, true}).udp(5000, 123).payload("16 bytes of data");
  const auto later = [](uint16_t offset) {
    return World::ip("fd01::1", "fd02::1").fragment({1, offset, false}).protocol(kProtocolUdp).payload("the rest");
  };
  EXPECT_EQ(world.send(kHistorian, kPlc, later(24)), Reason::kLateFragment);
  EXPECT_EQ(world.send(kHistorian, kPlc, first), Reason::kRule);
  EXPECT_EQ(world.send(kHistorian, kPlc, later(24)), Reason::kFragment);
  EXPECT_EQ(world.send(kHistorian, kPlc, later(8)), Reason::kLateFragment);
  // Options in a packet with fragments: UDP to port 123 behind a header for its destination.
  const std::string_view option("\x11\0\1\4\0\0\0\0\x13\x88\0\x7b\0\x8\0\0", 16);
  EXPECT_EQ(
      world.send(kHistorian, kPlc,
                 World::ip("fd01::1", "fd02::1").fragment({2, 0, true}).protocol(kProtocolDestination).payload(option)),
      Reason::kStrangeHeaders);
}

TEST(Firewall, CountsForARuleOnlyWhatPasses) {
  World world;
  EXPECT_EQ(world.send(kHistorian, kPlc,
                       FrameBuilder()
                           .ethernet({{2, 0, 0, 0, 0, 1}}, MacAddress::broadcast())
                           .ipv4("10.1.0.1", "10.2.0.255")
                           .udp(1, 123)),
            Reason::kRule);
  EXPECT_EQ(world.firewall.passed_by(1), 1u);
  for (uint16_t port = 2; port <= GroupQuestions::kQuestionsAPort + 1; ++port) {
    (void)world.send(kHistorian, kPlc,
                     FrameBuilder()
                         .ethernet({{2, 0, 0, 0, 0, 1}}, MacAddress::broadcast())
                         .ipv4("10.1.0.1", "10.2.0.255")
                         .udp(port, 123));
  }
  EXPECT_EQ(world.firewall.count(Reason::kFull), 1u);
  EXPECT_EQ(world.firewall.passed_by(1), GroupQuestions::kQuestionsAPort);
}

TEST(Firewall, RefusesSourceRoutes) {
  World world;
  auto bytes = World::ip("fd01::1", "fd02::1")
                   .protocol(kProtocolRouting)
                   .payload(std::string_view("\x11\0\0\0\0\0\0\0", 8))
                   .build();
  const Headers headers = read_headers(bytes);
  EXPECT_TRUE(headers.ip->has_routing_header);
  EXPECT_NE(world.send(kHistorian, kPlc,
                       World::ip("fd01::1", "fd02::1")
                           .protocol(kProtocolRouting)
                           .payload(std::string_view("\x3b\0\0\0\0\0\0\0", 8))),
            Reason::kRule);
  EXPECT_EQ(world.firewall.count(Reason::kStrangeHeaders), 1u);
}

TEST(Firewall, BoundsConnectionsForEachPortAndInAll) {
  World world({.connection_count = 100, .connections_a_port = 60});
  unsigned opened = 0;
  const auto open_many = [&](switching::PortId from, const char* source) {
    opened = 0;
    for (uint16_t port = 1; port <= 200; ++port) {
      if (world.send(from, kPlc, World::ip(source, "10.2.0.1").tcp(port, 502, kTcpSyn)) == Reason::kRule) ++opened;
    }
  };
  world.firewall.set_zone(7, world.firewall.plan().zone("dmz").value());
  open_many(kHistorian, "10.1.0.1");
  EXPECT_EQ(opened, 60u);
  open_many(7, "10.1.0.7");
  EXPECT_EQ(opened, 40u);
  EXPECT_EQ(world.firewall.connections().size(), 100u);
  EXPECT_GT(world.firewall.count(Reason::kFull), 0u);
  // Those that never went on make room.
  world.now += 31 * kSecond;
  open_many(7, "10.1.0.7");
  EXPECT_EQ(opened, 60u);
  world.firewall.remove_port(7, "seven");
  EXPECT_EQ(world.firewall.connections().size(), 0u);
}

TEST(Firewall, EndsConnectionsWhenThePlanChanges) {
  World world;
  world.handshake();
  Plan plan = plant();
  plan.conduits.erase(plan.conduits.begin());
  world.firewall.set_plan(CompiledPlan::compile(plan).value());
  EXPECT_EQ(world.there(kTcpAcknowledge), Reason::kNoRule);
}

TEST(Firewall, ExplainsAndRemembers) {
  World world;
  const auto zone = [&](const char* name) { return world.firewall.plan().zone(name).value(); };
  const Firewall::Question question{.from = zone("dmz"),
                                    .to = zone("production"),
                                    .source = IpAddress::parse("10.1.0.1").value(),
                                    .destination = IpAddress::parse("10.2.0.1").value(),
                                    .transport = Transport::kTcp,
                                    .port = 502};
  EXPECT_EQ(world.firewall.explain(question), "dmz -> production: passes: conduit 'polling': modbus");
  Firewall::Question other = question;
  other.from = zone("office");
  EXPECT_EQ(world.firewall.explain(other), "office -> production: dropped: no conduit names it");
  other = {.from = zone("field"), .to = zone("dmz"), .transport = Transport::kUdp, .port = 514};
  EXPECT_EQ(world.firewall.explain(other), "field -> dmz: passes: conduit 'telemetry': syslog (one way)");
  for (unsigned i = 0; i < 300; ++i) {
    world.send(kOffice, kPlc, World::ip("10.3.0.1", "10.2.0.1").tcp(static_cast<uint16_t>(i + 1), 502, kTcpSyn));
  }
  const auto refusals = world.firewall.refusals().latest();
  ASSERT_EQ(refusals.size(), RefusalLog::kRemembered);
  EXPECT_EQ(refusals.back().flow->source_port, 300);
  EXPECT_EQ(refusals.back().from, kOffice);
}

// Neither other ports' refusals nor what inspection refused.
TEST(Firewall, AScanHidesNothingFromTheLog) {
  World world;
  const auto scan = [&] {
    for (uint16_t port = 1; port <= 1000; ++port) {
      (void)world.send(kOffice, kPlc, World::ip("10.3.0.1", "10.2.0.1").tcp(4000, port, kTcpSyn));
    }
  };
  scan();
  EXPECT_EQ(world.send(kSensor, kPlc, World::ip("10.4.0.1", "10.2.0.1").tcp(4000, 22, kTcpSyn)), Reason::kNoRule);
  auto lines = world.firewall.refusals().take_lines();
  ASSERT_EQ(lines.size(), RefusalLog::kLinesAtOnce + 1);
  EXPECT_EQ(lines.back().refusal.from, kSensor);
  world.now += kSecond;
  scan();
  lines = world.firewall.refusals().take_lines();
  ASSERT_EQ(lines.size(), RefusalLog::kLinesASecond);
  EXPECT_EQ(lines[0].untold, 1000 - RefusalLog::kLinesAtOnce);
  EXPECT_EQ(world.firewall.refusals().count(), 2001u);
}

TEST(Firewall, RemembersRefusalsOfPortsThatAreGoneByTheirNames) {
  World world;
  const auto try_ssh = [&](switching::PortId from, switching::PortId to, uint16_t own) {
    (void)world.send(from, to, World::ip("10.3.0.1", "10.2.0.1").tcp(own, 22, kTcpSyn));
    world.now += kSecond;
  };
  try_ssh(kOffice, kPlc, 1);
  try_ssh(kSensor, kOffice, 2);
  const auto zone = [&](const char* name) { return world.firewall.plan().zone(name).value(); };
  world.firewall.remove_port(kOffice, "first");
  world.firewall.set_zone(kOffice, zone("office"));
  try_ssh(kOffice, kPlc, 3);
  world.firewall.remove_port(kOffice, "second");
  auto refusals = world.firewall.refusals().latest();
  ASSERT_EQ(refusals.size(), 3u);
  EXPECT_EQ(refusals[0].gone_from, "first");
  EXPECT_FALSE(refusals[0].gone_to);
  EXPECT_FALSE(refusals[1].gone_from);
  EXPECT_EQ(refusals[1].gone_to, "first");
  EXPECT_EQ(refusals[2].gone_from, "second");
  EXPECT_EQ(refusals[2].flow->source_port, 3);
  // Whoever comes and goes for ever takes no more room than one port, and that of its own zone.
  for (uint16_t i = 0; i < 1000; ++i) {
    world.firewall.set_zone(kOffice, zone("office"));
    try_ssh(kOffice, kPlc, i);
    world.firewall.remove_port(kOffice, "again");
  }
  refusals = world.firewall.refusals().latest();
  ASSERT_EQ(refusals.size(), RefusalLog::kRemembered + 1);
  EXPECT_EQ(refusals.front().from, kSensor);
  EXPECT_EQ(refusals.back().flow->source_port, 999);
}

TEST(Firewall, CountsWhatIsForEverybodyAndLogsQuestionsOnceAMinute) {
  World world;
  const FrameBuilder question = FrameBuilder()
                                    .ethernet({{2, 0, 0, 0, 0, 1}}, MacAddress::broadcast())
                                    .arp({.operation = kArpRequest, .target = IpAddress::parse("10.2.0.1").value()});
  const auto chatter =
      FrameBuilder().ethernet({{2, 0, 0, 0, 0, 1}}, MacAddress::broadcast()).ipv4("10.3.0.1", "10.3.0.255").udp(1, 2);
  const auto ask = [&] {
    const auto bytes = question.build();
    const Headers headers = read_headers(bytes);
    const Verdict verdict = world.firewall.judge({.from = kOffice,
                                                  .to = kPlc,
                                                  .vlan = 1,
                                                  .frame = bytes,
                                                  .headers = headers,
                                                  .now_ns = world.now,
                                                  .is_asked_for = true});
    EXPECT_EQ(verdict.reason, Reason::kNoRule);
  };
  for (unsigned i = 0; i < 100; ++i) {
    ask();
    EXPECT_EQ(world.send(kOffice, kSecondPlc, question), Reason::kNoRule);
    EXPECT_EQ(world.send(kOffice, kPlc, chatter), Reason::kNoRule);
  }
  EXPECT_EQ(world.firewall.refusals().take_lines().size(), 1u);
  EXPECT_EQ(world.firewall.count(Reason::kNoRule), 300u);
  world.now += RefusalLog::kQuestionLines_ns;
  ask();
  const auto lines = world.firewall.refusals().take_lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].untold, 99u);
}

// Every pair of zones, every service, both directions, against a page of plain words about the plant above.
TEST(Firewall, AgreesWithAnOracleOnEveryPairOfZonesAndEveryService) {
  const auto oracle = [](std::string_view from, std::string_view to, std::string_view service) {
    if (from == to) return true;
    if (service == "profinet-dcp")
      return (from == "dmz" && to == "production") || (from == "production" && to == "dmz");
    if (from == "dmz" && to == "production") return service == "modbus" || service == "ntp" || service == "ping";
    return from == "field" && to == "dmz" && service == "syslog";
  };
  unsigned compared = 0;
  for (const std::string& from : plant().zones) {
    for (const std::string& to : plant().zones) {
      for (const std::string_view name : service_names()) {
        World world;
        world.firewall.set_zone(50, world.firewall.plan().zone(from).value());
        world.firewall.set_zone(51, world.firewall.plan().zone(to).value());
        const Service service = find_service(name).value();
        for (const ServicePorts& ports : service.ports) {
          FrameBuilder builder;
          if (ports.transport == Transport::kEthernet) {
            const uint8_t id[] = {static_cast<uint8_t>(ports.first_id >> 8), static_cast<uint8_t>(ports.first_id)};
            builder.type(ports.first).payload(ByteSpan(id));
          } else {
            builder.ipv4("10.1.0.1", "10.2.0.1");
            if (ports.transport == Transport::kTcp) builder.tcp(4000, ports.first, kTcpSyn);
            if (ports.transport == Transport::kUdp) builder.udp(4000, ports.first);
            if (ports.transport == Transport::kPing) builder.icmp(8);
          }
          EXPECT_EQ(is_pass(world.send(50, 51, builder)), oracle(from, to, name)) << from << " " << to << " " << name;
          ++compared;
        }
      }
    }
  }
  EXPECT_GT(compared, 300u);
}

}  // namespace
}  // namespace bulkhead::net::policy
