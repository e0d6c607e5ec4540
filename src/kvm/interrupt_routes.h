// Interrupt messages into the host kernel's local APICs, when a VM uses those: sent at once, bound to an eventfd
// (irqfd), or declared in advance for the inputs of the board's I/O APIC, so that the kernel knows which vectors end
// with a message back.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <linux/kvm.h>

#include "support/os/mutex.h"
#include "support/result.h"

namespace bulkhead::kvm {

// As PCI MSI writes it: SDM 3, 11.11.
struct Message {
  uint64_t address = 0;
  uint32_t data = 0;
  friend bool operator==(const Message&, const Message&) = default;
};

class InterruptRoutes {
 public:
  static constexpr uint32_t kIoApicInputs = 24;
  static constexpr uint32_t kMaximumEvents = 1024;

  // The VM's descriptor must outlive this.
  explicit InterruptRoutes(int vm_fd) : vm_fd_(vm_fd), messages_(kIoApicInputs) {}

  // From any thread.
  Result<> send(const Message& message) const;
  // From now on each signal of the eventfd sends the message. Answers the number by which to change or end that.
  Result<uint32_t> connect(int event_fd, const Message& message);
  Result<> change(uint32_t number, const Message& message);
  Result<> disconnect(uint32_t number, int event_fd);
  // nothing: the input is masked.
  Result<> set_io_apic_input(uint32_t input, std::optional<Message> message);

 private:
  Result<> publish() REQUIRES(mutex_);
  Result<> bind(uint32_t number, int event_fd, uint32_t flags) const;

  const int vm_fd_;
  Mutex mutex_;
  // Indexed by the kernel's "GSI"; the first kIoApicInputs belong to the I/O APIC.
  std::vector<std::optional<Message>> messages_ GUARDED_BY(mutex_);
};

}  // namespace bulkhead::kvm
