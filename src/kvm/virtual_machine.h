// One VM of the host kernel: guest RAM as its memory slots, doorbells as ioeventfds, the dirty log. vCPUs are made here.
// The interrupt controllers are ours (the board's, the same that serve the soft engine), so that a machine's saved state
// does not depend on the engine; the host kernel only takes the interrupt that the board hands over.
#pragma once

#include <functional>
#include <memory>

#include "cpu/model.h"
#include "cpu/vcpu.h"
#include "kvm/system.h"
#include "memory/guest_memory.h"
#include "support/time/clock.h"

namespace bulkhead::kvm {

// Carries out the one instruction at the state's RIP that the host kernel could not emulate. The state is replaced by the
// one behind the instruction, or behind the delivery of its exception.
using InstructionFallback = std::function<Result<>(uint32_t vcpu_index, cpu::State& state, cpu::CpuIo& io)>;

class VirtualMachine {
 public:
  // The references must outlive the machine.
  static Result<std::unique_ptr<VirtualMachine>> create(System& system, memory::GuestMemory& memory, Clock& clock);
  ~VirtualMachine();

  void set_fallback(InstructionFallback fallback) { fallback_ = std::move(fallback); }

  Result<std::unique_ptr<cpu::Vcpu>> create_vcpu(uint32_t index, const std::vector<cpu::CpuidLeaf>& leaves);

  // A write of any value to the address signals the eventfd instead of reaching the bus. size 0: any size.
  Result<> add_doorbell(GuestAddress address, uint32_t size, int event_fd);
  Result<> remove_doorbell(GuestAddress address, uint32_t size, int event_fd);

  // The dirty log: pages written by vCPUs since the last collect are marked in GuestMemory's page flags.
  Result<> start_dirty_log();
  Result<> stop_dirty_log();
  Result<> collect_dirty();

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] System& system() const { return system_; }
  [[nodiscard]] Clock& clock() const { return clock_; }
  [[nodiscard]] memory::GuestMemory& memory() const { return memory_; }
  [[nodiscard]] const InstructionFallback& fallback() const { return fallback_; }

 private:
  VirtualMachine(System& system, memory::GuestMemory& memory, Clock& clock, Fd fd)
      : system_(system), memory_(memory), clock_(clock), fd_(std::move(fd)) {}
  Result<> set_slot(uint32_t slot, GuestAddress address, uint64_t size, uint32_t flags);
  Result<> set_all_slots(uint32_t flags);
  Result<> divert_apic_msrs();
  Result<> change_doorbell(GuestAddress address, uint32_t size, int event_fd, uint32_t flags, const char* action);

  System& system_;
  memory::GuestMemory& memory_;
  Clock& clock_;
  Fd fd_;
  InstructionFallback fallback_;
};

}  // namespace bulkhead::kvm
