// Flows whose other end is not known beforehand: to groups, to cards that the switch has not seen yet, and in the
// middle of connections that began before the switch did.
#include <gtest/gtest.h>

#include "net/frame/frame_builder.h"
#include "net/policy/firewall.h"

namespace bulkhead::net::policy {
namespace {

using namespace frame;

constexpr uint64_t kSecond = 1'000'000'000;
constexpr switching::PortId kStation = 1, kFirst = 2, kSecondPlc = 3, kOffice = 4;
constexpr MacAddress kMac{{2, 0, 0, 0, 0, 9}};

struct World {
  explicit World(const Plan& used = plan(), const ConnectionLimits& limits = {})
      : firewall(CompiledPlan::compile(used).value(), limits, 7) {
    for (const auto& [port, zone] : {std::pair(kStation, "station"), std::pair(kFirst, "control"),
                                     std::pair(kSecondPlc, "control"), std::pair(kOffice, "office")}) {
      firewall.set_zone(port, firewall.plan().zone(zone).value());
    }
  }
  static Plan plan() {
    return {.zones = {"station", "control", "office"},
            .address_sets = {},
            .conduits = {{.name = "c",
                          .from = "station",
                          .to = "control",
                          .services = {"bacnet", "ethernet-ip", "dhcp", "ssh", "ping"}},
                         {.name = "m",
                          .from = "station",
                          .to = "control",
                          .services = {"modbus"},
                          .modbus = inspect::ModbusPolicy{{{.functions = inspect::modbus_reads()}}}},
                         {.name = "diode",
                          .from = "office",
                          .to = "control",
                          .services = {"udp/47808"},
                          .direction = Direction::kOneWay}}};
  }
  Reason send(switching::PortId from, switching::PortId to, const FrameBuilder& builder, bool is_flooded = false) {
    const auto bytes = builder.build();
    const Headers headers = read_headers(bytes);
    return firewall
        .judge({.from = from,
                .to = to,
                .vlan = 1,
                .frame = bytes,
                .headers = headers,
                .now_ns = now,
                .is_flooded = is_flooded})
        .reason;
  }
  static FrameBuilder ip(const char* source, const char* destination) {
    return FrameBuilder().ethernet(kMac, kMac).ipv4(source, destination);
  }
  static FrameBuilder to_all(const char* source, const char* destination = "10.0.0.255") {
    return FrameBuilder().ethernet(kMac, MacAddress::broadcast()).ipv4(source, destination);
  }

  Firewall firewall;
  uint64_t now = kSecond;
};

TEST(FirewallFlows, AGroupsQuestionReachesAllOfTheZoneAndEachMayAnswer) {
  World world;
  const auto answer = [](const char* from, const char* to) { return World::ip(from, to).udp(47808, 47808); };
  EXPECT_EQ(world.send(kFirst, kStation, answer("10.0.0.2", "10.0.0.1")), Reason::kNoRule);
  for (const auto port : {kFirst, kSecondPlc}) {
    EXPECT_EQ(world.send(kStation, port, World::to_all("10.0.0.1").udp(47808, 47808)), Reason::kRule);
  }
  EXPECT_EQ(world.send(kFirst, kStation, answer("10.0.0.2", "10.0.0.1")), Reason::kConnection);
  EXPECT_EQ(world.send(kSecondPlc, kStation, answer("10.0.0.3", "10.0.0.1")), Reason::kConnection);
  EXPECT_EQ(world.send(kSecondPlc, kStation, World::to_all("10.0.0.3").udp(47808, 47808)), Reason::kConnection);
  // Not to another address, from or to another port number, nor of another protocol; nor from another zone.
  EXPECT_EQ(world.send(kFirst, kStation, answer("10.0.0.2", "10.0.0.77")), Reason::kNoRule);
  EXPECT_EQ(world.send(kFirst, kStation, World::ip("10.0.0.2", "10.0.0.1").udp(47809, 47808)), Reason::kNoRule);
  EXPECT_EQ(world.send(kFirst, kStation, World::ip("10.0.0.2", "10.0.0.1").udp(47808, 47809)), Reason::kNoRule);
  EXPECT_EQ(world.send(kFirst, kStation, World::ip("10.0.0.2", "10.0.0.1").tcp(47808, 47808, kTcpSyn)),
            Reason::kNoRule);
  EXPECT_EQ(world.send(kOffice, kStation, answer("10.0.0.4", "10.0.0.1")), Reason::kNoRule);
  world.now += GroupQuestions::kLifetime_ns;
  EXPECT_EQ(world.send(kFirst, kStation, answer("10.0.0.2", "10.0.0.1")), Reason::kNoRule);
  EXPECT_EQ(world.firewall.connections().size(), 0u);
}

TEST(FirewallFlows, AnswersToAGroupsQuestionComeFromTheConduitsAddresses) {
  Plan plan = World::plan();
  plan.address_sets = {
      {.name = "asked",
       .prefixes = {frame::IpPrefix::parse("10.0.0.255/32").value(), frame::IpPrefix::parse("10.0.0.2/32").value()}}};
  plan.conduits[0].to_addresses = "asked";
  World world(plan);
  EXPECT_EQ(world.send(kStation, kFirst, World::to_all("10.0.0.1").udp(47808, 47808)), Reason::kRule);
  EXPECT_EQ(world.send(kFirst, kStation, World::ip("10.0.0.2", "10.0.0.1").udp(47808, 47808)), Reason::kConnection);
  EXPECT_EQ(world.send(kSecondPlc, kStation, World::ip("10.0.0.3", "10.0.0.1").udp(47808, 47808)), Reason::kNoRule);
}

TEST(FirewallFlows, WhoHasNoAddressYetGetsOneOffered) {
  World world;
  const auto offer = World::ip("10.0.0.2", "10.0.0.50").udp(67, 68);
  EXPECT_EQ(world.send(kFirst, kStation, offer), Reason::kNoRule);
  EXPECT_EQ(world.send(kStation, kFirst, World::to_all("0.0.0.0", "255.255.255.255").udp(68, 67)), Reason::kRule);
  EXPECT_EQ(world.send(kFirst, kStation, offer), Reason::kConnection);
  EXPECT_EQ(world.send(kFirst, kStation, World::to_all("10.0.0.2", "255.255.255.255").udp(67, 68)),
            Reason::kConnection);
}

TEST(FirewallFlows, AGroupsQuestionThroughADiodeHasNoAnswer) {
  World world;
  EXPECT_EQ(world.send(kOffice, kFirst, World::to_all("10.0.0.4").udp(47808, 47808)), Reason::kRule);
  EXPECT_EQ(world.send(kFirst, kOffice, World::ip("10.0.0.2", "10.0.0.4").udp(47808, 47808)), Reason::kNoRule);
  EXPECT_EQ(world.send(kFirst, kOffice, World::to_all("10.0.0.2").udp(47808, 47808)), Reason::kNoRule);
}

TEST(FirewallFlows, BoundsQuestionsAndAnswers) {
  World world;
  for (uint16_t number = 1; number <= GroupQuestions::kQuestionsAPort; ++number) {
    ASSERT_EQ(world.send(kStation, kFirst, World::to_all("10.0.0.1").udp(number, 47808)), Reason::kRule);
  }
  EXPECT_EQ(world.send(kStation, kFirst, World::to_all("10.0.0.1").udp(9999, 47808)), Reason::kFull);
  const auto answer = World::ip("10.0.0.2", "10.0.0.1").udp(47808, 1);
  for (unsigned i = 0; i < GroupQuestions::kMostAnswers; ++i) {
    ASSERT_EQ(world.send(kFirst, kStation, answer), Reason::kConnection);
  }
  EXPECT_EQ(world.send(kFirst, kStation, answer), Reason::kNoRule);
  world.now += GroupQuestions::kLifetime_ns;
  EXPECT_EQ(world.send(kStation, kFirst, World::to_all("10.0.0.1").udp(9999, 47808)), Reason::kRule);
}

// The first port of the zone gets a copy too, and is not whom the connection is with.
TEST(FirewallFlows, WhereAFloodedConnectionLeadsIsSaidByItsAnswer) {
  World world;
  const auto there = [](uint8_t flags) { return World::ip("10.0.0.1", "10.0.0.3").tcp(4000, 22, flags); };
  const auto back = [](uint8_t flags) { return World::ip("10.0.0.3", "10.0.0.1").tcp(22, 4000, flags); };
  EXPECT_EQ(world.send(kStation, kFirst, there(kTcpSyn), true), Reason::kRule);
  EXPECT_EQ(world.send(kStation, kSecondPlc, there(kTcpSyn), true), Reason::kConnection);
  EXPECT_EQ(world.send(kStation, kOffice, there(kTcpSyn), true), Reason::kNoRule);
  EXPECT_EQ(world.send(kOffice, kStation, back(kTcpSyn | kTcpAcknowledge)), Reason::kWrongState);
  EXPECT_EQ(world.send(kSecondPlc, kStation, back(kTcpSyn | kTcpAcknowledge)), Reason::kConnection);
  EXPECT_EQ(world.send(kStation, kSecondPlc, there(kTcpAcknowledge)), Reason::kConnection);
  // From now on with nobody else.
  EXPECT_EQ(world.send(kStation, kFirst, there(kTcpAcknowledge), true), Reason::kWrongState);
  EXPECT_EQ(world.send(kFirst, kStation, back(kTcpAcknowledge)), Reason::kWrongState);
  EXPECT_EQ(world.send(kStation, kFirst, World::ip("10.0.0.1", "10.0.0.3").udp(4000, 47808), true), Reason::kRule);
  EXPECT_EQ(world.send(kSecondPlc, kStation, World::ip("10.0.0.3", "10.0.0.1").udp(47808, 4000)), Reason::kConnection);
}

TEST(FirewallFlows, AConnectionThatBeganBeforeTheSwitchGoesOn) {
  World world;
  world.firewall.pick_up_until(10 * kSecond);
  const auto there = [](uint16_t port, uint8_t flags) {
    return World::ip("10.0.0.1", "10.0.0.2").tcp(port, 22, flags, 1000, 2000).payload("more");
  };
  const auto back = [](uint16_t port, uint8_t flags) {
    return World::ip("10.0.0.2", "10.0.0.1").tcp(22, port, flags, 2000, 1000);
  };
  EXPECT_EQ(world.send(kStation, kFirst, there(4000, kTcpAcknowledge)), Reason::kRule);
  EXPECT_EQ(world.send(kFirst, kStation, back(4000, kTcpAcknowledge)), Reason::kConnection);
  // Whoever speaks first.
  EXPECT_EQ(world.send(kFirst, kStation, back(4001, kTcpAcknowledge)), Reason::kRule);
  EXPECT_EQ(world.send(kStation, kFirst, there(4001, kTcpAcknowledge)), Reason::kConnection);
  EXPECT_EQ(world.send(kFirst, kStation, back(4001, kTcpSyn)), Reason::kWrongState);
  // Not where no rule would have let it begin, not its beginning or end, and not with a port that may be another's.
  EXPECT_EQ(world.send(kFirst, kStation, there(4000, kTcpAcknowledge)), Reason::kWrongState);
  EXPECT_EQ(world.send(kOffice, kFirst, World::ip("10.0.0.4", "10.0.0.2").tcp(4000, 22, kTcpAcknowledge)),
            Reason::kNoRule);
  EXPECT_EQ(world.send(kFirst, kStation, back(4002, kTcpSyn | kTcpAcknowledge)), Reason::kNoRule);
  EXPECT_EQ(world.send(kStation, kFirst, there(4002, kTcpReset)), Reason::kNoStart);
  EXPECT_EQ(world.send(kStation, kFirst, there(4002, kTcpAcknowledge), true), Reason::kNoStart);
  EXPECT_TRUE(world.firewall.take_answers().empty());
}

TEST(FirewallFlows, WhatIsInspectedOneWayIsNotPickedUpTheOther) {
  Plan plan = World::plan();
  plan.conduits.push_back({.name = "b", .from = "control", .to = "station", .services = {"tcp/4000"}});
  World world(plan);
  world.firewall.pick_up_until(10 * kSecond);
  EXPECT_EQ(world.send(kFirst, kStation, World::ip("10.0.0.2", "10.0.0.1").tcp(502, 4000, kTcpAcknowledge, 5, 6)),
            Reason::kNoStart);
  EXPECT_EQ(world.send(kStation, kFirst,
                       World::ip("10.0.0.1", "10.0.0.2").tcp(4000, 502, kTcpAcknowledge, 6, 5).payload("write")),
            Reason::kNoStart);
  EXPECT_EQ(world.firewall.connections().size(), 0u);
}

TEST(FirewallFlows, WhatIsPickedUpCountsForWhoToldOfItUntilTheOtherEndSpeaks) {
  World world(World::plan(), {.connections_a_port = 4});
  world.firewall.pick_up_until(10 * kSecond);
  const auto back = [](uint16_t port) {
    return World::ip("10.0.0.2", "10.0.0.1").tcp(22, port, kTcpAcknowledge, 2000, 1000);
  };
  for (uint16_t port = 4000; port < 4010; ++port) {
    EXPECT_EQ(world.send(kFirst, kStation, back(port)), port < 4004 ? Reason::kRule : Reason::kNoStart) << port;
  }
  // Whom it was sent to begins what it likes.
  EXPECT_EQ(world.send(kStation, kFirst, World::ip("10.0.0.1", "10.0.0.2").tcp(5000, 22, kTcpSyn)), Reason::kRule);
  EXPECT_EQ(world.send(kStation, kFirst, World::ip("10.0.0.1", "10.0.0.2").tcp(4000, 22, kTcpAcknowledge, 1000, 2000)),
            Reason::kConnection);
  world.now += 60 * kSecond;
  EXPECT_EQ(world.send(kFirst, kStation, back(4000)), Reason::kConnection);
  EXPECT_EQ(world.send(kFirst, kStation, back(4001)), Reason::kNoStart);
}

TEST(FirewallFlows, AnUnknownConnectionIsResetSoThatItComesBack) {
  World world;
  const auto there = World::ip("10.0.0.1", "10.0.0.2").tcp(4000, 22, kTcpAcknowledge, 1000, 2000).payload("more");
  EXPECT_EQ(world.send(kStation, kFirst, there), Reason::kNoStart);
  auto answers = world.firewall.take_answers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].to, kStation);
  Headers reset = read_headers(answers[0].frame);
  EXPECT_EQ(reset.ip->source.to_string(), "10.0.0.2");
  EXPECT_EQ(reset.tcp->source_port, 22);
  EXPECT_EQ(reset.tcp->flags, kTcpReset | kTcpAcknowledge);
  EXPECT_EQ(reset.tcp->sequence, 2000u);
  EXPECT_EQ(reset.tcp->acknowledgement, 1004u);
  EXPECT_EQ(world.send(kFirst, kStation, World::ip("10.0.0.2", "10.0.0.1").tcp(22, 4000, kTcpAcknowledge, 5, 6)),
            Reason::kNoStart);
  ASSERT_EQ(world.firewall.take_answers().size(), 1u);
  // One that is inspected cannot be picked up, and is over at both ends.
  world.firewall.pick_up_until(10 * kSecond);
  EXPECT_EQ(world.send(kStation, kFirst,
                       World::ip("10.0.0.1", "10.0.0.2").tcp(4000, 502, kTcpAcknowledge, 1000, 2000).payload("more")),
            Reason::kNoStart);
  answers = world.firewall.take_answers();
  ASSERT_EQ(answers.size(), 2u);
  reset = read_headers(answers[1].frame);
  EXPECT_EQ(answers[1].to, kFirst);
  EXPECT_EQ(reset.tcp->flags, kTcpReset | kTcpAcknowledge);
  EXPECT_EQ(reset.tcp->sequence, 1000u);
  EXPECT_EQ(reset.ip->destination.to_string(), "10.0.0.2");
  // Who scans where no conduit leads learns nothing.
  EXPECT_EQ(world.send(kOffice, kFirst, World::ip("10.0.0.4", "10.0.0.2").tcp(4000, 22, kTcpAcknowledge)),
            Reason::kNoRule);
  EXPECT_TRUE(world.firewall.take_answers().empty());
}

TEST(FirewallFlows, AGroupGetsEchoRequestsAndNoOtherMessages) {
  World world;
  const auto to_group = [&](uint8_t type) {
    return world.send(kStation, kFirst,
                      FrameBuilder()
                          .ethernet(kMac, {{0x33, 0x33, 0, 0, 0, 1}})
                          .ipv6("fe80::1", "ff02::1")
                          .icmp(type)
                          .payload("group"));
  };
  EXPECT_EQ(to_group(128), Reason::kRule);
  for (const uint8_t type : {uint8_t{129}, uint8_t{130}, uint8_t{131}, uint8_t{134}, uint8_t{143}}) {
    EXPECT_FALSE(is_pass(to_group(type))) << unsigned{type};
  }
}

TEST(FirewallFlows, AFloodedFirstPacketIsForEachZoneThatMayHaveItUntilOneAnswers) {
  Plan plan = World::plan();
  for (const char* zone : {"control", "office"}) {
    plan.conduits.push_back({.name = zone, .from = "station", .to = zone, .services = {"udp/7000", "tcp/7000"}});
  }
  for (const bool is_tcp : {false, true}) {
    World world(plan);
    const auto ask = [&](uint16_t own) {
      const auto to = World::ip("10.0.0.1", "10.0.0.4");
      return is_tcp ? FrameBuilder(to).tcp(own, 7000, kTcpSyn) : FrameBuilder(to).udp(own, 7000);
    };
    const auto answer = [&](uint16_t own) {
      const auto to = World::ip("10.0.0.4", "10.0.0.1");
      return is_tcp ? FrameBuilder(to).tcp(7000, own, kTcpSyn | kTcpAcknowledge) : FrameBuilder(to).udp(7000, own);
    };
    EXPECT_EQ(world.send(kStation, kFirst, ask(5), true), Reason::kRule);
    EXPECT_EQ(world.send(kStation, kOffice, ask(5), true), Reason::kRule);
    EXPECT_EQ(world.send(kStation, kOffice, ask(5), true), Reason::kConnection);
    EXPECT_EQ(world.send(kOffice, kStation, answer(5)), Reason::kConnection);
    const uint32_t rule = world.firewall.connections().last_rule();
    EXPECT_EQ(world.firewall.plan().rules()[rule].name.substr(0, 16), "conduit 'office'");
    // Who has answered is the other end, and nobody else.
    EXPECT_EQ(world.send(kFirst, kStation, answer(5)), Reason::kWrongState);
    EXPECT_EQ(world.send(kStation, kFirst, ask(5), true), Reason::kWrongState);
    EXPECT_EQ(world.firewall.connections().size(), 1u);
    // Known to be for one: another zone's rule has no say.
    EXPECT_EQ(world.send(kStation, kFirst, ask(6)), Reason::kRule);
    EXPECT_EQ(world.send(kStation, kOffice, ask(6), true), Reason::kWrongState);
    // A zone that no rule names gets nothing.
    World other;
    EXPECT_EQ(other.send(kStation, kOffice, ask(7), true), Reason::kNoRule);
  }
}

// The same datagram is the first of a connection in one zone, and one of many that need no answer in another.
TEST(FirewallFlows, AConnectionElsewhereDoesNotSilenceAOneWayConduit) {
  Plan plan = World::plan();
  plan.conduits.push_back({.name = "asks", .from = "station", .to = "control", .services = {"udp/7000"}});
  plan.conduits.push_back(
      {.name = "tells", .from = "station", .to = "office", .services = {"udp/7000"}, .direction = Direction::kOneWay});
  World world(plan);
  const auto there = World::ip("10.0.0.1", "10.0.0.9").udp(5, 7000),
             back = World::ip("10.0.0.9", "10.0.0.1").udp(7000, 5);
  for (unsigned i = 0; i < 2; ++i) {
    EXPECT_EQ(world.send(kStation, kFirst, there, true), i == 0 ? Reason::kRule : Reason::kConnection);
    EXPECT_EQ(world.send(kStation, kOffice, there, true), Reason::kRule);
  }
  EXPECT_EQ(world.send(kFirst, kStation, back), Reason::kConnection);
  EXPECT_EQ(world.send(kStation, kOffice, there, true), Reason::kRule);
  EXPECT_EQ(world.send(kStation, kOffice, there), Reason::kRule);
  // And not one bit back, though there is a connection of these ends.
  EXPECT_EQ(world.send(kOffice, kStation, back), Reason::kWrongState);
  EXPECT_EQ(world.send(kOffice, kStation, there), Reason::kWrongState);
}

}  // namespace
}  // namespace bulkhead::net::policy
