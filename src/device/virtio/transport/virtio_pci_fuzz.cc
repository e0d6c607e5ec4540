// A hostile driver of a disk, a console and a network card: arbitrary accesses to BAR and configuration space and
// arbitrary bytes in the rings, with a disk that answers late. The devices may need a reset; after one they work, and
// saved state restores.
#include <cstdint>

#include "console/byte_stream.h"
#include "device/fuzz_input.h"
#include "device/virtio/block/block.h"
#include "device/virtio/console/console.h"
#include "device/virtio/manual_worker.h"
#include "device/virtio/net/net.h"
#include "device/virtio/testing/fake_port.h"
#include "device/virtio/testing/memory_disk.h"
#include "device/virtio/transport/pci_transport.h"
#include "net/frame/frame_builder.h"
#include "support/check.h"

namespace bulkhead::device::virtio {
namespace {

// A guest's rings lie in the first bytes of RAM, where short addresses of the input hit them.
constexpr uint64_t kArea = 0x1'0000;
constexpr uint16_t kDiskQueues = 3;

struct NoSink final : MessageSink {
  void send_message(const InterruptMessage&) override {}
};

struct NarrowStream final : console::ByteStream {
  size_t write(ByteSpan bytes) override { return bytes.size() > 3 ? 3 : bytes.size(); }
  size_t read(MutableByteSpan out) override { return out.empty() ? 0 : 1; }
  void set_listener(std::function<void()>) override {}
};

struct Machine {
  explicit Machine(memory::GuestMemory& guest_memory) : memory(guest_memory) {
    auto made = std::make_unique<ManualWorker>();
    disk_worker = made.get();
    block = PciTransport::create(std::make_unique<BlockModel>("disk0", disk, "fuzz", kDiskQueues), memory, sink,
                                 std::move(made))
                .value();
    made = std::make_unique<ManualWorker>();
    console_worker = made.get();
    console =
        PciTransport::create(std::make_unique<ConsoleModel>("console0", stream), memory, sink, std::move(made)).value();
    made = std::make_unique<ManualWorker>();
    net_worker = made.get();
    net = PciTransport::create(std::make_unique<NetModel>("net0", port, net::frame::MacAddress{{2, 0, 0, 0, 0, 1}}),
                               memory, sink, std::move(made))
              .value();
  }
  ~Machine() { disk.complete_all(); }
  // Negotiates and places the queues, so that an input need not discover how.
  void bring_up(PciTransport& device, uint64_t features, unsigned queue_count) const {
    const auto write = [&](uint64_t offset, unsigned size, uint64_t value) {
      device.write_mmio(offset, as_bytes(value).first(size));
    };
    const uint16_t command = spec::pci::kCommandMemory | spec::pci::kCommandBusMaster;
    device.write_config(spec::pci::kCommand, as_bytes(command));
    write(0x14, 1, 3);
    write(0x08, 4, 0);
    write(0x0C, 4, features & UINT32_MAX);
    write(0x08, 4, 1);
    write(0x0C, 4, features >> 32);
    write(0x14, 1, 11);
    for (unsigned i = 0; i < queue_count; ++i) {
      write(0x16, 2, i);
      write(0x18, 2, 8);
      write(0x1A, 2, i);
      write(0x20, 8, 0x400 * i);
      write(0x28, 8, 0x400 * i + 0x100);
      write(0x30, 8, 0x400 * i + 0x200);
      write(0x1C, 2, 1);
    }
    write(0x14, 1, 15);
  }
  void run() const {
    // Not until nothing is left: a stream that always has input never ends.
    disk_worker->run(4);
    console_worker->run(4);
    net_worker->run(4);
  }
  void save_and_restore(PciTransport& device) {
    disk.complete_all();
    StateWriter writer;
    device.save_state(writer);
    const auto reader = StateReader::parse(writer.encode(), "fuzz");
    const auto restored = device.restore_state(*reader);
    CHECK(reader && restored, "a device restores what it saved");
  }

  memory::GuestMemory& memory;
  MemoryDisk disk{1 << 16};
  NarrowStream stream;
  NoSink sink;
  ManualWorker* disk_worker = nullptr;
  FakePort port;
  ManualWorker* console_worker = nullptr;
  ManualWorker* net_worker = nullptr;
  std::unique_ptr<PciTransport> block;
  std::unique_ptr<PciTransport> console;
  std::unique_ptr<PciTransport> net;
};

void step(Machine& machine, FuzzInput& input) {
  const uint64_t operation = input.take(1);
  PciTransport& device = (operation & 0xC0) == 0xC0 ? *machine.net
                         : (operation & 0x80) != 0  ? *machine.console
                                                    : *machine.block;
  const size_t width = 1 + input.take(1) % 8;
  uint64_t value = 0;
  switch (operation % 13) {
    case 0: {
      const uint64_t offset = input.take(2) % (PciTransport::kBarSize - width + 1);
      value = input.take(width);
      device.write_mmio(offset, as_bytes(value).first(width));
      break;
    }
    case 1:
      device.read_mmio(input.take(2) % (PciTransport::kBarSize - width + 1), as_mutable_bytes(value).first(width));
      break;
    case 2: {
      const uint64_t offset = input.take(1) % 64;
      value = input.take(width);
      device.write_mmio(offset, as_bytes(value).first(width));
      break;
    }
    case 3: {
      const auto offset = static_cast<uint16_t>(input.take(1));
      value = input.take(width);
      device.write_config(offset, as_bytes(value).first(width));
      break;
    }
    case 4:
      device.read_config(static_cast<uint16_t>(input.take(1)), as_mutable_bytes(value).first(width));
      break;
    case 5:
    case 6: {
      const uint64_t address = input.take(2) % kArea;
      value = input.take(width);
      (void)machine.memory.write({address}, as_bytes(value).first(width));
      break;
    }
    case 7:
      device.write_mmio(PciTransport::kNotifyOffset + 4 * (width % 3), as_bytes(value).first(2));
      break;
    case 8:
      machine.run();
      break;
    case 9:
      machine.disk.hold = (operation & 0x40) != 0;
      if (!machine.disk.held.empty()) machine.disk.complete(width % machine.disk.held.size());
      break;
    case 10:
      machine.save_and_restore(device);
      break;
    case 11: {
      const uint64_t size = input.take(2);
      std::vector<uint8_t> frame(14 + size % 2048);
      machine.port.waiting_offload = {};
      if (width > 4) {
        // A stream in one frame, whole for some drivers and in pieces for others.
        frame = net::frame::FrameBuilder()
                    .ethernet({{2, 0, 0, 0, 0, 2}}, {{2, 0, 0, 0, 0, 1}})
                    .ipv4("10.0.0.1", "10.0.0.2")
                    .tcp(1, 2, net::frame::kTcpAcknowledge)
                    .payload(std::vector<uint8_t>(1 + size % 65000))
                    .build();
        (void)net::frame::make_segmented(frame, 1448, machine.port.waiting_offload);
      }
      machine.port.up = width != 3;
      for (size_t i = 0; i < machine.port.sent.size(); ++i) {
        net::frame::Offload left = machine.port.sent_offloads[i];
        CHECK(net::frame::settle(machine.port.sent[i], left, NetModel::kDefaultMtu + 22), "what is sent is settled");
        CHECK(left == machine.port.sent_offloads[i], "and nothing was left to find");
      }
      machine.port.sent.clear();
      machine.port.sent_offloads.clear();
      machine.port.room = width;
      if (machine.port.waiting.size() < 16) machine.port.waiting.push_back(std::move(frame));
      machine.port.listener();
      break;
    }
    default:
      machine.bring_up(device,
                       spec::virtio::kFeatureVersion1 | input.take(1) << 28 |
                           (&device != machine.net.get() ? 0
                            : width % 2 != 0             ? machine.net->model().features()
                                                         : spec::virtio::kNetMergeableBuffers),
                       &device == machine.console.get() ? 2 : 3);
      break;
  }
}

// Whatever came before, a device that was reset reads as one.
void check_reset(Machine& machine) {
  machine.disk.hold = false;
  machine.disk.complete_all();
  for (PciTransport* device : {machine.block.get(), machine.console.get(), machine.net.get()}) {
    device->reset();
    uint8_t status = 1;
    device->read_mmio(0x14, as_mutable_bytes(status));
    CHECK(status == 0, "a reset device has status 0");
    CHECK(device->mappings().empty(), "a reset device decodes nothing");
  }
}

}  // namespace
}  // namespace bulkhead::device::virtio

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  using namespace bulkhead::device::virtio;
  static const auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  log::set_level(log::Level::kError);
  const std::vector<uint8_t> zeroes(kArea);
  (void)memory->write({0}, zeroes);
  Machine machine(*memory);
  device::FuzzInput input(data, size);
  for (int steps = 0; !input.empty() && steps < 4096; ++steps) step(machine, input);
  check_reset(machine);
  return 0;
}
