// Who speaks with whom: the addresses and ports of a packet, and a key that is the same in both directions.
#pragma once

#include <cstdint>
#include <optional>

#include "net/frame/headers.h"
#include "net/frame/quoted.h"

namespace bulkhead::net::policy {

struct Flow {
  frame::IpAddress source;
  frame::IpAddress destination;
  uint8_t protocol = 0;
  uint16_t source_port = 0;  // of an echo: its identifier, in both
  uint16_t destination_port = 0;

  // Nothing for a packet without ports: other protocols, later fragments, ICMP that is no echo.
  [[nodiscard]] static std::optional<Flow> of(const frame::Headers& headers);
  [[nodiscard]] static Flow of(const frame::Quoted& quoted);
  [[nodiscard]] Flow reversed() const { return {destination, source, protocol, destination_port, source_port}; }
  friend bool operator==(const Flow&, const Flow&) = default;
};

// Between two ports of the switch, which stand in two zones.
struct Path {
  uint16_t vlan = 0;
  uint16_t from = 0, to = 0;
  uint16_t from_zone = 0, to_zone = 0;
  bool is_flooded = false;  // whether it is for this port nobody knows, only that it is for this zone

  [[nodiscard]] Path reversed() const { return {vlan, to, from, to_zone, from_zone}; }
};

// The lesser end first.
struct FlowKey {
  frame::IpAddress low;
  frame::IpAddress high;
  uint16_t low_port = 0;
  uint16_t high_port = 0;
  uint16_t vlan = 0;
  uint8_t protocol = 0;

  [[nodiscard]] static FlowKey of(const Flow& flow, uint16_t vlan);
  [[nodiscard]] uint64_t hash(uint64_t secret) const;
  friend bool operator==(const FlowKey&, const FlowKey&) = default;
};

}  // namespace bulkhead::net::policy
