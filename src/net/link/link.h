// What a card can be plugged into on this host, by the words of a user: user-mode NAT, a tap device,
// a switch in this process, a network without anybody else, or nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/frame/address.h"
#include "net/port.h"
#include "support/result.h"

namespace bulkhead::net::link {

// A port of the host that leads to one of the guest: "tcp:127.0.0.1:8080:80", or where there are several guests
// "tcp:127.0.0.1:8080:10.77.0.10:80".
struct Forward {
  bool udp = false;
  std::string address;
  uint16_t host_port = 0;
  uint16_t guest_port = 0;
  std::string guest = {};  // an address; empty: the only guest's
  friend bool operator==(const Forward&, const Forward&) = default;
};
Result<Forward> parse_forward(std::string_view text);

struct LinkConfig {
  enum class Kind : uint8_t { kNone, kIsolated, kNat, kTap, kSwitch, kPort };
  Kind kind = Kind::kNone;
  std::vector<Forward> forwards;  // of kNat
  bool reach_host = false;        // of kNat: the gateway's address leads to the host's own loopback
  // Of kNat: the guests' own IPv4 network, its gateway and its name server; without it 10.0.2.0/24.
  std::optional<frame::IpPrefix> network;
  frame::IpAddress gateway, names;
  std::string tap;     // the device's name
  std::string fabric;  // of kSwitch: its name
  uint16_t vlan = 1;   // of kSwitch
  std::string socket;  // of kPort: where a switch in another process speaks vhost-user
  static constexpr size_t kMaximumForwards = 32;
};

struct LinkCounters {
  uint64_t to_guest_dropped = 0;  // frames for which the card had no room
};

class Link : public Port {
 public:
  [[nodiscard]] virtual LinkCounters counters() const = 0;
};

class Fabrics;

// For the card of this address. Its threads run as long as it lives. The error names what the host refused.
Result<std::unique_ptr<Link>> open_link(const LinkConfig& config, const frame::MacAddress& mac, Fabrics& fabrics);

}  // namespace bulkhead::net::link
