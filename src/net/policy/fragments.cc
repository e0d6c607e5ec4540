#include "net/policy/fragments.h"

#include <algorithm>

namespace bulkhead::net::policy {

FragmentTable::Key FragmentTable::key_of(const frame::Ip& ip, uint16_t vlan, uint16_t from, uint16_t to) {
  return {.flow = {.low = ip.source, .high = ip.destination, .vlan = vlan, .protocol = ip.protocol},
          .identification = ip.fragment->identification,
          .from = from,
          .to = to};
}

bool FragmentTable::begin(const frame::Ip& ip, uint16_t vlan, uint16_t from, uint16_t to, uint64_t now_ns) {
  const Packet packet{.expires_ns = now_ns + kLifetime_ns, .judged_size = static_cast<uint32_t>(ip.payload_size)};
  const Key key = key_of(ip, vlan, from, to);
  if (const auto found = packets_.find(key); found != packets_.end()) {
    found->second = {packet.expires_ns, std::max(found->second.judged_size, packet.judged_size)};
    return true;
  }
  if (packets_.size() >= kMaximumPackets || port_counts_[from] >= kPacketsAPort) sweep(now_ns);
  if (packets_.size() >= kMaximumPackets || port_counts_[from] >= kPacketsAPort) return false;
  packets_.emplace(key, packet);
  ++port_counts_[from];
  return true;
}

bool FragmentTable::continues(const frame::Ip& ip, uint16_t vlan, uint16_t from, uint16_t to, uint64_t now_ns) const {
  const auto found = packets_.find(key_of(ip, vlan, from, to));
  return found != packets_.end() && found->second.expires_ns > now_ns &&
         ip.fragment->offset >= found->second.judged_size;
}

void FragmentTable::sweep(uint64_t now_ns) {
  if (swept_ns_ != 0 && now_ns - swept_ns_ < kSweepInterval_ns) return;
  swept_ns_ = now_ns;
  std::erase_if(packets_, [&](const auto& entry) {
    if (entry.second.expires_ns > now_ns) return false;
    --port_counts_[entry.first.from];
    return true;
  });
}

void FragmentTable::forget_port(uint16_t port) {
  std::erase_if(packets_, [&](const auto& entry) {
    if (entry.first.from != port && entry.first.to != port) return false;
    --port_counts_[entry.first.from];
    return true;
  });
  port_counts_.erase(port);
}

void FragmentTable::clear() {
  packets_.clear();
  port_counts_.clear();
}

}  // namespace bulkhead::net::policy
