// Saved state of the card: configuration space, registers, EEPROM wires, PHY, contexts, and the part of a frame that
// descriptors have brought so far. Frames under way are none: networks lose some. Every value of a stream is checked
// before it is used (DEVICE_SAFETY rule 18).
#include <algorithm>

#include "device/e1000/card.h"

namespace bulkhead::device::e1000 {

using namespace spec::e1000;

void Card::save_state(StateWriter& writer) const {
  worker_->run_and_wait([&] { save_on_worker(writer); });
}

void Card::save_on_worker(StateWriter& writer) const {
  save_config(writer);
  // A frame that waits for room is lost, and looked at as sent.
  Assembly assembly = assembly_;
  if (assembly.held != 0) assembly = {.spoiled = 1, .held = 1};
  {
    const LockGuard lock(mutex_);
    assembly.generation = transmit_generation_ == assembly_.generation ? 0 : 1;
    const uint64_t since_ns = last_interrupt_ns_ ? clock_.now_ns() - *last_interrupt_ns_ : UINT64_MAX;
    writer.put_bytes("mac", settings_.mac.bytes)
        .put("mtu", settings_.mtu)
        .put_object("registers", registers_)
        .put_object("eeprom_wires", eeprom_.wires())
        .put_object("phy", phy_.registers())
        .put("link_up", link_up_)
        .put("since_interrupt_ns", since_ns);
  }
  writer.put_object("contexts", contexts_)
      .put_object("assembly", assembly)
      .put_bytes("assembled", ByteSpan(outgoing_).first(assembly.size));
}

Result<> Card::restore_state(const StateReader& reader) {
  Result<> result;
  worker_->run_and_wait([&] {
    result = restore_on_worker(reader);
    if (!result) reset_on_worker();
  });
  TRY(std::move(result));
  TRY(restore_config(reader));
  {
    const LockGuard lock(mutex_);
    update_interrupts();
  }
  settle_interrupts();
  kick_event_->signal();
  return {};
}

Result<> Card::restore_on_worker(const StateReader& reader) {
  const auto mac = net::frame::MacAddress::from(TRY(reader.get_bytes("mac", net::frame::MacAddress::kSize)));
  const uint64_t mtu = TRY(reader.get("mtu", UINT16_MAX));
  if (mac != settings_.mac || mtu != settings_.mtu) {
    return fail("{}: saved with MAC address {} and MTU {}, not {} and {}", reader.path(), mac.to_string(), mtu,
                settings_.mac.to_string(), settings_.mtu);
  }
  const auto registers = TRY(reader.get_object<Registers>("registers"));
  const uint32_t causes = is_82574() ? kCausesWithQueues : kCauses;
  if ((registers.causes & ~causes) != 0 || (registers.mask & ~causes) != 0 || registers.throttle > UINT16_MAX ||
      registers.port_address > kBarSize - 4 || registers.port_address % 4 != 0 ||
      (registers.eeprom_request & ~kEepromRequest) != 0 ||
      std::ranges::any_of(registers.vector_throttles, [](uint32_t value) { return value > UINT16_MAX; })) {
    return fail("{}: registers that no driver can have written", reader.path());
  }
  for (const RingRegisters& ring : {registers.receive, registers.transmit}) {
    if ((ring.length & ~kLengthMask) != 0 || ring.head > UINT16_MAX || ring.tail > UINT16_MAX ||
        ring.base_low % 16 != 0) {
      return fail("{}: a ring of {:#x} bytes with head {} and tail {}", reader.path(), ring.length, ring.head,
                  ring.tail);
    }
  }
  const auto wires = TRY(reader.get_object<Eeprom::Wires>("eeprom_wires"));
  const auto phy = TRY(reader.get_object<Phy::Registers>("phy"));
  const bool link_up = TRY(reader.get_flag("link_up"));
  const uint64_t since_ns = TRY(reader.get("since_interrupt_ns"));
  const auto contexts = TRY((reader.get_object<std::array<Context, 2>>("contexts")));
  const auto assembly = TRY(reader.get_object<Assembly>("assembly"));
  const ByteSpan assembled = TRY(reader.get_bytes_up_to("assembled", outgoing_.size()));
  const bool is_whole = assembly.size == assembled.size() && assembly.generation <= 1 && assembly.started <= 1 &&
                        assembly.segmented <= 1 && assembly.tagged <= 1 && assembly.spoiled <= 1 &&
                        assembly.held <= 1 && (assembly.held == 0 || assembly.size == 0);
  if (!is_whole) return fail("{}: a frame of {} bytes in parts that make no sense", reader.path(), assembly.size);
  const uint64_t now = clock_.now_ns();
  {
    const LockGuard lock(mutex_);
    if (!eeprom_.set_wires(wires)) return fail("{}: EEPROM wires that make no sense", reader.path());
    registers_ = registers;
    phy_.restore(phy);
    link_up_ = link_up;
    last_interrupt_ns_ = since_ns <= now ? std::optional(now - since_ns) : std::nullopt;
    pin_up_ = false;
    last_message_ns_ = {};
    causes_told_ = messages_due_ = 0;
    ++receive_generation_;
    assembly_ = assembly;
    assembly_.generation = assembly.generation == 0 ? ++transmit_generation_ : transmit_generation_++;
  }
  contexts_ = contexts;
  std::ranges::copy(assembled, outgoing_.begin());
  outgoing_offload_ = {};
  current_ = {};
  segments_ = {};
  return {};
}

}  // namespace bulkhead::device::e1000
