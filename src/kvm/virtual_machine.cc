#include "kvm/virtual_machine.h"

#include <array>
#include <vector>

#include "kvm/kvm_vcpu.h"

namespace bulkhead::kvm {
namespace {

// Three pages that Intel hosts need for real mode and an identity map, where a PC has its firmware flash (KVM API,
// KVM_SET_TSS_ADDR and KVM_SET_IDENTITY_MAP_ADDR).
constexpr uint64_t kIdentityMapAddress = 0xFEFFC000;
constexpr uint64_t kTssAddress = 0xFEFFD000;

}  // namespace

Result<std::unique_ptr<VirtualMachine>> VirtualMachine::create(System& system, memory::GuestMemory& memory,
                                                               Clock& clock, LocalApics local_apics) {
  Fd fd(TRY(control(system.fd(), KVM_CREATE_VM, "KVM_CREATE_VM", 0ul)));
  auto machine = std::unique_ptr<VirtualMachine>(new VirtualMachine(system, memory, clock, local_apics, std::move(fd)));
  uint64_t identity_map = kIdentityMapAddress;
  TRY(control(machine->fd(), KVM_SET_IDENTITY_MAP_ADDR, "KVM_SET_IDENTITY_MAP_ADDR", &identity_map));
  TRY(control(machine->fd(), KVM_SET_TSS_ADDR, "KVM_SET_TSS_ADDR", kTssAddress));
  if (local_apics == LocalApics::kKernel) {
    TRY(machine->use_kernel_apics());
  } else {
    TRY(machine->divert_apic_msrs());
  }
  if (system.extension(KVM_CAP_EXIT_ON_EMULATION_FAILURE) > 0) {
    // Without this the kernel answers user code that it cannot emulate with #UD instead of asking us.
    kvm_enable_cap exits{};
    exits.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE;
    exits.args[0] = 1;
    TRY(control(machine->fd(), KVM_ENABLE_CAP, "KVM_CAP_EXIT_ON_EMULATION_FAILURE", &exits));
  }
  TRY(machine->set_all_slots(0));
  return machine;
}

VirtualMachine::~VirtualMachine() = default;

Result<> VirtualMachine::use_kernel_apics() {
  kvm_enable_cap split{};
  split.cap = KVM_CAP_SPLIT_IRQCHIP;
  split.args[0] = InterruptRoutes::kIoApicInputs;
  TRY(control(fd_.get(), KVM_ENABLE_CAP, "KVM_CAP_SPLIT_IRQCHIP", &split));
  return {};
}

// IA32_APIC_BASE and IA32_TSC_DEADLINE belong to the board's local APICs. x2APIC MSRs cannot be filtered; without a
// local APIC in the kernel they are invalid there, and invalid accesses come to us too.
Result<> VirtualMachine::divert_apic_msrs() {
  kvm_enable_cap exits{};
  exits.cap = KVM_CAP_X86_USER_SPACE_MSR;
  exits.args[0] = KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER;
  TRY(control(fd_.get(), KVM_ENABLE_CAP, "KVM_CAP_X86_USER_SPACE_MSR", &exits));

  uint8_t deny = 0;  // one bit an MSR: 0 sends the access to us
  kvm_msr_filter filter{};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  size_t range = 0;
  for (const uint32_t index : {0x1Bu, 0x6E0u}) {
    filter.ranges[range].flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
    filter.ranges[range].base = index;
    filter.ranges[range].nmsrs = 1;
    filter.ranges[range].bitmap = &deny;
    ++range;
  }
  TRY(control(fd_.get(), KVM_X86_SET_MSR_FILTER, "KVM_X86_SET_MSR_FILTER", &filter));
  return {};
}

Result<> VirtualMachine::set_slot(uint32_t slot, GuestAddress address, uint64_t size, uint32_t flags) {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.flags = flags;
  region.guest_phys_addr = address.value;
  region.memory_size = size;
  region.userspace_addr = reinterpret_cast<uint64_t>(memory_.host_base()) + address.value;
  TRY(control(fd_.get(), KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION", &region));
  return {};
}

Result<> VirtualMachine::set_all_slots(uint32_t flags) {
  TRY(set_slot(0, {0}, memory_.low_size(), flags));
  if (memory_.high_size() != 0) TRY(set_slot(1, {memory::GuestMemory::kHoleEnd}, memory_.high_size(), flags));
  return {};
}

Result<> VirtualMachine::set_kernel_clock() {
  kvm_clock_data data{};
  data.clock = clock_.now_ns();
  TRY(control(fd_.get(), KVM_SET_CLOCK, "KVM_SET_CLOCK", &data));
  return {};
}

Result<> VirtualMachine::start_dirty_log() {
  return set_all_slots(KVM_MEM_LOG_DIRTY_PAGES);
}
Result<> VirtualMachine::stop_dirty_log() {
  return set_all_slots(0);
}

Result<> VirtualMachine::collect_dirty() {
  const auto collect = [&](uint32_t slot, uint64_t first_page, uint64_t page_count) -> Result<> {
    std::vector<uint64_t> bitmap((page_count + 63) / 64);
    kvm_dirty_log log{};
    log.slot = slot;
    log.dirty_bitmap = bitmap.data();
    TRY(control(fd_.get(), KVM_GET_DIRTY_LOG, "KVM_GET_DIRTY_LOG", &log));
    for (size_t word = 0; word < bitmap.size(); ++word) {
      for (uint64_t bits = bitmap[word]; bits != 0; bits &= bits - 1) {
        const uint64_t page = first_page + word * 64 + static_cast<unsigned>(std::countr_zero(bits));
        memory_.page_flags(page).fetch_or(memory::kPageDirty);
      }
    }
    return {};
  };
  TRY(collect(0, 0, memory_.low_size() >> kPageShift));
  if (memory_.high_size() != 0) {
    TRY(collect(1, memory::GuestMemory::kHoleEnd >> kPageShift, memory_.high_size() >> kPageShift));
  }
  return {};
}

Result<> VirtualMachine::change_doorbell(GuestAddress address, uint32_t size, int event_fd, uint32_t flags,
                                         const char* action) {
  kvm_ioeventfd doorbell{};
  doorbell.addr = address.value;
  doorbell.len = size;
  doorbell.fd = event_fd;
  doorbell.flags = flags;
  TRY_IN(fmt::format("{} the doorbell at {:#x}", action, address.value),
         control(fd_.get(), KVM_IOEVENTFD, "KVM_IOEVENTFD", &doorbell));
  return {};
}

Result<> VirtualMachine::add_doorbell(GuestAddress address, uint32_t size, int event_fd) {
  return change_doorbell(address, size, event_fd, 0, "add");
}
Result<> VirtualMachine::remove_doorbell(GuestAddress address, uint32_t size, int event_fd) {
  return change_doorbell(address, size, event_fd, KVM_IOEVENTFD_FLAG_DEASSIGN, "remove");
}

Result<std::unique_ptr<KvmVcpu>> VirtualMachine::create_vcpu(uint32_t index,
                                                             const std::vector<cpu::CpuidLeaf>& leaves) {
  return TRY_IN(fmt::format("vCPU {}", index), KvmVcpu::create(*this, index, leaves));
}

}  // namespace bulkhead::kvm
