// A target for tests: two vCPUs and a megabyte of memory mapped at 0, nothing behind it.
#pragma once

#include <algorithm>
#include <vector>

#include "vmm/gdb/session.h"

namespace bulkhead::vmm::gdb {

class FakeTarget final : public Target {
 public:
  [[nodiscard]] uint32_t vcpu_count() override { return 2; }
  cpu::State get_state(uint32_t vcpu) override { return states[vcpu]; }
  Result<> set_state(uint32_t vcpu, const cpu::State& state) override {
    states[vcpu] = state;
    return {};
  }
  bool read_memory(uint32_t, uint64_t address, MutableByteSpan out) override {
    if (!range_fits(address, out.size(), memory.size())) return false;
    std::copy_n(memory.begin() + static_cast<ptrdiff_t>(address), out.size(), out.begin());
    return true;
  }
  bool write_memory(uint32_t, uint64_t address, ByteSpan in) override {
    if (!range_fits(address, in.size(), memory.size())) return false;
    std::copy(in.begin(), in.end(), memory.begin() + static_cast<ptrdiff_t>(address));
    return true;
  }
  Result<> resume(const Resume& request) override {
    resumed.push_back(request);
    return {};
  }
  void interrupt() override { ++interrupts; }
  void reset() override { ++resets; }
  void quit() override { ++quits; }

  std::vector<cpu::State> states{2};
  std::vector<uint8_t> memory = std::vector<uint8_t>(1 << 20);
  std::vector<Resume> resumed;
  int interrupts = 0, resets = 0, quits = 0;
};

}  // namespace bulkhead::vmm::gdb
