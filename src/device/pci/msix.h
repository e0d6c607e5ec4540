// The MSI-X table and pending bits of one function (PCI 3.0, 6.8.2). The function's device gives it a place in one of
// its BARs; the capability in configuration space belongs to pci::Function, which passes on the message control
// register.
#pragma once

#include <cstdint>
#include <vector>

#include "device/wires.h"
#include "support/bytes.h"
#include "support/os/mutex.h"
#include "support/result.h"
#include "support/state/state.h"

namespace bulkhead::device::pci {

class Msix {
 public:
  // vector_count is 1 to 2048.
  Msix(MessageSink& sink, unsigned vector_count);

  [[nodiscard]] unsigned vector_count() const { return vector_count_; }
  [[nodiscard]] uint64_t table_size() const { return table_size_; }
  [[nodiscard]] uint64_t pending_size() const { return pending_size_; }

  // offset counts from the start of the table or of the pending bits; any width, bytes beyond the end read as zero.
  void read_table(uint64_t offset, MutableByteSpan out) const;
  void write_table(uint64_t offset, ByteSpan in);
  void read_pending(uint64_t offset, MutableByteSpan out) const;

  // Sends the vector's message, or sets its pending bit while it is masked. A vector that does not exist is lost.
  void notify(unsigned vector);

  // For pci::Function only. The result is what became deliverable: to be sent when no lock is held.
  [[nodiscard]] std::vector<InterruptMessage> set_control(bool enabled, bool function_masked);

  void reset();
  void save_state(StateWriter& writer) const;
  Result<> restore_state(const StateReader& reader);

 private:
  void send(const std::vector<InterruptMessage>& messages);
  [[nodiscard]] bool masked(unsigned vector) const REQUIRES(mutex_);
  [[nodiscard]] InterruptMessage message(unsigned vector) const REQUIRES(mutex_);
  [[nodiscard]] bool pending(unsigned vector) const REQUIRES(mutex_);
  void set_pending(unsigned vector, bool pending) REQUIRES(mutex_);
  void take_deliverable(unsigned vector, std::vector<InterruptMessage>& messages) REQUIRES(mutex_);

  MessageSink& sink_;
  const unsigned vector_count_;
  const uint64_t table_size_;
  const uint64_t pending_size_;
  mutable Mutex mutex_;
  std::vector<uint8_t> table_ GUARDED_BY(mutex_);
  std::vector<uint8_t> pending_ GUARDED_BY(mutex_);
  bool enabled_ GUARDED_BY(mutex_) = false;
  bool function_masked_ GUARDED_BY(mutex_) = false;
};

}  // namespace bulkhead::device::pci
