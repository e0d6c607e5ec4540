#include "net/frame/offload.h"

#include <gtest/gtest.h>

#include "net/frame/big_endian.h"
#include "net/frame/checksum.h"
#include "net/frame/frame_builder.h"

namespace bulkhead::net::frame {
namespace {

constexpr size_t kLargest = 1522;

std::vector<uint8_t> bytes_of(size_t size) {
  std::vector<uint8_t> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 256);
  return bytes;
}

FrameBuilder ip(bool is_ipv4) {
  return is_ipv4 ? FrameBuilder().ipv4("10.0.0.1", "10.0.0.2") : FrameBuilder().ipv6("fd00::1", "fd00::2");
}

// As a driver leaves it: the pseudo header's sum stands in the field.
Offload open_checksum(std::vector<uint8_t>& frame) {
  const Headers headers = read_headers(frame);
  Offload offload{.is_checksum_open = true,
                  .checksum_start = static_cast<uint16_t>(headers.ip->payload_offset),
                  .checksum_offset = static_cast<uint16_t>(headers.tcp ? 16 : 6)};
  const uint16_t sum = Checksum()
                           .add_pseudo_header(headers.ip->source, headers.ip->destination, headers.ip->protocol,
                                              static_cast<uint32_t>(headers.ip->payload_size))
                           .value();
  store_big16(frame.data() + offload.checksum_start + offload.checksum_offset, static_cast<uint16_t>(~sum));
  return offload;
}

bool checksum_is_right(ByteSpan frame) {
  const Headers headers = read_headers(frame);
  return Checksum()
             .add_pseudo_header(headers.ip->source, headers.ip->destination, headers.ip->protocol,
                                static_cast<uint32_t>(headers.ip->payload_size))
             .add(frame.subspan(headers.ip->payload_offset, headers.ip->payload_size))
             .value() == 0;
}

std::vector<std::vector<uint8_t>> pieces_of(ByteSpan frame, const Offload& offload) {
  std::vector<std::vector<uint8_t>> pieces;
  for_each_piece(frame, offload, [&](ByteSpan piece) {
    pieces.emplace_back(piece.begin(), piece.end());
    return true;
  });
  return pieces;
}

class OffloadOf : public testing::TestWithParam<std::tuple<bool, bool, unsigned>> {};
INSTANTIATE_TEST_SUITE_P(Frames, OffloadOf, testing::Combine(testing::Bool(), testing::Bool(), testing::Range(0u, 3u)));

TEST_P(OffloadOf, IsCutIntoWholeFramesThatSayTheSame) {
  const auto [is_ipv4, is_tcp, tags] = GetParam();
  const auto payload = bytes_of(10'000);
  FrameBuilder builder = ip(is_ipv4);
  for (unsigned i = 0; i < tags; ++i) builder.vlan(static_cast<uint16_t>(10 + i));
  if (is_tcp) {
    builder.tcp(1000, 2000, kTcpAcknowledge | kTcpPush | kTcpFin, 0xFFFFF000, 7);
  } else {
    builder.udp(1000, 2000);
  }
  auto frame = builder.payload(payload).build();
  Offload offload = open_checksum(frame);
  offload.segmentation = !is_tcp ? Segmentation::kUdp : is_ipv4 ? Segmentation::kTcpIpv4 : Segmentation::kTcpIpv6;
  offload.segment_size = 1400;
  const Offload before = offload;
  ASSERT_TRUE(settle(frame, offload, kLargest));
  EXPECT_EQ(offload, before);
  const auto pieces = pieces_of(frame, offload);
  ASSERT_EQ(pieces.size(), 8u);
  const Headers whole = read_headers(frame);
  std::vector<uint8_t> said;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Headers headers = read_headers(pieces[i]);
    ASSERT_EQ(headers.fault, Fault::kNone) << i;
    EXPECT_TRUE(checksum_is_right(pieces[i])) << i;
    EXPECT_EQ(headers.vlan_tag_count, tags);
    const ByteSpan part = ByteSpan(pieces[i]).subspan(headers.transport_payload_offset, headers.transport_payload_size);
    EXPECT_EQ(part.size(), i + 1 == pieces.size() ? 200u : 1400u);
    said.insert(said.end(), part.begin(), part.end());
    if (is_ipv4) {
      EXPECT_EQ(load_big16(pieces[i].data() + headers.ip->header_offset + 4),
                load_big16(frame.data() + whole.ip->header_offset + 4) + i);
    }
    if (!is_tcp) continue;
    EXPECT_EQ(headers.tcp->sequence, static_cast<uint32_t>(0xFFFFF000 + 1400 * i));
    EXPECT_EQ((headers.tcp->flags & (kTcpPush | kTcpFin)) != 0, i + 1 == pieces.size());
    EXPECT_EQ(headers.tcp->acknowledgement, 7u);
  }
  EXPECT_EQ(said, payload);
}

TEST(Offload, CompletesAChecksumAtItsOwnPlaceLateAndAnyOtherAtOnce) {
  const auto whole = ip(true).tcp(1, 2, kTcpAcknowledge).payload("data").build();
  auto frame = whole;
  Offload offload = open_checksum(frame);
  ASSERT_TRUE(settle(frame, offload, kLargest));
  EXPECT_TRUE(offload.is_checksum_open);
  EXPECT_NE(frame, whole);
  EXPECT_EQ(pieces_of(frame, offload).at(0), whole);
  // Over the destination's address: whoever looks at the frame afterwards sees what will be sent.
  auto elsewhere = whole;
  Offload odd{.is_checksum_open = true, .checksum_start = 14, .checksum_offset = 16};
  ASSERT_TRUE(settle(elsewhere, odd, kLargest));
  EXPECT_TRUE(odd.is_whole());
  EXPECT_NE(elsewhere, whole);
}

TEST(Offload, IsRefusedWhereTheFrameSaysSomethingElse) {
  auto good = ip(true).tcp(1, 2, kTcpAcknowledge).payload(bytes_of(4000)).build();
  Offload right = open_checksum(good);
  right.segmentation = Segmentation::kTcpIpv4;
  right.segment_size = 1400;
  const auto refused = [&](std::vector<uint8_t> frame, Offload offload, size_t largest = kLargest) {
    return !settle(frame, offload, largest);
  };
  EXPECT_FALSE(refused(good, right));
  const auto with = [&](auto change) {
    Offload changed = right;
    change(changed);
    return changed;
  };
  EXPECT_TRUE(refused(good, with([](Offload& o) { o.segment_size = 0; })));
  EXPECT_TRUE(refused(good, with([](Offload& o) { o.segment_size = 31; })));
  EXPECT_TRUE(refused(good, with([](Offload& o) { o.segment_size = 1522 - 54 + 1; })));
  EXPECT_TRUE(refused(good, with([](Offload& o) { o.is_checksum_open = false; })));
  EXPECT_TRUE(refused(good, with([](Offload& o) { o.checksum_start = 33; })));
  EXPECT_TRUE(refused(good, with([](Offload& o) { o.checksum_start = 65535; })));
  EXPECT_TRUE(refused(good, with([](Offload& o) { o.checksum_offset = 14; })));
  EXPECT_TRUE(refused(good, with([](Offload& o) { o.segmentation = Segmentation::kTcpIpv6; })));
  EXPECT_TRUE(refused(good, with([](Offload& o) { o.segmentation = Segmentation::kUdp; })));
  EXPECT_TRUE(refused(good, with([](Offload& o) { o.segmentation = Segmentation::kNone; })));
  for (const uint8_t flag : {kTcpSyn, kTcpReset, kTcpUrgent}) {
    auto frame = ip(true).tcp(1, 2, flag).payload(bytes_of(4000)).build();
    (void)open_checksum(frame);
    EXPECT_TRUE(refused(frame, right)) << int{flag};
  }
  auto trailing = good;
  trailing.push_back(0);
  EXPECT_TRUE(refused(trailing, right));
  auto fragment = good;
  fragment[14 + 6] = 0x20;
  EXPECT_TRUE(refused(fragment, right));
  auto empty = ip(true).tcp(1, 2, kTcpAcknowledge).build();
  (void)open_checksum(empty);
  EXPECT_TRUE(refused(empty, right));
  EXPECT_TRUE(refused(std::vector<uint8_t>(13), {}));
  EXPECT_TRUE(refused(std::vector<uint8_t>(1523), {}));
  EXPECT_TRUE(refused(std::vector<uint8_t>(kMaximumFrameSize + 1), {}, SIZE_MAX));
}

TEST(Offload, TurnsALargeFrameIntoOneThatIsToBeCut) {
  const auto payload = bytes_of(60'000);
  const auto whole = ip(true).tcp(1, 2, kTcpAcknowledge | kTcpPush).payload(payload).build();
  auto frame = whole;
  Offload offload;
  ASSERT_TRUE(make_segmented(frame, 1460, offload));
  ASSERT_TRUE(settle(frame, offload, 1514));
  const auto pieces = pieces_of(frame, offload);
  EXPECT_EQ(pieces.size(), (payload.size() + 1459) / 1460);
  for (const auto& piece : pieces) EXPECT_TRUE(checksum_is_right(piece));
  complete(frame, offload);
  EXPECT_EQ(frame, whole);
  auto datagram = ip(true).udp(1, 2).payload(payload).build();
  EXPECT_FALSE(make_segmented(datagram, 1460, offload));
}

TEST(Offload, StandsInAHeaderOfAVirtqueue) {
  auto frame = ip(false).tcp(1, 2, kTcpAcknowledge).payload(bytes_of(4000)).build();
  Offload offload = open_checksum(frame);
  offload.segmentation = Segmentation::kTcpIpv6;
  offload.segment_size = 1300;
  const auto header = make_virtio_header(offload, frame, 3);
  const std::array<uint8_t, kVirtioHeaderSize> expected = {1, 4, 74, 0, 0x14, 0x05, 54, 0, 16, 0, 3, 0};
  EXPECT_EQ(header, expected);
  EXPECT_EQ(read_virtio_header(header, OffloadSupport::all()), offload);
  EXPECT_EQ(read_virtio_header(header, {}), std::nullopt);
  EXPECT_EQ(read_virtio_header(header, {.checksum = true, .tcp_ipv4 = true}), std::nullopt);
  std::array<uint8_t, kVirtioHeaderSize> strange{};
  strange[1] = 3;
  EXPECT_EQ(read_virtio_header(strange, OffloadSupport::all()), std::nullopt);
  EXPECT_TRUE(OffloadSupport::all().takes(offload, frame));
  OffloadSupport some = OffloadSupport::all();
  some.tcp_ipv6 = false;
  EXPECT_FALSE(some.takes(offload, frame));
}

}  // namespace
}  // namespace bulkhead::net::frame
