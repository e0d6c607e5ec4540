#include "kvm/probe.h"
#include "vmm/engine/engine_choice.h"

namespace bulkhead::vmm {
namespace {

Result<> probe_hardware() {
  const auto system = TRY(kvm::System::open());
  const kvm::ProbeReport report = TRY(kvm::probe_hardware(*system));
  if (!report.hardware_backed) return fail("{}", report.reason);
  return {};
}

}  // namespace

EngineSources EngineSources::of_this_host() {
  return {open_kvm_backend, make_soft_backend, probe_hardware};
}

}  // namespace bulkhead::vmm
