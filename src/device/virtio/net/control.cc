// The control queue (VIRTIO 1.2, 5.1.6.5): each command is copied once, bounded, and answered.
#include <array>

#include "device/virtio/net/net.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

namespace {

constexpr size_t kHeaderSize = 2;
// A table of more addresses than any driver has cards above it.
constexpr size_t kMaximumCommand = 8192;
constexpr uint64_t kGuestOffloads = kNetGuestChecksum | kNetGuestTcp4 | kNetGuestTcp6 | kNetGuestUdp4 | kNetGuestUdp6;

}  // namespace

bool NetModel::process_control(Queue& queue) {
  const Drained drained = drain(queue, chain_, [&](const Chain& chain) {
    if (chain.writable_size() == 0) {
      queue.push(chain, 0);
      return true;
    }
    std::vector<uint8_t> bytes(chain.readable_size() <= kMaximumCommand ? chain.readable_size() : 0);
    const bool done = chain.read(0, bytes) && command(bytes);
    const uint8_t answer = done ? kNetControlOk : kNetControlError;
    (void)chain.write(0, as_bytes(answer));
    queue.push(chain, sizeof answer);
    return true;
  });
  transport_->used(control_queue());
  if (drained == Drained::kBroken) transport_->needs_reset("the card's control queue makes no sense");
  return drained == Drained::kMore;
}

bool NetModel::command(ByteSpan bytes) {
  if (bytes.size() < kHeaderSize) return false;
  const uint8_t kind = bytes[0], number = bytes[1];
  const ByteSpan data = bytes.subspan(kHeaderSize);
  switch (kind) {
    case kNetClassReceive: {
      constexpr uint8_t kBasicModes = 2;
      const uint64_t needed = number < kBasicModes ? kNetControlReceive : kNetControlReceiveExtra;
      return has(needed) && data.size() == 1 && filter_.set_mode(number, data[0] != 0);
    }
    case kNetClassMac:
      if (number == kNetControlMacTable) return has(kNetControlReceive) && filter_.set_addresses(data);
      return number == kNetControlMacAddress && has(kNetControlMac) && set_mac(data);
    case kNetClassVlan:
      return has(kNetControlVlan) && data.size() == sizeof(uint16_t) &&
             filter_.change_vlan(number, load<uint16_t>(data.data()));
    case kNetClassAnnounce:
      if (!has(kNetGuestAnnounce) || number != kNetControlAnnounceDone) return false;
      announce_ = false;
      return true;
    case kNetClassMultiqueue:
      if (number == kNetControlPairs) {
        return has(kNetMultiqueue) && data.size() == sizeof(uint16_t) &&
               steering_.set_pairs(load<uint16_t>(data.data()));
      }
      return number == kNetControlScaling && has(kNetScaling) && steering_.set_scaling(data);
    case kNetClassGuestOffloads:
      return number == kNetControlOffloadsSet && has(kNetControlGuestOffloads) && set_guest_offloads(data);
    default:
      return false;
  }
}

bool NetModel::set_mac(ByteSpan address) {
  if (address.size() != net::frame::MacAddress::kSize) return false;
  const auto mac = net::frame::MacAddress::from(address);
  if (mac.is_group() || mac.is_zero()) return false;
  set_guest_mac(mac);
  return true;
}

bool NetModel::set_guest_offloads(ByteSpan mask) {
  if (mask.size() != sizeof(uint64_t)) return false;
  const auto wanted = load<uint64_t>(mask.data());
  if ((wanted & ~(features_ & kGuestOffloads)) != 0) return false;
  set_features(features_, wanted);
  return true;
}

void NetModel::ask_for_announcement() {
  if (!has(kNetGuestAnnounce) || !has(kNetControlQueue) || !link_up_) return;
  announce_ = true;
  transport_->config_changed();
}

}  // namespace bulkhead::device::virtio
