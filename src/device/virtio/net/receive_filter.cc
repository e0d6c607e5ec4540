#include "device/virtio/net/receive_filter.h"

#include <algorithm>
#include <array>

#include "net/frame/headers.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;
using net::frame::MacAddress;

namespace {

// A count and so many addresses off the front of the table; more than are kept are counted only.
bool take_addresses(ByteSpan& table, std::vector<MacAddress>& addresses, bool& too_many) {
  if (table.size() < sizeof(uint32_t)) return false;
  const uint64_t size = uint64_t{load<uint32_t>(table.data())} * MacAddress::kSize;
  table = table.subspan(sizeof(uint32_t));
  if (size > table.size()) return false;
  too_many = size > ReceiveFilter::kMaximumAddresses * MacAddress::kSize;
  addresses.clear();
  for (size_t at = 0; at < size && !too_many; at += MacAddress::kSize) {
    addresses.push_back(MacAddress::from(table.subspan(at)));
  }
  table = table.subspan(static_cast<size_t>(size));
  return true;
}

std::vector<uint8_t> bytes_of(const std::vector<MacAddress>& addresses) {
  std::vector<uint8_t> bytes;
  for (const MacAddress& each : addresses) bytes.insert(bytes.end(), each.bytes.begin(), each.bytes.end());
  return bytes;
}

Result<std::vector<MacAddress>> read_addresses(const StateReader& reader, std::string_view name) {
  const ByteSpan bytes = TRY(reader.get_bytes_up_to(name, ReceiveFilter::kMaximumAddresses * MacAddress::kSize));
  if (bytes.size() % MacAddress::kSize != 0) return fail("{}: {} of {} bytes", reader.path(), name, bytes.size());
  std::vector<MacAddress> addresses;
  for (size_t at = 0; at < bytes.size(); at += MacAddress::kSize)
    addresses.push_back(MacAddress::from(bytes.subspan(at)));
  return addresses;
}

}  // namespace

bool ReceiveFilter::wants(ByteSpan frame, const MacAddress& own) const {
  if (modes_.promiscuous) return true;
  const net::frame::Ethernet ethernet = net::frame::read_ethernet(frame);
  if (ethernet.fault != net::frame::Fault::kNone) return false;
  if (modes_.names_vlans && ethernet.vlan_tag_count != 0 && ethernet.vlan_tags[0].protocol == net::frame::kTypeVlan) {
    // VLAN 0 is a priority and no VLAN.
    const uint16_t vlan = ethernet.vlan_tags[0].id;
    if (vlan != 0 && !vlans_.test(vlan)) return false;
  }
  const MacAddress& to = ethernet.destination;
  if (to.is_broadcast()) return !modes_.no_broadcast;
  if (to.is_group()) {
    if (modes_.no_multicast) return false;
    return modes_.all_multicast || modes_.too_many_multicast || std::ranges::find(multicast_, to) != multicast_.end();
  }
  if (modes_.no_unicast) return false;
  return to == own || modes_.all_unicast || modes_.too_many_unicast ||
         std::ranges::find(unicast_, to) != unicast_.end();
}

bool ReceiveFilter::set_mode(uint8_t command, bool on) {
  const std::array<bool*, 6> kModes = {&modes_.promiscuous,  &modes_.all_multicast, &modes_.all_unicast,
                                       &modes_.no_multicast, &modes_.no_unicast,    &modes_.no_broadcast};
  if (command >= kModes.size()) return false;
  *kModes[command] = on;
  return true;
}

bool ReceiveFilter::set_addresses(ByteSpan table) {
  std::vector<MacAddress> unicast, multicast;
  bool too_many_unicast = false, too_many_multicast = false;
  if (!take_addresses(table, unicast, too_many_unicast) || !take_addresses(table, multicast, too_many_multicast) ||
      !table.empty()) {
    return false;
  }
  unicast_ = std::move(unicast);
  multicast_ = std::move(multicast);
  modes_.too_many_unicast = too_many_unicast;
  modes_.too_many_multicast = too_many_multicast;
  return true;
}

bool ReceiveFilter::change_vlan(uint8_t command, uint16_t vlan) {
  if (vlan >= kVlanCount || command > kNetControlVlanDelete) return false;
  vlans_.set(vlan, command == kNetControlVlanAdd);
  return true;
}

void ReceiveFilter::reset(bool names_vlans) {
  modes_ = {.names_vlans = names_vlans};
  unicast_.clear();
  multicast_.clear();
  vlans_.reset();
}

// ---- Saved state ----

uint64_t ReceiveFilter::mode_bits() const {
  uint64_t bits = 0;
  unsigned place = 0;
  for (const bool mode :
       {modes_.promiscuous, modes_.all_multicast, modes_.all_unicast, modes_.no_multicast, modes_.no_unicast,
        modes_.no_broadcast, modes_.names_vlans, modes_.too_many_unicast, modes_.too_many_multicast}) {
    bits |= uint64_t{mode} << place++;
  }
  return bits;
}

void ReceiveFilter::set_mode_bits(uint64_t bits) {
  unsigned place = 0;
  for (bool* const mode :
       {&modes_.promiscuous, &modes_.all_multicast, &modes_.all_unicast, &modes_.no_multicast, &modes_.no_unicast,
        &modes_.no_broadcast, &modes_.names_vlans, &modes_.too_many_unicast, &modes_.too_many_multicast}) {
    *mode = (bits >> place++ & 1) != 0;
  }
}

void ReceiveFilter::save_state(StateWriter& writer) const {
  std::array<uint8_t, kVlanCount / 8> vlans{};
  for (size_t vlan = 0; vlan < kVlanCount; ++vlan) {
    if (vlans_.test(vlan)) vlans[vlan / 8] = static_cast<uint8_t>(vlans[vlan / 8] | 1u << vlan % 8);
  }
  writer.put("modes", mode_bits())
      .put_bytes("unicast", bytes_of(unicast_))
      .put_bytes("multicast", bytes_of(multicast_))
      .put_bytes("vlans", vlans);
}

Result<> ReceiveFilter::restore_state(const StateReader& reader) {
  const uint64_t modes = TRY(reader.get("modes", kModeBits));
  auto unicast = TRY(read_addresses(reader, "unicast"));
  auto multicast = TRY(read_addresses(reader, "multicast"));
  const ByteSpan vlans = TRY(reader.get_bytes("vlans", kVlanCount / 8));
  set_mode_bits(modes);
  unicast_ = std::move(unicast);
  multicast_ = std::move(multicast);
  for (size_t vlan = 0; vlan < kVlanCount; ++vlan) vlans_.set(vlan, (vlans[vlan / 8] >> vlan % 8 & 1) != 0);
  return {};
}

}  // namespace bulkhead::device::virtio
