// Saved state of the adapter: configuration space, registers, and what each drive remembers. It is taken with nothing
// in flight; what the disk wants to see again is begun anew from its command list.
#include "device/ahci/controller.h"

namespace bulkhead::device::ahci {

using namespace spec::ahci;

void Controller::save_state(StateWriter& writer) const {
  worker_->wait_until([&] {
    if (!nothing_in_flight()) return false;
    save_on_worker(writer);
    return true;
  });
}

void Controller::save_on_worker(StateWriter& writer) const {
  save_config(writer);
  const LockGuard lock(mutex_);
  writer.put("control", control_).put("interrupt_status", interrupt_status_).put("ports", ports_.size());
  for (size_t i = 0; i < ports_.size(); ++i) {
    const Port& port = ports_[i];
    StateWriter child = writer.child(fmt::format("port{}", i));
    child.put("disk_size", port.drive.disk.geometry().size)
        .put("kind", port.drive.kind)
        .put_object("registers", registers_[i])
        .put("again", port.again)
        .put("failed", port.failed)
        .put("write_cache", port.write_cache)
        .put("soft_reset", port.soft_reset)
        .put("queued_error", port.queued_error)
        .put("error_status", port.error_status)
        .put("error", port.error);
    StateWriter cdrom = child.child("cdrom");
    port.cdrom.save_state(cdrom);
  }
}

Result<> Controller::restore_state(const StateReader& reader) {
  Result<> result;
  worker_->wait_until([&] {
    if (!nothing_in_flight()) return false;
    result = restore_on_worker(reader);
    return true;
  });
  TRY(std::move(result));
  TRY(restore_config(reader));
  settle_interrupts();
  kick_event_->signal();
  return {};
}

Result<> Controller::restore_on_worker(const StateReader& reader) {
  const auto control = static_cast<uint32_t>(TRY(reader.get("control", UINT32_MAX)));
  const auto interrupt_status = static_cast<uint32_t>(TRY(reader.get("interrupt_status", UINT32_MAX)));
  if ((control & ~kControlInterrupts) != kControlAhci) return fail("{}: control {:#x}", reader.path(), control);
  if (const uint64_t count = TRY(reader.get("ports")); count != ports_.size()) {
    return fail("{}: {} ports, the adapter has {}", reader.path(), count, ports_.size());
  }
  std::vector<PortRegisters> registers;
  for (size_t i = 0; i < ports_.size(); ++i) {
    Port& port = ports_[i];
    const StateReader child = TRY(reader.child(fmt::format("port{}", i)));
    if (const uint64_t size = TRY(child.get("disk_size")); size != port.drive.disk.geometry().size) {
      return fail("{}: the disk had {} bytes, this one has {}", child.path(), size, port.drive.disk.geometry().size);
    }
    if (TRY(child.get("kind", 1)) != static_cast<uint64_t>(port.drive.kind)) {
      return fail("{}: another kind of drive", child.path());
    }
    // Any values of these a driver could have written; none is used before it is checked.
    registers.push_back(TRY(child.get_object<PortRegisters>("registers")));
    port.again = static_cast<uint32_t>(TRY(child.get("again", UINT32_MAX)));
    if ((port.again & ~(registers.back().issue | registers.back().active)) != 0) {
      return fail("{}: slots {:#x} wait that were not issued", child.path(), port.again);
    }
    port.issued = port.again;
    port.failed = TRY(child.get_flag("failed"));
    port.write_cache = TRY(child.get_flag("write_cache"));
    port.soft_reset = TRY(child.get_flag("soft_reset"));
    port.queued_error = static_cast<uint8_t>(TRY(child.get("queued_error", UINT8_MAX)));
    port.error_status = static_cast<uint8_t>(TRY(child.get("error_status", UINT8_MAX)));
    port.error = static_cast<uint8_t>(TRY(child.get("error", UINT8_MAX)));
    TRY(port.cdrom.restore_state(TRY(child.child("cdrom"))));
  }
  const LockGuard lock(mutex_);
  control_ = control;
  interrupt_status_ = interrupt_status;
  registers_ = std::move(registers);
  for (Request& request : requests_) request = {};
  return {};
}

}  // namespace bulkhead::device::ahci
