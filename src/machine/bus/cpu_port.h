// One vCPU's way to the board: its own local APIC where that is, the bus for the rest. Its local APIC may live in the
// host kernel instead, which then answers for it; interrupts of the PIC still come through here.
#pragma once

#include "cpu/cpu_io.h"
#include "device/interrupt/local_apic.h"
#include "machine/bus/bus.h"

namespace bulkhead::machine {

class CpuPort final : public cpu::CpuIo {
 public:
  // With apic null the host kernel has it; pic then answers the vCPU's INTA cycles itself.
  CpuPort(const Bus& bus, device::interrupt::LocalApic* apic, device::interrupt::ExternalVectorSource& pic)
      : reader_(bus), apic_(apic), pic_(pic) {}

  void read_memory(GuestAddress address, MutableByteSpan out) override;
  void write_memory(GuestAddress address, ByteSpan in) override;
  uint32_t read_port(uint16_t port, unsigned size) override { return reader_.read_port(port, size); }
  void write_port(uint16_t port, unsigned size, uint32_t value) override { reader_.write_port(port, size, value); }
  std::optional<uint8_t> acknowledge_interrupt() override;
  bool interrupt_pending() override;
  std::optional<uint64_t> read_apic_msr(uint32_t index) override;
  bool write_apic_msr(uint32_t index, uint64_t value) override;
  void set_tsc_offset(uint64_t offset) override;
  uint8_t read_task_priority() override;
  void write_task_priority(uint8_t priority) override;

  // The PIC's output where there is no local APIC of ours; from any thread.
  void set_pic_request(bool asserted) { pic_request_.store(asserted, std::memory_order_release); }

 private:
  // How many of the bytes at an address belong to the APIC's page, when the first does; 0 otherwise.
  [[nodiscard]] size_t bytes_in_apic_page(uint64_t address, size_t size, uint64_t& offset) const;

  Bus::Reader reader_;
  device::interrupt::LocalApic* apic_;
  device::interrupt::ExternalVectorSource& pic_;
  std::atomic<bool> pic_request_{false};
};

}  // namespace bulkhead::machine
