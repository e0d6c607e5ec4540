#include "net/switch/mac_table.h"

#include <bit>

namespace bulkhead::net::switching {
namespace {

constexpr uint64_t kSecond_ns = 1'000'000'000;

}  // namespace

MacTable::MacTable(const MacTableLimits& limits, uint64_t secret)
    : limits_(limits), secret_(secret | 1), entries_(std::bit_ceil(std::max(limits.address_count, kWays))) {}

uint64_t MacTable::key_of(uint16_t vlan, const frame::MacAddress& address) {
  return uint64_t{vlan} << 48 | address.number();
}

size_t MacTable::set_of(uint64_t key) const {
  const unsigned __int128 product = static_cast<unsigned __int128>(key ^ secret_) * (secret_ ^ 0x9E37'79B9'7F4A'7C15);
  const auto mixed = static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  return (mixed & (entries_.size() / kWays - 1)) * kWays;
}

void MacTable::release(Entry& entry) {
  --port_counts_[entry.port];
  --size_;
  entry = {};
}

bool MacTable::take_share(PortId port, uint64_t now_ns) {
  if (port >= port_counts_.size()) port_counts_.resize(port + size_t{1});
  if (port_counts_[port] >= limits_.addresses_a_port) age(now_ns);
  return port_counts_[port] < limits_.addresses_a_port;
}

MacTable::Learned MacTable::learn(uint16_t vlan, const frame::MacAddress& address, PortId port, uint64_t now_ns) {
  const uint64_t key = key_of(vlan, address);
  Entry* const set = entries_.data() + set_of(key);
  Entry* room = nullptr;
  for (size_t way = 0; way < kWays; ++way) {
    Entry& entry = set[way];
    if (entry.key == key && entry.port == port) {
      entry.seen_ns = now_ns;
      return Learned::kKnown;
    }
    if (entry.key == key) {
      const auto second = static_cast<uint32_t>(now_ns / kSecond_ns);
      const uint16_t moves = entry.second == second ? entry.moves : uint16_t{0};
      if (moves >= kMovesASecond) return Learned::kRestless;
      if (!take_share(port, now_ns)) return Learned::kNoRoom;
      // Ageing may have taken the entry itself.
      if (entry.key == key) release(entry);
      entry = {
          .key = key, .seen_ns = now_ns, .port = port, .moves = static_cast<uint16_t>(moves + 1), .second = second};
      ++port_counts_[port];
      ++size_;
      return Learned::kMoved;
    }
    if (room == nullptr && (entry.key == 0 || is_old(entry, now_ns))) room = &entry;
  }
  if (room == nullptr || !take_share(port, now_ns)) return Learned::kNoRoom;
  if (room->key != 0) release(*room);
  *room = {.key = key, .seen_ns = now_ns, .port = port};
  ++port_counts_[port];
  ++size_;
  return Learned::kNew;
}

std::optional<PortId> MacTable::find(uint16_t vlan, const frame::MacAddress& address, uint64_t now_ns) const {
  const uint64_t key = key_of(vlan, address);
  const Entry* const set = entries_.data() + set_of(key);
  for (size_t way = 0; way < kWays; ++way) {
    if (set[way].key == key && !is_old(set[way], now_ns)) return set[way].port;
  }
  return std::nullopt;
}

void MacTable::forget_port(PortId port) {
  for (Entry& entry : entries_) {
    if (entry.key != 0 && entry.port == port) release(entry);
  }
}

void MacTable::age(uint64_t now_ns) {
  if (swept_ns_ != 0 && now_ns - swept_ns_ < kSweepInterval_ns) return;
  swept_ns_ = now_ns;
  for (Entry& entry : entries_) {
    if (entry.key != 0 && is_old(entry, now_ns)) release(entry);
  }
}

}  // namespace bulkhead::net::switching
