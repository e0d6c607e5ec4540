// The x87 part of the XSAVE image in Cpu: control, status and tag words and the eight registers, in FXSAVE layout
// (Intel SDM volume 1, 8.1 and 10.5.1). Registers are kept in stack order, ST(0) first; tags by physical register.
// The exception pointers (FIP, FDP, FOP) hold what the guest loaded and become 0 with the next arithmetic instruction.
#pragma once

#include <cstdint>
#include <cstring>

#include "engine/interpreter/cpu.h"

namespace bulkhead::engine::x87 {

enum StatusBit : uint16_t {
  kStatusInvalid = 1,
  kStatusOverflow = 8,
  kStatusUnderflow = 16,
  kStatusExceptions = 0x3F,
  kStatusStackFault = 0x40,
  kStatusErrorSummary = 0x80,
  kStatusTopShift = 11,
  kStatusTop = 7 << 11,
  kStatusBusy = 0x8000,
};
inline constexpr uint16_t kControlReset = 0x37F, kControlFixed = 0x40, kControlWritable = 0x1F3F, kControlMasks = 0x3F;

inline constexpr size_t kControlOffset = 0, kStatusOffset = 2, kTagOffset = 4, kOpcodeOffset = 6,
                        kCodePointerOffset = 8, kDataPointerOffset = 16, kMxcsrMaskOffset = 28, kRegistersOffset = 32,
                        kRegisterBytes = 16;

inline uint16_t word_at(const Cpu& cpu, size_t offset) {
  uint16_t value;
  std::memcpy(&value, cpu.xsave.data() + offset, sizeof value);
  return value;
}
inline void set_word_at(Cpu& cpu, size_t offset, uint16_t value) {
  std::memcpy(cpu.xsave.data() + offset, &value, sizeof value);
}

inline uint16_t control(const Cpu& cpu) {
  return word_at(cpu, kControlOffset);
}
inline uint16_t status(const Cpu& cpu) {
  return word_at(cpu, kStatusOffset);
}
inline uint8_t tags(const Cpu& cpu) {
  return cpu.xsave[kTagOffset];
}  // bit set: not empty
inline void set_tags(Cpu& cpu, uint8_t value) {
  cpu.xsave[kTagOffset] = value;
}
inline unsigned top(const Cpu& cpu) {
  return status(cpu) >> kStatusTopShift & 7;
}
inline uint8_t* stack_register(Cpu& cpu, unsigned number) {
  return cpu.xsave.data() + kRegistersOffset + kRegisterBytes * number;
}

// Both words at once: reserved bits as hardware keeps them, error summary and busy computed from flags and masks.
void set_control_and_status(Cpu& cpu, uint16_t control, uint16_t status);
// Changes TOP while every physical register keeps its value.
void set_top(Cpu& cpu, unsigned top);
void clear_pointers(Cpu& cpu);
// With every instruction that loads the control word: translated code takes exceptions to be masked until its block
// ends.
void leave_block_if_unmasked(Cpu& cpu);

// #MF when an unmasked exception waits. With CR0.NE clear processors signal it outside instead (FERR#); no board of
// ours wires that, so the exception is ignored as with IGNNE# asserted.
void check_pending_error(Cpu& cpu);

// Two bits a physical register as FNSTENV stores them, and back to one bit each.
uint16_t full_tags(Cpu& cpu);
uint8_t abridged_tags(uint16_t full);

// What FNINIT leaves; the registers keep their values.
void initialise(Cpu& cpu);

}  // namespace bulkhead::engine::x87
