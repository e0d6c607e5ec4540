// A driver of an NVMe controller as a test plays it: sets queues up, rings doorbells, takes completions. It reaches the
// controller only as a guest would: configuration space, BAR and guest memory.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "device/nvme/controller.h"
#include "memory/guest_memory.h"
#include "spec/nvme.h"
#include "spec/pci.h"

namespace bulkhead::device::nvme {

class NvmeDriver {
 public:
  // Queue i lies at kQueues + i x kQueueStride, its completions half a stride behind.
  static constexpr uint64_t kQueues = 0x10'0000;
  static constexpr uint64_t kQueueStride = 0x2'0000;

  NvmeDriver(Controller& controller, memory::GuestMemory& memory) : controller_(controller), memory_(memory) {
    write_config(spec::pci::kCommand, 2, spec::pci::kCommandMemory | spec::pci::kCommandBusMaster);
  }

  // ---- Registers ----
  [[nodiscard]] uint64_t read(uint64_t offset, unsigned size = 4) {
    uint64_t value = 0;
    controller_.read_mmio(offset, as_mutable_bytes(value).first(size));
    return value;
  }
  void write(uint64_t offset, uint64_t value, unsigned size = 4) {
    controller_.write_mmio(offset, as_bytes(value).first(size));
  }
  void write_config(uint16_t offset, unsigned size, uint32_t value) {
    controller_.write_config(offset, as_bytes(value).first(size));
  }
  [[nodiscard]] uint32_t read_config(uint16_t offset, unsigned size) {
    uint32_t value = 0;
    controller_.read_config(offset, as_mutable_bytes(value).first(size));
    return value;
  }
  [[nodiscard]] uint32_t status() { return static_cast<uint32_t>(read(spec::nvme::kControllerStatus)); }

  // Every vector i sends the data 0x40 + i.
  void enable_msix() {
    for (uint64_t i = 0; i < Controller::kQueueCount; ++i) {
      const uint64_t entry = Controller::kTableOffset + 16 * i;
      write(entry, 0xFEE0'0000, 8);
      write(entry + 8, 0x40 + i);
      write(entry + 12, 0);
    }
    uint32_t capability = read_config(spec::pci::kCapabilityPointer, 1);
    while (read_config(static_cast<uint16_t>(capability), 1) != spec::pci::kCapabilityMsix) {
      capability = read_config(static_cast<uint16_t>(capability + 1), 1);
    }
    write_config(static_cast<uint16_t>(capability + spec::pci::kMsixControl), 2, spec::pci::kMsixEnable);
  }
  void set_admin_queues(uint32_t size) {
    write(spec::nvme::kAdminQueueAttributes, (size - 1) | (size - 1) << 16);
    write(spec::nvme::kAdminSubmissionBase, submission_base(0), 8);
    write(spec::nvme::kAdminCompletionBase, completion_base(0), 8);
    queues_[0] = {.size = size, .completion_size = size};
    clear_completions(0);
  }
  void enable() { write(spec::nvme::kConfiguration, kEnabled); }
  void disable() { write(spec::nvme::kConfiguration, kEnabled & ~1u); }

  // ---- Queues ----
  static uint64_t submission_base(uint16_t id) { return kQueues + id * kQueueStride; }
  static uint64_t completion_base(uint16_t id) { return kQueues + id * kQueueStride + kQueueStride / 2; }
  void know_queue(uint16_t id, uint32_t size, uint32_t completion_size) {
    queues_[id] = {.size = size, .completion_size = completion_size};
    clear_completions(id);
  }
  // Puts a command on the ring; the doorbell is for ring().
  uint16_t add(uint16_t id, spec::nvme::SubmissionEntry entry) {
    Queue& queue = queues_[id];
    entry.command_id = next_command_id_++;
    (void)memory_.write_object({submission_base(id) + 64ull * queue.tail}, entry);
    queue.tail = (queue.tail + 1) % queue.size;
    return entry.command_id;
  }
  void ring(uint16_t id) { write(spec::nvme::kDoorbells + 8ull * id, queues_[id].tail); }
  // The next completion, if there is one; the doorbell is for acknowledge().
  std::optional<spec::nvme::CompletionEntry> take(uint16_t id) {
    Queue& queue = queues_[id];
    const auto entry = memory_.read_object<spec::nvme::CompletionEntry>({completion_base(id) + 16ull * queue.head});
    if (!entry || (entry->status & 1) != (queue.phase ? 1 : 0)) return std::nullopt;
    queue.head = (queue.head + 1) % queue.completion_size;
    if (queue.head == 0) queue.phase = !queue.phase;
    return entry;
  }
  void acknowledge(uint16_t id) { write(spec::nvme::kDoorbells + 8ull * id + 4, queues_[id].head); }

  // ---- Memory ----
  void put(uint64_t address, ByteSpan bytes) { (void)memory_.write({address}, bytes); }
  [[nodiscard]] std::vector<uint8_t> get(uint64_t address, size_t size) const {
    std::vector<uint8_t> bytes(size);
    (void)memory_.read({address}, bytes);
    return bytes;
  }
  void adopt(const NvmeDriver& other) {
    queues_ = other.queues_;
    next_command_id_ = other.next_command_id_;
  }

 private:
  static constexpr uint32_t kEnabled = 1 |
                                       spec::nvme::kSubmissionEntryShift << spec::nvme::kConfigSubmissionEntryShift |
                                       spec::nvme::kCompletionEntryShift << spec::nvme::kConfigCompletionEntryShift;
  struct Queue {
    uint32_t size = 2;
    uint32_t completion_size = 2;
    uint32_t tail = 0;
    uint32_t head = 0;
    bool phase = true;
  };
  void clear_completions(uint16_t id) { put(completion_base(id), std::vector<uint8_t>(kQueueStride / 2)); }

  Controller& controller_;
  memory::GuestMemory& memory_;
  std::array<Queue, Controller::kQueueCount> queues_;
  uint16_t next_command_id_ = 1;
};

}  // namespace bulkhead::device::nvme
