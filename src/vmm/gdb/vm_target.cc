#include "vmm/gdb/vm_target.h"

#include <algorithm>

#include "vmm/vm.h"

namespace bulkhead::vmm::gdb {

uint32_t VmTarget::vcpu_count() {
  return vm_.vcpu_count();
}

cpu::State VmTarget::get_state(uint32_t vcpu) {
  cpu::State state;
  vm_.driver().call_at_rest([&] { state = vm_.vcpu(vcpu).get_state(); });
  return state;
}

Result<> VmTarget::set_state(uint32_t vcpu, const cpu::State& state) {
  Result<> result = fail("the VM has ended");
  vm_.driver().call_at_rest([&] { result = vm_.vcpu(vcpu).set_state(state); });
  return result;
}

template <typename Visit>
bool VmTarget::for_each_page(uint32_t vcpu, uint64_t address, size_t size, Visit&& visit) {
  bool all = false;
  vm_.driver().call_at_rest([&] {
    size_t done = 0;
    while (done < size) {
      const uint64_t linear = address + done;
      const size_t piece = std::min<size_t>(size - done, kPageSize - linear % kPageSize);
      const auto physical = vm_.vcpu(vcpu).translate(linear);
      if (!physical || !visit(*physical, done, piece)) return;
      done += piece;
    }
    all = true;
  });
  return all;
}

bool VmTarget::read_memory(uint32_t vcpu, uint64_t address, MutableByteSpan out) {
  return for_each_page(vcpu, address, out.size(), [&](GuestAddress physical, size_t offset, size_t size) {
    return vm_.memory().read(physical, out.subspan(offset, size));
  });
}

bool VmTarget::write_memory(uint32_t vcpu, uint64_t address, ByteSpan in) {
  return for_each_page(vcpu, address, in.size(), [&](GuestAddress physical, size_t offset, size_t size) {
    return vm_.memory().write(physical, in.subspan(offset, size));
  });
}

Result<> VmTarget::resume(const Resume& resume) {
  Result<> result = fail("the VM has ended");
  vm_.driver().call_at_rest([&] {
    result = {};
    for (uint32_t i = 0; i < vm_.vcpu_count() && result; ++i) {
      result = vm_.vcpu(i).set_debug({.single_step = resume.stepped == i, .points = resume.points});
    }
  });
  if (!result) return result;
  if (resume.only) {
    vm_.driver().release_one(*resume.only);
  } else {
    vm_.driver().release(StateDriver::Holder::kDebugger);
  }
  return {};
}

void VmTarget::interrupt() {
  vm_.driver().hold(StateDriver::Holder::kDebugger);
}
void VmTarget::reset() {
  vm_.driver().reset();
}
void VmTarget::quit() {
  vm_.driver().quit();
}

void VmTarget::let_go() {
  vm_.driver().hold(StateDriver::Holder::kDebugger);
  [[maybe_unused]] const auto resumed = resume({});
}

}  // namespace bulkhead::vmm::gdb
