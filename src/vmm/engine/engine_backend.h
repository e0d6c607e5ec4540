// The two engines behind one door: what each can do here, and the making of a VM's vCPUs on it. Nothing else in vmm/
// knows which one runs.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "cpu/model.h"
#include "cpu/vcpu.h"
#include "engine/translation_watcher.h"
#include "machine/board/doorbell_host.h"
#include "memory/guest_memory.h"
#include "support/random.h"
#include "support/result.h"
#include "support/time/host_clock.h"

namespace bulkhead::vmm {

// What a VM's vCPUs are made from. Everything outlives them.
struct EngineParts {
  memory::GuestMemory& memory;
  Clock& clock;
  RandomSource& random;
  const cpu::CpuModel& model;
  uint32_t vcpu_count;
  bool counted = false;                           // the vCPUs are to be cpu::CountedVcpus
  bool translate = false;                         // the soft engine translates what runs often
  size_t code_cache_bytes = 0;                    // of each vCPU, for what is translated
  engine::TranslationWatcher* watcher = nullptr;  // and tells of it
};

// One VM's vCPUs and what they share.
class VmEngine {
 public:
  virtual ~VmEngine() = default;
  [[nodiscard]] virtual cpu::Vcpu& vcpu(uint32_t index) = 0;
  // The same vCPU when it counts (EngineParts::counted), else null.
  [[nodiscard]] virtual cpu::CountedVcpu* counted_vcpu(uint32_t /*index*/) { return nullptr; }
  // Marks what the vCPUs wrote since the last time in GuestMemory's page flags.
  virtual Result<> collect_dirty() = 0;
  // What they write from now on is marked again, after the flags were taken; while none of them runs.
  virtual Result<> restart_dirty_log() = 0;
  // Who rings the devices' doorbells, or nullptr where a write to one goes through the board like any other.
  [[nodiscard]] virtual machine::DoorbellHost* doorbell_host() { return nullptr; }
  // What the engine as a whole has to tell, by name.
  [[nodiscard]] virtual cpu::Statistics statistics() const { return {}; }
};

class EngineBackend {
 public:
  virtual ~EngineBackend() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  [[nodiscard]] virtual cpu::FeatureSet available_features() const = 0;
  // What the machine's clock must run on for the guest's TSC to agree with it.
  [[nodiscard]] virtual HostClock::Source clock_source() const { return HostClock::Source::kBest; }
  virtual Result<std::unique_ptr<VmEngine>> create(const EngineParts& parts) = 0;
};

std::unique_ptr<EngineBackend> make_soft_backend();
// Fails with the reason when this host has no usable /dev/kvm.
Result<std::unique_ptr<EngineBackend>> open_kvm_backend();

}  // namespace bulkhead::vmm
