// The life of the card: made, kicked, reset, paused.
#include "device/e1000/card.h"

#include "spec/pci.h"

namespace bulkhead::device::e1000 {

using namespace spec::e1000;

namespace {

constexpr uint16_t kIntel = 0x8086;

pci::Identity identity_of(CardModel model) {
  const bool is_82574 = model == CardModel::k82574l;
  return {.vendor_id = kIntel,
          .device_id = is_82574 ? uint16_t{0x10D3} : uint16_t{0x100E},
          .revision = is_82574 ? uint8_t{0} : uint8_t{2},
          .class_code = spec::pci::kClassNetworkEthernet,
          .subsystem_vendor_id = kIntel,
          .subsystem_id = is_82574 ? uint16_t{0xA01F} : uint16_t{0x001E},  // the desktop adapters with them
          .interrupt_pin = 1};
}

EepromIdentity eeprom_of(CardModel model) {
  const pci::Identity identity = identity_of(model);
  return {identity.vendor_id, identity.device_id, identity.subsystem_vendor_id, identity.subsystem_id};
}

// Ethernet's header and two VLAN tags on top of the MTU, in both directions (DEVICE_SAFETY rule 8).
constexpr size_t kFrameOverhead = net::frame::kEthernetHeaderSize + 2 * net::frame::kVlanTagSize;
// Room behind a frame for padding and a checksum.
constexpr size_t kSlack = 64;

}  // namespace

Result<std::unique_ptr<Card>> Card::create(CardSettings settings, net::Port& port, memory::GuestMemory& memory,
                                           Clock& clock, MessageSink& messages, std::unique_ptr<Worker> worker) {
  std::unique_ptr<Card> card(new Card(std::move(settings), port, memory, clock, messages, std::move(worker)));
  TRY_IN(card->settings_.name, card->connect_worker());
  return card;
}

Card::Card(CardSettings settings, net::Port& port, memory::GuestMemory& memory, Clock& clock, MessageSink& messages,
           std::unique_ptr<Worker> worker)
    : Function(identity_of(settings.model)),
      settings_(std::move(settings)),
      port_(port),
      memory_(memory),
      clock_(clock),
      largest_frame_(settings_.mtu + kFrameOverhead),
      registers_(registers_at_reset()),
      eeprom_(settings_.mac, eeprom_of(settings_.model)),
      phy_(settings_.model == CardModel::k82574l ? Phy::k82574l : Phy::k82540em),
      link_up_(port.link_up()),
      outgoing_(net::frame::kMaximumFrameSize),
      incoming_(net::frame::kMaximumFrameSize + kSlack),
      piece_(largest_frame_ + kSlack),
      worker_(std::move(worker)) {
  add_memory_bar(kBar, kBarSize, pci::BarKind::kMemory32, false, *this);
  add_io_bar(kPortBar, kPortCount, *this);
  if (is_82574()) {
    add_memory_bar(kMsixBar, kMsixBarSize, pci::BarKind::kMemory32, false, msix_window_);
    add_msi(messages, 1);
    add_msix(messages, kVectorCount, kMsixBar, 0, kMsixPending);
  }
  throttle_timer_ = clock.make_timer(settings_.name, [this] { on_timer(); });
}

Result<> Card::connect_worker() {
  kick_event_ = std::make_unique<EventFd>(TRY(EventFd::create()));
  TRY(worker_->watch(*kick_event_, [this] { on_kick(); }));
  worker_->start();
  port_.set_listener([this] { kick_event_->signal(); });
  return {};
}

Card::~Card() {
  port_.set_listener({});
  worker_.reset();
}

NetCounters Card::counters() const {
  return {.sent_frames = sent_frames_,
          .sent_bytes = sent_bytes_,
          .received_frames = received_frames_,
          .received_bytes = received_bytes_,
          .refused_frames = refused_frames_,
          .too_large_frames = too_large_frames_};
}

// ---- On the worker ----

void Card::on_kick() {
  if (paused_) return;
  look_at_link();
  if (!bus_master_enabled()) return;
  const bool more_to_send = process_transmit(), more_to_receive = process_receive();
  if (more_to_send || more_to_receive) kick_event_->signal();
}

void Card::look_at_link() {
  const bool up = port_.link_up();
  {
    const LockGuard lock(mutex_);
    if (up == link_up_) return;
    link_up_ = up;
    raise(kCauseLink);
  }
  settle_interrupts();
}

// Used as it was written or not at all (DEVICE_SAFETY rules 4, 10).
std::optional<Card::Ring> Card::ring_of(const RingRegisters& registers, uint32_t generation, uint32_t stride) const {
  const Ring ring{.base = uint64_t{registers.base_high} << 32 | registers.base_low,
                  .places = registers.length / Ring::kPlaceSize,
                  .head = registers.head,
                  .tail = registers.tail,
                  .generation = generation,
                  .stride = stride};
  if (ring.places == 0 || ring.head >= ring.places || ring.tail >= ring.places) return std::nullopt;
  // A descriptor of two places would hang over the end.
  if (ring.places % stride != 0 || ring.head % stride != 0) return std::nullopt;
  if (!memory_.is_ram({ring.base}, registers.length)) return std::nullopt;
  return ring;
}

// Nothing of the card is under way while the worker is here, so nothing reaches the guest's memory afterwards.
void Card::reset_on_worker() {
  assembly_ = {};
  contexts_ = {};
  current_ = {};
  segments_ = {};
  {
    const LockGuard lock(mutex_);
    registers_ = registers_at_reset();
    ++transmit_generation_;
    ++receive_generation_;
    eeprom_.drive(0);
    phy_.reset();
    last_interrupt_ns_.reset();
    last_message_ns_ = {};
    causes_told_ = messages_due_ = 0;
    update_interrupts();
  }
  settle_interrupts();
}

void Card::reset() {
  worker_->run_and_wait([this] { reset_on_worker(); });
  reset_config();
}

void Card::pause() {
  worker_->run_and_wait([this] { paused_ = true; });
}

void Card::resume() {
  worker_->run_and_wait([this] {
    paused_ = false;
    kick_event_->signal();
  });
}

}  // namespace bulkhead::device::e1000
