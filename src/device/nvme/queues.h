// The rings of an NVMe controller as it sees them (NVM Express 1.4, 4.1): plain places in guest memory with checked
// indices. Geometry is fixed when a queue is created (DEVICE_SAFETY rule 1); only the controller's worker touches them.
#pragma once

#include <cstdint>
#include <deque>

#include "spec/nvme.h"

namespace bulkhead::device::nvme {

struct SubmissionQueue {
  uint64_t base = 0;  // 0 with size 0: there is no such queue
  uint32_t size = 0;  // in entries
  uint16_t completion_id = 0;
  uint32_t head = 0;
  uint32_t tail = 0;
  uint32_t in_flight = 0;  // commands taken and not answered
  // A delete command that waits for what is in flight.
  bool deleting = false;
  uint16_t delete_command_id = 0;

  [[nodiscard]] bool exists() const { return size != 0; }
  [[nodiscard]] bool empty() const { return head == tail; }
};

struct CompletionQueue {
  uint64_t base = 0;
  uint32_t size = 0;
  uint32_t head = 0;
  uint32_t tail = 0;
  bool phase = true;
  bool interrupts = false;
  uint16_t vector = 0;
  bool posted = false;  // since the last interrupt
  // Answers that found the queue full. No more commands are taken meanwhile, so those in flight bound it.
  std::deque<spec::nvme::CompletionEntry> waiting;

  [[nodiscard]] bool exists() const { return size != 0; }
  [[nodiscard]] bool full() const { return (tail + 1) % size == head; }
  // Entries that the driver has not taken.
  [[nodiscard]] uint32_t filled() const { return (tail + size - head) % size; }
};

}  // namespace bulkhead::device::nvme
