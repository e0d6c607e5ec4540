// IN and OUT, and the check of IOPL and the TSS's I/O permission bitmap that INS and OUTS share. Intel SDM 1,
// chapter 19.
#include "engine/interpreter/debug.h"
#include "engine/interpreter/system/handlers.h"
#include "engine/interpreter/system/operand.h"

namespace bulkhead::engine {

void check_port(Cpu& cpu, uint16_t port, unsigned size) {
  if ((cpu.cr0 & kCr0Pe) == 0) return;
  if (!cpu.virtual8086() && cpu.cpl <= cpu.iopl()) return;
  // Only a 32-bit (or 64-bit) TSS has a bitmap; two bytes are always read, so the last byte of it must be there too.
  if ((cpu.tr.attributes & 8) == 0 || cpu.tr.limit < 103) raise(kGeneralProtection, 0);
  const uint32_t map = read_system<uint16_t>(cpu, cpu.tr.base + 102);
  const uint32_t offset = map + port / 8u;
  if (offset + 1 > cpu.tr.limit) raise(kGeneralProtection, 0);
  const auto bits = read_system<uint16_t>(cpu, cpu.tr.base + offset);
  const uint32_t mask = ((1u << size) - 1) << (port % 8);
  if ((bits & mask) != 0) raise(kGeneralProtection, 0);
}

uint32_t port_read(Cpu& cpu, uint16_t port, unsigned size) {
  note_port_access(cpu, port, size);
  ++cpu.counters.port_exits;
  leave_block_after_io(cpu);
  return cpu.io->read_port(port, size);
}

void port_write(Cpu& cpu, uint16_t port, unsigned size, uint32_t value) {
  note_port_access(cpu, port, size);
  ++cpu.counters.port_exits;
  leave_block_after_io(cpu);
  cpu.io->write_port(port, size, value);
}

}  // namespace bulkhead::engine

namespace bulkhead::engine::system {
namespace {

uint16_t port_operand(const Cpu& cpu, const Op& op, unsigned index) {
  if (op.instruction->info->operands[index].kind == decoder::OperandKind::kDx)
    return static_cast<uint16_t>(cpu.gpr[cpu::kRdx]);
  return static_cast<uint8_t>(op.instruction->immediate);
}

}  // namespace

void in(Cpu& cpu, const Op& op) {
  const uint16_t port = port_operand(cpu, op, 1);
  const unsigned size = op.instruction->operand_size == 8 ? 4u : op.instruction->operand_size;
  check_port(cpu, port, size);
  write_register(cpu, 0, size, port_read(cpu, port, size));
}

void out(Cpu& cpu, const Op& op) {
  const uint16_t port = port_operand(cpu, op, 0);
  const unsigned size = op.instruction->operand_size == 8 ? 4u : op.instruction->operand_size;
  check_port(cpu, port, size);
  port_write(cpu, port, size, static_cast<uint32_t>(read_register(cpu, 0, size)));
}

}  // namespace bulkhead::engine::system
