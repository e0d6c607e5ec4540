// The host kernel's KVM as a backend. An instruction that KVM cannot emulate is carried out by our own engine; a write
// to a device's doorbell signals its eventfd in the kernel and needs no exit.
#include <atomic>

#include "engine/engine.h"
#include "kvm/kvm_vcpu.h"
#include "kvm/system.h"
#include "kvm/virtual_machine.h"
#include "support/log.h"
#include "vmm/engine/engine_backend.h"

namespace bulkhead::vmm {
namespace {

// Carries out one instruction at a time for a VM under KVM.
class InstructionEmulator {
 public:
  static Result<std::unique_ptr<InstructionEmulator>> create(const EngineParts& parts, engine::EngineOptions options) {
    auto made = std::make_unique<InstructionEmulator>();
    made->engine_ = TRY(engine::Engine::create(parts.memory, parts.clock, parts.random, std::move(options)));
    return made;
  }

  Result<> step(uint32_t vcpu_index, cpu::State& state, cpu::CpuIo& io) {
    // What KVM's vCPUs write to code is not seen by the engine, so nothing it has decoded is kept.
    const auto vcpu = TRY(engine_->create_vcpu(vcpu_index));
    const uint64_t instruction_count = state.instruction_count;
    TRY(vcpu->set_state(state));
    TRY(vcpu->set_debug({.single_step = true, .points = {}}));
    const cpu::StopReason reason = vcpu->run(io);
    if (reason == cpu::StopReason::kInternalError) return fail("{}", vcpu->error());
    state = vcpu->get_state();
    state.instruction_count = instruction_count;
    if (reason == cpu::StopReason::kShutdown) state.activity = cpu::Activity::kShutdown;
    return {};
  }

 private:
  std::unique_ptr<engine::Engine> engine_;
};

class KvmVmEngine final : public VmEngine, private machine::DoorbellHost {
 public:
  static Result<std::unique_ptr<VmEngine>> create(kvm::System& system, const EngineParts& parts) {
    auto made = std::make_unique<KvmVmEngine>();
    made->machine_ = TRY(kvm::VirtualMachine::create(system, parts.memory, parts.clock, kvm::LocalApics::kBoard));
    engine::EngineOptions options{.vcpu_count = parts.vcpu_count, .features = parts.model.features(), .leaves = {}};
    for (uint32_t i = 0; i < parts.vcpu_count; ++i) {
      options.leaves.push_back(parts.model.leaves(i, {.vcpu_count = parts.vcpu_count}, parts.clock.tsc_hz()));
      made->vcpus_.push_back(TRY(made->machine_->create_vcpu(i, options.leaves.back())));
    }
    made->emulator_ = TRY(InstructionEmulator::create(parts, std::move(options)));
    made->machine_->set_fallback(
        [emulator = made->emulator_.get()](uint32_t vcpu_index, cpu::State& state, cpu::CpuIo& io) {
          return emulator->step(vcpu_index, state, io);
        });
    return made;
  }
  cpu::Vcpu& vcpu(uint32_t index) override { return *vcpus_[index]; }
  Result<> collect_dirty() override { return machine_->collect_dirty(); }
  // The kernel's log begins anew each time it is collected.
  Result<> restart_dirty_log() override { return {}; }
  [[nodiscard]] machine::DoorbellHost* doorbell_host() override { return this; }
  [[nodiscard]] cpu::Statistics statistics() const override { return {{"doorbells in the kernel", doorbells_.load()}}; }

 private:
  // Without a doorbell in the kernel the write comes to the board: slower, nothing else.
  void add_doorbell(GuestAddress address, int event_fd) override {
    if (Result<> added = machine_->add_doorbell(address, 0, event_fd); !added) {
      log::warning("{}: the device's notifications take the long way", added.error().message);
      return;
    }
    ++doorbells_;
  }
  void remove_doorbell(GuestAddress address, int event_fd) override {
    if (machine_->remove_doorbell(address, 0, event_fd)) --doorbells_;
  }

  std::atomic<uint64_t> doorbells_ = 0;
  std::unique_ptr<InstructionEmulator> emulator_;
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
