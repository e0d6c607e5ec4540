#include "engine/mmu/access.h"

#include <algorithm>

#include "engine/interpreter/debug.h"
#include "engine/interpreter/system/system.h"
#include "engine/mmu/page_walk.h"

namespace bulkhead::engine {
namespace {

[[noreturn]] void raise_segment(cpu::SegmentRegister segment) {
  raise(segment == cpu::kSs ? kStackFault : kGeneralProtection, 0);
}

// One page's worth of an access. Fills the TLB when the page is RAM. False: a page fault, with this error code.
[[gnu::always_inline]] inline bool try_piece(Cpu& cpu, uint64_t linear, unsigned size, MemoryAccess access,
                                             mmu::Rights rights, AccessPiece& piece, uint32_t& error_code) {
  using mmu::WalkAccess;
  const bool writes = access == MemoryAccess::kWrite || access == MemoryAccess::kReadWrite;
  const uint64_t page = linear & ~(kPageSize - 1);
  const uint64_t page_offset = linear & (kPageSize - 1);
  memory::GuestMemory& memory = *cpu.memory;

  const mmu::TlbEntry& entry = cpu.tlb.entry(linear, rights);
  const uint64_t tag = writes                          ? entry.tag_write
                       : access == MemoryAccess::kRead ? entry.tag_read
                                                       : entry.tag_execute & ~0xFFFull;
  if (tag == page) {
    auto* host = reinterpret_cast<uint8_t*>(linear + entry.delta);
    piece = {.host = host, .physical = static_cast<uint64_t>(host - memory.host_base()), .size = size};
    return true;
  }

  const auto walk_access = writes                          ? WalkAccess::kWrite
                           : access == MemoryAccess::kRead ? WalkAccess::kRead
                                                           : WalkAccess::kExecute;
  const mmu::WalkResult walked = mmu::try_walk(cpu, linear, walk_access, rights);
  if (walked.faulted) {
    error_code = walked.error_code;
    return false;
  }
  const mmu::PageMapping& mapping = walked.mapping;
  piece = {.physical = mapping.physical + page_offset, .size = size};
  if (!memory.is_ram({mapping.physical}, kPageSize)) return true;
  memory.reach(mapping.physical);
  piece.host = memory.host_base() + piece.physical;

  std::atomic<uint8_t>& flags = memory.page_flags(mapping.physical >> kPageShift);
  uint8_t present_flags = flags.load(std::memory_order_relaxed);
  if (writes && (present_flags & memory::kPageDirty) == 0)
    present_flags = flags.fetch_or(memory::kPageDirty) | memory::kPageDirty;
  piece.holds_code = (present_flags & memory::kPageCode) != 0;
  const mmu::PageRights allowed = mmu::rights_of(cpu, mapping, rights);
  cpu.tlb.fill(rights, {.linear = page,
                        .host = reinterpret_cast<uint64_t>(memory.host_base() + mapping.physical),
                        .read = allowed.read,
                        .write = allowed.write && mapping.dirty && (present_flags & memory::kPageDirty) != 0 &&
                                 !piece.holds_code,
                        .execute = allowed.execute,
                        .global = mapping.global,
                        .page_shift = mapping.page_shift});
  return true;
}

// What a page fault is thrown from is inlined into the functions that handlers call: each frame between throw and
// catch costs some 300 ns.
[[gnu::always_inline]] inline AccessPiece check_piece(Cpu& cpu, uint64_t linear, unsigned size, MemoryAccess access,
                                                      mmu::Rights rights) {
  AccessPiece piece;
  uint32_t error_code = 0;
  if (!try_piece(cpu, linear, size, access, rights, piece, error_code)) [[unlikely]]
    throw GuestFault{.vector = kPageFault, .has_error_code = true, .error_code = error_code, .cr2 = linear};
  return piece;
}

[[gnu::noinline]] AccessPiece check_second_piece(Cpu& cpu, uint64_t linear, unsigned size, MemoryAccess access,
                                                 mmu::Rights rights) {
  return check_piece(cpu, linear, size, access, rights);
}

[[gnu::always_inline]] inline CheckedAccess check_pieces(Cpu& cpu, uint64_t linear, unsigned size, MemoryAccess access,
                                                         mmu::Rights rights) {
  CheckedAccess checked;
  const auto in_first = static_cast<unsigned>(std::min<uint64_t>(size, kPageSize - (linear & (kPageSize - 1))));
  checked.pieces[checked.count++] = check_piece(cpu, linear, in_first, access, rights);
  if (in_first < size) {
    uint64_t second = linear + in_first;
    if (second == 0x1'0000'0000 && !cpu.mode.code64()) second = 0;
    checked.pieces[checked.count++] = check_second_piece(cpu, second, size - in_first, access, rights);
  }
  return checked;
}

void check_alignment(const Cpu& cpu, uint64_t linear, unsigned size) {
  const bool enabled = cpu.cpl == 3 && (cpu.cr0 & kCr0Am) != 0 && (cpu.system_flags & kFlagAlignmentCheck) != 0;
  if (!enabled || size > 8 || (size & (size - 1)) != 0) return;
  if ((linear & (size - 1)) != 0) raise(kAlignmentCheck, 0);
}

void copy_in(const uint8_t* host, uint8_t* out, unsigned size) {
  switch (size) {
    case 1:
      store(out, load_word<uint8_t>(host));
      return;
    case 2:
      store(out, load_word<uint16_t>(host));
      return;
    case 4:
      store(out, load_word<uint32_t>(host));
      return;
    default:
      break;
  }
  unsigned done = 0;
  for (; done + 8 <= size; done += 8) store(out + done, load_word<uint64_t>(host + done));
  for (; done < size; ++done) out[done] = load_word<uint8_t>(host + done);
}

void copy_out(uint8_t* host, const uint8_t* in, unsigned size) {
  switch (size) {
    case 1:
      store_word<uint8_t>(host, load<uint8_t>(in));
      return;
    case 2:
      store_word<uint16_t>(host, load<uint16_t>(in));
      return;
    case 4:
      store_word<uint32_t>(host, load<uint32_t>(in));
      return;
    default:
      break;
  }
  unsigned done = 0;
  for (; done + 8 <= size; done += 8) store_word<uint64_t>(host + done, load<uint64_t>(in + done));
  for (; done < size; ++done) store_word<uint8_t>(host + done, in[done]);
}

}  // namespace

uint64_t linear_address_checked(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, unsigned size,
                                MemoryAccess access) {
  const cpu::Segment& cached = cpu.segments[segment];
  if (cpu.mode.code64()) return segment < cpu::kFs ? offset : offset + cached.base;
  const uint32_t type = cached.attributes & 15;
  if (cpu.protected_mode()) {
    if ((cached.attributes & cpu::Segment::kUnusable) != 0) raise_segment(segment);
    const bool is_code = (type & 8) != 0;
    const bool second_bit = (type & 2) != 0;  // data: writable; code: readable
    const bool reads = access == MemoryAccess::kRead || access == MemoryAccess::kReadWrite;
    const bool writes = access == MemoryAccess::kWrite || access == MemoryAccess::kReadWrite;
    if (reads && is_code && !second_bit) raise_segment(segment);
    if (writes && (is_code || !second_bit)) raise_segment(segment);
  }
  const uint64_t last = offset + size - 1;
  const bool expands_down = (type & 0xC) == 4;
  if (!expands_down) {
    if (last > cached.limit) raise_segment(segment);
  } else {
    const uint64_t top = (cached.attributes & (1u << 14)) != 0 ? 0xFFFF'FFFF : 0xFFFF;
    if (offset <= cached.limit || last > top) raise_segment(segment);
  }
  return static_cast<uint32_t>(cached.base + offset);
}

namespace {

[[gnu::always_inline]] inline CheckedAccess check_here(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear,
                                                       unsigned size, MemoryAccess access) {
  if (cpu.mode.code64() && (!is_canonical(linear) || !is_canonical(linear + size - 1))) raise_segment(segment);
  if (cpu.checks_every_access) [[unlikely]]
    check_alignment(cpu, linear, size);
  CheckedAccess checked = check_pieces(cpu, linear, size, access, cpu.rights);
  if (cpu.checks_every_access && access != MemoryAccess::kExecute) [[unlikely]]
    note_data_access(cpu, linear, size, access != MemoryAccess::kRead);
  return checked;
}

}  // namespace

CheckedAccess check_access(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear, unsigned size,
                           MemoryAccess access) {
  return check_here(cpu, segment, linear, size, access);
}

bool is_page_fault(Cpu& cpu, uint64_t linear, unsigned size, MemoryAccess access, GuestFault& fault) {
  if (cpu.checks_every_access || !is_canonical(linear) || (linear & (kPageSize - 1)) > kPageSize - size) return false;
  AccessPiece piece;
  uint32_t error_code = 0;
  if (try_piece(cpu, linear, size, access, cpu.rights, piece, error_code)) return false;
  fault = {.vector = kPageFault, .has_error_code = true, .error_code = error_code, .cr2 = linear};
  return true;
}

CheckedAccess check_system_access(Cpu& cpu, uint64_t linear, unsigned size, MemoryAccess access) {
  if (!cpu.long_mode()) {
    linear = static_cast<uint32_t>(linear);
  } else if (!is_canonical(linear) || !is_canonical(linear + size - 1)) {
    raise(kGeneralProtection, 0);
  }
  return check_pieces(cpu, linear, size, access, cpu.system_rights);
}

CheckedAccess check_access_with(Cpu& cpu, mmu::Rights rights, uint64_t linear, unsigned size, MemoryAccess access) {
  return check_pieces(cpu, linear, size, access, rights);
}

void perform_read(Cpu& cpu, const CheckedAccess& access, void* out) {
  auto* bytes = static_cast<uint8_t*>(out);
  for (unsigned i = 0; i < access.count; ++i) {
    const AccessPiece& piece = access.pieces[i];
    if (piece.host != nullptr) {
      copy_in(piece.host, bytes, piece.size);
    } else {
      for (unsigned done = 0; done < piece.size;) {
        const unsigned part = std::min(8u, piece.size - done);
        cpu.io->read_memory({piece.physical + done}, {bytes + done, part});
        done += part;
      }
      leave_block_after_io(cpu);
      ++cpu.counters.mmio_exits;
    }
    bytes += piece.size;
  }
}

void perform_write(Cpu& cpu, const CheckedAccess& access, const void* in) {
  const auto* bytes = static_cast<const uint8_t*>(in);
  for (unsigned i = 0; i < access.count; ++i) {
    const AccessPiece& piece = access.pieces[i];
    if (piece.host != nullptr) {
      copy_out(piece.host, bytes, piece.size);
      if (piece.holds_code) code_written(cpu, piece.physical, piece.size);
    } else {
      for (unsigned done = 0; done < piece.size;) {
        const unsigned part = std::min(8u, piece.size - done);
        cpu.io->write_memory({piece.physical + done}, {bytes + done, part});
        done += part;
      }
      leave_block_after_io(cpu);
      ++cpu.counters.mmio_exits;
    }
    bytes += piece.size;
  }
}

void read_slow(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear, void* out, unsigned size) {
  perform_read(cpu, check_here(cpu, segment, linear, size, MemoryAccess::kRead), out);
}

void write_slow(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear, const void* in, unsigned size) {
  perform_write(cpu, check_here(cpu, segment, linear, size, MemoryAccess::kWrite), in);
}

void read_bytes(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, void* out, unsigned size) {
  read_slow(cpu, segment, linear_address<MemoryAccess::kRead>(cpu, segment, offset, size), out, size);
}

void write_bytes(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, const void* in, unsigned size) {
  write_slow(cpu, segment, linear_address<MemoryAccess::kWrite>(cpu, segment, offset, size), in, size);
}

void probe_bytes(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, unsigned size, MemoryAccess access) {
  const uint64_t linear = linear_address_checked(cpu, segment, offset, size, access);
  (void)check_access(cpu, segment, linear, size, access);
}

void read_system_bytes(Cpu& cpu, uint64_t linear, void* out, unsigned size) {
  perform_read(cpu, check_system_access(cpu, linear, size, MemoryAccess::kRead), out);
}

void write_system_bytes(Cpu& cpu, uint64_t linear, const void* in, unsigned size) {
  perform_write(cpu, check_system_access(cpu, linear, size, MemoryAccess::kWrite), in);
}

}  // namespace bulkhead::engine
