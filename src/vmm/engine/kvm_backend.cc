// The host kernel's KVM as a backend.
#include "kvm/kvm_vcpu.h"
#include "kvm/system.h"
#include "kvm/virtual_machine.h"
#include "vmm/engine/engine_backend.h"

namespace bulkhead::vmm {
namespace {

class KvmVmEngine final : public VmEngine {
 public:
  static Result<std::unique_ptr<VmEngine>> create(kvm::System& system, const EngineParts& parts) {
    auto made = std::make_unique<KvmVmEngine>();
    made->machine_ = TRY(kvm::VirtualMachine::create(system, parts.memory, parts.clock, kvm::LocalApics::kBoard));
    for (uint32_t i = 0; i < parts.vcpu_count; ++i) {
      const auto leaves = parts.model.leaves(i, {.vcpu_count = parts.vcpu_count}, parts.clock.tsc_hz());
      made->vcpus_.push_back(TRY(made->machine_->create_vcpu(i, leaves)));
    }
    return made;
  }
  cpu::Vcpu& vcpu(uint32_t index) override { return *vcpus_[index]; }
  Result<> collect_dirty() override { return machine_->collect_dirty(); }

 private:
  std::unique_ptr<kvm::VirtualMachine> machine_;
  std::vector<std::unique_ptr<kvm::KvmVcpu>> vcpus_;
};

class KvmBackend final : public EngineBackend {
 public:
  explicit KvmBackend(std::unique_ptr<kvm::System> system) : system_(std::move(system)) {}
  [[nodiscard]] std::string_view name() const override { return "kvm"; }
  [[nodiscard]] cpu::FeatureSet available_features() const override { return system_->available_features(); }
  [[nodiscard]] HostClock::Source clock_source() const override { return HostClock::Source::kHostTsc; }
  Result<std::unique_ptr<VmEngine>> create(const EngineParts& parts) override {
    return KvmVmEngine::create(*system_, parts);
  }

 private:
  std::unique_ptr<kvm::System> system_;
};

}  // namespace

Result<std::unique_ptr<EngineBackend>> open_kvm_backend() {
  return std::make_unique<KvmBackend>(TRY(kvm::System::open()));
}

}  // namespace bulkhead::vmm
