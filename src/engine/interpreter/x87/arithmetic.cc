// x87 instructions that compute, load or store: the host's own instruction on the guest's state. Unmasked exceptions
// only set the error summary there, because nothing that waits for it runs before the state is saved again.
#include "engine/interpreter/simd/registers.h"
#include "engine/interpreter/x87/handlers.h"
#include "engine/interpreter/x87/image.h"

extern "C" {
extern const uint8_t bulkhead_x87_register_stubs[];
extern const uint8_t bulkhead_x87_memory_stubs[];
uint64_t bulkhead_x87_run(void* image, const void* stub, void* operand, uint64_t flags);
}

namespace bulkhead::engine::x87 {
namespace {

using decoder::Access;
using decoder::Instruction;
using decoder::Mnemonic;

constexpr size_t kStubBytes = 4;
constexpr uint16_t kNothingStored = kStatusInvalid | kStatusOverflow | kStatusUnderflow;

struct Operand {
  alignas(16) uint8_t bytes[16] = {};
};

// Only the arithmetic flags reach the host.
uint64_t run(Cpu& cpu, const uint8_t* stub, Operand& operand, uint64_t flags) {
  const uint16_t waiting = status(cpu) & (kStatusErrorSummary | kStatusBusy | kStatusExceptions);
  const uint16_t guest_control = control(cpu);
  // Only with CR0.NE clear: the pending exception must not reach the host.
  const bool ignored = (waiting & kStatusErrorSummary) != 0;
  if (ignored) [[unlikely]]
    set_control_and_status(cpu, guest_control | kControlMasks, status(cpu));
  clear_pointers(cpu);
  const uint64_t result = bulkhead_x87_run(cpu.xsave.data(), stub, operand.bytes, flags);
  clear_pointers(cpu);
  const uint32_t mxcsr_mask = 0xFFFF;
  std::memcpy(cpu.xsave.data() + kMxcsrMaskOffset, &mxcsr_mask, sizeof mxcsr_mask);
  if (ignored) [[unlikely]]
    set_control_and_status(cpu, guest_control, status(cpu));
  return result;
}

void operate_registers(Cpu& cpu, const Op& op) {
  require_x87(cpu);
  check_pending_error(cpu);
  const Instruction& instruction = *op.instruction;
  const unsigned index = (instruction.opcode & 7u) << 6 | (instruction.reg & 7u) << 3 | (instruction.rm & 7u);
  Operand unused;
  const uint64_t flags =
      run(cpu, bulkhead_x87_register_stubs + index * kStubBytes, unused, cpu.flags.to_rflags() | kFlagInterrupt | 2);
  cpu.flags.from_rflags(flags);
}

const uint8_t* memory_stub(const Instruction& instruction) {
  const unsigned index = (instruction.opcode & 7u) << 3 | (instruction.reg & 7u);
  return bulkhead_x87_memory_stubs + index * kStubBytes;
}

void operate_load(Cpu& cpu, const Op& op) {
  require_x87(cpu);
  check_pending_error(cpu);
  Operand operand;
  const cpu::SegmentRegister segment = memory_segment(op);
  const uint64_t offset = memory_offset(cpu, op);
  switch (op.instruction->memory_size) {
    case 2: {
      const auto value = read<uint16_t>(cpu, segment, offset);
      std::memcpy(operand.bytes, &value, sizeof value);
      break;
    }
    case 4: {
      const auto value = read<uint32_t>(cpu, segment, offset);
      std::memcpy(operand.bytes, &value, sizeof value);
      break;
    }
    case 8: {
      const auto value = read<uint64_t>(cpu, segment, offset);
      std::memcpy(operand.bytes, &value, sizeof value);
      break;
    }
    default:
      read_bytes(cpu, segment, offset, operand.bytes, 10);
      break;
  }
  run(cpu, memory_stub(*op.instruction), operand, kFlagInterrupt | 2);
}

// Without a pending error before, an unmasked flag is the instruction's own; all but precision keep it from storing.
bool stores_nothing(const Cpu& cpu) {
  return (status(cpu) & ~control(cpu) & kNothingStored) != 0;
}

// The state may change only when the store cannot fault, so that is tried first. Where it would fault, an exception
// that keeps the instruction from storing comes before.
void operate_store(Cpu& cpu, const Op& op) {
  require_x87(cpu);
  check_pending_error(cpu);
  const cpu::SegmentRegister segment = memory_segment(op);
  const uint64_t offset = memory_offset(cpu, op);
  const unsigned size = op.instruction->memory_size;
  Operand operand;
  try {
    probe_bytes(cpu, segment, offset, size, MemoryAccess::kWrite);
  } catch (const GuestFault&) {
    const auto before = cpu.xsave;
    run(cpu, memory_stub(*op.instruction), operand, kFlagInterrupt | 2);
    if (stores_nothing(cpu)) return;
    cpu.xsave = before;
    throw;
  }
  run(cpu, memory_stub(*op.instruction), operand, kFlagInterrupt | 2);
  if (stores_nothing(cpu)) return;
  switch (size) {
    case 2: {
      uint16_t value;
      std::memcpy(&value, operand.bytes, sizeof value);
      write<uint16_t>(cpu, segment, offset, value);
      break;
    }
    case 4: {
      uint32_t value;
      std::memcpy(&value, operand.bytes, sizeof value);
      write<uint32_t>(cpu, segment, offset, value);
      break;
    }
    case 8: {
      uint64_t value;
      std::memcpy(&value, operand.bytes, sizeof value);
      write<uint64_t>(cpu, segment, offset, value);
      break;
    }
    default:
      write_bytes(cpu, segment, offset, operand.bytes, 10);
      break;
  }
}

bool is_store(const Instruction& instruction) {
  switch (instruction.mnemonic) {
    case Mnemonic::kFst:
    case Mnemonic::kFstp:
    case Mnemonic::kFist:
    case Mnemonic::kFistp:
    case Mnemonic::kFisttp:
    case Mnemonic::kFbstp:
      return true;
    default:
      return false;
  }
}

}  // namespace

void require_x87(const Cpu& cpu) {
  if (cpu.mode.has(ModeBits::kX87Off)) [[unlikely]]
    raise(kDeviceNotAvailable);
}

Handler select(const Instruction& instruction) {
  if (const Handler handler = select_environment(instruction)) return handler;
  if (instruction.opcode_map != decoder::OpcodeMap::kOneByte || (instruction.opcode & 0xF8) != 0xD8) return nullptr;
  if (!instruction.has_memory()) return operate_registers;
  return is_store(instruction) ? operate_store : operate_load;
}

}  // namespace bulkhead::engine::x87
