// One vCPU of the host kernel behind cpu::Vcpu. The board's local APIC asks for an interrupt through the INTR pin; the
// vector is fetched and handed to the kernel at the moment the guest can take it, as an INTA cycle would.
#pragma once

#include <array>
#include <atomic>
#include <memory>

#include <pthread.h>

#include "cpu/vcpu.h"
#include "kvm/virtual_machine.h"
#include "support/os/fd.h"
#include "support/os/mutex.h"

namespace bulkhead::kvm {

// A local APIC that lives in the host kernel: its register page (SDM 3, table 11-1) and the MSRs beside it.
struct LocalApicRegisters {
  uint64_t base = 0;  // IA32_APIC_BASE
  uint64_t tsc_deadline = 0;
  std::array<uint8_t, 1024> page{};
};

class KvmVcpu final : public cpu::Vcpu {
 public:
  static Result<std::unique_ptr<KvmVcpu>> create(VirtualMachine& machine, uint32_t index,
                                                 const std::vector<cpu::CpuidLeaf>& leaves);

  cpu::StopReason run(cpu::CpuIo& io) override;
  void request_stop() override;
  void set_interrupt_request(bool asserted) override;
  void raise_nmi() override;
  void raise_init() override;
  void raise_sipi(uint8_t vector) override;
  cpu::State get_state() override;
  Result<> set_state(const cpu::State& state) override;
  Result<> set_debug(const cpu::DebugRequest& request) override;
  std::optional<GuestAddress> translate(uint64_t linear_address) override;
  [[nodiscard]] cpu::Statistics statistics() const override;
  // With LocalApics::kKernel, while run() is not active.
  Result<LocalApicRegisters> get_local_apic();
  Result<> set_local_apic(const LocalApicRegisters& registers);
  [[nodiscard]] std::string error() const override { return error_; }

 private:
  // Why the vCPU was called out of the guest or out of its sleep.
  enum Request : uint32_t { kStop = 1, kInterrupt = 2, kNmi = 4, kInit = 8, kSipi = 16 };
  // What one exit means for run(): go on, or stop with a reason.
  using Outcome = std::optional<cpu::StopReason>;

  KvmVcpu(VirtualMachine& machine, uint32_t index, Fd fd) : machine_(machine), index_(index), fd_(std::move(fd)) {}

  void post(uint32_t request);
  Outcome take_requests(cpu::CpuIo& io);
  Outcome wait_while_halted(cpu::CpuIo& io);
  Outcome enter_guest(cpu::CpuIo& io);
  // A halted vCPU would go on for what the board's local APIC has.
  [[nodiscard]] bool interrupt_wakes(cpu::CpuIo& io) const;
  void offer_interrupt(cpu::CpuIo& io);
  Outcome handle_exit(cpu::CpuIo& io);
  void handle_port(cpu::CpuIo& io);
  void handle_mmio(cpu::CpuIo& io);
  void handle_msr_read(cpu::CpuIo& io);
  void handle_msr_write(cpu::CpuIo& io);
  Outcome handle_emulation_failure(cpu::CpuIo& io);
  Outcome fail_with(std::string message);
  // Ends the kernel's unfinished part of an exit (an instruction that waits for a device's answer) without running on.
  Outcome complete_exit(cpu::CpuIo& io);
  void become(const cpu::State& state);
  [[nodiscard]] cpu::Activity kernel_activity() const;
  // The guest's TSC agrees with the machine's clock again, after the clock stood still or was set.
  Result<> follow_clock();
  [[nodiscard]] uint64_t present_tsc_offset() const;

  VirtualMachine& machine_;
  const uint32_t index_;
  Fd fd_;
  Mapping run_area_;
  kvm_run* run_ = nullptr;
  std::string error_;

  cpu::Activity activity_ = cpu::Activity::kRunning;
  uint64_t instruction_count_ = 0;
  uint8_t task_priority_ = 0;
  // cpu::State::tsc_offset as last set; the kernel holds it plus clock_base_, and what the guest has moved it by.
  uint64_t tsc_offset_ = 0;
  std::optional<uint64_t> clock_base_;  // Clock::tsc() less the host's TSC, as the kernel was last told
  bool exit_unfinished_ = false;
  std::atomic<uint8_t> sipi_vector_{0};

  std::atomic<uint32_t> requests_{0};
  std::atomic<bool> interrupt_request_{false};
  // Guards the thread's identity, so that no signal goes to a thread that has left run().
  Mutex thread_mutex_;
  ConditionVariable wake_;
  bool running_ GUARDED_BY(thread_mutex_) = false;
  pthread_t thread_ GUARDED_BY(thread_mutex_){};

  struct Counters {
    std::atomic<uint64_t> port{0}, mmio{0}, halt{0}, msr{0}, interrupt_window{0}, signal{0}, emulation_failure{0},
        debug{0}, entries{0};
  } counters_;
};

}  // namespace bulkhead::kvm
