#include <gtest/gtest.h>

#include "net/frame/frame_builder.h"
#include "net/policy/firewall.h"

namespace bulkhead::net::policy {
namespace {

using namespace frame;

constexpr switching::PortId kClient = 1, kServer = 2;
constexpr uint8_t kData = kTcpAcknowledge | kTcpPush;

std::vector<uint8_t> request(uint8_t function, uint16_t address, uint16_t value) {
  return {0,
          7,
          0,
          0,
          0,
          6,
          1,
          function,
          static_cast<uint8_t>(address >> 8),
          static_cast<uint8_t>(address),
          static_cast<uint8_t>(value >> 8),
          static_cast<uint8_t>(value)};
}

Plan plan(Refuse refuse) {
  return {.zones = {"clients", "servers"},
          .address_sets = {},
          .services = {{.name = "plc", .ports = {{Transport::kTcp, 502, 502}, {Transport::kTcp, 1502, 1502}}}},
          .conduits = {{.name = "reading",
                        .from = "clients",
                        .to = "servers",
                        .services = {"plc"},
                        .modbus = inspect::ModbusPolicy{{{.functions = inspect::modbus_reads(), .addresses = {0, 99}}}},
                        .refuse = refuse}}};
}

struct World {
  explicit World(Refuse refuse = Refuse::kAnswer) : firewall(CompiledPlan::compile(plan(refuse)).value(), {}, 5) {
    firewall.set_zone(kClient, firewall.plan().zone("clients").value());
    firewall.set_zone(kServer, firewall.plan().zone("servers").value());
  }
  Reason send(switching::PortId from, const FrameBuilder& builder) {
    const auto bytes = builder.build();
    const Headers headers = read_headers(bytes);
    return firewall
        .judge({.from = from,
                .to = from == kClient ? kServer : kClient,
                .vlan = 1,
                .frame = bytes,
                .headers = headers,
                .now_ns = now})
        .reason;
  }
  static FrameBuilder client(uint8_t flags, uint32_t sequence, uint16_t port = 502) {
    return FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").tcp(4000, port, flags, sequence, 501);
  }
  Reason say(uint32_t sequence, ByteSpan bytes) { return send(kClient, client(kData, sequence).payload(bytes)); }
  void connect(uint32_t first = 100) {
    EXPECT_EQ(send(kClient, client(kTcpSyn, first)), Reason::kRule);
    EXPECT_EQ(
        send(kServer,
             FrameBuilder().ipv4("10.0.0.2", "10.0.0.1").tcp(502, 4000, kTcpSyn | kTcpAcknowledge, 500, first + 1)),
        Reason::kConnection);
    EXPECT_EQ(send(kClient, client(kTcpAcknowledge, first + 1)), Reason::kConnection);
  }

  // The client acknowledges what the server said.
  Reason acknowledge(uint32_t sequence, uint32_t acknowledgement) {
    return send(kClient,
                FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").tcp(4000, 502, kTcpAcknowledge, sequence, acknowledgement));
  }
  Reason reply(uint32_t sequence, uint32_t acknowledgement, ByteSpan bytes, uint8_t flags = kData) {
    return send(
        kServer,
        FrameBuilder().ipv4("10.0.0.2", "10.0.0.1").tcp(502, 4000, flags, sequence, acknowledgement).payload(bytes));
  }

  Firewall firewall;
  uint64_t now = 1;
};

std::vector<uint8_t> payload_of(const Answer& answer) {
  const Headers headers = read_headers(answer.frame);
  const auto begin = answer.frame.begin() + static_cast<long>(headers.transport_payload_offset);
  return {begin, begin + static_cast<long>(headers.transport_payload_size)};
}

const std::vector<uint8_t> kReply{0, 7, 0, 0, 0, 5, 1, 3, 2, 0, 9}, kException{0, 7, 0, 0, 0, 3, 1, 0x86, 1};

// Two requests in one segment: the allowed one passes, and the other's exception waits for its answer.
TEST(FirewallInspection, SaysAnExceptionBehindTheAnswersToEarlierRequests) {
  World world;
  world.connect();
  auto both = request(3, 0, 1);
  const auto refused = request(6, 5, 1);
  both.insert(both.end(), refused.begin(), refused.end());
  for (unsigned i = 0; i < 2; ++i) {  // the second time it is repeated
    EXPECT_EQ(world.say(101, both), Reason::kInspection);
    auto answers = world.firewall.take_answers();
    ASSERT_EQ(answers.size(), 1u);
    EXPECT_EQ(answers[0].to, kServer);
    EXPECT_EQ(payload_of(answers[0]), request(3, 0, 1));
    const Headers passed = read_headers(answers[0].frame);
    EXPECT_EQ(passed.fault, Fault::kNone);
    EXPECT_EQ(passed.tcp->sequence, 101u);
    EXPECT_EQ(passed.ip->payload_size, 20 + request(3, 0, 1).size());
  }
  EXPECT_EQ(world.acknowledge(125, 501), Reason::kConnection);
  EXPECT_TRUE(world.firewall.take_answers().empty());
  // Half of the answer, then all of it, which the client has when it says so.
  EXPECT_EQ(world.reply(501, 113, ByteSpan(kReply).first(5)), Reason::kConnection);
  EXPECT_EQ(world.acknowledge(125, 506), Reason::kConnection);
  EXPECT_EQ(world.reply(507, 113, ByteSpan(kReply).subspan(6)), Reason::kRepeat);
  EXPECT_EQ(world.reply(506, 113, ByteSpan(kReply).subspan(5)), Reason::kConnection);
  EXPECT_EQ(world.acknowledge(125, 506), Reason::kConnection);
  EXPECT_TRUE(world.firewall.take_answers().empty());
  EXPECT_EQ(world.acknowledge(125, 512), Reason::kConnection);
  auto answers = world.firewall.take_answers();
  ASSERT_EQ(answers.size(), 2u);
  const Headers exception = read_headers(answers[0].frame), reset = read_headers(answers[1].frame);
  EXPECT_EQ(answers[0].to, kClient);
  EXPECT_EQ(payload_of(answers[0]), kException);
  EXPECT_EQ(exception.tcp->sequence, 512u);
  EXPECT_EQ(exception.tcp->acknowledgement, 125u);
  EXPECT_EQ(exception.tcp->flags, kTcpFin | kData);
  EXPECT_EQ(answers[1].to, kServer);
  EXPECT_EQ(reset.tcp->flags, kTcpReset | kTcpAcknowledge);
  EXPECT_EQ(reset.tcp->sequence, 113u);
  // It was lost: the client says its request again.
  EXPECT_EQ(world.say(113, refused), Reason::kInspection);
  answers = world.firewall.take_answers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(payload_of(answers[0]), kException);
  EXPECT_EQ(read_headers(answers[0].frame).tcp->sequence, 512u);
  // So was the reset: the server says something.
  EXPECT_EQ(world.reply(512, 113, kReply), Reason::kInspection);
  answers = world.firewall.take_answers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].to, kServer);
  EXPECT_EQ(read_headers(answers[0].frame).tcp->sequence, 113u);
  // The client's own end is acknowledged, and nothing of it reaches the server.
  EXPECT_EQ(world.send(kClient,
                       FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").tcp(4000, 502, kTcpFin | kTcpAcknowledge, 125, 522)),
            Reason::kInspection);
  answers = world.firewall.take_answers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_TRUE(payload_of(answers[0]).empty());
  EXPECT_EQ(read_headers(answers[0].frame).tcp->flags, kTcpAcknowledge);
  EXPECT_EQ(read_headers(answers[0].frame).tcp->sequence, 522u);
  EXPECT_EQ(read_headers(answers[0].frame).tcp->acknowledgement, 126u);
  EXPECT_EQ(world.firewall.refusals().count(), 1u);
  // It is over: the ports may begin anew.
  EXPECT_EQ(world.send(kClient, World::client(kTcpSyn, 9000)), Reason::kRule);
}

TEST(FirewallInspection, DoesNotWaitForEverForAnAnswer) {
  World world;
  world.connect();
  EXPECT_EQ(world.say(101, request(3, 0, 1)), Reason::kConnection);
  EXPECT_EQ(world.say(113, request(6, 5, 1)), Reason::kInspection);
  world.now += Firewall::kAnswerPatience_ns - 1;
  EXPECT_EQ(world.say(113, request(6, 5, 1)), Reason::kInspection);
  EXPECT_TRUE(world.firewall.take_answers().empty());
  world.now += 1;
  EXPECT_EQ(world.say(113, request(6, 5, 1)), Reason::kInspection);
  EXPECT_EQ(world.firewall.take_answers().size(), 2u);
}

TEST(FirewallInspection, HangsUpWhereTheServerHasEnded) {
  World world;
  world.connect();
  EXPECT_EQ(world.reply(501, 101, {}, kTcpFin | kTcpAcknowledge), Reason::kConnection);
  EXPECT_EQ(world.say(101, request(6, 5, 1)), Reason::kInspection);
  EXPECT_TRUE(world.firewall.take_answers().empty());
  EXPECT_EQ(world.acknowledge(113, 502), Reason::kConnection);
  const auto answers = world.firewall.take_answers();
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(read_headers(answers[0].frame).tcp->flags, kTcpReset | kTcpAcknowledge);
  EXPECT_EQ(read_headers(answers[0].frame).tcp->sequence, 502u);
}

// Who has agreed on time stamps drops segments without them.
TEST(FirewallInspection, SaysTimeStampsWhereTheConnectionHasThem) {
  World world;
  world.connect();
  const std::vector<uint8_t> stamps{1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 6};
  EXPECT_EQ(world.send(kClient, World::client(kData, 101).tcp_options(stamps).payload(ByteSpan(request(6, 5, 1)))),
            Reason::kInspection);
  const auto answers = world.firewall.take_answers();
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(payload_of(answers[0]), kException);
  const size_t options = read_headers(answers[0].frame).ip->payload_offset + kTcpHeaderSize;
  EXPECT_EQ(std::vector<uint8_t>(answers[0].frame.begin() + static_cast<long>(options),
                                 answers[0].frame.begin() + static_cast<long>(options) + 12),
            (std::vector<uint8_t>{1, 1, 8, 10, 0, 0, 0, 6, 0, 0, 0, 5}));
}

TEST(FirewallInspection, LetsAllowedRequestsThroughAndNoOthers) {
  World world;
  world.connect();
  EXPECT_EQ(world.say(101, request(3, 0, 10)), Reason::kConnection);
  EXPECT_EQ(world.say(113, request(6, 5, 1)), Reason::kInspection);
  EXPECT_EQ(world.say(113, request(6, 5, 1)), Reason::kInspection);
  EXPECT_EQ(world.say(113, request(3, 0, 10)), Reason::kInspection);
  ASSERT_EQ(world.firewall.refusals().latest().size(), 1u);
  const Refusal refusal = world.firewall.refusals().latest().back();
  EXPECT_EQ(refusal.modbus, inspect::ModbusVerdict::kFunction);
  EXPECT_EQ(refusal.request.function, 6);
  EXPECT_EQ(refusal.flow->source.to_string(), "10.0.0.1");
}

TEST(FirewallInspection, AnswersWithAnExceptionAndEndsTheConnection) {
  World world;
  world.connect();
  EXPECT_EQ(world.say(101, request(3, 99, 2)), Reason::kInspection);
  const auto answers = world.firewall.take_answers();
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_TRUE(world.firewall.take_answers().empty());
  const Headers to_client = read_headers(answers[0].frame);
  EXPECT_EQ(answers[0].to, kClient);
  ASSERT_TRUE(to_client.tcp);
  EXPECT_EQ(to_client.tcp->sequence, 501u);
  EXPECT_EQ(to_client.tcp->acknowledgement, 113u);
  EXPECT_EQ(to_client.ip->source.to_string(), "10.0.0.2");
  EXPECT_EQ(std::vector<uint8_t>(answers[0].frame.begin() + static_cast<long>(to_client.transport_payload_offset),
                                 answers[0].frame.begin() + static_cast<long>(to_client.transport_payload_offset + 9)),
            (std::vector<uint8_t>{0, 7, 0, 0, 0, 3, 1, 0x83, 2}));
  const Headers to_server = read_headers(answers[1].frame);
  EXPECT_EQ(answers[1].to, kServer);
  EXPECT_TRUE(to_server.tcp->flags & kTcpReset);
  EXPECT_EQ(to_server.tcp->sequence, 101u);
}

TEST(FirewallInspection, SaysNothingWhereItIsToDrop) {
  World world(Refuse::kDrop);
  world.connect();
  EXPECT_EQ(world.say(101, request(6, 0, 1)), Reason::kInspection);
  EXPECT_TRUE(world.firewall.take_answers().empty());
}

TEST(FirewallInspection, CannotBeGonePastByTricksOfTcpAndIp) {
  World world;
  const auto write = request(6, 0, 1);
  EXPECT_EQ(world.send(kClient, World::client(kTcpSyn, 100).payload(write)), Reason::kStrangeHeaders);
  world.connect();
  // A second beginning, in whose count the bytes would look as if they were old.
  EXPECT_EQ(world.send(kClient, World::client(kTcpSyn, 5000)), Reason::kWrongState);
  EXPECT_EQ(world.send(kClient, World::client(kData | kTcpUrgent, 101).payload(request(3, 0, 1))),
            Reason::kStrangeHeaders);
  EXPECT_EQ(world.send(kClient, World::client(kData, 101).payload(write).fragment({.identification = 1, .more = true})),
            Reason::kStrangeHeaders);
  EXPECT_EQ(world.say(113, write), Reason::kRepeat);
  EXPECT_EQ(world.say(101, request(3, 0, 1)), Reason::kConnection);
  // The same place in the stream with other bytes.
  EXPECT_EQ(world.say(101, write), Reason::kInspection);
}

TEST(FirewallInspection, RefusesAnotherBeginningWhileTheServerHasNotAnswered) {
  World world;
  EXPECT_EQ(world.send(kClient, World::client(kTcpSyn, 100)), Reason::kRule);
  EXPECT_EQ(world.send(kClient, World::client(kTcpSyn, 100)), Reason::kConnection);
  EXPECT_EQ(world.send(kClient, World::client(kTcpSyn, 9000)), Reason::kWrongState);
}

TEST(FirewallInspection, HoldsNoMoreConnectionsThanItsShare) {
  World world;
  for (uint16_t port = 1; port <= ConnectionLimits{}.inspected_a_port; ++port) {
    EXPECT_EQ(world.send(kClient, FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").tcp(port, 502, kTcpSyn)), Reason::kRule);
  }
  EXPECT_EQ(world.send(kClient, FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").tcp(5000, 502, kTcpSyn)), Reason::kFull);
  world.firewall.remove_port(kClient, "client");
  EXPECT_EQ(world.firewall.connections().inspected(), 0u);
}

TEST(FirewallInspection, ConnectionsThatHaveEndedMakeRoomForNewOnes) {
  World world;
  const auto segment = [](uint16_t port, uint8_t flags) {
    return FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").tcp(port, 502, flags, 1, 1);
  };
  const size_t most = ConnectionLimits{}.inspected_a_port;
  for (uint16_t port = 1; port <= 4 * most; ++port) {
    ASSERT_EQ(world.send(kClient, segment(port, kTcpSyn)), Reason::kRule) << port;
    ASSERT_EQ(world.send(kClient, segment(port, kTcpReset | kTcpAcknowledge)), Reason::kConnection) << port;
  }
  EXPECT_EQ(world.firewall.connections().inspected(), most);
  // What arrives late of one that had to go is no part of anything.
  EXPECT_EQ(world.send(kClient, segment(1, kTcpAcknowledge)), Reason::kNoStart);
  EXPECT_EQ(world.send(kClient, segment(static_cast<uint16_t>(4 * most), kTcpReset | kTcpAcknowledge)),
            Reason::kConnection);
}

TEST(FirewallInspection, KnowsServicesOfThePlansOwn) {
  World world;
  EXPECT_EQ(world.send(kClient, World::client(kTcpSyn, 1, 1502)), Reason::kRule);
  EXPECT_EQ(world.send(kClient, World::client(kTcpSyn, 1, 1503)), Reason::kNoRule);
}

}  // namespace
}  // namespace bulkhead::net::policy
