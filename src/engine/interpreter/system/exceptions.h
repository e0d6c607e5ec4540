// Delivery of exceptions and interrupts through the IDT (or the real-mode vector table). Intel SDM 3, chapter 6
// and 20.1.4.
#pragma once

#include <cstdint>
#include <optional>

#include "cpu/vcpu.h"
#include "engine/interpreter/cpu.h"

namespace bulkhead::engine {

struct Event {
  enum class Kind : uint8_t {
    kFault,               // RIP is the instruction's own; RF is set in the pushed flags
    kDebugFault,          // an instruction breakpoint: the same, but RF is pushed as it is
    kTrap,                // RIP is the next instruction's
    kSoftware,            // INT n, INT3, INTO: the gate's DPL counts
    kPrivilegedSoftware,  // INT1
    kExternal,
    kNmi,
  };
  Kind kind = Kind::kFault;
  uint8_t vector = 0;
  bool has_error_code = false;
  uint32_t error_code = 0;

  static Event debug_fault() { return {Kind::kDebugFault, kDebug}; }
  static Event debug_trap() { return {Kind::kTrap, kDebug}; }
  static Event nmi() { return {Kind::kNmi, engine::kNmi}; }
  static Event external(uint8_t vector) { return {Kind::kExternal, vector}; }
  static Event software(uint8_t vector) { return {Kind::kSoftware, vector}; }

  // The EXT bit of error codes that name a selector or vector.
  [[nodiscard]] uint32_t external_bit() const { return kind == Kind::kSoftware ? 0 : 1; }
};

// cpu.rip is what will be pushed. Throws GuestFault when delivery itself faults, with nothing changed.
void deliver_event(Cpu& cpu, const Event& event);
// An exception raised by an instruction: with what follows when its delivery faults. False: triple fault.
[[nodiscard]] bool deliver_fault(Cpu& cpu, const GuestFault& fault);
// The same for what does not come from a GuestFault.
std::optional<cpu::StopReason> deliver_exception_or_stop(Cpu& cpu, const Event& event);
// What set_state() says is being delivered.
std::optional<cpu::StopReason> deliver_pending_event(Cpu& cpu);
// kAttentionTrap on or off as stepping says.
void refresh_trap_attention(Cpu& cpu);

}  // namespace bulkhead::engine
