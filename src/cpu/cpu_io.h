// All that a running vCPU may ask of the board: memory that is not RAM, ports, interrupts, and the MSRs that belong to
// the local APIC. One CpuIo a vCPU. Device accesses are calls, not exits, because the engine reaches a device in the
// middle of an instruction. Every call comes from the vCPU's own thread.
#pragma once

#include <cstdint>
#include <optional>

#include "memory/guest_address.h"
#include "support/bytes.h"

namespace bulkhead::cpu {

class CpuIo {
 public:
  virtual ~CpuIo() = default;

  // 1 to 64 bytes at an address that is not RAM. Where nothing answers, reads give all ones and writes are lost.
  virtual void read_memory(GuestAddress address, MutableByteSpan out) = 0;
  virtual void write_memory(GuestAddress address, ByteSpan in) = 0;

  // size is 1, 2 or 4 bytes.
  virtual uint32_t read_port(uint16_t port, unsigned size) = 0;
  virtual void write_port(uint16_t port, unsigned size, uint32_t value) = 0;

  // The vector of the highest interrupt deliverable now, taken from the controllers as by an INTA cycle; none when the
  // request went away. interrupt_pending() asks the same without taking it.
  virtual std::optional<uint8_t> acknowledge_interrupt() = 0;
  virtual bool interrupt_pending() = 0;

  // MSRs of the local APIC: IA32_APIC_BASE (0x1B), IA32_TSC_DEADLINE (0x6E0), x2APIC (0x800-0x8FF). False or nothing:
  // #GP.
  virtual std::optional<uint64_t> read_apic_msr(uint32_t index) = 0;
  [[nodiscard]] virtual bool write_apic_msr(uint32_t index, uint64_t value) = 0;
  // The guest moved its TSC (IA32_TSC, IA32_TSC_ADJUST): State::tsc_offset is now this. The APIC's TSC deadline
  // follows.
  virtual void set_tsc_offset(uint64_t /*offset*/) {}
  // CR8: bits 7:4 of the task priority register, 0 to 15.
  virtual uint8_t read_task_priority() = 0;
  virtual void write_task_priority(uint8_t priority) = 0;
};

}  // namespace bulkhead::cpu
