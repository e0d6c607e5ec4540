// A hostile driver of an NVMe controller: arbitrary accesses to BAR and configuration space, arbitrary commands and
// page lists in memory, and a disk that answers late. Whatever came before, a controller that was reset reads as one,
// and saved state restores.
#include <cstdint>
#include <utility>

#include "device/fuzz_input.h"
#include "device/nvme/testing/nvme_driver.h"
#include "device/virtio/manual_worker.h"
#include "device/virtio/testing/memory_disk.h"
#include "support/check.h"

namespace bulkhead::device::nvme {
namespace {

using virtio::ManualWorker;

// Lists and data lie in the first bytes of RAM, where short addresses of the input hit them.
constexpr uint64_t kArea = 0x1'0000;
constexpr uint32_t kQueueSize = 16;

struct NoSink final : MessageSink {
  void send_message(const InterruptMessage&) override {}
};

struct Machine {
  explicit Machine(memory::GuestMemory& guest_memory) : memory(guest_memory) {
    auto made = std::make_unique<ManualWorker>();
    worker = made.get();
    device =
        Controller::create({"nvme0", "fuzz", {}}, {{disk, {1}}, {second, {2}}}, memory, sink, std::move(made)).value();
    driver = std::make_unique<NvmeDriver>(*device, memory);
  }
  ~Machine() { complete_all(); }

  // Admin and I/O queues, so that an input need not discover how.
  void bring_up() {
    driver->write_config(spec::pci::kCommand, 2, spec::pci::kCommandMemory | spec::pci::kCommandBusMaster);
    driver->set_admin_queues(kQueueSize);
    driver->enable();
    worker->run(4);
    for (uint16_t id = 1; id <= 2; ++id) {
      driver->know_queue(id, kQueueSize, kQueueSize);
      spec::nvme::SubmissionEntry entry{.opcode = 5,
                                        .prp1 = NvmeDriver::completion_base(id),
                                        .dword10 = id | (kQueueSize - 1) << 16,
                                        .dword11 = 3 | uint32_t{id} << 16};
      driver->add(0, entry);
      entry.opcode = 1;
      entry.prp1 = NvmeDriver::submission_base(id);
      driver->add(0, entry);
    }
    driver->ring(0);
    worker->run(4);
  }
  void complete_all() {
    disk.complete_all();
    second.complete_all();
  }
  void save_and_restore() {
    // A pause may begin the flush of a shutdown, and waits for it.
    const bool held = std::exchange(disk.hold, false), second_held = std::exchange(second.hold, false);
    complete_all();
    device->pause();
    StateWriter writer;
    device->save_state(writer);
    const auto reader = StateReader::parse(writer.encode(), "fuzz");
    const auto restored = device->restore_state(*reader);
    CHECK(reader && restored, "a controller restores what it saved");
    device->resume();
    disk.hold = held;
    second.hold = second_held;
  }

  memory::GuestMemory& memory;
  virtio::MemoryDisk disk{1 << 17}, second{1 << 16, true};
  NoSink sink;
  ManualWorker* worker = nullptr;
  std::unique_ptr<Controller> device;
  std::unique_ptr<NvmeDriver> driver;
};

void add_command(Machine& machine, FuzzInput& input) {
  const uint64_t shape = input.take(1);
  const spec::nvme::SubmissionEntry entry{
      .opcode = static_cast<uint8_t>(input.take(1)),
      .flags = (shape & 0x80) != 0 ? uint8_t{0x41} : uint8_t{0},
      .namespace_id = (shape & 0x40) != 0 ? UINT32_MAX : static_cast<uint32_t>(1 + (shape >> 3) % 4),
      .prp1 = input.take(3),
      .prp2 = input.take(3),
      .dword10 = static_cast<uint32_t>(input.take(4)),
      .dword11 = static_cast<uint32_t>(input.take(2)),
      .dword12 = static_cast<uint32_t>(input.take(2))};
  const auto queue = static_cast<uint16_t>(shape % 3);
  machine.driver->add(queue, entry);
  machine.driver->ring(queue);
}

void step(Machine& machine, FuzzInput& input) {
  Controller& device = *machine.device;
  const uint64_t operation = input.take(1);
  const size_t width = 1 + (operation >> 4) % 8;
  uint64_t value = 0;
  switch (operation % 12) {
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
      machine.driver->write(4 * (input.take(1) % 14), input.take(4));
      break;
    case 3: {
      const auto offset = static_cast<uint16_t>(input.take(1));
      value = input.take(width);
      device.write_config(offset, as_bytes(value).first(width));
      break;
    }
    case 4: {
      const uint64_t address = input.take(2) % kArea;
      value = input.take(width);
      (void)machine.memory.write({address}, as_bytes(value).first(width));
      break;
    }
    case 5:
      machine.driver->write(spec::nvme::kDoorbells + 4 * (input.take(1) % 40), input.take(2));
      break;
    case 6:
    case 7:
      add_command(machine, input);
      break;
    case 8:
      machine.worker->run(4);
      break;
    case 9:
      machine.disk.hold = (operation & 0x80) != 0;
      machine.disk.forced = width == 5 ? block::Status::kRetry : block::Status::kOk;
      if (!machine.disk.held.empty()) machine.disk.complete(width % machine.disk.held.size());
      machine.second.hold = (operation & 0x40) != 0;
      machine.second.forced = width == 6 ? block::Status::kRetry : block::Status::kOk;
      if (!machine.second.held.empty()) machine.second.complete(width % machine.second.held.size());
      break;
    case 10:
      machine.save_and_restore();
      break;
    default:
      if ((operation & 0x80) != 0) {
        machine.driver->disable();
        machine.worker->run(4);
      }
      machine.bring_up();
      break;
  }
}

void check_reset(Machine& machine) {
  machine.disk.hold = false;
  machine.second.hold = false;
  machine.complete_all();
  machine.device->reset();
  CHECK(machine.driver->status() == 0, "a reset controller is not ready");
  CHECK(machine.device->mappings().empty(), "a reset controller decodes nothing");
}

}  // namespace
}  // namespace bulkhead::device::nvme

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  using namespace bulkhead::device::nvme;
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
