#include "machine/bus/cpu_port.h"

#include <algorithm>

namespace bulkhead::machine {

size_t CpuPort::bytes_in_apic_page(uint64_t address, size_t size, uint64_t& offset) const {
  const std::optional<uint64_t> base = apic_ != nullptr ? apic_->page_base() : std::nullopt;
  if (!base || address - *base >= device::interrupt::LocalApic::kPageSize) return 0;
  offset = address - *base;
  return std::min<uint64_t>(size, device::interrupt::LocalApic::kPageSize - offset);
}

// Accesses are taken to belong to the APIC by their first byte: one that begins before its page and reaches into it
// never touches a register.
void CpuPort::read_memory(GuestAddress address, MutableByteSpan out) {
  uint64_t offset = 0;
  const size_t in_page = bytes_in_apic_page(address.value, out.size(), offset);
  for (size_t done = 0; done < in_page;) {
    const size_t piece = std::min<size_t>(in_page - done, 8);
    std::fill_n(out.begin() + static_cast<ptrdiff_t>(done), piece, uint8_t{0xFF});
    apic_->read_mmio(offset + done, out.subspan(done, piece));
    done += piece;
  }
  if (in_page < out.size()) reader_.read_memory(address.value + in_page, out.subspan(in_page));
}

void CpuPort::write_memory(GuestAddress address, ByteSpan in) {
  uint64_t offset = 0;
  const size_t in_page = bytes_in_apic_page(address.value, in.size(), offset);
  for (size_t done = 0; done < in_page;) {
    const size_t piece = std::min<size_t>(in_page - done, 8);
    apic_->write_mmio(offset + done, in.subspan(done, piece));
    done += piece;
  }
  if (in_page < in.size()) reader_.write_memory(address.value + in_page, in.subspan(in_page));
}

std::optional<uint8_t> CpuPort::acknowledge_interrupt() {
  if (apic_ != nullptr) return apic_->acknowledge();
  if (!pic_request_.load(std::memory_order_acquire)) return std::nullopt;
  return pic_.acknowledge();
}

bool CpuPort::interrupt_pending() {
  return apic_ != nullptr ? apic_->interrupt_pending() : pic_request_.load(std::memory_order_acquire);
}

std::optional<uint64_t> CpuPort::read_apic_msr(uint32_t index) {
  return apic_ != nullptr ? apic_->read_msr(index) : std::nullopt;
}

bool CpuPort::write_apic_msr(uint32_t index, uint64_t value) {
  return apic_ != nullptr && apic_->write_msr(index, value);
}

void CpuPort::set_tsc_offset(uint64_t offset) {
  if (apic_ != nullptr) apic_->set_tsc_offset(offset);
}

uint8_t CpuPort::read_task_priority() {
  return apic_ != nullptr ? apic_->read_task_priority() : 0;
}

void CpuPort::write_task_priority(uint8_t priority) {
  if (apic_ != nullptr) apic_->write_task_priority(priority);
}

}  // namespace bulkhead::machine
