#include "vmm/engine/engine_choice.h"

namespace bulkhead::vmm {

Result<EngineChoice> choose_engine(const Setting<EngineName>& wanted, const EngineSources& sources) {
  if (wanted.value == EngineName::kSoft) return EngineChoice{sources.make_soft(), {}};
  auto kvm = sources.open_kvm();
  if (wanted.value == EngineName::kKvm) {
    if (!kvm) return fail("{}: {}", wanted.label("kvm"), kvm.error().message);
    return EngineChoice{std::move(*kvm), {}};
  }
  if (!kvm) return EngineChoice{sources.make_soft(), fmt::format("engine soft: {}", kvm.error().message)};
  if (const auto probe = sources.probe_kvm(); !probe) {
    return EngineChoice{sources.make_soft(), fmt::format("engine soft: {}", probe.error().message)};
  }
  return EngineChoice{std::move(*kvm), "engine kvm"};
}

}  // namespace bulkhead::vmm
