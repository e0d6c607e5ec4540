// Which port a MAC address was last seen behind, a VLAN at a time. Its memory is fixed when it is made: an address that
// finds no room is not learned and its frames are flooded. A port fills no more than its share, so that one that floods
// made-up addresses costs the others nothing; and places are chosen by a secret, so that none can be aimed at.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "net/frame/address.h"

namespace bulkhead::net::switching {

using PortId = uint16_t;

struct MacTableLimits {
  size_t address_count = 8192;  // rounded up to a power of two
  size_t addresses_a_port = 1024;
  uint64_t age_ns = 300'000'000'000;
};

class MacTable {
 public:
  enum class Learned : uint8_t {
    kKnown,
    kNew,
    kMoved,
    kRestless,  // stays where it was: it has moved kMovesASecond times in this second, as addresses do in a loop
    kNoRoom,
  };
  static constexpr uint16_t kMovesASecond = 16;

  MacTable(const MacTableLimits& limits, uint64_t secret);

  Learned learn(uint16_t vlan, const frame::MacAddress& address, PortId port, uint64_t now_ns);
  [[nodiscard]] std::optional<PortId> find(uint16_t vlan, const frame::MacAddress& address, uint64_t now_ns) const;
  void forget_port(PortId port);
  // Drops what is too old; cheap when called too often.
  void age(uint64_t now_ns);

  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] size_t count_of(PortId port) const { return port < port_counts_.size() ? port_counts_[port] : 0; }
  [[nodiscard]] size_t memory_bytes() const { return entries_.capacity() * sizeof(Entry); }

 private:
  static constexpr size_t kWays = 8;
  // Ageing looks at everything, so not more often than this.
  static constexpr uint64_t kSweepInterval_ns = 1'000'000'000;
  struct Entry {
    uint64_t key = 0;  // VLAN above the address; 0: free
    uint64_t seen_ns = 0;
    PortId port = 0;
    uint16_t moves = 0;   // in that second
    uint32_t second = 0;  // of its last move, as far as it counts here
  };

  [[nodiscard]] static uint64_t key_of(uint16_t vlan, const frame::MacAddress& address);
  [[nodiscard]] size_t set_of(uint64_t key) const;
  [[nodiscard]] bool is_old(const Entry& entry, uint64_t now_ns) const {
    return now_ns > entry.seen_ns && now_ns - entry.seen_ns > limits_.age_ns;
  }
  void release(Entry& entry);
  [[nodiscard]] bool take_share(PortId port, uint64_t now_ns);

  const MacTableLimits limits_;
  const uint64_t secret_;
  std::vector<Entry> entries_;
  std::vector<size_t> port_counts_;
  size_t size_ = 0;
  uint64_t swept_ns_ = 0;
};

}  // namespace bulkhead::net::switching
