#include "engine/interpreter/system/descriptor.h"

#include "engine/mmu/access.h"

namespace bulkhead::engine {
namespace {

struct Table {
  uint64_t base = 0;
  uint64_t limit = 0;
  bool usable = true;
};

Table table_of(const Cpu& cpu, uint16_t selector) {
  if ((selector & 4) == 0) return {cpu.gdtr.base, cpu.gdtr.limit, true};
  return {cpu.ldtr.base, cpu.ldtr.limit, (cpu.ldtr.attributes & cpu::Segment::kUnusable) == 0};
}

}  // namespace

bool try_read_descriptor(Cpu& cpu, uint16_t selector, Descriptor& out) {
  const Table table = table_of(cpu, selector);
  const uint64_t offset = selector & 0xFFF8u;
  if (!table.usable || offset + 7 > table.limit) return false;
  out = {.low = read_system<uint64_t>(cpu, table.base + offset)};
  return true;
}

Descriptor read_descriptor(Cpu& cpu, uint16_t selector, Vector vector, uint32_t external) {
  Descriptor descriptor;
  if (!try_read_descriptor(cpu, selector, descriptor)) raise(vector, selector_error(selector) | external);
  return descriptor;
}

void read_upper_half(Cpu& cpu, uint16_t selector, Descriptor& descriptor, Vector vector, uint32_t external) {
  const Table table = table_of(cpu, selector);
  const uint64_t offset = selector & 0xFFF8u;
  if (offset + 15 > table.limit) raise(vector, selector_error(selector) | external);
  descriptor.high = read_system<uint64_t>(cpu, table.base + offset + 8);
  if ((descriptor.high >> 40 & 0x1F) != 0) raise(vector, selector_error(selector) | external);
}

void change_type(Cpu& cpu, uint16_t selector, Descriptor& descriptor, uint8_t set, uint8_t clear) {
  const uint64_t address = table_of(cpu, selector).base + (selector & 0xFFF8u) + 5;
  const CheckedAccess access = check_system_access(cpu, address, 1, MemoryAccess::kReadWrite);
  const AccessPiece& piece = access.pieces[0];
  if (piece.host != nullptr) {
    if (set != 0) __atomic_fetch_or(piece.host, set, __ATOMIC_SEQ_CST);
    if (clear != 0) __atomic_fetch_and(piece.host, static_cast<uint8_t>(~clear), __ATOMIC_SEQ_CST);
    if (piece.holds_code) code_written(cpu, piece.physical, 1);
  } else {
    uint8_t byte = 0;
    perform_read(cpu, access, &byte);
    byte = static_cast<uint8_t>((byte | set) & ~clear);
    perform_write(cpu, access, &byte);
  }
  descriptor.low |= uint64_t{set} << 40;
  descriptor.low &= ~(uint64_t{clear} << 40);
}

void set_accessed(Cpu& cpu, uint16_t selector, Descriptor& descriptor) {
  if ((descriptor.low >> 40 & 1) == 0) change_type(cpu, selector, descriptor, 1, 0);
}

cpu::Segment to_segment(uint16_t selector, const Descriptor& descriptor) {
  return {.base = descriptor.base(),
          .limit = descriptor.limit(),
          .selector = selector,
          .attributes = descriptor.attributes()};
}

cpu::Segment null_segment(uint16_t selector, uint8_t dpl) {
  return {.base = 0, .limit = 0, .selector = selector, .attributes = cpu::Segment::kUnusable | uint32_t{dpl} << 5};
}

void load_real_segment(Cpu& cpu, cpu::SegmentRegister segment, uint16_t selector) {
  cpu::Segment& cached = cpu.segments[segment];
  cached.selector = selector;
  cached.base = uint64_t{selector} << 4;
  if (cpu.virtual8086()) {
    cached.limit = 0xFFFF;
    cached.attributes = 0xF3;
  } else {
    // The limit stays ("unreal mode"), but a segment that was null becomes usable again.
    if ((cached.attributes & cpu::Segment::kUnusable) != 0) {
      cached.limit = 0xFFFF;
      cached.attributes = 0x93;
    }
  }
}

mmu::Rights rights_at(const Cpu& cpu, uint8_t cpl) {
  if (cpl == 3) return mmu::Rights::kUser;
  const bool shuts_out = (cpu.cr4 & kCr4Smap) != 0 && (cpu.system_flags & kFlagAlignmentCheck) == 0;
  return shuts_out ? mmu::Rights::kSupervisorNoUserData : mmu::Rights::kSupervisor;
}

Descriptor check_stack_segment(Cpu& cpu, uint16_t selector, uint8_t cpl, Vector vector, uint32_t external) {
  if (is_null_selector(selector)) raise(vector, external);
  const uint32_t error = selector_error(selector) | external;
  Descriptor descriptor = read_descriptor(cpu, selector, vector, external);
  if ((selector & 3) != cpl || !descriptor.is_writable() || descriptor.dpl() != cpl) raise(vector, error);
  if (!descriptor.present()) raise(kStackFault, error);
  return descriptor;
}

}  // namespace bulkhead::engine
