// A hostile set of ports: any frames in any order, ports that come and go, time that passes. Tables stay bounded, VLANs
// stay apart, and no frame comes back to its sender.
#include "net/switch/virtual_switch.h"
#include "support/check.h"

namespace bulkhead::net::switching {
namespace {

// Which VLANs a group of the world below carries, by its number.
constexpr uint16_t kAccessVlan[] = {10, 20};

struct Watch final : Output {
  void deliver(PortId port, const OutputFrame& frame) override {
    CHECK(port != from, "a frame comes back to its sender");
    CHECK(frame.size() <= frame_size + frame::kVlanTagSize, "a frame grows by one tag at most");
    // Ports 0 and 1 are in VLAN 10, 2 and 3 in VLAN 20, without a way between them.
    CHECK(from > 3 || port > 3 || from / 2 == port / 2, "a frame crosses VLANs");
    (void)frame.bytes();
  }
  PortId from = 0;
  size_t frame_size = 0;
};

void run(ByteSpan input) {
  VirtualSwitch fabric({.address_count = 64, .addresses_a_port = 16}, 7);
  (void)fabric.add_group({.vlan = kAccessVlan[0], .forged_mac = Permission::kAllow}).value();
  (void)fabric.add_group({.vlan = kAccessVlan[1], .broadcast_frames_a_second = 5}).value();
  VlanSet both;
  both.set(10).set(20);
  (void)fabric.add_group({.mode = VlanMode::kTrunk, .allowed_vlans = both, .native_vlan = 10}).value();
  (void)fabric.add_group({.mode = VlanMode::kTunnel, .vlan = 20, .promiscuous = Permission::kAllow}).value();
  for (uint16_t i = 0; i < 8; ++i) {
    PortConfig config{.group = static_cast<GroupId>(i / 2), .promiscuous = i == 7};
    if (i == 2) config.mac = frame::MacAddress{{2, 0, 0, 0, 0, 2}};
    if (i == 3) config.ip_addresses.push_back(frame::IpAddress{});
    CHECK(fabric.add_port(config).value() == i, "ports count up");
  }
  Watch watch;
  uint64_t now = 1;
  while (input.size() >= 4) {
    const uint8_t operation = input[0];
    const PortId port = input[1] % 8;
    const size_t size = std::min<size_t>(input[2], input.size() - 4);
    now += uint64_t{input[3]} << (operation & 0x1F);
    const ByteSpan frame = input.subspan(4, size);
    input = input.subspan(4 + size);
    if (operation == 0xFF) {
      if (port == 5) fabric.clear_mirrors();
      if (port > 5) (void)fabric.add_mirror({.ports = {4}, .groups = {1}, .target = port});
      continue;
    }
    watch.from = port;
    watch.frame_size = frame.size();
    fabric.forward(port, frame, now, watch);
    CHECK(fabric.addresses().size() <= 64 && fabric.addresses().count_of(port) <= 16, "the table is bounded");
  }
}

}  // namespace
}  // namespace bulkhead::net::switching

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bulkhead::net::switching::run({data, size});
  return 0;
}
