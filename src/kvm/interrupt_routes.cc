#include "kvm/interrupt_routes.h"

#include <algorithm>

#include "kvm/flexible.h"
#include "kvm/system.h"

namespace bulkhead::kvm {

Result<> InterruptRoutes::send(const Message& message) const {
  kvm_msi msi{};
  msi.address_lo = static_cast<uint32_t>(message.address);
  msi.address_hi = static_cast<uint32_t>(message.address >> 32);
  msi.data = message.data;
  TRY(control(vm_fd_, KVM_SIGNAL_MSI, "KVM_SIGNAL_MSI", &msi));
  return {};
}

Result<> InterruptRoutes::publish() {
  RoutingList routing(messages_.size());
  for (uint32_t number = 0; number < messages_.size(); ++number) {
    if (!messages_[number]) continue;
    kvm_irq_routing_entry& entry = routing[routing->nr++];
    entry.gsi = number;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<uint32_t>(messages_[number]->address);
    entry.u.msi.address_hi = static_cast<uint32_t>(messages_[number]->address >> 32);
    entry.u.msi.data = messages_[number]->data;
  }
  TRY(control(vm_fd_, kSetGsiRouting, "KVM_SET_GSI_ROUTING", routing.header()));
  return {};
}

Result<> InterruptRoutes::bind(uint32_t number, int event_fd, uint32_t flags) const {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<uint32_t>(event_fd);
  irqfd.gsi = number;
  irqfd.flags = flags;
  TRY(control(vm_fd_, KVM_IRQFD, "KVM_IRQFD", &irqfd));
  return {};
}

Result<uint32_t> InterruptRoutes::connect(int event_fd, const Message& message) {
  const LockGuard guard(mutex_);
  const auto free_place = std::find(messages_.begin() + kIoApicInputs, messages_.end(), std::nullopt);
  const auto number = static_cast<uint32_t>(free_place - messages_.begin());
  if (number >= kIoApicInputs + kMaximumEvents) return fail("kvm: {} interrupt events, no more", kMaximumEvents);
  if (free_place == messages_.end()) messages_.emplace_back();
  messages_[number] = message;
  TRY(publish());
  TRY(bind(number, event_fd, 0));
  return number;
}

Result<> InterruptRoutes::change(uint32_t number, const Message& message) {
  const LockGuard guard(mutex_);
  if (number < kIoApicInputs || number >= messages_.size() || !messages_[number]) {
    return fail("kvm: there is no interrupt event {}", number);
  }
  messages_[number] = message;
  return publish();
}

Result<> InterruptRoutes::disconnect(uint32_t number, int event_fd) {
  const LockGuard guard(mutex_);
  if (number < kIoApicInputs || number >= messages_.size() || !messages_[number]) {
    return fail("kvm: there is no interrupt event {}", number);
  }
  TRY(bind(number, event_fd, KVM_IRQFD_FLAG_DEASSIGN));
  messages_[number].reset();
  return publish();
}

Result<> InterruptRoutes::set_io_apic_input(uint32_t input, std::optional<Message> message) {
  if (input >= kIoApicInputs) return fail("kvm: the I/O APIC has no input {}", input);
  const LockGuard guard(mutex_);
  messages_[input] = message;
  return publish();
}

}  // namespace bulkhead::kvm
