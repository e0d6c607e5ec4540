// A hostile driver of an AHCI adapter with a disk and a CD: arbitrary accesses to registers and configuration space,
// arbitrary commands and packets in memory, and disks that answer late. Whatever came before, an adapter that was reset
// reads as one, and saved state restores.
#include <cstdint>

#include "device/ahci/testing/ahci_driver.h"
#include "device/fuzz_input.h"
#include "device/virtio/manual_worker.h"
#include "device/virtio/testing/memory_disk.h"
#include "support/check.h"

namespace bulkhead::device::ahci {
namespace {

using virtio::ManualWorker;

struct NoSink final : MessageSink {
  void send_message(const InterruptMessage&) override {}
};

struct Machine {
  explicit Machine(memory::GuestMemory& guest_memory) : memory(guest_memory) {
    auto made = std::make_unique<ManualWorker>();
    worker = made.get();
    device =
        Controller::create("ahci0", {{disk, "fuzz"}, {disc, "cd", DriveKind::kCdrom}}, memory, sink, std::move(made))
            .value();
    driver = std::make_unique<AhciDriver>(*device, memory);
  }
  ~Machine() { complete_all(); }
  void complete_all() {
    disk.hold = disc.hold = false;
    disk.complete_all();
    disc.complete_all();
  }
  void save_and_restore() {
    complete_all();
    device->pause();
    StateWriter writer;
    device->save_state(writer);
    const auto reader = StateReader::parse(writer.encode(), "fuzz");
    const auto restored = device->restore_state(*reader);
    CHECK(reader && restored, "an adapter restores what it saved");
    device->resume();
  }

  memory::GuestMemory& memory;
  virtio::MemoryDisk disk{1 << 17};
  virtio::MemoryDisk disc{1 << 17, true};
  NoSink sink;
  ManualWorker* worker = nullptr;
  std::unique_ptr<Controller> device;
  std::unique_ptr<AhciDriver> driver;
};

void add_command(Machine& machine, FuzzInput& input) {
  const uint64_t shape = input.take(1);
  const auto slot = static_cast<uint32_t>(shape & 31);
  const uint32_t port = shape >> 7;
  const bool queued = (shape & 0x40) != 0;
  spec::ahci::HostFis fis = AhciDriver::fis(static_cast<spec::ahci::Command>(input.take(1)), input.take(2),
                                            static_cast<uint16_t>(queued ? slot << 3 : input.take(2)));
  fis.features = static_cast<uint8_t>(input.take(1));
  if ((shape & 0x20) != 0) fis.control = static_cast<uint8_t>(input.take(1));
  if (fis.control >= 0x80) fis.flags = 0;
  std::vector<AhciDriver::Piece> pieces;
  for (uint64_t left = input.take(1) % 5; left != 0; --left) {
    pieces.push_back({input.take(3), 1 + static_cast<uint32_t>(input.take(2))});
  }
  uint16_t flags = 5;
  if (port == 1) {
    flags |= spec::ahci::kHeaderAtapi;
    std::array<uint64_t, 2> packet{input.take(8), input.take(4)};
    (void)machine.memory.write_object({AhciDriver::table(port, slot) + spec::ahci::kPacketOffset}, packet);
  }
  machine.driver->put(port, slot, fis, pieces, flags);
  machine.driver->issue(port, 1u << slot, queued ? 1u << slot : 0);
}

void step(Machine& machine, FuzzInput& input) {
  Controller& device = *machine.device;
  const uint64_t operation = input.take(1);
  const size_t width = 1 + (operation >> 4) % 8;
  uint64_t value = 0;
  switch (operation % 11) {
    case 0: {
      const uint64_t offset = input.take(2) % (Controller::kBarSize - width + 1);
      value = input.take(width);
      device.write_mmio(offset, as_bytes(value).first(width));
      break;
    }
    case 1:
      device.read_mmio(input.take(2) % (Controller::kBarSize - width + 1), as_mutable_bytes(value).first(width));
      break;
    case 2:
      machine.driver->write(AhciDriver::port(width % 2, 4 * (input.take(1) % 16)),
                            static_cast<uint32_t>(input.take(4)));
      break;
    case 3: {
      const auto offset = static_cast<uint16_t>(input.take(1));
      value = input.take(width);
      device.write_config(offset, as_bytes(value).first(width));
      break;
    }
    case 4: {
      const uint64_t address = AhciDriver::kPlace + input.take(2);
      value = input.take(width);
      (void)machine.memory.write({address}, as_bytes(value).first(width));
      break;
    }
    case 5:
    case 6:
      add_command(machine, input);
      break;
    case 7:
      machine.worker->run(4);
      break;
    case 8: {
      virtio::MemoryDisk& disk = (operation & 0x40) != 0 ? machine.disc : machine.disk;
      disk.hold = (operation & 0x80) != 0;
      disk.forced = width == 5 ? block::Status::kRetry : width == 6 ? block::Status::kIoError : block::Status::kOk;
      if (!disk.held.empty()) disk.complete(width % disk.held.size());
      break;
    }
    case 9:
      machine.save_and_restore();
      break;
    default:
      machine.driver->write(AhciDriver::port(width % 2, spec::ahci::kPortCommand), 0);
      machine.worker->run(4);
      machine.driver->start(width % 2);
      break;
  }
}

void check_reset(Machine& machine) {
  machine.complete_all();
  machine.device->reset();
  CHECK(machine.driver->read(AhciDriver::port(0, spec::ahci::kListBase)) == 0, "a reset adapter has no list");
  CHECK(machine.device->mappings().empty(), "a reset adapter decodes nothing");
}

}  // namespace
}  // namespace bulkhead::device::ahci

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  using namespace bulkhead::device::ahci;
  static const auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  log::set_level(log::Level::kError);
  const std::vector<uint8_t> zeroes(2 * AhciDriver::kPlaceStride);
  (void)memory->write({AhciDriver::kPlace}, zeroes);
  Machine machine(*memory);
  device::FuzzInput input(data, size);
  for (int steps = 0; !input.empty() && steps < 4096; ++steps) step(machine, input);
  check_reset(machine);
  return 0;
}
