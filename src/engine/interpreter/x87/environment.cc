// Control and status words, the environment and the whole state of the x87 unit in memory, in the four layouts that
// operand size and mode choose (Intel SDM volume 1, figures 8-9 to 8-12). Code and data pointers are stored as the
// guest loaded them or as 0; their segment selectors always as 0.
#include <algorithm>
#include <array>

#include "engine/interpreter/simd/registers.h"
#include "engine/interpreter/x87/handlers.h"
#include "engine/interpreter/x87/image.h"

namespace bulkhead::engine::x87 {
namespace {

using decoder::Mnemonic;

constexpr size_t kStackBytes = 80;

struct Environment {
  uint16_t control = 0, status = 0, tags = 0, opcode = 0;
  uint32_t code_pointer = 0, data_pointer = 0;
};

struct Layout {
  bool wide;  // 28 bytes, else 14
  bool protected_mode;
  [[nodiscard]] size_t bytes() const { return wide ? 28 : 14; }
};

Layout layout_of(const Cpu& cpu, const Op& op) {
  // The decoder's operand size says 14/94 or 28/108; 64-bit mode has the 32-bit protected layout.
  return {.wide = op.instruction->operand_size != 2, .protected_mode = cpu.protected_mode()};
}

template <typename T>
void put(uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof value);
}
template <typename T>
T get(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

Environment environment_of(Cpu& cpu) {
  return {.control = control(cpu),
          .status = status(cpu),
          .tags = full_tags(cpu),
          .opcode = word_at(cpu, kOpcodeOffset),
          .code_pointer = get<uint32_t>(cpu.xsave.data() + kCodePointerOffset),
          .data_pointer = get<uint32_t>(cpu.xsave.data() + kDataPointerOffset)};
}

// Reserved upper halves are stored as ones.
constexpr uint32_t upper_ones(uint16_t value) {
  return 0xFFFF0000u | value;
}

void write_layout(const Environment& environment, Layout layout, uint8_t* out) {
  const uint32_t code = environment.code_pointer, data = environment.data_pointer;
  const auto opcode = static_cast<uint32_t>(environment.opcode & 0x7FF);
  if (layout.wide) {
    put<uint32_t>(out, upper_ones(environment.control));
    put<uint32_t>(out + 4, upper_ones(environment.status));
    put<uint32_t>(out + 8, upper_ones(environment.tags));
    if (layout.protected_mode) {
      put<uint32_t>(out + 12, code);
      put<uint32_t>(out + 16, opcode << 16);
      put<uint32_t>(out + 20, data);
      put<uint32_t>(out + 24, upper_ones(0));
    } else {
      put<uint32_t>(out + 12, upper_ones(static_cast<uint16_t>(code)));
      put<uint32_t>(out + 16, code >> 16 << 12 | opcode);
      put<uint32_t>(out + 20, upper_ones(static_cast<uint16_t>(data)));
      put<uint32_t>(out + 24, data >> 16 << 12);
    }
    return;
  }
  put<uint16_t>(out, environment.control);
  put<uint16_t>(out + 2, environment.status);
  put<uint16_t>(out + 4, environment.tags);
  put<uint16_t>(out + 6, static_cast<uint16_t>(code));
  put<uint16_t>(out + 8, layout.protected_mode ? uint16_t{0} : static_cast<uint16_t>((code >> 16 & 15) << 12 | opcode));
  put<uint16_t>(out + 10, static_cast<uint16_t>(data));
  put<uint16_t>(out + 12, layout.protected_mode ? uint16_t{0} : static_cast<uint16_t>((data >> 16 & 15) << 12));
}

Environment read_layout(Layout layout, const uint8_t* in) {
  Environment result;
  if (layout.wide) {
    result.control = get<uint16_t>(in);
    result.status = get<uint16_t>(in + 4);
    result.tags = get<uint16_t>(in + 8);
    if (layout.protected_mode) {
      result.code_pointer = get<uint32_t>(in + 12);
      result.opcode = get<uint16_t>(in + 18) & 0x7FF;
      result.data_pointer = get<uint32_t>(in + 20);
    } else {
      const auto code_high = get<uint32_t>(in + 16), data_high = get<uint32_t>(in + 24);
      result.code_pointer = get<uint16_t>(in + 12) | (code_high >> 12 & 0xFFFF) << 16;
      result.opcode = code_high & 0x7FF;
      result.data_pointer = get<uint16_t>(in + 20) | (data_high >> 12 & 0xFFFF) << 16;
    }
    return result;
  }
  result.control = get<uint16_t>(in);
  result.status = get<uint16_t>(in + 2);
  result.tags = get<uint16_t>(in + 4);
  result.code_pointer = get<uint16_t>(in + 6);
  result.data_pointer = get<uint16_t>(in + 10);
  if (!layout.protected_mode) {
    const auto code_high = get<uint16_t>(in + 8), data_high = get<uint16_t>(in + 12);
    result.code_pointer |= uint32_t{code_high} >> 12 << 16;
    result.opcode = code_high & 0x7FF;
    result.data_pointer |= uint32_t{data_high} >> 12 << 16;
  }
  return result;
}

// Physical registers keep their values when TOP changes.
void load_environment_words(Cpu& cpu, const Environment& environment) {
  set_top(cpu, environment.status >> kStatusTopShift & 7);
  set_control_and_status(cpu, environment.control, environment.status);
  set_tags(cpu, abridged_tags(environment.tags));
  clear_pointers(cpu);
  set_word_at(cpu, kOpcodeOffset, environment.opcode);
  put(cpu.xsave.data() + kCodePointerOffset, environment.code_pointer);
  put(cpu.xsave.data() + kDataPointerOffset, environment.data_pointer);
  leave_block_if_unmasked(cpu);
}

void store_environment(Cpu& cpu, const Op& op) {
  require_x87(cpu);
  const Layout layout = layout_of(cpu, op);
  std::array<uint8_t, 28> bytes{};
  write_layout(environment_of(cpu), layout, bytes.data());
  write_bytes(cpu, memory_segment(op), memory_offset(cpu, op), bytes.data(), static_cast<unsigned>(layout.bytes()));
  set_control_and_status(cpu, control(cpu) | kControlMasks, status(cpu));
}

void load_environment(Cpu& cpu, const Op& op) {
  require_x87(cpu);
  check_pending_error(cpu);
  const Layout layout = layout_of(cpu, op);
  std::array<uint8_t, 28> bytes{};
  read_bytes(cpu, memory_segment(op), memory_offset(cpu, op), bytes.data(), static_cast<unsigned>(layout.bytes()));
  load_environment_words(cpu, read_layout(layout, bytes.data()));
}

void save(Cpu& cpu, const Op& op) {
  require_x87(cpu);
  const Layout layout = layout_of(cpu, op);
  std::array<uint8_t, 28 + kStackBytes> bytes{};
  write_layout(environment_of(cpu), layout, bytes.data());
  for (unsigned number = 0; number < 8; ++number) {
    std::memcpy(bytes.data() + layout.bytes() + 10 * number, stack_register(cpu, number), 10);
  }
  write_bytes(cpu, memory_segment(op), memory_offset(cpu, op), bytes.data(),
              static_cast<unsigned>(layout.bytes() + kStackBytes));
  initialise(cpu);
}

void restore(Cpu& cpu, const Op& op) {
  require_x87(cpu);
  check_pending_error(cpu);
  const Layout layout = layout_of(cpu, op);
  std::array<uint8_t, 28 + kStackBytes> bytes{};
  read_bytes(cpu, memory_segment(op), memory_offset(cpu, op), bytes.data(),
             static_cast<unsigned>(layout.bytes() + kStackBytes));
  load_environment_words(cpu, read_layout(layout, bytes.data()));
  for (unsigned number = 0; number < 8; ++number) {
    std::memcpy(stack_register(cpu, number), bytes.data() + layout.bytes() + 10 * number, 10);
  }
}

void store_control(Cpu& cpu, const Op& op) {
  require_x87(cpu);
  write<uint16_t>(cpu, memory_segment(op), memory_offset(cpu, op), control(cpu));
}
void load_control(Cpu& cpu, const Op& op) {
  require_x87(cpu);
  check_pending_error(cpu);
  const auto value = read<uint16_t>(cpu, memory_segment(op), memory_offset(cpu, op));
  set_control_and_status(cpu, value, status(cpu));
  leave_block_if_unmasked(cpu);
}
void store_status(Cpu& cpu, const Op& op) {
  require_x87(cpu);
  if (op.instruction->has_memory()) {
    write<uint16_t>(cpu, memory_segment(op), memory_offset(cpu, op), status(cpu));
  } else {
    uint64_t& rax = cpu.gpr[cpu::kRax];
    rax = (rax & ~0xFFFFull) | status(cpu);
  }
}
void clear_exceptions(Cpu& cpu, const Op&) {
  require_x87(cpu);
  set_control_and_status(cpu, control(cpu), status(cpu) & ~(kStatusExceptions | kStatusStackFault));
}
void initialise_unit(Cpu& cpu, const Op&) {
  require_x87(cpu);
  initialise(cpu);
}

// WAIT asks CR0.MP too, and does not mind CR0.EM.
void wait(Cpu& cpu, const Op&) {
  if (cpu.mode.has(ModeBits::kWaitTraps)) raise(kDeviceNotAvailable);
  check_pending_error(cpu);
}

}  // namespace

Handler select_environment(const decoder::Instruction& instruction) {
  switch (instruction.mnemonic) {
    case Mnemonic::kFnstenv:
      return store_environment;
    case Mnemonic::kFldenv:
      return load_environment;
    case Mnemonic::kFnsave:
      return save;
    case Mnemonic::kFrstor:
      return restore;
    case Mnemonic::kFnstcw:
      return store_control;
    case Mnemonic::kFldcw:
      return load_control;
    case Mnemonic::kFnstsw:
      return store_status;
    case Mnemonic::kFnclex:
      return clear_exceptions;
    case Mnemonic::kFninit:
      return initialise_unit;
    case Mnemonic::kFwait:
      return wait;
    default:
      return nullptr;
  }
}

}  // namespace bulkhead::engine::x87
