// Which fragmented packets were let through, by their first fragment, which alone has ports. Nothing is put together
// here: a later fragment passes when its packet's first one did, and only behind the bytes that were judged, so that it
// cannot write over them (RFC 1858, RFC 5722). One that comes before its first is dropped; its sender repeats it.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "net/policy/flow.h"

namespace bulkhead::net::policy {

class FragmentTable {
 public:
  static constexpr size_t kMaximumPackets = 4096;
  static constexpr size_t kPacketsAPort = 512;
  static constexpr uint64_t kLifetime_ns = 30'000'000'000;

  explicit FragmentTable(uint64_t secret) : packets_(0, Hash{secret}) {}

  // The first fragment was let through. False when there is no room: it must be dropped, for the rest would be.
  [[nodiscard]] bool begin(const frame::Ip& ip, uint16_t vlan, uint16_t from, uint16_t to, uint64_t now_ns);
  [[nodiscard]] bool continues(const frame::Ip& ip, uint16_t vlan, uint16_t from, uint16_t to, uint64_t now_ns) const;
  [[nodiscard]] size_t size() const { return packets_.size(); }
  void forget_port(uint16_t port);
  void clear();

 private:
  static constexpr uint64_t kSweepInterval_ns = 1'000'000'000;
  struct Key {
    FlowKey flow;  // in its own direction, without ports
    uint32_t identification;
    uint16_t from;
    uint16_t to;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct Hash {
    uint64_t secret;
    size_t operator()(const Key& key) const {
      return key.flow.hash(secret ^ (uint64_t{key.identification} << 32 | uint64_t{key.from} << 16 | key.to));
    }
  };
  struct Packet {
    uint64_t expires_ns;
    uint32_t judged_size;  // bytes from the start that the first fragment held
  };
  [[nodiscard]] static Key key_of(const frame::Ip& ip, uint16_t vlan, uint16_t from, uint16_t to);
  void sweep(uint64_t now_ns);

  std::unordered_map<Key, Packet, Hash> packets_;
  std::unordered_map<uint16_t, size_t> port_counts_;
  uint64_t swept_ns_ = 0;
};

}  // namespace bulkhead::net::policy
