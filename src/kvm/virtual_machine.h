// One VM of the host kernel: guest RAM as its memory slots, doorbells as ioeventfds, the dirty log. vCPUs are made
// here. The local APICs are the board's, the same that serve the soft engine, or the host kernel's; I/O APIC and PIC
// are always the board's.
#pragma once

#include <functional>
#include <memory>

#include "cpu/model.h"
#include "cpu/vcpu.h"
#include "kvm/interrupt_routes.h"
#include "kvm/system.h"
#include "memory/guest_memory.h"
#include "support/time/clock.h"

namespace bulkhead::kvm {

class KvmVcpu;

// Carries out the one instruction at the state's RIP that the host kernel could not emulate. The state is replaced by
// the one behind the instruction, or behind the delivery of its exception.
using InstructionFallback = std::function<Result<>(uint32_t vcpu_index, cpu::State& state, cpu::CpuIo& io)>;

enum class LocalApics : uint8_t {
  kBoard,   // the kernel takes a vector when the board's local APIC has one and the guest can take it
  kKernel,  // the kernel has them: no exit for timers, IPIs and ends of interrupts, and events can interrupt (irqfd)
};

class VirtualMachine {
 public:
  // Called on a vCPU's thread when the guest has ended a level-triggered interrupt of the I/O APIC in a kernel's APIC.
  using EndOfInterrupt = std::function<void(uint8_t vector)>;

  // The references must outlive the machine.
  static Result<std::unique_ptr<VirtualMachine>> create(System& system, memory::GuestMemory& memory, Clock& clock,
                                                        LocalApics local_apics);
  ~VirtualMachine();

  [[nodiscard]] LocalApics local_apics() const { return local_apics_; }
  // With LocalApics::kKernel only.
  [[nodiscard]] InterruptRoutes& interrupt_routes() { return routes_; }
  void set_end_of_interrupt(EndOfInterrupt callback) { end_of_interrupt_ = std::move(callback); }
  [[nodiscard]] const EndOfInterrupt& end_of_interrupt() const { return end_of_interrupt_; }

  void set_fallback(InstructionFallback fallback) { fallback_ = std::move(fallback); }

  Result<std::unique_ptr<KvmVcpu>> create_vcpu(uint32_t index, const std::vector<cpu::CpuidLeaf>& leaves);

  // A write of any value to the address signals the eventfd instead of reaching the bus. size 0: any size.
  Result<> add_doorbell(GuestAddress address, uint32_t size, int event_fd);
  Result<> remove_doorbell(GuestAddress address, uint32_t size, int event_fd);

  // What kvm-clock shows the guest is the machine's clock from now on.
  Result<> set_kernel_clock();

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
  VirtualMachine(System& system, memory::GuestMemory& memory, Clock& clock, LocalApics local_apics, Fd fd)
      : system_(system),
        memory_(memory),
        clock_(clock),
        local_apics_(local_apics),
        fd_(std::move(fd)),
        routes_(fd_.get()) {}
  Result<> use_kernel_apics();
  Result<> set_slot(uint32_t slot, GuestAddress address, uint64_t size, uint32_t flags);
  Result<> set_all_slots(uint32_t flags);
  Result<> divert_apic_msrs();
  Result<> change_doorbell(GuestAddress address, uint32_t size, int event_fd, uint32_t flags, const char* action);

  System& system_;
  memory::GuestMemory& memory_;
  Clock& clock_;
  const LocalApics local_apics_;
  Fd fd_;
  InterruptRoutes routes_;
  EndOfInterrupt end_of_interrupt_;
  InstructionFallback fallback_;
};

}  // namespace bulkhead::kvm
