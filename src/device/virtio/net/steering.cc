#include "device/virtio/net/steering.h"

#include <algorithm>
#include <bit>

#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;
using net::frame::Headers, net::frame::Family;

namespace {

// Both addresses and perhaps both ports, as the hash wants them: in network order, the sender's first.
struct HashInput {
  std::array<uint8_t, 36> bytes{};
  size_t size = 0;
  void add(ByteSpan part) {
    std::ranges::copy(part, bytes.begin() + static_cast<ptrdiff_t>(size));
    size += part.size();
  }
  void add_port(uint16_t port) {
    const std::array<uint8_t, 2> big = {static_cast<uint8_t>(port >> 8), static_cast<uint8_t>(port)};
    add(big);
  }
};

}  // namespace

uint32_t Steering::hash(const std::array<uint8_t, kKeySize>& key, ByteSpan input) {
  uint32_t result = 0;
  uint64_t window = 0;  // the key's next 64 bits, from its first
  for (size_t i = 0; i < 8; ++i) window = window << 8 | key[i];
  size_t next = 8;
  for (const uint8_t byte : input) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      if ((byte & (0x80u >> bit)) != 0) result ^= static_cast<uint32_t>(window >> (32 - bit));
    }
    window = window << 8 | (next < key.size() ? key[next] : 0);
    ++next;
  }
  return result;
}

size_t Steering::flow_of(const Headers& headers) {
  if (!headers.ip) return 0;
  // The same for both directions.
  uint32_t sum = 0;
  for (size_t i = 0; i < headers.ip->source.bytes.size(); ++i) {
    sum += static_cast<uint32_t>(headers.ip->source.bytes[i] + headers.ip->destination.bytes[i]) << 8 * (i % 3);
  }
  if (headers.tcp) sum += uint32_t{headers.tcp->source_port} + headers.tcp->destination_port;
  if (headers.udp) sum += uint32_t{headers.udp->source_port} + headers.udp->destination_port;
  sum *= 0x9E3779B1u;
  return sum >> 24;
}

uint16_t Steering::choose(ByteSpan frame) const {
  if (active_pairs_ == 1) return 0;
  const Headers headers = net::frame::read_headers(frame);
  if (scaling_.table.empty()) return std::min<uint16_t>(flows_[flow_of(headers)], active_pairs_ - 1);
  const auto enabled = [&](uint32_t type) { return (scaling_.hash_types & type) != 0; };
  bool with_ports = false, with_addresses = false;
  if (headers.fault == net::frame::Fault::kNone && headers.ip) {
    const bool v4 = headers.ip->source.family == Family::kIpv4;
    const bool whole = !headers.ip->fragment;
    with_ports = whole && ((headers.tcp && enabled(v4 ? kNetHashTcpIpv4 : kNetHashTcpIpv6)) ||
                           (headers.udp && enabled(v4 ? kNetHashUdpIpv4 : kNetHashUdpIpv6)));
    with_addresses = with_ports || enabled(v4 ? kNetHashIpv4 : kNetHashIpv6);
  }
  if (!with_addresses) return std::min<uint16_t>(scaling_.unclassified, active_pairs_ - 1);
  HashInput input;
  const size_t address_size = headers.ip->source.bit_count() / 8;
  input.add(ByteSpan(headers.ip->source.bytes).first(address_size));
  input.add(ByteSpan(headers.ip->destination.bytes).first(address_size));
  if (with_ports) {
    input.add_port(headers.tcp ? headers.tcp->source_port : headers.udp->source_port);
    input.add_port(headers.tcp ? headers.tcp->destination_port : headers.udp->destination_port);
  }
  const uint32_t hashed = hash(scaling_.key, ByteSpan(input.bytes).first(input.size));
  return std::min<uint16_t>(scaling_.table[hashed & (scaling_.table.size() - 1)], active_pairs_ - 1);
}

void Steering::note_sent(ByteSpan frame, uint16_t pair) {
  if (active_pairs_ == 1 || !scaling_.table.empty()) return;
  flows_[flow_of(net::frame::read_headers(frame))] = static_cast<uint8_t>(pair);
}

bool Steering::set_pairs(uint16_t pairs) {
  if (pairs == 0 || pairs > maximum_pairs_) return false;
  active_pairs_ = pairs;
  // Steering by flow ends scaling (5.1.6.5.5).
  scaling_ = {};
  return true;
}

// hash types, table mask, unclassified, table, most transmit queues, key size, key (5.1.6.5.7.1).
bool Steering::set_scaling(ByteSpan command) {
  constexpr size_t kTableAt = 8;
  if (command.size() < kTableAt) return false;
  Scaling made{.hash_types = load<uint32_t>(command.data()), .unclassified = load<uint16_t>(command.data() + 6)};
  const size_t count = size_t{load<uint16_t>(command.data() + 4)} + 1;
  if ((made.hash_types & ~kNetHashTypes) != 0 || count > kMaximumTable || !std::has_single_bit(count)) return false;
  const size_t behind = kTableAt + 2 * count;
  if (command.size() < behind + 3) return false;
  for (size_t i = 0; i < count; ++i) made.table.push_back(load<uint16_t>(command.data() + kTableAt + 2 * i));
  const auto pairs = load<uint16_t>(command.data() + behind);
  const size_t key_size = command[behind + 2];
  if (key_size > kKeySize || command.size() != behind + 3 + key_size) return false;
  std::ranges::copy(command.subspan(behind + 3), made.key.begin());
  if (pairs == 0 || pairs > maximum_pairs_ || made.unclassified >= maximum_pairs_) return false;
  if (std::ranges::any_of(made.table, [&](uint16_t pair) { return pair >= maximum_pairs_; })) return false;
  // Receive queues are those of the table, transmit queues as many as said.
  active_pairs_ = std::max<uint16_t>(pairs, static_cast<uint16_t>(std::ranges::max(made.table) + 1));
  active_pairs_ = std::max<uint16_t>(active_pairs_, static_cast<uint16_t>(made.unclassified + 1));
  scaling_ = std::move(made);
  return true;
}

void Steering::reset() {
  active_pairs_ = 1;
  scaling_ = {};
  flows_ = {};
}

void Steering::save_state(StateWriter& writer) const {
  std::vector<uint8_t> table;
  for (const uint16_t pair : scaling_.table) table.push_back(static_cast<uint8_t>(pair));
  writer.put("pairs", active_pairs_)
      .put("hash-types", scaling_.hash_types)
      .put("unclassified", scaling_.unclassified)
      .put_bytes("table", table)
      .put_bytes("key", scaling_.key);
}

Result<> Steering::restore_state(const StateReader& reader) {
  const auto pairs = static_cast<uint16_t>(TRY(reader.get("pairs", maximum_pairs_)));
  Scaling made{.hash_types = static_cast<uint32_t>(TRY(reader.get("hash-types", kNetHashTypes))),
               .unclassified = static_cast<uint16_t>(TRY(reader.get("unclassified", maximum_pairs_ - 1u)))};
  const ByteSpan table = TRY(reader.get_bytes_up_to("table", kMaximumTable));
  const ByteSpan key = TRY(reader.get_bytes("key", kKeySize));
  if (pairs == 0) return fail("{}: no pair of queues", reader.path());
  if (!table.empty() && !std::has_single_bit(table.size())) {
    return fail("{}: a table of {} places", reader.path(), table.size());
  }
  for (const uint8_t pair : table) {
    if (pair >= maximum_pairs_) return fail("{}: a table with queue pair {}", reader.path(), pair);
    made.table.push_back(pair);
  }
  std::ranges::copy(key, made.key.begin());
  active_pairs_ = pairs;
  scaling_ = std::move(made);
  flows_ = {};
  return {};
}

}  // namespace bulkhead::device::virtio
