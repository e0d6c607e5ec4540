// A hostile driver of the card: arbitrary accesses to registers, ports and configuration space, arbitrary descriptors
// and frames in memory, and a network that sends what it likes, has no room and pulls the cable. Whatever came before,
// a card that was reset reads as one, and saved state restores.
#include <cstdint>

#include "device/e1000/testing/e1000_driver.h"
#include "device/fuzz_input.h"
#include "net/frame/frame_builder.h"
#include "support/check.h"

namespace bulkhead::device::e1000 {
namespace {

using namespace spec::e1000;

// Rings, data and what is sent lie in the first bytes of RAM, where short addresses of the input hit them.
constexpr uint64_t kArea = 0x1'0000;

struct Machine {
  Machine(memory::GuestMemory& guest_memory, CardModel model) : memory(guest_memory) {
    auto made = std::make_unique<virtio::ManualWorker>();
    worker = made.get();
    card = Card::create({.model = model, .name = "e1000-0", .mac = kCardMac, .mtu = 9000}, port, memory, clock,
                        messages, std::move(made))
               .value();
    card->attach(nullptr, irq.line());
  }
  void write(uint64_t offset, uint32_t value) const { card->write_mmio(offset, as_bytes(value)); }
  [[nodiscard]] uint32_t read(uint64_t offset) const {
    uint32_t value = 0;
    card->read_mmio(offset, as_mutable_bytes(value));
    return value;
  }
  // Rings with data behind them, so that an input need not discover how.
  void bring_up() {
    const uint16_t command = spec::pci::kCommandMemory | spec::pci::kCommandIo | spec::pci::kCommandBusMaster;
    card->write_config(spec::pci::kCommand, as_bytes(command));
    write(kTransmitBaseLow, 0x1000);
    write(kTransmitLength, 16 * 16);
    write(kReceiveBaseLow, 0x2000);
    write(kReceiveLength, 16 * 16);
    write(kReceiveTail, 15);
    write(kTransmitControl, kTransmitEnable);
    write(kReceiveControl, kReceiveEnable | kReceiveAllUnicast | kReceiveAllMulticast | kReceiveLong);
    write(kReceiveChecksum, kChecksumIpv4 | kChecksumTransport | kChecksumIpv6);
    write(kControl, kControlVlanMode);
    write(kVectors, 0x000A'090B | kVectorValid);
    write(kInterruptMaskSet, UINT32_MAX);
  }
  // Descriptors of several buffers, of these sizes.
  void split(uint32_t sizes) {
    write(kReceiveFilter, kFilterExtended);
    write(kSplitControl, sizes);
    write(kReceiveControl, kReceiveEnable | kReceiveAllUnicast | kReceiveAllMulticast | kReceiveLong | kReceiveSplit);
  }
  void save_and_restore() {
    card->pause();
    StateWriter writer;
    card->save_state(writer);
    const auto reader = StateReader::parse(writer.encode(), "fuzz");
    const auto restored = card->restore_state(*reader);
    CHECK(reader && restored, "a card restores what it saved");
    card->resume();
  }

  memory::GuestMemory& memory;
  FakeClock clock;
  virtio::FakePort port;
  E1000Pin irq;
  E1000Messages messages;
  virtio::ManualWorker* worker = nullptr;
  std::unique_ptr<Card> card;
  uint32_t transmit_tail = 0;
};

void add_descriptor(Machine& machine, FuzzInput& input) {
  const uint64_t shape = input.take(1);
  TransmitDescriptor descriptor{.address = (shape & 1) != 0 ? input.take(8) : input.take(2),
                                .command = static_cast<uint32_t>(input.take(2)) | static_cast<uint32_t>(input.take(2))
                                                                                      << 16,
                                .status = static_cast<uint32_t>(input.take(4))};
  (void)machine.memory.write_object({0x1000 + 16 * (machine.transmit_tail % 16)}, descriptor);
  ++machine.transmit_tail;
  if ((shape & 2) != 0) machine.write(kTransmitTail, machine.transmit_tail % 16);
}

// A packet with right checksums, for the input to spoil and to have sent or cut.
void put_packet(Machine& machine, FuzzInput& input, bool arrives) {
  const uint64_t shape = input.take(1);
  net::frame::FrameBuilder builder;
  builder.ethernet(arrives ? kOtherMac : kCardMac, arrives ? kCardMac : kOtherMac);
  if ((shape & 1) != 0) builder.vlan(static_cast<uint16_t>(input.take(1)));
  if ((shape & 2) != 0) builder.ipv6("fd00::1", "fd00::2");
  if ((shape & 2) == 0) builder.ipv4("10.0.0.1", "10.0.0.2");
  if ((shape & 4) != 0) builder.udp(1, 2);
  if ((shape & 4) == 0) builder.tcp(1, 2, static_cast<uint8_t>(input.take(1)));
  auto frame = builder.payload(std::vector<uint8_t>(input.take(2) % 9000, 7)).build();
  if ((shape & 8) != 0) frame[input.take(1) % frame.size()] ^= static_cast<uint8_t>(input.take(1));
  if (!arrives) {
    (void)machine.memory.write({0x4000}, frame);
    return;
  }
  net::frame::Offload offload;
  if ((shape & 16) != 0) (void)net::frame::make_segmented(frame, static_cast<uint16_t>(input.take(2)), offload);
  if ((shape & 32) != 0) {
    offload = {.is_checksum_open = true,
               .checksum_start = static_cast<uint16_t>(input.take(1)),
               .checksum_offset = static_cast<uint16_t>(input.take(1))};
  }
  machine.port.waiting_offload = offload;
  machine.port.waiting.push_back(std::move(frame));
  machine.port.listener();
}

void step(Machine& machine, FuzzInput& input) {
  Card& card = *machine.card;
  const uint64_t operation = input.take(1);
  const size_t width = 1 + (operation >> 4) % 8;
  uint64_t value = 0;
  switch (operation % 14) {
    case 0: {
      const uint64_t offset = input.take(3) % (Card::kBarSize - width + 1);
      value = input.take(width);
      card.write_mmio(offset, as_bytes(value).first(width));
      break;
    }
    case 1:
      card.read_mmio(input.take(3) % (Card::kBarSize - width + 1), as_mutable_bytes(value).first(width));
      break;
    case 2:
      machine.write(4 * (input.take(2) % 0x1700), static_cast<uint32_t>(input.take(4)));
      break;
    case 3: {
      const auto offset = static_cast<uint16_t>(input.take(1));
      value = input.take(width);
      card.write_config(offset, as_bytes(value).first(width));
      break;
    }
    case 4: {
      const uint64_t address = input.take(2) % kArea;
      value = input.take(width);
      (void)machine.memory.write({address}, as_bytes(value).first(width));
      break;
    }
    case 5:
      card.write_port(static_cast<uint16_t>(4 * (width % 2)), 4, static_cast<uint32_t>(input.take(4)));
      (void)card.read_port(static_cast<uint16_t>(4 * (width % 2)), 4);
      break;
    case 6:
    case 7:
      add_descriptor(machine, input);
      break;
    case 8:
      put_packet(machine, input, false);
      break;
    case 9:
      put_packet(machine, input, true);
      break;
    case 10:
      machine.port.room = input.take(1) % 8 == 0 ? 0 : 64;
      machine.port.up = (operation & 0x80) == 0;
      machine.port.listener();
      break;
    case 11:
      machine.clock.advance(input.take(3));
      machine.write(kReceiveTail, static_cast<uint32_t>(input.take(1)));
      break;
    case 12:
      machine.save_and_restore();
      break;
    default:
      if ((operation & 0x80) != 0) machine.write(kControl, kControlReset);
      machine.bring_up();
      if ((operation & 0x40) != 0) machine.split(static_cast<uint32_t>(input.take(4)));
      break;
  }
  CHECK(machine.worker->run(1000) < 1000, "work that never ends");
  for (const auto& sent : machine.port.sent) CHECK(sent.size() >= 14, "a frame without a header");
  machine.port.sent.clear();
  machine.messages.sent.clear();
  machine.port.sent_offloads.clear();
}

}  // namespace
}  // namespace bulkhead::device::e1000

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  using namespace bulkhead::device::e1000;
  static const auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  log::set_level(log::Level::kError);
  const std::vector<uint8_t> zeroes(kArea);
  (void)memory->write({0}, zeroes);
  device::FuzzInput input(data, size);
  Machine machine(*memory, input.take(1) % 2 == 0 ? CardModel::k82540em : CardModel::k82574l);
  for (int steps = 0; !input.empty() && steps < 4096; ++steps) step(machine, input);
  machine.card->reset();
  CHECK(machine.card->mappings().empty(), "a reset card decodes nothing");
  CHECK(machine.read(bulkhead::spec::e1000::kInterruptMaskSet) == 0 && !machine.irq.level(), "a reset card is silent");
  return 0;
}
