// Frames that this side makes, answers and tests: a chain of calls from the inside out gives bytes with right sizes and
// checksums.
//
//   FrameBuilder().ethernet(a, b).vlan(10).ipv4("10.0.0.1", "10.0.0.2").tcp(1234, 502, kTcpSyn).payload("x").build()
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "net/frame/address.h"
#include "net/frame/headers.h"

namespace bulkhead::net::frame {

class FrameBuilder {
 public:
  FrameBuilder& ethernet(const MacAddress& source, const MacAddress& destination);
  FrameBuilder& vlan(uint16_t id, uint8_t priority = 0, uint16_t protocol = kTypeVlan);
  FrameBuilder& type(uint16_t type);
  FrameBuilder& arp(const Arp& arp);
  FrameBuilder& ipv4(std::string_view source, std::string_view destination);
  FrameBuilder& ipv6(std::string_view source, std::string_view destination);
  FrameBuilder& fragment(const Fragment& fragment);
  FrameBuilder& protocol(uint8_t protocol);
  FrameBuilder& tcp(uint16_t source_port, uint16_t destination_port, uint8_t flags, uint32_t sequence = 1,
                    uint32_t acknowledgement = 0, uint16_t window = 65535);
  // Of a size that four divides, at most 40 bytes.
  FrameBuilder& tcp_options(ByteSpan options);
  FrameBuilder& udp(uint16_t source_port, uint16_t destination_port);
  FrameBuilder& icmp(uint8_t type, uint8_t code = 0, uint16_t identifier = 0);
  FrameBuilder& payload(std::string_view text);
  FrameBuilder& payload(ByteSpan bytes);
  [[nodiscard]] std::vector<uint8_t> build() const;

 private:
  [[nodiscard]] std::vector<uint8_t> transport() const;
  void append_ipv4(std::vector<uint8_t>& out, const std::vector<uint8_t>& transport) const;
  void append_ipv6(std::vector<uint8_t>& out, const std::vector<uint8_t>& transport) const;

  MacAddress source_{{2, 0, 0, 0, 0, 1}};
  MacAddress destination_{{2, 0, 0, 0, 0, 2}};
  std::vector<VlanTag> tags_;
  std::optional<uint16_t> type_;
  std::optional<Arp> arp_;
  std::optional<Ip> ip_;
  std::optional<uint8_t> protocol_;
  std::optional<Tcp> tcp_;
  std::vector<uint8_t> tcp_options_;
  std::optional<Udp> udp_;
  std::optional<Icmp> icmp_;
  std::vector<uint8_t> payload_;
};

}  // namespace bulkhead::net::frame
