// A Vm as the debugger's session sees it. Everything that touches a vCPU is done on the state driver's thread, at rest.
#pragma once

#include "vmm/gdb/session.h"

namespace bulkhead::vmm {
class Vm;
}

namespace bulkhead::vmm::gdb {

class VmTarget final : public Target {
 public:
  explicit VmTarget(Vm& vm) : vm_(vm) {}

  [[nodiscard]] uint32_t vcpu_count() override;
  cpu::State get_state(uint32_t vcpu) override;
  Result<> set_state(uint32_t vcpu, const cpu::State& state) override;
  bool read_memory(uint32_t vcpu, uint64_t address, MutableByteSpan out) override;
  bool write_memory(uint32_t vcpu, uint64_t address, ByteSpan in) override;
  Result<> resume(const Resume& resume) override;
  void interrupt() override;
  void reset() override;
  void quit() override;

  // Takes every point and step away and lets the VM run.
  void let_go();

 private:
  // Calls visit(guest address, offset, size) for each page's part, at rest; false at the first that is not mapped.
  template <typename Visit>
  bool for_each_page(uint32_t vcpu, uint64_t address, size_t size, Visit&& visit);

  Vm& vm_;
};

}  // namespace bulkhead::vmm::gdb
