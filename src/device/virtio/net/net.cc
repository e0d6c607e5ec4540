#include "device/virtio/net/net.h"

#include <algorithm>
#include <array>

#include "net/frame/checksum.h"
#include "spec/pci.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

namespace {

constexpr unsigned kReceiveQueue = 0;
constexpr unsigned kTransmitQueue = 1;
// Ethernet's header and two VLAN tags on top of the MTU, in both directions (DEVICE_SAFETY rule 8).
constexpr size_t kFrameOverhead = net::frame::kEthernetHeaderSize + 2 * net::frame::kVlanTagSize;

}  // namespace

NetModel::NetModel(std::string name, net::Port& port, const net::frame::MacAddress& mac, uint16_t mtu)
    : name_(std::move(name)),
      port_(port),
      mac_(mac),
      mtu_(mtu),
      link_up_(port.link_up()),
      receive_chains_(kMaximumBuffers),
      outgoing_(mtu + kFrameOverhead),
      incoming_(mtu + kFrameOverhead) {}

NetModel::~NetModel() {
  port_.set_listener({});
}

uint32_t NetModel::pci_class() const {
  return spec::pci::kClassNetworkEthernet;
}

uint64_t NetModel::features() const {
  return kNetChecksum | kNetGuestChecksum | kNetMtu | kNetMac | kNetMergeableBuffers | kNetStatus;
}

NetCounters NetModel::counters() const {
  return {.sent_frames = sent_frames_,
          .sent_bytes = sent_bytes_,
          .received_frames = received_frames_,
          .received_bytes = received_bytes_,
          .refused_frames = refused_frames_,
          .too_large_frames = too_large_frames_};
}

void NetModel::attach(Transport& transport) {
  transport_ = &transport;
  port_.set_listener([&transport] { transport.wake(); });
}

void NetModel::read_config(uint64_t offset, MutableByteSpan out) const {
  NetConfig config{};
  std::ranges::copy(mac_.bytes, config.mac);
  config.status = port_.link_up() ? kNetLinkUp : 0;
  config.max_queue_pairs = 1;
  config.mtu = mtu_;
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = offset + i < sizeof config ? as_bytes(config)[offset + i] : uint8_t{0};
}

void NetModel::on_wake() {
  const bool up = port_.link_up();
  if (up == link_up_) return;
  link_up_ = up;
  transport_->config_changed();
}

bool NetModel::process(unsigned index) {
  Queue* queue = transport_->queue(index);
  if (queue == nullptr) return false;
  return index == kReceiveQueue ? process_receive(*queue) : process_transmit(*queue);
}

// ---- From the guest ----

MutableByteSpan NetModel::take_frame(const Chain& chain) {
  NetHeader header;
  if (!chain.read(0, as_mutable_bytes(header))) return {};
  const size_t size = chain.readable_size() - sizeof header;
  if (size < net::frame::kEthernetHeaderSize || size > outgoing_.size()) return {};
  const MutableByteSpan frame = MutableByteSpan(outgoing_).first(size);
  (void)chain.read(sizeof header, frame);
  // Segmentation was not offered.
  if (header.gso_type != kNetGsoNone) return {};
  if ((header.flags & kNetNeedsChecksum) == 0) return frame;
  if ((features_ & kNetChecksum) == 0) return {};
  if (!net::frame::complete_checksum(frame, header.checksum_start, header.checksum_offset)) return {};
  return frame;
}

bool NetModel::transmit(const Chain& chain) {
  const MutableByteSpan frame = take_frame(chain);
  if (frame.empty()) {
    ++refused_frames_;
    return true;
  }
  // Nobody is at the far end of a link that is down.
  if (port_.link_up() && port_.send(frame) == net::Sent::kNoRoom) return false;
  ++sent_frames_;
  sent_bytes_ += frame.size();
  return true;
}

bool NetModel::process_transmit(Queue& queue) {
  bool blocked = false;
  const Drained drained = drain(queue, chain_, [&](const Chain& chain) {
    blocked = !transmit(chain);
    if (blocked) {
      queue.unpop(chain);
    } else {
      queue.push(chain, 0);
    }
    return !blocked;
  });
  transport_->used(kTransmitQueue);
  if (drained == Drained::kBroken) transport_->needs_reset("the card's transmit queue makes no sense");
  // A port without room calls the listener when it has some.
  return drained == Drained::kMore && !blocked;
}

// ---- To the guest ----

bool NetModel::fetch() {
  if (incoming_size_ == 0) incoming_size_ = port_.receive(incoming_);
  return incoming_size_ != 0;
}

bool NetModel::process_receive(Queue& queue) {
  Delivery delivery = Delivery::kDone;
  // Room for frames is no news while there are none.
  queue.disable_notifications();
  for (unsigned count = 0; count < queue.size() && delivery == Delivery::kDone && fetch(); ++count) {
    delivery = deliver(queue);
  }
  transport_->used(kReceiveQueue);
  if (delivery == Delivery::kBroken) transport_->needs_reset("the card's receive queue makes no sense");
  return delivery == Delivery::kDone && fetch();
}

NetModel::Delivery NetModel::deliver(Queue& queue) {
  const size_t needed = sizeof(NetHeader) + incoming_size_;
  const size_t allowed = (features_ & kNetMergeableBuffers) != 0 ? kMaximumBuffers : 1;
  size_t room = 0, count = 0;
  // A driver that takes back what it offered must not hold us here.
  unsigned looks = 0;
  while (room < needed && count < allowed) {
    const PopResult result = queue.pop(receive_chains_[count]);
    if (result == PopResult::kBroken) return Delivery::kBroken;
    if (result == PopResult::kEmpty) {
      // Asked while those taken are counted as such, so that only one more makes it true.
      const bool more = queue.enable_notifications();
      if (more && ++looks <= kMaximumBuffers) continue;
      while (count > 0) queue.unpop(receive_chains_[--count]);
      return Delivery::kNoBuffers;
    }
    // The header stands in one piece.
    const bool has_header = count != 0 || receive_chains_[0].writable_size() >= sizeof(NetHeader);
    room += has_header ? receive_chains_[count].writable_size() : 0;
    ++count;
    if (!has_header) break;
  }
  std::array<Queue::Given, kMaximumBuffers> given;
  if (room < needed) {
    // Such buffers hold no such frame now or later; giving them back empty keeps the queue moving.
    ++too_large_frames_;
    for (size_t i = 0; i < count; ++i) given[i] = {&receive_chains_[i], 0};
  } else {
    write_frame(count);
    size_t left = needed;
    for (size_t i = 0; i < count; ++i) {
      const auto part = static_cast<uint32_t>(std::min<size_t>(left, receive_chains_[i].writable_size()));
      given[i] = {&receive_chains_[i], part};
      left -= part;
    }
    ++received_frames_;
    received_bytes_ += incoming_size_;
  }
  queue.push_all(std::span(given).first(count));
  incoming_size_ = 0;
  return Delivery::kDone;
}

void NetModel::write_frame(size_t chain_count) const {
  NetHeader header{};
  header.buffer_count = static_cast<uint16_t>(chain_count);
  (void)receive_chains_[0].write(0, as_bytes(header));
  ByteSpan rest = ByteSpan(incoming_).first(incoming_size_);
  uint32_t offset = sizeof header;
  for (size_t i = 0; i < chain_count; ++i) {
    const size_t part = std::min<size_t>(rest.size(), receive_chains_[i].writable_size() - offset);
    (void)receive_chains_[i].write(offset, rest.first(part));
    rest = rest.subspan(part);
    offset = 0;
  }
}

// ---- Life ----

void NetModel::stop() {
  features_ = 0;
  incoming_size_ = 0;
}

void NetModel::save_state(StateWriter& writer) const {
  writer.put("features", features_).put_bytes("mac", mac_.bytes).put("mtu", mtu_);
}

Result<> NetModel::restore_state(const StateReader& reader) {
  const uint64_t negotiated = TRY(reader.get("features"));
  if ((negotiated & ~features()) != 0) return fail("{}: features {:#x} were never offered", reader.path(), negotiated);
  const ByteSpan mac = TRY(reader.get_bytes("mac", net::frame::MacAddress::kSize));
  const uint64_t mtu = TRY(reader.get("mtu", UINT16_MAX));
  if (net::frame::MacAddress::from(mac) != mac_ || mtu != mtu_) {
    return fail("{}: saved with MAC address {} and MTU {}, not {} and {}", reader.path(),
                net::frame::MacAddress::from(mac).to_string(), mtu, mac_.to_string(), mtu_);
  }
  features_ = negotiated;
  incoming_size_ = 0;
  return {};
}

}  // namespace bulkhead::device::virtio
