// A switch's way to switches of other hosts: frames as VXLAN packets (RFC 7348) inside WireGuard's encryption, to peers
// that are known by their public keys. A state machine: datagrams, frames and ticks of time go in, datagrams and frames
// come out; clock and randomness are passed in. Not thread-safe.
//
// What comes from a peer is never sent to another one (split horizon): hosts that share a network are joined each with
// each, and no frame goes round between them. Everything that a peer or a stranger feeds has a bound: sessions and
// peers are few, strangers cost a keyed hash, and under load a cookie before any public-key cryptography.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "net/switch/mac_table.h"
#include "net/switch/rate_limit.h"
#include "net/tunnel/peer.h"
#include "support/result.h"

namespace bulkhead::net::tunnel {

struct PeerConfig {
  std::string name;
  Bytes32 key{};
  std::optional<Endpoint> endpoint;  // none: it begins, from wherever it is
};

// A network that is carried. VLAN 0: untagged frames.
struct Segment {
  uint16_t vlan = 0;
  uint32_t vni = 0;
  friend bool operator==(const Segment&, const Segment&) = default;
};

struct TunnelConfig {
  static constexpr size_t kMaximumPeers = 32, kMaximumSegments = 64;
  static constexpr uint16_t kLeastPathMtu = 576;
  Secret key;
  std::vector<PeerConfig> peers;
  std::vector<Segment> segments;
  uint16_t path_mtu = 1500;
};

// What can be said without this side's key. The error names the peer or number.
Result<> check_tunnel(const TunnelConfig& config);

struct Now {
  uint64_t ns = 0;       // monotonic
  uint64_t wall_ns = 0;  // since 1970; must not fall back from one life of a host to the next
};

class TunnelOutput {
 public:
  virtual ~TunnelOutput() = default;
  virtual void transmit(const Endpoint& to, ByteSpan datagram) = 0;
  virtual void deliver(ByteSpan frame) = 0;
};

struct TunnelCounters {
  uint64_t malformed = 0;     // datagrams that are no message
  uint64_t strangers = 0;     // handshakes without knowledge of this side's public key, or of nobody's key
  uint64_t stale = 0;         // handshakes that have been seen, and words of sessions that are over
  uint64_t challenged = 0;    // handshakes that were answered with a cookie under load
  uint64_t refused = 0;       // handshakes that were not answered at all
  uint64_t not_carried = 0;   // frames of a VLAN without a VNI, or with more tags
  uint64_t too_large = 0;     // frames that no datagram holds
  uint64_t in_fragments = 0;  // datagrams larger than the path's MTU
  uint64_t clamped = 0;       // segment sizes that were lowered
  uint64_t restless = 0;      // frames of an address that jumps between peers
};

class Tunnel {
 public:
  // Handshakes a second before a cookie is asked for, and of one address behind it.
  static constexpr uint64_t kHandshakesASecond = 50, kHandshakesASource = 10;
  static constexpr size_t kSources = 256;
  // A peer begins no more often.
  static constexpr uint64_t kLeastInterval_ns = 20'000'000;
  static constexpr size_t kMaximumDatagram = 65507;
  static constexpr size_t kMaximumFrame = kMaximumDatagram - sizeof(DataHeader) - kTagSize - kEnvelopeSize - kPadding;

  // random outlives the tunnel. The error names the peer or number.
  static Result<std::unique_ptr<Tunnel>> create(const TunnelConfig& config, RandomSource& random);

  // A frame from the switch, whole and with right checksums; changed in passing.
  void send(MutableByteSpan frame, const Now& now, TunnelOutput& output);
  // The datagram is opened in its place.
  void receive(const Endpoint& from, MutableByteSpan datagram, const Now& now, TunnelOutput& output);
  // Handshakes, keepalives and ends of sessions that are due: to be called each half second.
  void run_timers(const Now& now, TunnelOutput& output);

  [[nodiscard]] const Bytes32& public_key() const { return own_.public_key; }
  [[nodiscard]] std::span<const std::unique_ptr<Peer>> peers() const { return peers_; }
  [[nodiscard]] const TunnelCounters& counters() const { return counters_; }
  // What a card's MTU can be so that its frames travel in one datagram each.
  [[nodiscard]] uint16_t mtu() const { return mtu_; }
  // Text for an operator: this side, then a line a peer.
  [[nodiscard]] std::string describe(const Now& now) const;

 private:
  using PeerId = switching::PortId;

  Tunnel(const TunnelConfig& config, RandomSource& random);
  // Random, with the peer in its last bits.
  [[nodiscard]] uint32_t new_index(PeerId peer);
  [[nodiscard]] Peer* peer_of(uint32_t index) const;
  void send_to(PeerId peer, ByteSpan frame, uint32_t vni, const Now& now, TunnelOutput& output);
  // Seals what lies behind the header's place in outgoing_ and sends it.
  void seal_and_send(PeerId peer, Session& session, size_t packet_size, const Now& now, TunnelOutput& output);
  void send_keepalive(PeerId peer, const Now& now, TunnelOutput& output);
  void send_initiation(PeerId peer, const Now& now, TunnelOutput& output);

  // False when it is not worth public-key cryptography.
  [[nodiscard]] bool admit(const Endpoint& from, ByteSpan message, uint32_t sender, const Now& now,
                           TunnelOutput& output);
  void on_initiation(const Endpoint& from, ByteSpan datagram, const Now& now, TunnelOutput& output);
  void on_response(const Endpoint& from, ByteSpan datagram, const Now& now, TunnelOutput& output);
  void on_cookie(ByteSpan datagram, const Now& now);
  void on_data(const Endpoint& from, MutableByteSpan datagram, const Now& now, TunnelOutput& output);
  void deliver(PeerId peer, MutableByteSpan packet, const Now& now, TunnelOutput& output);
  [[nodiscard]] Timestamp next_timestamp(const Now& now);

  const Identity own_;
  const MacKeys own_macs_;
  const frame::IpAddress own_address_;
  const uint16_t path_mtu_;
  const uint16_t mtu_;  // of frames that fit
  const std::vector<Segment> segments_;
  RandomSource& random_;
  std::vector<std::unique_ptr<Peer>> peers_;
  switching::MacTable addresses_;
  CookieGiver cookies_;
  switching::RateLimit calm_{kHandshakesASecond, kHandshakesASecond};
  switching::RateLimit replies_{1000, 1000};
  // By a secret hash of the address: who shares one shares its tokens.
  std::array<switching::RateLimit, kSources> sources_;
  Secret source_secret_;
  Timestamp latest_{};
  std::vector<uint8_t> outgoing_;
  TunnelCounters counters_;
};

}  // namespace bulkhead::net::tunnel
