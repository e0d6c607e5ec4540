#include "device/virtio/net/net.h"

#include <algorithm>
#include <array>

#include "net/vhost/message.h"
#include "spec/pci.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

namespace {

constexpr uint64_t kOffloadFeatures = kNetChecksum | kNetGuestChecksum | kNetControlGuestOffloads | kNetGuestTcp4 |
                                      kNetGuestTcp6 | kNetHostTcp4 | kNetHostTcp6 | kNetGuestUdp4 | kNetGuestUdp6 |
                                      kNetHostUdp;
// Frames that are not for this card, passed over before others have their turn.
constexpr unsigned kPassedOverATurn = 1024;
// What a vCPU's own thread sends: a question or an answer. The worker copies what is more or larger, beside the guest.
constexpr unsigned kFramesAtOnce = 2;
constexpr size_t kBytesAtOnce = 4096;
// Ethernet's header and two VLAN tags on top of the MTU, in both directions (DEVICE_SAFETY rule 8).
constexpr size_t kFrameOverhead = net::frame::kEthernetHeaderSize + 2 * net::frame::kVlanTagSize;

}  // namespace

NetModel::NetModel(std::string name, net::Port& port, const net::frame::MacAddress& mac, const NetSettings& settings)
    : name_(std::move(name)),
      port_(port),
      own_mac_(mac),
      settings_(settings),
      largest_frame_(settings.mtu + kFrameOverhead),
      steering_(settings.queue_pairs),
      link_up_(port.link_up()),
      receive_chains_(kMaximumBuffers),
      outgoing_(net::frame::kMaximumFrameSize),
      incoming_(net::frame::kMaximumFrameSize),
      piece_(largest_frame_) {
  set_guest_mac(mac);
}

NetModel::~NetModel() {
  port_.set_listener({});
}

uint32_t NetModel::pci_class() const {
  return spec::pci::kClassNetworkEthernet;
}

uint64_t NetModel::features() const {
  uint64_t offered = kNetMtu | kNetMac | kNetMergeableBuffers | kNetStatus | kNetControlQueue | kNetControlReceive |
                     kNetControlVlan | kNetControlReceiveExtra | kNetGuestAnnounce | kNetControlMac;
  if (settings_.offloads) offered |= kOffloadFeatures;
  if (settings_.queue_pairs > 1) offered |= kNetMultiqueue | kNetScaling;
  return offered;
}

std::vector<uint16_t> NetModel::queue_sizes() const {
  std::vector<uint16_t> sizes(size_t{2} * settings_.queue_pairs, kQueueSize);
  sizes.push_back(kControlQueueSize);
  return sizes;
}

unsigned NetModel::control_queue() const {
  return has(kNetMultiqueue | kNetScaling) ? 2u * settings_.queue_pairs : 2u;
}

NetCounters NetModel::counters() const {
  return {.sent_frames = sent_frames_,
          .sent_bytes = sent_bytes_,
          .received_frames = received_frames_,
          .received_bytes = received_bytes_,
          .refused_frames = refused_frames_,
          .too_large_frames = too_large_frames_};
}

net::frame::MacAddress NetModel::mac() const {
  net::frame::MacAddress mac;
  const uint64_t bytes = mac_;
  std::ranges::copy(as_bytes(bytes).first(net::frame::MacAddress::kSize), mac.bytes.begin());
  return mac;
}

void NetModel::set_guest_mac(const net::frame::MacAddress& mac) {
  uint64_t bytes = 0;
  std::ranges::copy(mac.bytes, as_mutable_bytes(bytes).begin());
  mac_ = bytes;
}

void NetModel::attach(Transport& transport) {
  transport_ = &transport;
  port_.set_listener([&transport] { transport.wake(); });
}

void NetModel::read_config(uint64_t offset, MutableByteSpan out) const {
  NetConfig config{};
  std::ranges::copy(mac().bytes, config.mac);
  config.status = static_cast<uint16_t>((port_.link_up() ? kNetLinkUp : 0) | (announce_ ? kNetAnnounce : 0));
  config.max_queue_pairs = settings_.queue_pairs;
  config.mtu = settings_.mtu;
  // Not known.
  config.speed = UINT32_MAX;
  config.duplex = UINT8_MAX;
  if (settings_.queue_pairs > 1) {
    config.rss_max_key_size = Steering::kKeySize;
    config.rss_max_indirection_table_length = Steering::kMaximumTable;
    config.supported_hash_types = kNetHashTypes;
  }
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = offset + i < sizeof config ? as_bytes(config)[offset + i] : uint8_t{0};
}

void NetModel::on_wake() {
  const bool up = port_.link_up();
  if (up == link_up_) return;
  link_up_ = up;
  // Behind a link that comes back may be another switch, which knows nothing of this card.
  announce_ = up && has(kNetGuestAnnounce) && has(kNetControlQueue);
  transport_->config_changed();
}

void NetModel::set_features(uint64_t negotiated, uint64_t guest_offloads) {
  features_ = negotiated;
  guest_offloads_ = guest_offloads;
  from_driver_ = net::vhost::taken_by_device(negotiated);
  to_driver_ = net::vhost::taken_by_driver(guest_offloads);
}

void NetModel::start(uint64_t negotiated) {
  const uint64_t agreed = negotiated & features();
  set_features(agreed, agreed);
  filter_.reset(has(kNetControlVlan));
  steering_.reset();
}

bool NetModel::process(unsigned index) {
  Queue* queue = transport_->queue(index);
  if (queue == nullptr) return false;
  if (index == control_queue()) return has(kNetControlQueue) && process_control(*queue);
  if (index >= 2u * settings_.queue_pairs) return false;
  return index % 2 == 0 ? process_receive() : process_transmit(index, *queue, queue->size(), SIZE_MAX);
}

bool NetModel::has_work_at_once(unsigned index) const {
  return index % 2 == 1 && index < 2u * settings_.queue_pairs;
}

bool NetModel::process_at_once(unsigned index) {
  Queue* queue = transport_->queue(index);
  return queue != nullptr && process_transmit(index, *queue, kFramesAtOnce, kBytesAtOnce);
}

// ---- From the guest ----

MutableByteSpan NetModel::take_frame(const Chain& chain, net::frame::Offload& offload) {
  std::array<uint8_t, sizeof(NetHeader)> header;
  if (!chain.read(0, header)) return {};
  const size_t size = chain.readable_size() - sizeof header;
  if (size > outgoing_.size()) return {};
  const MutableByteSpan frame = MutableByteSpan(outgoing_).first(size);
  (void)chain.read(sizeof header, frame);
  const auto left = net::frame::read_virtio_header(header, from_driver_);
  if (!left) return {};
  offload = *left;
  return net::frame::settle(frame, offload, largest_frame_) ? frame : MutableByteSpan();
}

bool NetModel::transmit(const Chain& chain, uint16_t pair) {
  net::frame::Offload offload;
  const MutableByteSpan frame = take_frame(chain, offload);
  if (frame.empty()) {
    ++refused_frames_;
    return true;
  }
  // Nobody is at the far end of a link that is down.
  if (port_.link_up() && port_.send(frame, offload) == net::Sent::kNoRoom) return false;
  steering_.note_sent(frame, pair);
  ++sent_frames_;
  sent_bytes_ += frame.size();
  return true;
}

bool NetModel::process_transmit(unsigned index, Queue& queue, unsigned frames, size_t largest) {
  bool blocked = false;
  const auto pair = static_cast<uint16_t>(index / 2);
  const Drained drained = drain(queue, chain_, [&](const Chain& chain) {
    if (frames == 0 || chain.readable_size() > largest) {
      queue.unpop(chain);
      return false;
    }
    --frames;
    blocked = !transmit(chain, pair);
    if (blocked) {
      queue.unpop(chain);
    } else {
      queue.push(chain, 0);
    }
    return !blocked;
  });
  transport_->used(index);
  if (drained == Drained::kBroken) transport_->needs_reset("the card's transmit queue makes no sense");
  // A port without room calls the listener when it has some.
  return drained == Drained::kMore && !blocked;
}

// ---- To the guest ----

bool NetModel::fetch() {
  for (unsigned count = 0; current_.empty(); ++count) {
    if (!segments_.is_done()) {
      current_ = ByteSpan(piece_).first(segments_.next(piece_));
      current_offload_ = {};
      break;
    }
    if (count == kPassedOverATurn) {
      transport_->wake();
      return false;
    }
    net::frame::Offload offload;
    const MutableByteSpan frame = MutableByteSpan(incoming_).first(port_.receive(incoming_, offload));
    if (frame.empty()) return false;
    if (!net::frame::settle(frame, offload, largest_frame_)) {
      ++too_large_frames_;
      continue;
    }
    if (!filter_.wants(frame, mac())) continue;
    if (!to_driver_.takes(offload, frame)) {
      if (offload.is_segmented()) {
        segments_ = net::frame::Segments(frame, offload);
        current_pair_ = steering_.choose(frame);
        continue;
      }
      net::frame::complete(frame, offload);
    }
    offload.is_checksum_proven &= to_driver_.checksum;
    current_ = frame;
    current_offload_ = offload;
    current_pair_ = steering_.choose(frame);
  }
  return true;
}

bool NetModel::process_receive() {
  Delivery delivery = Delivery::kDone;
  uint32_t touched = 0;
  unsigned count = 0;
  for (; count < kQueueSize && delivery == Delivery::kDone && fetch(); ++count) {
    // A queue that the driver has not set up takes nothing; the first one stands in for it.
    const unsigned wanted = 2u * current_pair_;
    const unsigned index = transport_->queue(wanted) != nullptr ? wanted : 0;
    Queue* const queue = transport_->queue(index);
    if (queue == nullptr) return false;
    // Room for frames is no news while there are none.
    if ((touched & 1u << index) == 0) queue->disable_notifications();
    touched |= 1u << index;
    delivery = deliver(*queue);
  }
  for (unsigned index = 0; touched >> index != 0; ++index) {
    if ((touched >> index & 1) != 0) transport_->used(index);
  }
  if (delivery == Delivery::kBroken) transport_->needs_reset("the card's receive queue makes no sense");
  return delivery == Delivery::kDone && fetch();
}

NetModel::Delivery NetModel::deliver(Queue& queue) {
  const size_t needed = sizeof(NetHeader) + current_.size();
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
    received_bytes_ += current_.size();
  }
  queue.push_all(std::span(given).first(count));
  current_ = {};
  return Delivery::kDone;
}

void NetModel::write_frame(size_t chain_count) const {
  const auto header = net::frame::make_virtio_header(current_offload_, current_, static_cast<uint16_t>(chain_count));
  (void)receive_chains_[0].write(0, header);
  ByteSpan rest = current_;
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
  set_features(0, 0);
  filter_.reset(false);
  steering_.reset();
  set_guest_mac(own_mac_);
  announce_ = false;
  announce_on_resume_ = false;
  current_ = {};
  segments_ = {};
}

void NetModel::resume() {
  if (std::exchange(announce_on_resume_, false)) ask_for_announcement();
}

void NetModel::save_state(StateWriter& writer) const {
  writer.put("features", features_)
      .put("guest-offloads", guest_offloads_)
      .put_bytes("mac", own_mac_.bytes)
      .put_bytes("guest-mac", mac().bytes)
      .put("mtu", settings_.mtu)
      .put("announce", announce_.load());
  StateWriter filter = writer.child("filter", 1), steering = writer.child("steering", 1);
  filter_.save_state(filter);
  steering_.save_state(steering);
}

Result<> NetModel::restore_state(const StateReader& reader) {
  const uint64_t negotiated = TRY(reader.get("features"));
  if ((negotiated & ~features()) != 0) return fail("{}: features {:#x} were never offered", reader.path(), negotiated);
  const uint64_t guest_offloads = TRY(reader.get("guest-offloads"));
  if ((guest_offloads & ~negotiated) != 0) {
    return fail("{}: offloads {:#x} without their features", reader.path(), guest_offloads);
  }
  const ByteSpan mac = TRY(reader.get_bytes("mac", net::frame::MacAddress::kSize));
  const uint64_t mtu = TRY(reader.get("mtu", UINT16_MAX));
  if (net::frame::MacAddress::from(mac) != own_mac_ || mtu != settings_.mtu) {
    return fail("{}: saved with MAC address {} and MTU {}, not {} and {}", reader.path(),
                net::frame::MacAddress::from(mac).to_string(), mtu, own_mac_.to_string(), settings_.mtu);
  }
  const auto guest_mac =
      net::frame::MacAddress::from(TRY(reader.get_bytes("guest-mac", net::frame::MacAddress::kSize)));
  if (guest_mac.is_group() || guest_mac.is_zero()) {
    return fail("{}: {} is no card's address", reader.path(), guest_mac.to_string());
  }
  const bool announce = TRY(reader.get_flag("announce"));
  TRY(filter_.restore_state(TRY(reader.child("filter"))));
  TRY(steering_.restore_state(TRY(reader.child("steering"))));
  set_features(negotiated, guest_offloads);
  set_guest_mac(guest_mac);
  announce_ = announce;
  // The network has to learn where the card is now.
  announce_on_resume_ = true;
  current_ = {};
  segments_ = {};
  return {};
}

}  // namespace bulkhead::device::virtio
