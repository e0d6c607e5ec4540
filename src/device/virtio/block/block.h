// The block device (VIRTIO 1.2, 5.2): takes requests out of its queues, checks them once, hands them to a block::Disk,
// and gives each back on the queue it came from, in whatever order the disk completes them. All queues are worked on by
// the device's one worker; they spare the driver a lock that its CPUs share, and bring each answer to the CPU that
// asked.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "block/disk.h"
#include "device/virtio/model.h"
#include "spec/virtio.h"
#include "support/os/mutex.h"

namespace bulkhead::device::virtio {

class BlockModel final : public Model {
 public:
  static constexpr uint16_t kQueueSize = 256;
  static constexpr uint16_t kMaximumQueues = 16;
  // What the driver is told: pieces of one request (the ring less header and status), bytes of one piece, sectors of
  // one discard or write-zeroes range, ranges of one request.
  static constexpr uint32_t kMaximumSegments = kQueueSize - 2;
  static constexpr uint32_t kMaximumSegmentSize = 1 << 20;
  static constexpr uint32_t kMaximumRangeSectors = 1 << 22;
  static constexpr uint32_t kMaximumRanges = 16;

  // The disk outlives the model. The guest reads at most 20 characters of the serial number. queue_count: 1 to
  // kMaximumQueues.
  BlockModel(std::string name, block::Disk& disk, std::string serial, uint16_t queue_count = 1);

  // From any thread: the driver is told of its new capacity (VIRTIO 1.2, 5.2.4), of a paused machine when it goes on.
  void disk_grew() { transport_->wake(); }

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] uint16_t device_id() const override { return spec::virtio::kDeviceBlock; }
  [[nodiscard]] uint32_t pci_class() const override;
  [[nodiscard]] uint64_t features() const override;
  [[nodiscard]] std::vector<uint16_t> queue_sizes() const override;
  void attach(Transport& transport) override { transport_ = &transport; }
  void read_config(uint64_t offset, MutableByteSpan out) const override;
  void start(uint64_t features) override { write_through_ = (features & spec::virtio::kBlockFlush) == 0; }
  [[nodiscard]] bool process(unsigned queue) override;
  void resume() override;
  void on_wake() override;
  [[nodiscard]] size_t in_flight() const override { return in_flight_; }
  void stop() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

 private:
  // One chain under way: its parameters are frozen here, the driver's copy is not read again (DEVICE_SAFETY rule 12).
  struct Pending {
    Chain chain;
    unsigned queue = 0;       // the one it came from
    uint32_t generation = 0;  // counts uses of this slot
    uint32_t parts_left = 0;  // requests to the disk that have not completed
    uint32_t data_size = 0;   // bytes of the writable part that the disk fills
    uint8_t status = 0;
    bool flush_wanted = false;  // it changes the disk, and the driver cannot ask for a flush
    bool retry = false;         // a part of it is to be repeated, and so all of it
    bool used = false;
  };
  struct Finished {
    uint32_t slot;
    uint32_t generation;
    block::Status status;
  };

  [[nodiscard]] uint32_t take_slot(unsigned queue);
  void reuse_slot(uint32_t slot);
  // False when not even a status can be given back.
  [[nodiscard]] bool begin(uint32_t slot);
  void begin_transfer(uint32_t slot, const spec::virtio::BlockRequestHeader& header);
  void begin_ranges(uint32_t slot, uint32_t type);
  void answer_id(uint32_t slot);
  void give_back(uint32_t slot, uint8_t status);
  // What disks have completed.
  void give_finished_back();
  // Of what was given back since the last time, on each queue.
  void tell_driver();
  void submit(uint32_t slot, block::Request request);
  [[nodiscard]] block::Request::Completion completion(uint32_t slot);
  void tell_of_growth();

  const std::string name_;
  block::Disk& disk_;
  const std::string serial_;
  const uint16_t queue_count_;
  Transport* transport_ = nullptr;
  std::atomic<uint64_t> told_size_;  // of the disk, as the driver reads it; changed by the worker

  // A driver that did not take the feature to flush is told that a write is done when it is safe (5.2.6.2).
  bool write_through_ = false;

  // Of the worker. Slots are of all queues, as many as were ever in use at once.
  std::vector<Pending> pending_;
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> waiting_;  // slots to begin anew when the machine goes on; no disk knows of them
  size_t in_flight_ = 0;
  uint32_t given_back_ = 0;  // a bit for each queue: chains were given back, the driver does not know yet

  Mutex mutex_;
  std::vector<Finished> finished_ GUARDED_BY(mutex_);
  bool collecting_ GUARDED_BY(mutex_) = false;  // the worker will look at them by itself: nobody has to wake it
};

}  // namespace bulkhead::device::virtio
