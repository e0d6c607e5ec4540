// Which engine a VM gets. "auto" takes KVM only when a probe guest proves that hardware carries it out: some hosts
// offer a /dev/kvm that emulates every instruction of a guest's kernel, and there our own engine is faster and more
// exact.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "vmm/config/config.h"
#include "vmm/engine/engine_backend.h"

namespace bulkhead::vmm {

// Where engines come from; tests put their own.
struct EngineSources {
  std::function<Result<std::unique_ptr<EngineBackend>>()> open_kvm;
  std::function<std::unique_ptr<EngineBackend>()> make_soft;
  // The reason when KVM is not backed by hardware, nothing when it is.
  std::function<Result<>()> probe_kvm;

  static EngineSources of_this_host();
};

struct EngineChoice {
  std::unique_ptr<EngineBackend> backend;
  std::string reason;  // one line for the operator, when "auto" has chosen
};

// Fails when KVM was asked for by name and is not there.
Result<EngineChoice> choose_engine(const Setting<EngineName>& wanted, const EngineSources& sources);

}  // namespace bulkhead::vmm
