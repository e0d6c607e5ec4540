// The life of a port behind its registers, on the worker: command lists taken and answered, errors, stop, COMRESET and
// soft reset (AHCI 1.3.1, chapters 5, 6 and 10.4).
#include <algorithm>
#include <bit>
#include <utility>

#include "device/ahci/controller.h"
#include "support/check.h"

namespace bulkhead::device::ahci {

using namespace spec::ahci;

Controller::~Controller() {
  if (connected_) {
    worker_->run_and_wait([this] {
      for (uint32_t i = 0; i < ports_.size(); ++i) begin_drain(i);
    });
    worker_->wait_until([this] { return nothing_in_flight(); });
  }
  worker_.reset();
}

bool Controller::nothing_in_flight() const {
  return std::ranges::all_of(ports_, [](const Port& port) { return port.in_flight == 0 && !port.draining; });
}

void Controller::on_kick() {
  if (paused_) return;
  take_requests();
  if (!bus_master_enabled()) return;
  for (uint32_t i = 0; i < ports_.size(); ++i) process_port(i);
  settle_interrupts();
}

void Controller::take_requests() {
  for (uint32_t i = 0; i < ports_.size(); ++i) {
    bool stop = false;
    {
      const LockGuard lock(mutex_);
      stop = std::exchange(requests_[i].stop, false) || requests_[i].reset;
    }
    if (stop) begin_drain(i);
  }
}

// Buffers of commands under way are the adapter's until they complete: until then PxCMD.CR stays set.
void Controller::begin_drain(uint32_t index) {
  ports_[index].draining = true;
  ports_[index].running = false;
  finish_drain_when_idle(index);
}

void Controller::finish_drain_when_idle(uint32_t index) {
  Port& port = ports_[index];
  if (!port.draining || port.in_flight != 0) return;
  port.draining = false;
  port.failed = false;
  port.issued = 0;
  port.again = 0;
  for (Command& command : port.commands) command.used = false;
  bool reset = false;
  {
    const LockGuard lock(mutex_);
    PortRegisters& registers = registers_[index];
    reset = std::exchange(requests_[index].reset, false);
    if ((control_ & kControlReset) != 0 && reset) {
      registers = {};
      if (std::ranges::none_of(requests_, &Request::reset)) {
        control_ = kControlAhci;
        interrupt_status_ = 0;
      }
    }
    if (reset) power_on_port(index);
    if ((registers.command & kCommandStart) == 0) {
      registers.command &= ~kCommandListRunning;
      registers.issue = 0;
      registers.active = 0;
    }
  }
  if (reset) {
    port.cdrom.reset();
    port.write_cache = true;
    port.soft_reset = false;
    send_signature(index);
  }
  settle_interrupts();
}

// ---- Commands ----

void Controller::process_port(uint32_t index) {
  Port& port = ports_[index];
  if (port.draining) return;
  uint32_t issue = 0;
  {
    const LockGuard lock(mutex_);
    port.running = (registers_[index].command & kCommandStart) != 0;
    issue = registers_[index].issue;
  }
  for (uint32_t fresh = issue & ~port.issued; fresh != 0 && port.running && !port.failed; fresh &= fresh - 1) {
    begin(index, static_cast<uint32_t>(std::countr_zero(fresh)));
  }
}

void Controller::begin(uint32_t index, uint32_t slot) {
  Port& port = ports_[index];
  Command& command = port.commands[slot];
  port.issued |= 1u << slot;
  command.used = true;
  ++command.generation;
  command.buffer.clear();
  command.queued = false;
  command.is_read = false;
  command.transferred = 0;
  command.flush_wanted = false;
  command.ranges.clear();
  command.next_range = 0;
  uint16_t flags = 0;
  if (!fetch(index, slot, flags)) {
    fail_port(index, "a command's header, table or data is not in memory");
    return;
  }
  if (command.fis.type != kFisHostToDevice) {
    fail_port(index, "a command without a register FIS");
  } else if ((command.fis.flags & kFisIsCommand) == 0) {
    control(index, slot);
  } else {
    execute(index, slot, flags);
  }
}

// Header, FIS and table are copied once; the driver may change them after that.
bool Controller::fetch(uint32_t index, uint32_t slot, uint16_t& flags) {
  Command& command = ports_[index].commands[slot];
  {
    const LockGuard lock(mutex_);
    command.header = registers_[index].list + slot * sizeof(CommandHeader);
  }
  const auto header = memory_.read_object<CommandHeader>({command.header});
  if (!header) return false;
  flags = header->flags;
  command.table = header->table & ~uint64_t{0x7F};
  const auto fis = memory_.read_object<HostFis>({command.table});
  if (!fis) return false;
  command.fis = *fis;
  std::vector<Region> regions(header->table_entries);
  if (regions.empty()) return true;
  if (!memory_.read({command.table + kRegionTableOffset},
                    {reinterpret_cast<uint8_t*>(regions.data()), regions.size() * sizeof(Region)})) {
    return false;
  }
  return std::ranges::all_of(regions, [&](const Region& region) {
    return command.buffer.append({region.address}, (region.size & kRegionSizeMask) + 1);
  });
}

// A control FIS: SRST set, then clear, resets the drive (ATA8-AST; AHCI 10.4.1). It has no answer but the signature.
void Controller::control(uint32_t index, uint32_t slot) {
  Port& port = ports_[index];
  const bool resets = (port.commands[slot].fis.control & kControlSoftReset) != 0;
  const bool ends = std::exchange(port.soft_reset, resets) && !resets;
  port.issued &= ~(1u << slot);
  port.commands[slot].used = false;
  {
    const LockGuard lock(mutex_);
    registers_[index].issue &= ~(1u << slot);
    if (resets) registers_[index].active = 0;
  }
  if (ends) {
    port.cdrom.reset();
    send_signature(index);
  }
}

// 6.2.2: the driver must stop the port.
void Controller::fail_port(uint32_t index, std::string_view reason) {
  if (fault_limit_.allow()) {
    log::warning("{}: port {}: {} ({} such faults of the guest)", name_, index, reason, fault_limit_.count());
  }
  ports_[index].failed = true;
  raise(index, kInterruptHostFatal);
}

void Controller::finish(uint32_t index, uint32_t slot, const Ending& ending) {
  Port& port = ports_[index];
  Command& command = port.commands[slot];
  const HostFis& fis = command.fis;
  const uint32_t bit = 1u << slot;
  if (command.is_read && ending.transferred != 0) command.buffer.mark_written(ending.transferred);
  command.used = false;
  port.issued &= ~bit;
  const auto status = static_cast<uint8_t>(kStatusReady | kStatusSeekComplete | (ending.error != 0 ? kStatusError : 0));
  uint32_t interrupts = 0;
  // The count of bytes moved; a queued command's is not told (5.6.2.2).
  const auto transferred = static_cast<uint32_t>(ending.transferred);
  if (!command.queued) (void)memory_.write_object({command.header + offsetof(CommandHeader, transferred)}, transferred);
  DeviceFis answer{.type = kFisDeviceToHost,
                   .flags = kFisInterrupt,
                   .status = status,
                   .error = ending.error,
                   .device = fis.device,
                   .count = ending.count};
  std::copy_n(fis.lba_low, 3, answer.lba_low);
  std::copy_n(fis.lba_high, 3, answer.lba_high);
  if (command.queued && ending.error == 0) {
    const struct {
      uint8_t type, flags, status, error;
      uint32_t active;
    } bits{kFisSetDeviceBits, kFisInterrupt, static_cast<uint8_t>(status & 0x77), 0, bit};
    write_received(index, kReceivedSetDeviceBits, as_bytes(bits));
    interrupts = kInterruptSetDeviceBits;
  } else {
    if (ending.pio && ending.transferred != 0) {
      DeviceFis setup = answer;
      setup.type = kFisPioSetup;
      setup.flags = kFisInterrupt | 0x20;
      setup.status = status | kStatusDataRequest;
      setup.end_status = status;
      setup.transfer_count = static_cast<uint16_t>(std::min<uint64_t>(ending.transferred, UINT16_MAX));
      write_received(index, kReceivedPioSetup, as_bytes(setup));
      interrupts |= kInterruptPioSetup;
    }
    write_received(index, kReceivedRegister, as_bytes(answer));
    interrupts |= kInterruptRegisterFis;
  }
  if (ending.error != 0) {
    // Slots keep their bits, so that the driver sees which of them were left (6.2.2.1).
    port.failed = true;
    interrupts |= kInterruptTaskFileError;
    port.queued_error = static_cast<uint8_t>(slot | (command.queued ? 0 : 0x80));
    port.error_status = status;
    port.error = ending.error;
  }
  {
    const LockGuard lock(mutex_);
    PortRegisters& registers = registers_[index];
    registers.task_file = status | uint32_t{ending.error} << 8;
    registers.command = (registers.command & ~0x1F00u) | slot << 8;
    if (ending.error == 0) {
      registers.issue &= ~bit;
      if (command.queued) registers.active &= ~bit;
    }
  }
  raise(index, interrupts);
}

// The register FIS of a drive that was reset: what it is.
void Controller::send_signature(uint32_t index) {
  const bool is_cd = ports_[index].drive.kind == DriveKind::kCdrom;
  DeviceFis fis{.type = kFisDeviceToHost,
                .status = is_cd ? uint8_t{0} : uint8_t{kStatusReady | kStatusSeekComplete},
                .error = 1,
                .lba_low = {1, is_cd ? uint8_t{0x14} : uint8_t{0}, is_cd ? uint8_t{0xEB} : uint8_t{0}},
                .count = 1};
  write_received(index, kReceivedRegister, as_bytes(fis));
  set_task_file(index, fis.status, fis.error);
}

// Lost where the driver wants none, or has no memory for it.
void Controller::write_received(uint32_t index, uint32_t place, ByteSpan fis) {
  uint64_t area = 0;
  {
    const LockGuard lock(mutex_);
    if ((registers_[index].command & kCommandFisReceive) == 0) return;
    area = registers_[index].received;
  }
  if (bus_master_enabled()) (void)memory_.write({area + place}, fis);
}

void Controller::set_task_file(uint32_t index, uint8_t status, uint8_t error) {
  const LockGuard lock(mutex_);
  registers_[index].task_file = status | uint32_t{error} << 8;
}

void Controller::raise(uint32_t index, uint32_t interrupts) {
  const LockGuard lock(mutex_);
  registers_[index].interrupt_status |= interrupts;
}

// ---- What the disks completed ----

void Controller::on_wake() {
  std::vector<Finished> finished;
  {
    const LockGuard lock(mutex_);
    finished.swap(finished_);
  }
  for (const Finished& part : finished) {
    Port& port = ports_[part.port];
    const Command& command = port.commands[part.slot];
    CHECK(command.used && command.generation == part.generation, "a completion for a command that is gone");
    --port.in_flight;
    if (port.draining) {
      finish_drain_when_idle(part.port);
    } else {
      advance(part.port, part.slot, part.status);
    }
  }
  if (finished.empty()) return;
  settle_interrupts();
  on_kick();
}

// ---- Reset, pause ----

void Controller::reset() {
  worker_->run_and_wait([this] {
    for (uint32_t i = 0; i < ports_.size(); ++i) begin_drain(i);
  });
  worker_->wait_until([this] { return nothing_in_flight(); });
  worker_->run_and_wait([this] {
    for (Port& port : ports_) {
      port.cdrom.reset();
      port.running = port.soft_reset = false;
      port.write_cache = true;
    }
    const LockGuard lock(mutex_);
    control_ = kControlAhci;
    interrupt_status_ = 0;
    for (uint32_t i = 0; i < ports_.size(); ++i) {
      registers_[i] = {};
      requests_[i] = {};
      power_on_port(i);
    }
  });
  settle_interrupts();
  reset_config();
}

void Controller::pause() {
  worker_->run_and_wait([this] {
    take_requests();
    paused_ = true;
  });
  worker_->wait_until([this] { return nothing_in_flight(); });
}

void Controller::resume() {
  worker_->run_and_wait([this] {
    paused_ = false;
    for (uint32_t i = 0; i < ports_.size(); ++i) {
      for (uint32_t again = std::exchange(ports_[i].again, 0); again != 0; again &= again - 1) {
        begin(i, static_cast<uint32_t>(std::countr_zero(again)));
      }
    }
    settle_interrupts();
    kick_event_->signal();
  });
}

}  // namespace bulkhead::device::ahci
