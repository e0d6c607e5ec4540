// Words and registers of the x87 unit. See image.h.
#include "engine/interpreter/x87/image.h"

#include <algorithm>

namespace bulkhead::engine::x87 {

void set_control_and_status(Cpu& cpu, uint16_t control, uint16_t status) {
  control = static_cast<uint16_t>((control & kControlWritable) | kControlFixed);
  status = static_cast<uint16_t>(status & ~(kStatusErrorSummary | kStatusBusy));
  if ((status & ~control & kStatusExceptions) != 0) status |= kStatusErrorSummary | kStatusBusy;
  set_word_at(cpu, kControlOffset, control);
  set_word_at(cpu, kStatusOffset, status);
}

void set_top(Cpu& cpu, unsigned new_top) {
  const unsigned distance = (new_top - top(cpu)) & 7;
  uint8_t* registers = stack_register(cpu, 0);
  std::rotate(registers, registers + distance * kRegisterBytes, registers + 8 * kRegisterBytes);
  const unsigned others = status(cpu) & ~unsigned{kStatusTop};
  set_word_at(cpu, kStatusOffset, static_cast<uint16_t>(others | new_top << kStatusTopShift));
}

void clear_pointers(Cpu& cpu) {
  std::memset(cpu.xsave.data() + kOpcodeOffset, 0, 2 + 8 + 8);
}

void leave_block_if_unmasked(Cpu& cpu) {
  if ((control(cpu) & kControlMasks) != kControlMasks) [[unlikely]]
    leave_block(cpu);
}

void check_pending_error(Cpu& cpu) {
  if ((status(cpu) & kStatusErrorSummary) == 0) [[likely]]
    return;
  if ((cpu.cr0 & kCr0Ne) != 0) raise(kX87Error);
}

uint16_t full_tags(Cpu& cpu) {
  unsigned result = 0;
  for (unsigned physical = 0; physical < 8; ++physical) {
    unsigned tag = 3;
    if ((tags(cpu) >> physical & 1) != 0) {
      const uint8_t* value = stack_register(cpu, (physical - top(cpu)) & 7);
      uint64_t significand;
      uint16_t exponent;
      std::memcpy(&significand, value, 8);
      std::memcpy(&exponent, value + 8, 2);
      exponent &= 0x7FFF;
      if (exponent == 0 && significand == 0)
        tag = 1;
      else if (exponent == 0 || exponent == 0x7FFF || significand >> 63 == 0)
        tag = 2;
      else
        tag = 0;
    }
    result |= tag << 2 * physical;
  }
  return static_cast<uint16_t>(result);
}

uint8_t abridged_tags(uint16_t full) {
  unsigned result = 0;
  for (unsigned physical = 0; physical < 8; ++physical) {
    if ((full >> 2 * physical & 3) != 3) result |= 1u << physical;
  }
  return static_cast<uint8_t>(result);
}

void initialise(Cpu& cpu) {
  set_top(cpu, 0);
  set_control_and_status(cpu, kControlReset, 0);
  set_tags(cpu, 0);
  clear_pointers(cpu);
}

}  // namespace bulkhead::engine::x87
