#include "net/frame/headers.h"

#include <gtest/gtest.h>

#include "net/frame/big_endian.h"
#include "net/frame/checksum.h"
#include "net/frame/frame_builder.h"

namespace bulkhead::net::frame {
namespace {

TEST(MacAddress, IsReadAndWritten) {
  const auto address = MacAddress::parse("52:54:00:ab:CD:ef");
  ASSERT_TRUE(address);
  EXPECT_EQ(address->to_string(), "52:54:00:ab:cd:ef");
  EXPECT_EQ(MacAddress::parse("52-54-00-ab-cd-ef").value(), *address);
  EXPECT_FALSE(address->is_group());
  EXPECT_TRUE(MacAddress::broadcast().is_group());
  for (const char* wrong : {"", "52:54:00:ab:cd", "52:54:00:ab:cd:eg", "52:54-00:ab:cd:ef", "525400abcdef",
                            "52:54:00:ab:cd:ef:", "+2:54:00:ab:cd:ef", "52x54x00xabxcdxef"}) {
    EXPECT_FALSE(MacAddress::parse(wrong)) << wrong;
  }
}

TEST(IpPrefix, ContainsWhatSharesItsFirstBits) {
  const IpPrefix prefix = IpPrefix::parse("10.1.16.0/20").value();
  EXPECT_TRUE(prefix.contains(IpAddress::parse("10.1.16.0").value()));
  EXPECT_TRUE(prefix.contains(IpAddress::parse("10.1.31.255").value()));
  EXPECT_FALSE(prefix.contains(IpAddress::parse("10.1.32.0").value()));
  EXPECT_FALSE(prefix.contains(IpAddress::parse("a01:1000::").value()));
  EXPECT_TRUE(IpPrefix::parse("::/0").value().contains(IpAddress::parse("fd00::1").value()));
  EXPECT_TRUE(IpPrefix::parse("fd00::1").value().contains(IpAddress::parse("fd00::1").value()));
  for (const char* wrong : {"10.1.16.0/33", "10.1.16.1/20", "10.1.16.0/", "10.1.16.0/x", "10.1.16", "fd00::1/64"}) {
    EXPECT_FALSE(IpPrefix::parse(wrong)) << wrong;
  }
}

TEST(Checksum, IsThatOfTheExampleInRfc1071) {
  const uint8_t bytes[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  EXPECT_EQ(Checksum().add(bytes).value(), static_cast<uint16_t>(~0xddf2));
}

TEST(Checksum, CountsALastOddByteAsTheHighHalfOfAWord) {
  const uint8_t odd[] = {0x12, 0x34, 0x56};
  const uint8_t even[] = {0x12, 0x34, 0x56, 0x00};
  EXPECT_EQ(Checksum().add(odd).value(), Checksum().add(even).value());
}

TEST(Checksum, IsCompletedWhereTheSenderLeftThePseudoHeader) {
  const auto whole = FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload("hello").build();
  auto open = whole;
  const size_t start = kEthernetHeaderSize + kIpv4HeaderSize;
  Checksum pseudo;
  pseudo.add_pseudo_header(IpAddress::parse("10.0.0.1").value(), IpAddress::parse("10.0.0.2").value(), kProtocolUdp,
                           13);
  const auto sum = static_cast<uint16_t>(~pseudo.value());
  open[start + 6] = static_cast<uint8_t>(sum >> 8);
  open[start + 7] = static_cast<uint8_t>(sum);
  ASSERT_TRUE(complete_checksum(open, start, 6));
  EXPECT_EQ(open, whole);
  // Of the two zeros TCP sends the one and UDP the other.
  for (const auto& [offset, zero] : {std::pair(size_t{16}, uint16_t{0}), {size_t{6}, uint16_t{0xFFFF}}}) {
    std::vector<uint8_t> packet(20, 0);
    packet[0] = packet[1] = 0xFF;
    ASSERT_TRUE(complete_checksum(packet, 0, offset));
    EXPECT_EQ(load_big16(packet.data() + offset), zero) << offset;
  }
  EXPECT_FALSE(complete_checksum(open, open.size() + 1, 0));
  EXPECT_FALSE(complete_checksum(open, start, open.size() - start - 1));
  EXPECT_FALSE(complete_checksum(open, 0, SIZE_MAX));
}

TEST(Headers, ReadsTcpOverIpv4BehindTwoTags) {
  const auto frame = FrameBuilder()
                         .vlan(100, 3, kTypeServiceVlan)
                         .vlan(20)
                         .ipv4("192.168.1.10", "192.168.1.20")
                         .tcp(40000, 502, kTcpSyn | kTcpAcknowledge, 7, 9, 1000)
                         .payload("data")
                         .build();
  const Headers headers = read_headers(frame);
  EXPECT_EQ(headers.fault, Fault::kNone);
  ASSERT_EQ(headers.vlan_tag_count, 2);
  EXPECT_EQ(headers.vlan_tags[0], (VlanTag{.protocol = kTypeServiceVlan, .id = 100, .priority = 3}));
  EXPECT_EQ(headers.vlan_tags[1].id, 20);
  ASSERT_TRUE(headers.ip && headers.tcp);
  EXPECT_EQ(headers.ip->source.to_string(), "192.168.1.10");
  EXPECT_EQ(headers.ip->destination.to_string(), "192.168.1.20");
  EXPECT_EQ(headers.tcp->destination_port, 502);
  EXPECT_EQ(headers.tcp->sequence, 7u);
  EXPECT_EQ(headers.tcp->acknowledgement, 9u);
  EXPECT_EQ(headers.tcp->flags, kTcpSyn | kTcpAcknowledge);
  EXPECT_EQ(headers.transport_payload_size, 4u);
  EXPECT_EQ(frame[headers.transport_payload_offset], 'd');
}

TEST(Headers, LeavesOutThePaddingOfAShortFrame) {
  auto frame = FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload("x").build();
  frame.resize(60);
  const Headers headers = read_headers(frame);
  EXPECT_EQ(headers.fault, Fault::kNone);
  EXPECT_EQ(headers.transport_payload_size, 1u);
}

TEST(Headers, ReadsArp) {
  const Arp arp{.operation = kArpRequest,
                .sender_mac = {{2, 0, 0, 0, 0, 9}},
                .sender = IpAddress::parse("10.0.0.9").value(),
                .target_mac = {},
                .target = IpAddress::parse("10.0.0.1").value()};
  const Headers headers = read_headers(FrameBuilder().arp(arp).build());
  ASSERT_TRUE(headers.arp);
  EXPECT_EQ(headers.arp->operation, kArpRequest);
  EXPECT_EQ(headers.arp->sender, arp.sender);
  EXPECT_EQ(headers.arp->target, arp.target);
}

TEST(Headers, ReadsUdpOverIpv6BehindAFragmentHeader) {
  const auto frame = FrameBuilder()
                         .ipv6("fd00::1", "fd00::2")
                         .fragment({.identification = 0x12345678, .offset = 0, .more = true})
                         .udp(5000, 5001)
                         .payload("12345678")
                         .build();
  const Headers headers = read_headers(frame);
  EXPECT_EQ(headers.fault, Fault::kNone);
  ASSERT_TRUE(headers.ip && headers.ip->fragment && headers.udp);
  EXPECT_EQ(headers.ip->fragment->identification, 0x12345678u);
  EXPECT_TRUE(headers.ip->fragment->more);
  EXPECT_EQ(headers.udp->destination_port, 5001);
}

TEST(Headers, SeesNoPortsInALaterFragment) {
  for (const char* version : {"4", "6"}) {
    FrameBuilder builder;
    if (*version == '4') {
      builder.ipv4("10.0.0.1", "10.0.0.2");
    } else {
      builder.ipv6("fd00::1", "fd00::2");
    }
    builder.fragment({.identification = 5, .offset = 1480, .more = false})
        .protocol(kProtocolTcp)
        .payload("anything at all, of TCP");
    const Headers headers = read_headers(builder.build());
    EXPECT_EQ(headers.fault, Fault::kNone);
    EXPECT_FALSE(headers.tcp);
    EXPECT_EQ(headers.ip->fragment->offset, 1480);
    EXPECT_EQ(headers.ip->protocol, kProtocolTcp);
  }
}

TEST(Headers, ReadsEchoOfBothVersions) {
  const Headers v4 = read_headers(FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").icmp(8, 0, 77).build());
  ASSERT_TRUE(v4.icmp);
  EXPECT_EQ(v4.icmp->identifier, 77);
  const Headers v6 =
      read_headers(FrameBuilder().ipv6("fd00::1", "fd00::2").protocol(kProtocolIcmpv6).icmp(128, 0, 78).build());
  ASSERT_TRUE(v6.icmp);
  EXPECT_EQ(v6.icmp->type, 128);
}

TEST(Headers, EndsAtTheFirstFault) {
  const auto good = FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2, kTcpSyn).build();
  const auto fault_after = [&](size_t offset, uint8_t value) {
    auto frame = good;
    frame.at(offset) = value;
    return read_headers(frame).fault;
  };
  EXPECT_EQ(fault_after(14, 0x55), Fault::kIpVersion);
  EXPECT_EQ(fault_after(14, 0x44), Fault::kIpHeaderSize);
  EXPECT_EQ(fault_after(14, 0x4F), Fault::kIpHeaderSize);
  EXPECT_EQ(fault_after(16, 0xFF), Fault::kIpTotalSize);
  EXPECT_EQ(fault_after(22, 1), Fault::kIpChecksum);
  EXPECT_EQ(fault_after(46, 0x40), Fault::kTransportSize);
  EXPECT_EQ(fault_after(46, 0xF0), Fault::kTransportSize);
}

// Whatever a frame's length, no byte beyond it is read and what is cut off is a fault.
TEST(Headers, RefusesEveryFrameCutShort) {
  const std::vector<std::vector<uint8_t>> frames = {
      FrameBuilder().vlan(5).ipv4("10.0.0.1", "10.0.0.2").tcp(1, 2, kTcpSyn).build(),
      FrameBuilder().ipv6("fd00::1", "fd00::2").udp(1, 2).build(),
      FrameBuilder().arp({}).build(),
  };
  for (const auto& frame : frames) {
    EXPECT_EQ(read_headers(frame).fault, Fault::kNone);
    for (size_t size = 0; size < frame.size(); ++size) {
      const std::vector<uint8_t> shorter(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(size));
      EXPECT_NE(read_headers(shorter).fault, Fault::kNone) << size << " of " << frame.size();
    }
  }
}

TEST(Headers, BoundsExtensionHeaders) {
  std::vector<uint8_t> extensions;
  for (unsigned i = 0; i < 9; ++i) {
    const uint8_t header[] = {
        static_cast<uint8_t>(i == 8 ? kProtocolNoNext : kProtocolDestination), 0, 1, 4, 0, 0, 0, 0};
    extensions.insert(extensions.end(), std::begin(header), std::end(header));
  }
  FrameBuilder builder;
  builder.ipv6("fd00::1", "fd00::2").protocol(kProtocolDestination);
  EXPECT_EQ(read_headers(builder.payload(extensions).build()).fault, Fault::kExtensionHeaders);
  EXPECT_EQ(read_headers(builder.payload(ByteSpan(extensions).subspan(8)).build()).fault, Fault::kNone);
}

TEST(Headers, RefusesFragmentsThatNoPacketHas) {
  FrameBuilder builder;
  builder.ipv4("10.0.0.1", "10.0.0.2").protocol(kProtocolUdp);
  EXPECT_EQ(read_headers(builder.fragment({1, 65528, false}).payload("more than seven").build()).fault,
            Fault::kFragmentSize);
  EXPECT_EQ(read_headers(builder.fragment({1, 8, true}).payload("seven b").build()).fault, Fault::kFragmentSize);
  EXPECT_EQ(read_headers(builder.fragment({1, 8, false}).payload("").build()).fault, Fault::kFragmentSize);
  EXPECT_EQ(read_headers(builder.fragment({1, 8, false}).payload("seven b").build()).fault, Fault::kNone);
}

}  // namespace
}  // namespace bulkhead::net::frame
