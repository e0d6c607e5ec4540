// Feeds a bus arbitrary accesses through the ports, the ECAM window and the MSI-X table; what a guest writes must leave
// read-only registers alone, decode nothing outside the address space, and survive saving and restoring.
#include <cstdint>

#include "device/fuzz_input.h"
#include "device/pci/bus.h"
#include "device/pci/host_bridge.h"
#include "support/check.h"

namespace bulkhead::device::pci {
namespace {

struct Nowhere final : MessageSink, PowerControl, Board, Mmio, PortIo {
  void send_message(const InterruptMessage&) override {}
  void request_power_off() override {}
  void request_reset() override {}
  void request_exit(uint8_t) override {}
  void on_bars_moved(Function& function) override {
    for (const BarMapping& mapping : function.mappings()) {
      CHECK(mapping.address != 0 && mapping.address % mapping.bar->size == 0, "a BAR is aligned to its size");
      const uint64_t limit = mapping.bar->kind == BarKind::kIo ? 1ull << 16 : 1ull << 52;
      CHECK(range_fits(mapping.address, mapping.bar->size, limit), "a BAR lies inside its space");
    }
  }
  void read_mmio(uint64_t, MutableByteSpan) override {}
  void write_mmio(uint64_t, ByteSpan) override {}
  uint32_t read_port(uint16_t, unsigned) override { return 0; }
  void write_port(uint16_t, unsigned, uint32_t) override {}
};

class FuzzedFunction final : public Function {
 public:
  explicit FuzzedFunction(Nowhere& nowhere)
      : Function({.vendor_id = 0x1AF4, .device_id = 0x1042, .class_code = 0x018000, .interrupt_pin = 2}) {
    add_memory_bar(0, 1 << 15, BarKind::kMemory64, true, nowhere);
    add_io_bar(2, 64, nowhere);
    add_memory_bar(3, 4096, BarKind::kMemory32, false, nowhere);
    add_msix(nowhere, 9, 0, 0x4000, 0x6000);
    add_msi(nowhere, 8);
  }
  using Function::msix;
  using Function::notify_msi;
  using Function::reset_config;
  using Function::restore_config;
  using Function::save_config;
  using Function::set_interrupt_pin_level;
};

void save_and_restore(FuzzedFunction& function) {
  StateWriter writer;
  function.save_config(writer);
  const auto reader = StateReader::parse(writer.encode(), "fuzz");
  CHECK(reader && function.restore_config(*reader), "a function restores what it saved");
}

}  // namespace
}  // namespace bulkhead::device::pci

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  using namespace bulkhead::device;
  using namespace bulkhead::device::pci;
  Nowhere nowhere;
  Bus bus(&nowhere, {});
  HostBridge bridge(0xE000'0000, 256);
  FuzzedFunction function(nowhere);
  FuzzedFunction second(nowhere);
  bus.add(bridge, 0);
  bus.add(function, 1);
  bus.add(second, 1, 1);
  ConfigPorts ports(bus, nowhere);
  EcamWindow ecam(bus, 1);
  FuzzInput input(data, size);
  while (!input.empty()) {
    const uint64_t operation = input.take(1);
    const size_t width = 1 + operation / 16 % 8;
    const unsigned port_width = 1u << (operation / 16 % 3);
    const auto port = static_cast<uint16_t>(operation / 64 * 2 % (ConfigPorts::kPortCount - port_width + 1));
    uint64_t value = 0;
    switch (operation % 10) {
      case 0:
        (void)ports.read_port(port, port_width);
        break;
      case 1:
        ports.write_port(port, port_width, static_cast<uint32_t>(input.take(4)));
        break;
      case 2:
        ports.write_port(0, 4, 0x8000'0000u | static_cast<uint32_t>(input.take(2)));
        break;
      case 3:
        ecam.read_mmio(input.take(3) % (ecam.size() - width), as_mutable_bytes(value).first(width));
        break;
      case 4: {
        const uint64_t offset = input.take(3) % (ecam.size() - width);
        value = input.take(width);
        ecam.write_mmio(offset, as_bytes(value).first(width));
        break;
      }
      case 5: {
        const uint64_t offset = input.take(2);
        value = input.take(width);
        function.msix()->write_table(offset, as_bytes(value).first(width));
        break;
      }
      case 6:
        function.msix()->notify(static_cast<unsigned>(input.take(1)));
        break;
      case 7:
        function.notify_msi(static_cast<unsigned>(input.take(1)));
        break;
      case 8:
        second.set_interrupt_pin_level((operation & 0x10) != 0);
        break;
      default:
        save_and_restore(function);
        break;
    }
  }
  uint32_t identity = 0;
  bus.read_config(1, 0, 0, as_mutable_bytes(identity));
  CHECK(identity == 0x1042'1AF4, "the identity is read-only");
  function.reset_config();
  CHECK(function.mappings().empty(), "a function that was reset decodes nothing");
  return 0;
}
