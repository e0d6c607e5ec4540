#include <gtest/gtest.h>

#include "net/frame/frame_builder.h"
#include "net/probe/questions.h"

namespace bulkhead::net::probe {
namespace {

using namespace frame;

const IpAddress kOwn = IpAddress::parse("10.0.0.254").value(), kOther = IpAddress::parse("10.0.0.1").value();
constexpr MacAddress kOwnMac{{2, 0, 0, 0, 0, 9}}, kOtherMac{{2, 0, 0, 0, 0, 1}};

struct Peer {
  explicit Peer(auto&& ask)
      : probe([&] {
          Question question{.own_mac = kOwnMac,
                            .own_address = kOwn,
                            .address = kOther,
                            .own_port = 40000,
                            .port = 502,
                            .first_sequence = 100};
          ask(question);
          return TcpProbe(std::move(question));
        }()) {}

  static FrameBuilder tcp(uint8_t flags, uint32_t sequence, uint32_t acknowledgement) {
    return FrameBuilder()
        .ethernet(kOtherMac, kOwnMac)
        .ipv4("10.0.0.1", "10.0.0.254")
        .tcp(502, 40000, flags, sequence, acknowledgement);
  }
  Headers only(const std::vector<std::vector<uint8_t>>& frames) {
    EXPECT_EQ(frames.size(), 1u);
    return frames.empty() ? Headers{} : read_headers(frames[0]);
  }
  void connect() {
    EXPECT_EQ(only(probe.poll(1)).arp->target, kOther);
    EXPECT_TRUE(probe.poll(2).empty());
    const Headers syn = only(probe.receive(FrameBuilder()
                                               .ethernet(kOtherMac, kOwnMac)
                                               .arp({.operation = kArpReply,
                                                     .sender_mac = kOtherMac,
                                                     .sender = kOther,
                                                     .target_mac = kOwnMac,
                                                     .target = kOwn})
                                               .build()));
    EXPECT_EQ(syn.tcp->flags, kTcpSyn);
    EXPECT_EQ(syn.destination, kOtherMac);
  }

  TcpProbe probe;
};

TEST(TcpProbe, IsContentWithAConnectionWhereNothingIsAsked) {
  Peer peer([](Question&) {});
  peer.connect();
  EXPECT_TRUE(peer.probe.receive(Peer::tcp(kTcpSyn | kTcpAcknowledge, 700, 77).build()).empty());
  const Headers reset = peer.only(peer.probe.receive(Peer::tcp(kTcpSyn | kTcpAcknowledge, 700, 101).build()));
  EXPECT_TRUE(reset.tcp->flags & kTcpReset);
  EXPECT_EQ(peer.probe.state(), TcpProbe::State::kGood);
}

TEST(TcpProbe, SeesARefusedConnection) {
  Peer peer([](Question&) {});
  peer.connect();
  (void)peer.probe.receive(Peer::tcp(kTcpReset | kTcpAcknowledge, 0, 101).build());
  EXPECT_EQ(peer.probe.state(), TcpProbe::State::kBad);
}

TEST(TcpProbe, ReadsAnAnswerInPieces) {
  Peer peer([](Question& question) { ask_modbus(question, 3, 258); });
  peer.connect();
  const auto asked = peer.probe.receive(Peer::tcp(kTcpSyn | kTcpAcknowledge, 700, 101).build());
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(std::vector<uint8_t>(asked[0].end() - 6, asked[0].end()), (std::vector<uint8_t>{3, 3, 1, 2, 0, 1}));
  const std::vector<uint8_t> answer{0, 1, 0, 0, 0, 5, 3, 3, 2, 0, 7};
  const auto half = ByteSpan(answer).first(5), rest = ByteSpan(answer).subspan(5);
  (void)peer.probe.receive(Peer::tcp(kTcpAcknowledge, 701, 113).payload(half).build());
  // A repetition and a gap change nothing.
  EXPECT_TRUE(peer.probe.receive(Peer::tcp(kTcpAcknowledge, 701, 113).payload(half).build()).empty());
  EXPECT_TRUE(peer.probe.receive(Peer::tcp(kTcpAcknowledge, 800, 113).payload(half).build()).empty());
  EXPECT_EQ(peer.probe.state(), TcpProbe::State::kAsking);
  (void)peer.probe.receive(Peer::tcp(kTcpAcknowledge, 706, 113).payload(rest).build());
  EXPECT_EQ(peer.probe.state(), TcpProbe::State::kGood);
}

TEST(Questions, KnowGoodAnswersFromBad) {
  const auto judge = [](auto&& ask, std::string_view text) {
    Question question;
    ask(question);
    return question.judge({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  };
  const auto http = [](Question& question) { ask_http(question, "plc", "/"); };
  EXPECT_EQ(judge(http, "HTTP/1.1 200"), Question::Judgement::kGood);
  EXPECT_EQ(judge(http, "HTTP/1.1 302"), Question::Judgement::kGood);
  EXPECT_EQ(judge(http, "HTTP/1.1 503"), Question::Judgement::kBad);
  EXPECT_EQ(judge(http, "HTTP/1."), Question::Judgement::kMore);
  EXPECT_EQ(judge(http, "SSH-2.0-OpenSSH"), Question::Judgement::kBad);
  const auto mqtt = [](Question& question) { ask_mqtt(question); };
  EXPECT_EQ(judge(mqtt, std::string_view("\x20\x02\x00\x00", 4)), Question::Judgement::kGood);
  EXPECT_EQ(judge(mqtt, "HTTP"), Question::Judgement::kBad);
  const auto modbus = [](Question& question) { ask_modbus(question, 1, 0); };
  EXPECT_EQ(judge(modbus, std::string_view("\0\1\0\0\0\3\1\x83\2", 9)), Question::Judgement::kGood);
  EXPECT_EQ(judge(modbus, std::string_view("\0\1\0\0\0\3\2\x83\2", 9)), Question::Judgement::kBad);
}

}  // namespace
}  // namespace bulkhead::net::probe
