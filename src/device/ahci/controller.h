// An AHCI host bus adapter (Serial ATA AHCI 1.3.1) with a disk or a CD drive behind each port: registers, command
// lists, received FISes, native command queueing, MSI or the interrupt pin. Registers answer on the vCPU's thread;
// commands live on the worker. What a driver breaks is a task file error or a host bus fatal error of its port; it
// never ends the process.
//
//   port: idle -- PxCMD.ST=1 --> running -- ST=0 or COMRESET --> draining -- nothing in flight --> idle
//                                    \-- an error: nothing more is taken until ST=0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/disk.h"
#include "device/ahci/cdrom.h"
#include "device/device.h"
#include "device/guest_buffer.h"
#include "device/pci/function.h"
#include "device/virtio/worker.h"
#include "memory/guest_memory.h"
#include "spec/ahci.h"
#include "support/log.h"
#include "support/os/fd.h"
#include "support/os/mutex.h"

namespace bulkhead::device::ahci {

using virtio::Worker;

enum class DriveKind : uint8_t { kDisk, kCdrom };

struct Drive {
  block::Disk& disk;
  std::string serial;  // at most 20 bytes
  DriveKind kind = DriveKind::kDisk;
};

class Controller final : public Device, public ThreadedWork, public pci::Function, public Mmio {
 public:
  static constexpr uint8_t kBar = 5;
  static constexpr uint64_t kBarSize = 0x2000;
  static constexpr unsigned kSlotCount = spec::ahci::kSlotCount;
  // Of a disk's sector; disks with others are not for this adapter.
  static constexpr uint64_t kSectorSize = 512;
  // Bytes that one discard of the disk takes at most; longer ranges go piece by piece.
  static constexpr uint64_t kDiscardPiece = 1ull << 30;
  // Blocks of 512 bytes with trim ranges that one command has.
  static constexpr uint16_t kMaximumTrimBlocks = 8;

  // 1 to 32 drives, one a port; their disks outlive the controller.
  static Result<std::unique_ptr<Controller>> create(std::string name, std::vector<Drive> drives,
                                                    memory::GuestMemory& memory, MessageSink& messages,
                                                    std::unique_ptr<Worker> worker);
  // Waits for what is in flight.
  ~Controller() override;

  // Device
  [[nodiscard]] std::string_view name() const override { return name_; }
  void reset() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;
  // ThreadedWork
  void pause() override;
  void resume() override;
  // Mmio: the BAR
  void read_mmio(uint64_t offset, MutableByteSpan out) override;
  void write_mmio(uint64_t offset, ByteSpan in) override;

 private:
  // What a driver sees of a port.
  struct PortRegisters {
    uint64_t list = 0;
    uint64_t received = 0;
    uint32_t interrupt_status = 0;
    uint32_t interrupt_enable = 0;
    uint32_t command = 0;
    uint32_t task_file = 0;
    uint32_t sata_status = 0;
    uint32_t sata_control = 0;
    uint32_t sata_error = 0;
    uint32_t active = 0;
    uint32_t issue = 0;
  };
  static_assert(sizeof(PortRegisters) == 56);
  struct Request {  // of a port, from the vCPU to the worker
    bool stop = false;
    bool reset = false;
  };
  // One command under way: its parameters are frozen here (DEVICE_SAFETY rule 12).
  struct Command {
    explicit Command(memory::GuestMemory& memory) : buffer(memory) {}
    GuestBuffer buffer;
    bool used = false;
    uint32_t generation = 0;
    spec::ahci::HostFis fis{};
    uint64_t header = 0;  // where the count of bytes is told
    uint64_t table = 0;
    bool queued = false;
    bool is_read = false;
    uint64_t transferred = 0;
    bool flush_wanted = false;
    struct Range {
      uint64_t offset;
      uint64_t size;
    };
    std::vector<Range> ranges;
    size_t next_range = 0;
  };
  struct Port {
    Port(memory::GuestMemory& memory, const Drive& drive);
    Drive drive;
    Cdrom cdrom;
    std::vector<Command> commands;  // one a slot
    uint32_t issued = 0;            // slots taken and not answered
    uint32_t again = 0;             // of those, to begin anew when the machine goes on
    uint32_t in_flight = 0;         // at the disk
    bool running = false;
    bool draining = false;
    bool failed = false;  // nothing is taken until the driver stops the port
    bool write_cache = true;
    bool soft_reset = false;   // the control FIS with SRST came
    uint8_t queued_error = 0;  // the slot that failed, for the log
    uint8_t error_status = 0;
    uint8_t error = 0;
  };
  struct Finished {
    uint32_t port;
    uint32_t slot;
    uint32_t generation;
    block::Status status;
  };
  // How a command ends.
  struct Ending {
    uint8_t error = 0;  // 0: well
    bool pio = false;   // a PIO setup FIS goes before
    uint64_t transferred = 0;
    uint16_t count = 0;
  };

  Controller(std::string name, std::vector<Drive> drives, memory::GuestMemory& memory, MessageSink& messages,
             std::unique_ptr<Worker> worker);
  Result<> connect_worker();

  // Registers: controller.cc
  [[nodiscard]] uint32_t read_register(uint64_t offset);
  [[nodiscard]] uint32_t read_port(const PortRegisters& port, uint32_t index, uint64_t offset) const REQUIRES(mutex_);
  void write_register(uint64_t offset, uint32_t value);
  void write_port(uint32_t index, uint64_t offset, uint32_t value) REQUIRES(mutex_);
  void write_command(uint32_t index, uint32_t value) REQUIRES(mutex_);
  [[nodiscard]] bool collect_interrupts() REQUIRES(mutex_);
  void settle_interrupts();
  void power_on_port(uint32_t index) REQUIRES(mutex_);
  void after_config_write(uint16_t offset, size_t size) override;

  // On the worker: port.cc
  void on_kick();
  void on_wake();
  void take_requests();
  void begin_drain(uint32_t index);
  void finish_drain_when_idle(uint32_t index);
  void process_port(uint32_t index);
  void begin(uint32_t index, uint32_t slot);
  [[nodiscard]] bool fetch(uint32_t index, uint32_t slot, uint16_t& flags);
  void control(uint32_t index, uint32_t slot);
  void fail_port(uint32_t index, std::string_view reason);
  void finish(uint32_t index, uint32_t slot, const Ending& ending);
  void send_signature(uint32_t index);
  void write_received(uint32_t index, uint32_t place, ByteSpan fis);
  void raise(uint32_t index, uint32_t interrupts);
  void set_task_file(uint32_t index, uint8_t status, uint8_t error);
  [[nodiscard]] bool nothing_in_flight() const;

  // Commands: command.cc
  void execute(uint32_t index, uint32_t slot, uint16_t flags);
  void execute_disk(uint32_t index, uint32_t slot);
  void execute_packet(uint32_t index, uint32_t slot);
  void transfer(uint32_t index, uint32_t slot, bool is_read, uint64_t first, uint64_t count);
  void trim(uint32_t index, uint32_t slot);
  void set_features(uint32_t index, uint32_t slot);
  void read_log(uint32_t index, uint32_t slot);
  void answer(uint32_t index, uint32_t slot, ByteSpan data);
  [[nodiscard]] bool submit_next_range(uint32_t index, uint32_t slot);
  void submit(uint32_t index, block::Request request);
  [[nodiscard]] block::Request::Completion completion(uint32_t index, uint32_t slot);
  void advance(uint32_t index, uint32_t slot, block::Status status);
  [[nodiscard]] std::array<uint16_t, 256> identify(const Port& port) const;

  // Saved state, on the worker: state.cc
  void save_on_worker(StateWriter& writer) const;
  Result<> restore_on_worker(const StateReader& reader);

  const std::string name_;
  memory::GuestMemory& memory_;
  log::RateLimit fault_limit_;
  bool connected_ = false;  // create() went through and the worker runs

  mutable Mutex mutex_;
  uint32_t control_ GUARDED_BY(mutex_) = spec::ahci::kControlAhci;
  uint32_t interrupt_status_ GUARDED_BY(mutex_) = 0;
  std::vector<PortRegisters> registers_ GUARDED_BY(mutex_);
  std::vector<Request> requests_ GUARDED_BY(mutex_);
  std::vector<Finished> finished_ GUARDED_BY(mutex_);

  // Of the worker.
  std::vector<Port> ports_;
  bool paused_ = false;

  // Each is used by those after it, until they have ended.
  std::unique_ptr<EventFd> kick_event_;
  std::unique_ptr<EventFd> wake_event_;
  std::unique_ptr<Worker> worker_;
};

}  // namespace bulkhead::device::ahci
