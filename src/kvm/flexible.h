// Storage for the kernel's structures that end in an array of as many entries as their header says.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <linux/kvm.h>
#include <sys/ioctl.h>

namespace bulkhead::kvm {

// Zeroed room for a Header and capacity entries from kEntryOffset on. The offset is the kernel's; sizeof and offsetof
// do not tell it, because the C headers' empty struct before the array takes room in C++.
template <typename Header, typename Entry, size_t kEntryOffset>
class Flexible {
 public:
  explicit Flexible(size_t capacity) : words_((sizeof(Header) + kEntryOffset + capacity * sizeof(Entry) + 7) / 8) {}

  Header* operator->() { return header(); }
  Header* header() { return reinterpret_cast<Header*>(words_.data()); }
  Entry& operator[](size_t index) {
    return reinterpret_cast<Entry*>(reinterpret_cast<char*>(words_.data()) + kEntryOffset)[index];
  }

 private:
  std::vector<unsigned long long> words_;
};

// The requests on them, whose numbers contain the C size of the header.
inline constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
inline constexpr unsigned long kSetCpuid2 = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);
inline constexpr unsigned long kGetMsrIndexList = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x02, 4);
inline constexpr unsigned long kGetMsrs = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x88, 8);
inline constexpr unsigned long kSetMsrs = _IOC(_IOC_WRITE, KVMIO, 0x89, 8);
inline constexpr unsigned long kSetGsiRouting = _IOC(_IOC_WRITE, KVMIO, 0x6A, 8);
// struct kvm_xsave ends in such an array too; its fixed part is all we use.
using XsaveArea = std::array<uint32_t, 1024>;
inline constexpr unsigned long kGetXsave = _IOC(_IOC_READ, KVMIO, 0xA4, sizeof(XsaveArea));
inline constexpr unsigned long kSetXsave = _IOC(_IOC_WRITE, KVMIO, 0xA5, sizeof(XsaveArea));

using CpuidList = Flexible<kvm_cpuid2, kvm_cpuid_entry2, 8>;
using RoutingList = Flexible<kvm_irq_routing, kvm_irq_routing_entry, 8>;
using MsrList = Flexible<kvm_msr_list, __u32, 4>;

// Reads or writes one MSR of a vCPU, or with the system's descriptor reads a feature MSR; false when it is refused.
bool get_msr(int fd, uint32_t index, uint64_t& value);
bool set_msr(int fd, uint32_t index, uint64_t value);

}  // namespace bulkhead::kvm
