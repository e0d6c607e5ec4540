// The local APIC of one vCPU, as a memory page (xAPIC) and as MSRs (x2APIC): Intel SDM 3, chapter 11. It drives the
// processor's pins and never blocks. Directed end of interrupt, CMCI and the removed arbitration registers are absent.
//
//   fixed interrupt:  accept() -> IRR -- acknowledge() --> ISR -- EOI --> (level: broadcast to the I/O APIC)
//   INTR to the CPU:  highest IRR class above PPR = max(TPR, highest ISR), or the PIC through LINT0 in ExtINT mode
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "device/device.h"
#include "device/interrupt/apic_bus.h"
#include "device/interrupt/apic_message.h"
#include "device/interrupt/vector_set.h"
#include "device/level_output.h"
#include "device/wires.h"
#include "support/os/mutex.h"
#include "support/time/clock.h"

namespace bulkhead::device::interrupt {

// Who answers the processor's INTA cycle with a vector of its own: the 8259A pair.
class ExternalVectorSource {
 public:
  virtual ~ExternalVectorSource() = default;
  virtual uint8_t acknowledge() = 0;
};

class LocalApic final : public Device, public Mmio, public IrqLine::Receiver {
 public:
  // What the timer counts at with a divisor of 1. CPUID leaf 0x15 must show it as the crystal's frequency.
  static constexpr uint64_t kTimerHz = 1'000'000'000;
  static constexpr uint64_t kPageSize = 0x1000;
  static constexpr uint64_t kDefaultBase = 0xFEE00000;
  static constexpr unsigned kPhysicalAddressBits = 40;
  // Inputs of set_irq().
  static constexpr uint32_t kLint0 = 0, kLint1 = 1;

  enum class Role : uint8_t { kBootstrap, kApplication };

  // pic may be null. It answers for LINT0 in ExtINT mode, as firmware leaves the bootstrap processor's.
  LocalApic(uint32_t id, Role role, ApicBus& bus, CpuPins& pins, Clock& clock, ExternalVectorSource* pic = nullptr);
  ~LocalApic() override;

  [[nodiscard]] uint32_t id() const { return id_; }
  [[nodiscard]] std::string_view name() const override { return name_; }
  void reset() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

  // The processor's side; the calls of cpu::CpuIo, from the vCPU's own thread.
  std::optional<uint8_t> acknowledge();
  [[nodiscard]] bool interrupt_pending() const { return request_.wanted(); }
  [[nodiscard]] std::optional<uint64_t> read_msr(uint32_t index) const;
  [[nodiscard]] bool write_msr(uint32_t index, uint64_t value);
  [[nodiscard]] uint8_t read_task_priority() const;
  void write_task_priority(uint8_t priority);
  // Guest TSC = Clock::tsc() + offset; a TSC deadline follows a change.
  void set_tsc_offset(uint64_t offset);

  // Where this vCPU sees the register page now, or nothing (x2APIC mode, disabled). Cheap: asked on each access.
  [[nodiscard]] std::optional<uint64_t> page_base() const {
    const uint64_t base = page_base_.load(std::memory_order_relaxed);
    return base == kNoPage ? std::nullopt : std::optional(base);
  }
  void read_mmio(uint64_t offset, MutableByteSpan out) override;
  void write_mmio(uint64_t offset, ByteSpan in) override;

  // LINT pins.
  void set_irq(uint32_t input, bool asserted) override;

  // The bus's side, from any thread.
  void accept(const Interrupt& interrupt);
  [[nodiscard]] bool is_enabled() const { return addressing_.load(std::memory_order_acquire).enabled; }
  [[nodiscard]] bool is_addressed_by(const Destination& destination) const;
  [[nodiscard]] bool accepts_fixed() const;
  [[nodiscard]] uint8_t processor_priority() const;

 private:
  enum LocalVector : uint8_t { kTimer, kThermal, kPerformance, kLintPin0, kLintPin1, kError, kLocalVectorCount };
  enum class TimerMode : uint8_t { kOneShot, kPeriodic, kTscDeadline };
  static constexpr uint64_t kNoPage = UINT64_MAX;
  static constexpr uint64_t kNoDeadline = UINT64_MAX;

  // All that a reset clears and saved state holds.
  struct Registers {
    uint64_t base = kDefaultBase;  // IA32_APIC_BASE
    VectorSet requested, in_service, level_triggered;
    uint8_t task_priority = 0;
    uint8_t error_status = 0, error_collected = 0;
    uint32_t spurious = 0xFF;
    uint8_t logical_id = 0;            // xAPIC LDR, bits 31:24
    uint8_t destination_format = 0xF;  // xAPIC DFR, bits 31:28
    uint64_t interrupt_command = 0;    // as the x2APIC MSR; xAPIC keeps its 8-bit destination in bits 63:56
    std::array<uint32_t, kLocalVectorCount> local_vectors{};
    uint32_t timer_initial_count = 0;
    uint8_t timer_divide = 0;  // the register's value
    uint64_t timer_deadline_ns = kNoDeadline;
    uint64_t tsc_deadline = 0;
    std::array<bool, 2> lint_asserted{};
    std::array<bool, 2> lint_remote_irr{};
  };

  // What to do once the lock is free.
  struct Action {
    bool request_changed = false;
    bool nmi = false, init = false;
    std::optional<uint8_t> start_up_vector;
    std::optional<uint8_t> end_of_interrupt;
    std::optional<InterprocessorInterrupt> ipi;
  };

  // What the bus needs to know to find receivers, readable without the lock.
  struct alignas(8) Addressing {
    uint32_t logical_id = 0;
    bool enabled = true, x2apic = false, cluster = false, accepts_fixed = false;
  };

  struct RequestPin {
    CpuPins* pins;
    void set(bool asserted) const { pins->set_interrupt_request(asserted); }
  };

  void perform(const Action& action);

  // local_apic.cc: acceptance and priorities.
  void update(Action& action) REQUIRES(mutex_);
  [[nodiscard]] uint8_t priority() const REQUIRES(mutex_);
  [[nodiscard]] std::optional<uint8_t> deliverable() const REQUIRES(mutex_);
  [[nodiscard]] bool external_interrupt() const REQUIRES(mutex_);
  void accept_fixed(uint8_t vector, TriggerMode trigger, Action& action) REQUIRES(mutex_);
  void fire_local_vector(LocalVector entry, Action& action) REQUIRES(mutex_);
  void raise_lint_level(unsigned pin, Action& action) REQUIRES(mutex_);
  void collect_error(uint8_t bit, Action& action) REQUIRES(mutex_);
  void end_interrupt(Action& action) REQUIRES(mutex_);
  void clear_registers() REQUIRES(mutex_);
  void publish() REQUIRES(mutex_);

  // local_apic_registers.cc: what the guest reads and writes, by register number (page offset / 16, MSR - 0x800).
  [[nodiscard]] bool is_enabled_locked() const REQUIRES(mutex_);
  [[nodiscard]] bool is_x2apic() const REQUIRES(mutex_);
  [[nodiscard]] uint32_t logical_id() const REQUIRES(mutex_);
  [[nodiscard]] std::optional<uint32_t> read_register(uint32_t index) const REQUIRES(mutex_);
  [[nodiscard]] bool write_register(uint32_t index, uint32_t value, Action& action) REQUIRES(mutex_);
  [[nodiscard]] bool write_x2apic(uint32_t index, uint64_t value, Action& action) REQUIRES(mutex_);
  [[nodiscard]] bool write_base(uint64_t value, Action& action) REQUIRES(mutex_);
  void write_spurious(uint32_t value) REQUIRES(mutex_);
  void write_local_vector(LocalVector entry, uint32_t value, Action& action) REQUIRES(mutex_);
  void send_command(Action& action) REQUIRES(mutex_);

  // local_apic_timer.cc
  [[nodiscard]] TimerMode timer_mode() const REQUIRES(mutex_);
  [[nodiscard]] uint32_t timer_divisor() const REQUIRES(mutex_);
  [[nodiscard]] uint32_t timer_current_count() const REQUIRES(mutex_);
  void start_timer(uint32_t count) REQUIRES(mutex_);
  void change_timer_divide(uint8_t value) REQUIRES(mutex_);
  void change_timer_mode(uint32_t old_local_vector) REQUIRES(mutex_);
  void schedule_next_period() REQUIRES(mutex_);
  void write_tsc_deadline(uint64_t value, Action& action) REQUIRES(mutex_);
  void arm_tsc_deadline(Action& action) REQUIRES(mutex_);
  void stop_timer() REQUIRES(mutex_);
  void on_timer();

  const uint32_t id_;
  const std::string name_;
  const Role role_;
  ApicBus& bus_;
  CpuPins& pins_;
  Clock& clock_;
  ExternalVectorSource* const pic_;

  mutable Mutex mutex_;
  Registers registers_ GUARDED_BY(mutex_);
  uint64_t tsc_offset_ GUARDED_BY(mutex_) = 0;
  std::atomic<Addressing> addressing_;
  std::atomic<uint64_t> page_base_{kDefaultBase};
  BasicLevelOutput<RequestPin> request_;
  std::unique_ptr<Timer> timer_;  // last: its callback uses all of the above
};

}  // namespace bulkhead::device::interrupt
