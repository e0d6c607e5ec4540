#include "engine/engine.h"

#include <algorithm>

#include "engine/interpreter/cpu.h"
#include "engine/jit/jit.h"
#include "engine/mmu/access.h"
#include "engine/soft_vcpu.h"
#include "support/log.h"

namespace bulkhead::engine {

Engine::Engine(memory::GuestMemory& memory, Clock& clock, RandomSource& random, EngineOptions options, CodeMap code_map)
    : memory_(memory),
      clock_(clock),
      random_(random),
      options_(std::move(options)),
      decode_options_(decoder::options_for(options_.features)),
      code_map_(std::move(code_map)) {
  for (auto& seen : seen_epochs_) seen.store(kParked);
  memory_.set_code_watcher(this);
}

Engine::~Engine() {
  memory_.set_code_watcher(nullptr);
}

Result<std::unique_ptr<Engine>> Engine::create(memory::GuestMemory& memory, Clock& clock, RandomSource& random,
                                               EngineOptions options) {
  if (options.vcpu_count == 0 || options.vcpu_count > kMaximumVcpus) {
    return fail("engine: {} vCPUs, not 1 to {}", options.vcpu_count, kMaximumVcpus);
  }
  options.leaves.resize(options.vcpu_count);
  CodeMap code_map = TRY(CodeMap::create(memory));
  return std::unique_ptr<Engine>(new Engine(memory, clock, random, std::move(options), std::move(code_map)));
}

Result<std::unique_ptr<cpu::CountedVcpu>> Engine::create_vcpu(uint32_t index) {
  if (index >= options_.vcpu_count) return fail("engine: vCPU {} of {}", index, options_.vcpu_count);
  if (cpus_[index].load() != nullptr) return fail("engine: vCPU {} exists already", index);
  auto vcpu = std::make_unique<SoftVcpu>(*this, index);
  if (options_.translate) {
    if (Result<> translating = vcpu->use_translator(options_.translate_after, options_.code_cache_bytes);
        !translating) {
      log::warning("vCPU {}: no translation, the interpreter runs alone: {}", index, translating.error().message);
    }
  }
  cpus_[index].store(&vcpu->cpu());
  return vcpu;
}

cpu::FeatureSet Engine::available_features() {
  cpu::FeatureSet features;
  // Carried out by the interpreter itself, whatever the host is.
  for (const char* name :
       {"fpu",     "de",       "pse",        "tsc",      "msr",    "pae",         "mce",       "cx8",
        "apic",    "sep",      "mtrr",       "pge",      "mca",    "cmov",        "pat",       "pse36",
        "clflush", "mmx",      "fxsr",       "sse",      "sse2",   "ht",          "pni",       "ssse3",
        "cx16",    "pcid",     "sse4_1",     "sse4_2",   "x2apic", "movbe",       "popcnt",    "tsc_deadline_timer",
        "xsave",   "rdrand",   "hypervisor", "fsgsbase", "smep",   "erms",        "invpcid",   "rdseed",
        "adx",     "smap",     "clflushopt", "clwb",     "umip",   "rdpid",       "spec_ctrl", "arch_capabilities",
        "xgetbv1", "xsaveopt", "xsavec",     "lahf_lm",  "abm",    "bmi1",        "bmi2",      "3dnowprefetch",
        "syscall", "nx",       "pdpe1gb",    "rdtscp",   "lm",     "constant_tsc"}) {
    features.add(name);
  }
  // Carried out by the host's own instructions on the guest's operands.
  const cpu::FeatureSet host = cpu::host_features();
  for (const char* name : {"avx", "avx2", "fma", "f16c", "aes", "pclmulqdq", "sha_ni"}) {
    if (host.has(name)) features.add(name);
  }
  for (const char* name : {"ssse3", "sse4_1", "sse4_2", "pni"}) {
    if (!host.has(name)) features.remove(name);
  }
  return features;
}

void Engine::ask_others(const Cpu* asker, uint32_t attention) {
  for (uint32_t i = 0; i < options_.vcpu_count; ++i) {
    Cpu* cpu = cpus_[i].load();
    if (cpu != nullptr && cpu != asker) cpu->attention.fetch_or(attention);
  }
}

void Engine::tell_of_changed_code(const Cpu* writer) {
  code_changes_.fetch_add(1);
  ask_others(writer, kAttentionFlush);
}

void Engine::restart_dirty_log() {
  write_epoch_.fetch_add(1);
  ask_others(nullptr, kAttentionFlush);
}

uint64_t Engine::request_write_flush(Cpu& asker) {
  if (options_.vcpu_count == 1) return 0;
  const uint64_t epoch = write_epoch_.fetch_add(1) + 1;
  ask_others(&asker, kAttentionFlush);
  // The asker has nothing to drop for its own request. Without this the others would wait for it to answer somebody
  // else's, which may be never. If it still owes an answer to one before, it gives that one first.
  if (asker.write_epoch + 1 == epoch) {
    asker.write_epoch = epoch;
    seen_epochs_[asker.index].store(epoch);
  }
  return epoch;
}

bool Engine::write_flush_done(const Cpu& asker, uint64_t epoch) const {
  for (uint32_t i = 0; i < options_.vcpu_count; ++i) {
    if (cpus_[i].load() != &asker && seen_epochs_[i].load() < epoch) return false;
  }
  return true;
}

void Engine::enter(Cpu& cpu) {
  {
    LockGuard lock(mutex_);
    while (exclusive_) changed_.wait(mutex_);
    ++running_;
  }
  std::atomic<uint64_t>& seen = seen_epochs_[cpu.index];
  seen.store(cpu.write_epoch);
  const uint64_t epoch = write_epoch_.load();
  if (epoch != cpu.write_epoch) {
    cpu.tlb.drop_all_writes();
    cpu.write_epoch = epoch;
    seen.store(epoch);
  }
}

void Engine::leave(Cpu& cpu) {
  seen_epochs_[cpu.index].store(kParked);
  LockGuard lock(mutex_);
  --running_;
  if (exclusive_) changed_.notify_all();
}

void Engine::attend_flush(Cpu& cpu) {
  const uint64_t epoch = write_epoch_.load();
  if (epoch != cpu.write_epoch) cpu.tlb.drop_all_writes();
  cpu.write_epoch = epoch;
  seen_epochs_[cpu.index].store(epoch);
  if (!pause_requested_.load()) return;
  LockGuard lock(mutex_);
  --running_;
  changed_.notify_all();
  while (exclusive_) changed_.wait(mutex_);
  ++running_;
}

void Engine::begin_exclusive(Cpu& cpu) {
  LockGuard lock(mutex_);
  --running_;
  changed_.notify_all();
  while (exclusive_) changed_.wait(mutex_);
  exclusive_ = true;
  pause_requested_.store(true);
  ask_others(&cpu, kAttentionFlush);
  while (running_ != 0) changed_.wait(mutex_);
}

void Engine::end_exclusive() {
  LockGuard lock(mutex_);
  exclusive_ = false;
  pause_requested_.store(false);
  ++running_;
  changed_.notify_all();
}

ExclusiveSection::ExclusiveSection(Cpu& cpu) : engine_(*cpu.engine) {
  engine_.begin_exclusive(cpu);
}
ExclusiveSection::~ExclusiveSection() {
  engine_.end_exclusive();
}

void code_written(Cpu& cpu, uint64_t physical, unsigned size) {
  ++cpu.counters.code_writes;
  if (!cpu.engine->code_map().written(physical, size)) return;
  leave_block(cpu);
  cpu.engine->tell_of_changed_code(&cpu);
  if (cpu.jit != nullptr) cpu.jit->look_at_code_changes(cpu.engine->code_changes());
}

}  // namespace bulkhead::engine
