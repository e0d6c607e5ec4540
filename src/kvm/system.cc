#include "kvm/system.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <sys/ioctl.h>

#include "kvm/flexible.h"

namespace bulkhead::kvm {
namespace {

struct Needed {
  int capability;
  const char* name;
};
constexpr Needed kNeeded[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    {KVM_CAP_XCRS, "KVM_CAP_XCRS"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    {KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR"},
    {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_SYNC_REGS, "KVM_CAP_SYNC_REGS"},
};

// Room for every leaf that a host kernel reports; one that has more answers E2BIG, which is reported.
constexpr uint32_t kMaximumLeaves = 256;

uint32_t output_of(const kvm_cpuid_entry2& entry, cpu::Feature::Output output) {
  switch (output) {
    case cpu::Feature::Output::kEax:
      return entry.eax;
    case cpu::Feature::Output::kEbx:
      return entry.ebx;
    case cpu::Feature::Output::kEcx:
      return entry.ecx;
    case cpu::Feature::Output::kEdx:
      return entry.edx;
  }
  return 0;
}

}  // namespace

Result<int> control(int fd, unsigned long request, const char* name, unsigned long argument) {
  while (true) {
    const int result = ::ioctl(fd, request, argument);
    if (result >= 0) return result;
    if (errno != EINTR) return fail_errno(errno, "kvm: {}", name);
  }
}

namespace {

// kvm_msrs with one entry.
struct OneMsr {
  __u32 count = 1;
  __u32 padding = 0;
  kvm_msr_entry entry{};
};
static_assert(offsetof(OneMsr, entry) == 8);

}  // namespace

bool get_msr(int fd, uint32_t index, uint64_t& value) {
  OneMsr msr;
  msr.entry.index = index;
  if (::ioctl(fd, kGetMsrs, &msr) != 1) return false;
  value = msr.entry.data;
  return true;
}

bool set_msr(int fd, uint32_t index, uint64_t value) {
  OneMsr msr;
  msr.entry.index = index;
  msr.entry.data = value;
  return ::ioctl(fd, kSetMsrs, &msr) == 1;
}

Result<std::unique_ptr<System>> System::open() {
  Fd fd = TRY(open_file("/dev/kvm", O_RDWR));
  auto system = std::unique_ptr<System>(new System(std::move(fd)));
  const int version = TRY(control(system->fd(), KVM_GET_API_VERSION, "KVM_GET_API_VERSION", 0ul));
  if (version != KVM_API_VERSION) return fail("kvm: API version {}, not {}", version, KVM_API_VERSION);
  system->run_area_size_ =
      static_cast<size_t>(TRY(control(system->fd(), KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE", 0ul)));
  TRY(system->check_capabilities());
  TRY(system->read_features());
  TRY(system->read_msr_indices());
  return system;
}

int System::extension(int capability) const {
  return ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(capability));
}

Result<> System::check_capabilities() const {
  for (const Needed& needed : kNeeded) {
    if (extension(needed.capability) <= 0) return fail("kvm: the host kernel lacks {}", needed.name);
  }
  return {};
}

Result<> System::read_features() {
  CpuidList supported(kMaximumLeaves);
  supported->nent = kMaximumLeaves;
  TRY(control(fd_.get(), kGetSupportedCpuid, "KVM_GET_SUPPORTED_CPUID", supported.header()));
  for (const cpu::Feature& feature : cpu::feature_table()) {
    for (uint32_t i = 0; i < supported->nent; ++i) {
      const kvm_cpuid_entry2& entry = supported[i];
      if (entry.function != feature.leaf || entry.index != feature.subleaf) continue;
      if ((output_of(entry, feature.output) >> feature.bit & 1) != 0) features_.add(feature.name);
    }
  }
  // Ours, whatever the host kernel says of its own interrupt controllers.
  for (const auto* name : {"apic", "x2apic", "tsc_deadline_timer", "hypervisor"}) features_.add(name);

  if (features_.has("arch_capabilities") && !TRY(has_arch_capabilities())) features_.remove("arch_capabilities");
  return {};
}

// Some kernels report the MSR and its CPUID bit, and refuse to set it.
Result<bool> System::has_arch_capabilities() {
  constexpr uint32_t kArchCapabilities = 0x10A;
  if (!get_msr(fd_.get(), kArchCapabilities, arch_capabilities_)) return false;
  const Fd machine(TRY(control(fd_.get(), KVM_CREATE_VM, "KVM_CREATE_VM", 0ul)));
  const Fd vcpu(TRY(control(machine.get(), KVM_CREATE_VCPU, "KVM_CREATE_VCPU", 0ul)));
  CpuidList cpuid(1);
  cpuid->nent = 1;
  cpuid[0] = {.function = 7, .index = 0, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .edx = 1u << 29};
  TRY(control(vcpu.get(), kSetCpuid2, "KVM_SET_CPUID2", cpuid.header()));
  return set_msr(vcpu.get(), kArchCapabilities, arch_capabilities_ & cpu::kArchCapabilities);
}

Result<> System::read_msr_indices() {
  constexpr uint32_t kMaximum = 1024;
  MsrList list(kMaximum);
  list->nmsrs = kMaximum;
  TRY(control(fd_.get(), kGetMsrIndexList, "KVM_GET_MSR_INDEX_LIST", list.header()));
  for (uint32_t i = 0; i < std::min(list->nmsrs, kMaximum); ++i) msr_indices_.push_back(list[i]);
  return {};
}

}  // namespace bulkhead::kvm
