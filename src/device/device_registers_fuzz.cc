// Drives the registers of the interrupt controllers, timers and legacy devices as a hostile guest would, on one board,
// with time passing and saved state taken and given back, whole and broken. Nothing may crash, hang or queue without
// bound.
#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "device/interrupt/apic_bus.h"
#include "device/interrupt/io_apic.h"
#include "device/interrupt/local_apic.h"
#include "device/interrupt/pic.h"
#include "device/legacy/debug_ports/debug_ports.h"
#include "device/legacy/i8042/i8042.h"
#include "device/legacy/rtc/rtc.h"
#include "device/legacy/uart/uart.h"
#include "device/timer/acpi_pm.h"
#include "device/timer/hpet.h"
#include "device/timer/pit.h"
#include "support/check.h"
#include "support/time/fake_clock.h"

namespace bulkhead::device {
namespace {

class Input {
 public:
  explicit Input(ByteSpan bytes) : bytes_(bytes) {}
  [[nodiscard]] bool is_empty() const { return bytes_.empty(); }
  uint8_t byte() {
    if (bytes_.empty()) return 0;
    const uint8_t value = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return value;
  }
  uint64_t integer(unsigned size) {
    uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= uint64_t{byte()} << (8 * i);
    return value;
  }

 private:
  ByteSpan bytes_;
};

struct Stream final : console::ByteStream {
  size_t write(ByteSpan bytes) override {
    const size_t count = std::min(bytes.size(), room);
    room -= count;
    return count;
  }
  size_t read(MutableByteSpan out) override {
    const size_t count = std::min(out.size(), typed);
    std::fill_n(out.begin(), count, uint8_t{'x'});
    typed -= count;
    return count;
  }
  void set_listener(std::function<void()> on_ready) override { listener = std::move(on_ready); }
  size_t room = 100, typed = 0;
  std::function<void()> listener;
};

struct Power final : PowerControl {
  void request_power_off() override {}
  void request_reset() override {}
  void request_exit(uint8_t) override {}
};

struct Pins final : CpuPins {
  void set_interrupt_request(bool asserted) override { interrupt_request = asserted; }
  void raise_nmi() override {}
  void raise_init() override {}
  void raise_sipi(uint8_t) override {}
  bool interrupt_request = false;
};

// ISA interrupts go to both controllers, as on a board.
struct Fork final : IrqLine::Receiver {
  Fork(IrqLine::Receiver& pic, IrqLine::Receiver& io_apic) : pic_(pic), io_apic_(io_apic) {}
  void set_irq(uint32_t input, bool asserted) override {
    if (input < 16) pic_.set_irq(input, asserted);
    io_apic_.set_irq(input == 0 ? 2 : input, asserted);
  }
  IrqLine::Receiver& pic_;
  IrqLine::Receiver& io_apic_;
};

// The PIC is made before the local APIC that it drives.
struct Lint0 final : IrqLine::Receiver {
  void set_irq(uint32_t, bool asserted) override {
    if (apic != nullptr) apic->set_irq(interrupt::LocalApic::kLint0, asserted);
  }
  interrupt::LocalApic* apic = nullptr;
};

struct Board {
  Board() {
    lint0.apic = &apic0;
    bus.set_end_of_interrupt_receiver(&io_apic);
  }
  [[nodiscard]] IrqLine irq(uint32_t input) { return IrqLine(fork, input); }

  FakeClock clock{2'000'000'000};
  Power power;
  Stream stream;
  Lint0 lint0;
  interrupt::ApicBus bus;
  std::array<Pins, 2> pins;
  interrupt::Pic pic{IrqLine(lint0, 0)};
  interrupt::LocalApic apic0{0, interrupt::LocalApic::Role::kBootstrap, bus, pins[0], clock, &pic};
  interrupt::LocalApic apic1{1, interrupt::LocalApic::Role::kApplication, bus, pins[1], clock};
  interrupt::IoApic io_apic{bus, 0};
  Fork fork{pic, io_apic};
  timer::Pit pit{clock, irq(0)};
  legacy::Rtc rtc{clock, irq(8)};
  timer::Hpet hpet{clock,
                   {.irq0 = irq(0),
                    .irq8 = irq(8),
                    .routes = {irq(20), irq(21), irq(22), irq(23)},
                    .cut_off_pit = IrqLine(pit, 0),
                    .cut_off_rtc = IrqLine(rtc, 0)}};
  timer::AcpiPm pm{clock, irq(9), power};
  legacy::Uart uart{"uart0", irq(4), &stream};
  legacy::I8042 i8042{irq(1), power};
  legacy::PostCodePort post_code;
  legacy::DebugConsole debug_console{nullptr};
  legacy::DebugExit debug_exit{power};
  legacy::SystemControlPort system_control{power};

  struct Port {
    PortIo* ports;
    uint16_t size;
  };
  std::vector<Port> ports{{&pic.master_ports(), 2},
                          {&pic.slave_ports(), 2},
                          {&pic.edge_level_ports(), 2},
                          {&pit.ports(), 4},
                          {&pit.control_port(), 1},
                          {&rtc, 2},
                          {&pm, timer::AcpiPm::kRangeSize},
                          {&uart, 8},
                          {&i8042.data_port(), 1},
                          {&i8042.command_port(), 1},
                          {&post_code, 1},
                          {&debug_console, 1},
                          {&debug_exit, 1},
                          {&system_control, 1}};
  struct Region {
    Mmio* mmio;
    uint64_t size;
  };
  std::vector<Region> regions{
      {&apic0, 0x1000}, {&apic1, 0x1000}, {&io_apic, 0x1000}, {&hpet, timer::Hpet::kRegionSize}};
  std::vector<Device*> devices{&apic0, &apic1, &io_apic, &pic,       &pit,           &rtc,        &hpet,
                               &pm,    &uart,  &i8042,   &post_code, &debug_console, &debug_exit, &system_control};
};

void access_port(Board& board, Input& input) {
  const Board::Port& port = board.ports[input.byte() % board.ports.size()];
  const auto offset = static_cast<uint16_t>(input.byte() % port.size);
  const unsigned size = 1u << input.byte() % 3;
  if (input.byte() % 2 == 0) {
    (void)port.ports->read_port(offset, size);
  } else {
    port.ports->write_port(offset, size, static_cast<uint32_t>(input.integer(size)));
  }
}

void access_memory(Board& board, Input& input) {
  const Board::Region& region = board.regions[input.byte() % board.regions.size()];
  const uint8_t choice = input.byte();
  std::array<uint8_t, 8> bytes;
  const unsigned size = (choice & 1) != 0 ? 4 : 1 + (choice >> 1) % 8u;
  const uint64_t mask = (choice & 1) != 0 ? ~uint64_t{3} : ~uint64_t{0};
  const uint64_t offset = std::min((input.integer(2) % region.size) & mask, region.size - size);
  if ((choice & 0x80) != 0) {
    region.mmio->read_mmio(offset, MutableByteSpan(bytes).first(size));
  } else {
    store(bytes.data(), input.integer(size));
    region.mmio->write_mmio(offset, ByteSpan(bytes).first(size));
  }
}

void drive_processor(Board& board, Input& input) {
  interrupt::LocalApic& apic = input.byte() % 2 == 0 ? board.apic0 : board.apic1;
  switch (input.byte() % 7) {
    case 0:
      (void)apic.acknowledge();
      break;
    case 1:
      apic.write_task_priority(input.byte() & 0xF);
      break;
    case 2:
      (void)apic.write_msr(0x800 + input.byte(), input.integer(8));
      break;
    case 3:
      (void)apic.read_msr(0x800 + input.byte());
      break;
    case 4:
      (void)apic.write_msr(0x1B, 0xFEE00000 | input.integer(2));
      break;
    case 5:
      (void)apic.write_msr(0x6E0, apic.read_msr(0x6E0).value_or(0) + input.integer(5));
      break;
    default:
      apic.set_tsc_offset(input.integer(8));
      break;
  }
}

void save_and_restore(Board& board, Input& input) {
  Device& device = *board.devices[input.byte() % board.devices.size()];
  StateWriter writer;
  device.save_state(writer);
  std::vector<uint8_t> bytes = writer.encode();
  const bool broken = input.byte() % 2 == 0;
  if (broken) bytes[input.integer(2) % bytes.size()] ^= input.byte();
  const auto reader = StateReader::parse(bytes, "fuzz");
  const bool restored = reader && device.restore_state(*reader).has_value();
  CHECK(restored || broken, "a device refuses what it saved itself");
  if (!restored) device.reset();
}

void run(Input& input) {
  Board board;
  while (!input.is_empty()) {
    switch (input.byte() % 8) {
      case 0:
      case 1:
        access_port(board, input);
        break;
      case 2:
      case 3:
        access_memory(board, input);
        break;
      case 4:
        drive_processor(board, input);
        break;
      case 5:
        board.clock.advance(input.integer(3));
        break;
      case 6:
        save_and_restore(board, input);
        break;
      default:
        board.stream.room += input.byte();
        board.stream.typed += input.byte();
        board.stream.listener();
        if (input.byte() % 16 == 0) board.pm.press_power_button();
        if (input.byte() % 16 == 0) board.devices[input.byte() % board.devices.size()]->reset();
        board.fork.set_irq(input.byte() % 24, input.byte() % 2 != 0);
        break;
    }
    CHECK(board.pins[0].interrupt_request == board.apic0.interrupt_pending(), "the pin shows what the APIC wants");
  }
}

}  // namespace
}  // namespace bulkhead::device

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bulkhead::device::Input input(bulkhead::ByteSpan(data, size));
  bulkhead::device::run(input);
  return 0;
}
