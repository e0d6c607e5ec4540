// An NVMe controller with one namespace or several (NVM Express 1.4): registers, doorbells, the admin and I/O queues,
// MSI-X or the interrupt pin. Registers answer on the vCPU's thread; rings and commands live on the worker. What a
// driver breaks is answered with a status, an asynchronous event or CSTS.CFS; it never ends the process.
//
//   disabled -- CC.EN=1 --> ready -- CC.EN=0 --> draining -- nothing in flight --> disabled
//       \-- bad admin queues --> failed (CSTS.CFS) -- CC.EN=0 --^
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "block/disk.h"
#include "device/device.h"
#include "device/guest_buffer.h"
#include "device/nvme/queues.h"
#include "device/pci/function.h"
#include "device/virtio/worker.h"
#include "memory/guest_memory.h"
#include "spec/nvme.h"
#include "support/log.h"
#include "support/os/fd.h"
#include "support/os/mutex.h"

namespace bulkhead::device::nvme {

using virtio::Worker;

// What the controller says of itself.
struct Naming {
  std::string name;                // in the machine and in saved state: "nvme0"
  std::string serial;              // at most 20 bytes
  std::array<uint8_t, 16> uuid{};  // the subsystem's name is made of it
};

// A disk behind the controller. The first one has the identifier (NSID) 1.
struct Namespace {
  block::Disk& disk;  // outlives the controller
  std::array<uint8_t, 16> uuid{};
};

class Controller final : public Device, public ThreadedWork, public pci::Function, public Mmio {
 public:
  static constexpr uint8_t kBar = 0;
  static constexpr uint64_t kBarSize = 0x4000;
  static constexpr uint32_t kTableOffset = 0x2000;
  static constexpr uint32_t kPendingOffset = 0x3000;
  // I/O queues of each kind, one for each vCPU that a machine may have. Queue 0 is the admin queue.
  static constexpr uint16_t kIoQueueCount = 16;
  static constexpr uint16_t kQueueCount = kIoQueueCount + 1;
  static constexpr uint32_t kMaximumQueueSize = 1024;
  static constexpr uint32_t kMaximumAdminQueueSize = 4096;
  // Commands at the disk at one time, and commands of one queue before the others have their turn.
  static constexpr uint32_t kMaximumInFlight = 256;
  static constexpr uint32_t kBudget = 64;
  static constexpr size_t kMaximumNamespaces = 64;
  // MDTS, as a power of two of 4096 bytes and in bytes.
  static constexpr uint8_t kTransferShift = 8;
  static constexpr uint64_t kMaximumTransfer = 4096ull << kTransferShift;
  static constexpr unsigned kMaximumPageShift = 4;  // CC.MPS
  static constexpr size_t kAsyncEventLimit = 4;
  static constexpr size_t kErrorLogLimit = 8;
  // Blocks that one discard of the disk takes at most; longer ranges go piece by piece.
  static constexpr uint64_t kDiscardPiece = 1ull << 30;

  // Fails without a namespace, and with too many.
  static Result<std::unique_ptr<Controller>> create(Naming naming, std::vector<Namespace> namespaces,
                                                    memory::GuestMemory& memory, MessageSink& messages,
                                                    std::unique_ptr<Worker> worker);
  // Waits for what is in flight.
  ~Controller() override;

  // From any thread: the driver is told, where it wants to know (5.2).
  void disk_grew(size_t index);  // of the namespaces, from 0

  // Device
  [[nodiscard]] std::string_view name() const override { return naming_.name; }
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
  using Status = spec::nvme::Status;
  using Entry = spec::nvme::SubmissionEntry;

  struct Registers {
    uint32_t interrupt_mask = 0;
    uint32_t configuration = 0;
    uint32_t status = 0;
    uint32_t admin_attributes = 0;
    uint64_t admin_submission_base = 0;
    uint64_t admin_completion_base = 0;
  };
  struct Bell {
    uint32_t value = 0;
    bool rung = false;
  };
  enum class Phase : uint8_t { kDisabled, kReady, kFailed, kDraining };

  // What the host set (5.21); reset to this.
  struct Features {
    uint32_t arbitration = 0;
    uint32_t temperature_over = 0x0157;  // 70 degrees Celsius
    uint32_t temperature_under = 0;
    uint32_t error_recovery = 0;
    uint32_t write_cache = 1;
    uint32_t coalescing = 0;
    uint32_t write_atomicity = 0;
    uint32_t async_events = 0;
    uint32_t queue_count = (kIoQueueCount - 1) | (kIoQueueCount - 1) << 16;
    std::array<uint32_t, kQueueCount> vectors{};
  };
  struct Counters {
    uint64_t reads = 0;
    uint64_t writes = 0;
    uint64_t bytes_read = 0;
    uint64_t bytes_written = 0;
    uint64_t media_errors = 0;
    uint64_t errors = 0;
  };
  // One I/O command at the disk: its parameters are frozen here (DEVICE_SAFETY rule 12).
  struct Command {
    explicit Command(memory::GuestMemory& memory) : buffer(memory) {}
    GuestBuffer buffer;
    bool used = false;
    uint32_t generation = 0;
    uint16_t queue = 0;
    Entry entry{};
    spec::nvme::NvmOpcode opcode{};
    uint64_t transferred = 0;   // bytes that a read fills
    bool flush_wanted = false;  // FUA, or the write cache is off
    // Of a deallocation: ranges of bytes, done one after the other.
    struct Range {
      uint64_t offset;
      uint64_t size;
    };
    std::vector<Range> ranges;
    size_t next_range = 0;
    size_t next_flush = 0;  // of a flush of all namespaces: the one that is flushed next
  };
  struct Finished {
    uint32_t slot;
    uint32_t generation;
    block::Status status;
  };
  static constexpr uint32_t kShutdownSlot = kMaximumInFlight;

  Controller(Naming naming, std::vector<Namespace> namespaces, memory::GuestMemory& memory, MessageSink& messages,
             std::unique_ptr<Worker> worker);
  Result<> connect_worker();
  // Null when there is none of this identifier, as for the one that stands for all.
  [[nodiscard]] const Namespace* find_namespace(uint32_t id) const {
    return id != 0 && id <= namespaces_.size() ? &namespaces_[id - 1] : nullptr;
  }
  // Of a command whose identifier has been checked.
  [[nodiscard]] block::Disk& disk_of(const Entry& entry) const { return find_namespace(entry.namespace_id)->disk; }
  [[nodiscard]] static bool is_flush_of_all(const Entry& entry);

  // Registers: controller.cc
  [[nodiscard]] uint32_t read_register(uint64_t offset);
  void write_register(uint64_t offset, uint32_t value);
  void write_configuration(uint32_t value) REQUIRES(mutex_);
  void ring(uint64_t index, uint32_t value);
  void after_config_write(uint16_t offset, size_t size) override;

  // On the worker: life.cc
  void on_control();
  void on_bells();
  void on_wake();
  void take_bells();
  void take_bell(size_t index, uint32_t value);
  void enable();
  void begin_reset();
  void finish_reset_when_idle();
  void forget_driver();
  void shut_down();
  void flush_for_shutdown();
  void set_status(uint32_t clear, uint32_t set);
  void process_queues();
  [[nodiscard]] bool process_queue(uint16_t id);
  void post(uint16_t queue, uint16_t command_id, Status status, uint32_t result, uint32_t namespace_id = 0);
  void place(CompletionQueue& queue, const spec::nvme::CompletionEntry& entry);
  void place_waiting();
  void send_interrupts();
  void update_pin();
  void finish_deletion(uint16_t id);
  void report_event(uint32_t event);
  void tell_events();
  void tell_of_growth();

  // Admin commands: admin.cc
  void execute_admin(const Entry& entry);
  [[nodiscard]] Status create_completion_queue(const Entry& entry);
  [[nodiscard]] Status create_submission_queue(const Entry& entry);
  [[nodiscard]] Status delete_completion_queue(const Entry& entry);
  // False: the answer comes later.
  [[nodiscard]] bool delete_submission_queue(const Entry& entry, Status& status);
  [[nodiscard]] Status identify(const Entry& entry);
  [[nodiscard]] Status get_log_page(const Entry& entry);
  [[nodiscard]] Status set_features(const Entry& entry, uint32_t& result);
  [[nodiscard]] Status get_features(const Entry& entry, uint32_t& result) const;
  [[nodiscard]] uint32_t* feature(uint8_t id, uint32_t dword11);
  [[nodiscard]] Status abort(const Entry& entry, uint32_t& result);
  void await_event(const Entry& entry);
  [[nodiscard]] Status answer(const Entry& entry, ByteSpan data);
  [[nodiscard]] bool is_io_queue_base(uint64_t base, uint64_t size) const;

  // What it says of itself: identify.cc
  [[nodiscard]] spec::nvme::ControllerData controller_data() const;
  [[nodiscard]] static spec::nvme::NamespaceData namespace_data(const Namespace& space);
  [[nodiscard]] static std::vector<uint8_t> namespace_descriptors(const Namespace& space);
  [[nodiscard]] std::vector<uint8_t> log_page(uint8_t id) const;

  // I/O commands: io.cc
  void execute_io(uint16_t queue, const Entry& entry);
  void begin(uint32_t slot);
  [[nodiscard]] Status begin_transfer(uint32_t slot, const Entry& entry);
  [[nodiscard]] Status begin_write_zeroes(uint32_t slot, const Entry& entry);
  [[nodiscard]] Status begin_deallocation(uint32_t slot, const Entry& entry);
  [[nodiscard]] Status block_range(const Entry& entry, uint64_t& offset, uint64_t& size) const;
  [[nodiscard]] bool submit_next_range(uint32_t slot);
  [[nodiscard]] bool submit_next_flush(uint32_t slot);
  [[nodiscard]] block::Request::Completion completion(uint32_t slot);
  void advance(uint32_t slot, block::Status status);
  void give_back(uint32_t slot, Status status);

  // Saved state, on the worker: state.cc
  void save_on_worker(StateWriter& writer) const;
  Result<> restore_on_worker(const StateReader& reader);
  Result<> restore_queues(const StateReader& reader);
  Result<> restore_features(const StateReader& reader);

  const Naming naming_;
  const std::vector<Namespace> namespaces_;
  memory::GuestMemory& memory_;
  log::RateLimit fault_limit_;
  bool connected_ = false;  // create() went through and the worker runs

  mutable Mutex mutex_;
  Registers registers_ GUARDED_BY(mutex_);
  bool reset_requested_ GUARDED_BY(mutex_) = false;
  bool shutdown_requested_ GUARDED_BY(mutex_) = false;
  bool stray_bell_ GUARDED_BY(mutex_) = false;                    // one of no queue at all
  std::array<Bell, 2 * kQueueCount> bells_ GUARDED_BY(mutex_){};  // as they lie in the BAR: tail, head, tail, ...
  std::vector<Finished> finished_ GUARDED_BY(mutex_);

  // Of the worker.
  Phase phase_ = Phase::kDisabled;
  bool paused_ = false;
  uint64_t page_size_ = 4096;
  std::array<SubmissionQueue, kQueueCount> submission_;
  std::array<CompletionQueue, kQueueCount> completion_;
  Features features_;
  Counters counters_;
  std::deque<uint16_t> event_requests_;  // command identifiers
  std::deque<uint32_t> events_;          // not yet told; one of each kind
  bool error_events_masked_ = false;     // until the error log is read
  bool notices_masked_ = false;          // until the log of changed namespaces is read
  uint64_t changed_namespaces_ = 0;      // since that, a bit each
  std::deque<spec::nvme::ErrorLogEntry> error_log_;
  std::vector<Command> commands_;
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> waiting_;  // slots to begin anew when the machine goes on; no disk knows of them
  uint32_t in_flight_ = 0;
  size_t next_shutdown_flush_ = 0;  // the namespace that a shutdown flushes next

  // Each is used by those after it, until they have ended.
  std::unique_ptr<EventFd> control_event_;
  std::unique_ptr<EventFd> bell_event_;
  std::unique_ptr<EventFd> wake_event_;
  std::unique_ptr<Worker> worker_;
};

}  // namespace bulkhead::device::nvme
