#include "engine/soft_vcpu.h"

#include <algorithm>
#include <cstring>

#include "engine/interpreter/debug.h"
#include "engine/interpreter/run_loop.h"
#include "engine/interpreter/system/system.h"
#include "engine/mmu/page_walk.h"

namespace bulkhead::engine {

SoftVcpu::SoftVcpu(Engine& engine, uint32_t index)
    : engine_(engine),
      blocks_(engine.decode_options(),
              engine.options().translate ? BlockCache::kDecodedBytesBesideTranslator : BlockCache::kDecodedBytes) {
  cpu_.engine = &engine;
  cpu_.vcpu = this;
  cpu_.memory = &engine.memory();
  cpu_.blocks = &blocks_;
  cpu_.index = index;
  cpu_.counted = engine.options().counted;
  cpu_.features = model_features(engine.options().features);
  const auto& leaves = engine.options().leaves[index];
  const uint32_t widths = cpu::look_up(leaves, 0x80000008, 0).eax;
  const unsigned physical_bits = (widths & 0xFF) >= 36 && (widths & 0xFF) <= 52 ? widths & 0xFF : 40;
  cpu_.physical_mask = (1ull << physical_bits) - 1;
  load_state(cpu_, cpu::reset_state(index));
}

Result<> SoftVcpu::use_translator(uint16_t after_runs, size_t code_cache_bytes) {
  jit_ = TRY(jit::Jit::create(cpu_, code_cache_bytes));
  jit_->set_threshold(after_runs);
  cpu_.jit = jit_.get();
  return {};
}

SoftVcpu::~SoftVcpu() {
  engine_.cpus_[cpu_.index].store(nullptr);
}

void SoftVcpu::ask(uint32_t attention) {
  cpu_.attention.fetch_or(attention);
  if (!waiting_.load()) return;
  {
    // Taken so that the waiter is either before its look at attention or asleep; not kept, or the waiter would wake up
    // to wait for it.
    const LockGuard lock(mutex_);
  }
  woken_.notify_one();
}

void SoftVcpu::set_interrupt_request(bool asserted) {
  if (asserted) {
    ask(kAttentionInterrupt);
  } else {
    cpu_.attention.fetch_and(~uint32_t{kAttentionInterrupt});
  }
}

void SoftVcpu::raise_sipi(uint8_t vector) {
  sipi_vector_.store(vector);
  ask(kAttentionSipi);
}

void SoftVcpu::wait(uint32_t wake) {
  engine_.leave(cpu_);
  const auto is_over = [&] { return (cpu_.attention.load() & wake) != 0; };
  poll_.wait(is_over, [&] {
    LockGuard lock(mutex_);
    waiting_.store(true);
    while (!is_over()) woken_.wait(mutex_);
    waiting_.store(false);
  });
  engine_.enter(cpu_);
}

cpu::StopReason SoftVcpu::run(cpu::CpuIo& io) {
  cpu_.io = &io;
  engine_.enter(cpu_);
  const cpu::StopReason reason = run_loop(cpu_);
  engine_.leave(cpu_);
  return reason;
}

cpu::State SoftVcpu::get_state() {
  take_startup_requests(cpu_);  // the plain value has no place for them
  return save_state(cpu_);
}

Result<> SoftVcpu::set_state(const cpu::State& state) {
  // Of another life.
  cpu_.attention.fetch_and(~uint32_t{kAttentionNmi | kAttentionInit | kAttentionSipi});
  load_state(cpu_, state);
  error_.clear();
  return {};
}

Result<> SoftVcpu::set_debug(const cpu::DebugRequest& request) {
  if (request.points.size() > cpu::DebugRequest::kMaximumPoints) {
    return bulkhead::fail("debug: {} points, at most {}", request.points.size(), cpu::DebugRequest::kMaximumPoints);
  }
  debug_ = request;
  update_mode(cpu_);
  return {};
}

std::optional<GuestAddress> SoftVcpu::translate(uint64_t linear_address) {
  const auto mapping = mmu::look_up(cpu_, linear_address);
  if (!mapping) return std::nullopt;
  return GuestAddress{mapping->physical + (linear_address & (kPageSize - 1))};
}

}  // namespace bulkhead::engine
