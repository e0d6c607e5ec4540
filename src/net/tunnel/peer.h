// What a tunnel keeps of another host: up to three sessions (the one in use, the one before it, and one that the other
// side has not used yet), a handshake under way, and when something was last sent and heard.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "net/tunnel/cookies.h"
#include "net/tunnel/handshake.h"
#include "net/tunnel/replay_window.h"
#include "net/tunnel/vxlan.h"

namespace bulkhead::net::tunnel {

// Whitepaper, section 6.1.
inline constexpr uint64_t kSecond_ns = 1'000'000'000;
inline constexpr uint64_t kRekeyAfter_ns = 120 * kSecond_ns, kRejectAfter_ns = 180 * kSecond_ns;
inline constexpr uint64_t kRekeyTimeout_ns = 5 * kSecond_ns, kKeepaliveTimeout_ns = 10 * kSecond_ns;
inline constexpr uint64_t kRekeyAfterMessages = uint64_t{1} << 60, kRejectAfterMessages = UINT64_MAX - (1u << 13);
// So long after a frame was sent and nothing came, the session is taken for lost.
inline constexpr uint64_t kDeadAfter_ns = kKeepaliveTimeout_ns + kRekeyTimeout_ns;

struct Session {
  Session(uint32_t local_index, uint32_t remote_index, const SessionKeys& keys, bool initiator, uint64_t now_ns)
      : local(local_index),
        remote(remote_index),
        is_initiator(initiator),
        born_ns(now_ns),
        sealing(keys.send),
        opening(keys.receive) {}
  [[nodiscard]] uint64_t age_ns(uint64_t now_ns) const { return now_ns - born_ns; }
  [[nodiscard]] bool is_usable(uint64_t now_ns) const {
    return age_ns(now_ns) < kRejectAfter_ns && next_counter < kRejectAfterMessages;
  }

  uint32_t local, remote;
  bool is_initiator;
  uint64_t born_ns;
  Aead sealing, opening;
  uint64_t next_counter = 0;
  ReplayWindow window;
};

struct PeerCounters {
  uint64_t sent_frames = 0, sent_bytes = 0;
  uint64_t received_frames = 0, received_bytes = 0;
  uint64_t handshakes = 0;
  uint64_t no_session = 0;  // frames that were lost for want of one
  uint64_t replayed = 0;    // datagrams that came again, or far too late
  uint64_t forged = 0;      // that name a session and are not sealed with its key
  uint64_t refused = 0;     // packets that are no frames of a known network, and frames that must not come from outside
};

struct Peer {
  Peer(std::string peer_name, const Bytes32& public_key, const Secret& shared_secret,
       const std::optional<Endpoint>& known_endpoint)
      : name(std::move(peer_name)),
        key(public_key),
        shared(shared_secret),
        macs(public_key),
        address(address_of_key(public_key)),
        endpoint(known_endpoint),
        home(known_endpoint) {}

  [[nodiscard]] Session* find(uint32_t local_index);
  // What frames are sent under.
  [[nodiscard]] Session* usable(uint64_t now_ns) const {
    return current && current->is_usable(now_ns) ? current.get() : nullptr;
  }
  // The first word under a session that the other side began.
  void confirm();
  void begin(std::unique_ptr<Session> made);
  void note_sent(uint64_t now_ns, bool is_frame);
  void note_heard(uint64_t now_ns);
  [[nodiscard]] bool is_lost(uint64_t now_ns) const {
    return unanswered_ns && now_ns - *unanswered_ns >= kDeadAfter_ns;
  }
  [[nodiscard]] bool wants_handshake(uint64_t now_ns) const;

  const std::string name;
  const Bytes32 key;
  const Secret shared;  // the agreement of both static keys
  const MacKeys macs;
  const frame::IpAddress address;  // inside the tunnel
  // Where it was last heard of, and where it is at home: a handshake goes to both, or whoever repeats a datagram from
  // elsewhere and then is silent would have taken the peer away.
  std::optional<Endpoint> endpoint;
  const std::optional<Endpoint> home;

  std::unique_ptr<Session> current, previous, next;
  std::optional<Initiation> pending;
  Mac pending_mac1{};
  uint64_t attempt_ns = 0;  // no handshake before
  std::optional<Mac> cookie;
  uint64_t cookie_ns = 0;
  std::optional<Timestamp> latest;  // that it began a handshake with
  uint64_t accepted_ns = 0;

  std::optional<uint64_t> heard_ns;
  uint64_t sent_ns = 0;
  std::optional<uint64_t> unanswered_ns;  // the first frame since anything was heard
  PeerCounters counters;
};

}  // namespace bulkhead::net::tunnel
