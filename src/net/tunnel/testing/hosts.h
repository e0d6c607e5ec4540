// Hosts with a tunnel each, and a path between them that a test holds in its hands: it loses, repeats and reorders what
// it likes. Time stands still until it is moved.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "net/tunnel/tunnel.h"

namespace bulkhead::net::tunnel {

using Frame = std::vector<uint8_t>;

struct Datagram {
  Endpoint from, to;
  Frame bytes;
};

inline Endpoint endpoint_of(uint8_t number) {
  const std::array<uint8_t, 4> bytes{192, 0, 2, number};
  return {.address = frame::IpAddress::v4(bytes), .port = 51820};
}

class Path;

// One host: what its tunnel says goes onto the path.
struct Host final : TunnelOutput {
  Host(Path& path_of_host, const Endpoint& at, const TunnelConfig& config, uint64_t seed)
      : path(path_of_host), endpoint(at), random(seed), tunnel(Tunnel::create(config, random).value()) {}
  void transmit(const Endpoint& to, ByteSpan datagram) override;
  void deliver(ByteSpan frame) override { delivered.emplace_back(frame.begin(), frame.end()); }
  void send(Frame frame);
  void tick();
  [[nodiscard]] const Peer& peer(size_t number = 0) const { return *tunnel->peers()[number]; }
  [[nodiscard]] std::vector<Frame> take() { return std::exchange(delivered, {}); }

  Path& path;
  Endpoint endpoint;
  SeededRandom random;
  std::unique_ptr<Tunnel> tunnel;
  std::vector<Frame> delivered;
};

class Path {
 public:
  Now now{.ns = 1'000'000'000'000, .wall_ns = 1'700'000'000'000'000'000};
  std::vector<Host*> hosts;
  std::deque<Datagram> waiting;
  std::vector<Datagram> seen;  // of all times

  void advance(uint64_t ns) {
    now.ns += ns;
    now.wall_ns += ns;
  }
  void carry(const Datagram& datagram) {
    for (Host* const host : hosts) {
      if (host->endpoint != datagram.to) continue;
      Frame bytes = datagram.bytes;
      host->tunnel->receive(datagram.from, bytes, now, *host);
    }
  }
  // Until nobody says anything more.
  void settle() {
    for (unsigned count = 0; !waiting.empty() && count < 1000; ++count) {
      const Datagram next = std::move(waiting.front());
      waiting.pop_front();
      carry(next);
    }
  }
  // A tick at a time, with what is due.
  void run(uint64_t duration_ns, uint64_t tick_ns = 500'000'000) {
    for (const uint64_t end = now.ns + duration_ns; now.ns < end;) {
      advance(tick_ns);
      for (Host* const host : hosts) host->tick();
      settle();
    }
  }
};

inline void Host::transmit(const Endpoint& to, ByteSpan datagram) {
  path.waiting.push_back({.from = endpoint, .to = to, .bytes = Frame(datagram.begin(), datagram.end())});
  path.seen.push_back(path.waiting.back());
}
inline void Host::send(Frame frame) {
  tunnel->send(frame, path.now, *this);
}
inline void Host::tick() {
  tunnel->run_timers(path.now, *this);
}

inline Secret secret_of(uint8_t number) {
  SeededRandom random(number);
  return make_private_key(random);
}

// Of host number, which knows the others by key and address; untagged frames are VNI 100, VLAN 10 is VNI 5010.
inline TunnelConfig config_of(uint8_t number, std::initializer_list<uint8_t> others) {
  TunnelConfig config{.key = secret_of(number), .peers = {}, .segments = {{0, 100}, {10, 5010}}};
  for (const uint8_t other : others) {
    config.peers.push_back(
        {.name = fmt::format("host{}", other), .key = public_key_of(secret_of(other)), .endpoint = endpoint_of(other)});
  }
  return config;
}

}  // namespace bulkhead::net::tunnel
