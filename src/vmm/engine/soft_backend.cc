// Bulkhead's own engine as a backend.
#include "engine/engine.h"
#include "vmm/engine/engine_backend.h"

namespace bulkhead::vmm {
namespace {

class SoftVmEngine final : public VmEngine {
 public:
  static Result<std::unique_ptr<VmEngine>> create(const EngineParts& parts) {
    auto made = std::make_unique<SoftVmEngine>();
    engine::EngineOptions options{.vcpu_count = parts.vcpu_count,
                                  .features = parts.model.features(),
                                  .leaves = {},
                                  .counted = parts.counted,
                                  .translate = parts.translate,
                                  .code_cache_bytes = parts.code_cache_bytes,
                                  .watcher = parts.watcher};
    for (uint32_t i = 0; i < parts.vcpu_count; ++i) {
      options.leaves.push_back(parts.model.leaves(i, {.vcpu_count = parts.vcpu_count}, parts.clock.tsc_hz()));
    }
    made->engine_ = TRY(engine::Engine::create(parts.memory, parts.clock, parts.random, std::move(options)));
    for (uint32_t i = 0; i < parts.vcpu_count; ++i) made->vcpus_.push_back(TRY(made->engine_->create_vcpu(i)));
    return made;
  }
  cpu::Vcpu& vcpu(uint32_t index) override { return *vcpus_[index]; }
  cpu::CountedVcpu* counted_vcpu(uint32_t index) override { return vcpus_[index].get(); }
  // The engine sets the flags as it writes.
  Result<> collect_dirty() override { return {}; }
  Result<> restart_dirty_log() override {
    engine_->restart_dirty_log();
    return {};
  }

 private:
  std::unique_ptr<engine::Engine> engine_;
  std::vector<std::unique_ptr<cpu::CountedVcpu>> vcpus_;
};

class SoftBackend final : public EngineBackend {
 public:
  [[nodiscard]] std::string_view name() const override { return "soft"; }
  [[nodiscard]] cpu::FeatureSet available_features() const override { return engine::Engine::available_features(); }
  Result<std::unique_ptr<VmEngine>> create(const EngineParts& parts) override { return SoftVmEngine::create(parts); }
};

}  // namespace

std::unique_ptr<EngineBackend> make_soft_backend() {
  return std::make_unique<SoftBackend>();
}

}  // namespace bulkhead::vmm
