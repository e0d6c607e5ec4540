#include "engine/mmu/page_walk.h"

#include "engine/mmu/guest_word.h"

namespace bulkhead::engine::mmu {
namespace {

enum PteBit : uint64_t {
  kPresent = 1,
  kWritable = 2,
  kUser = 4,
  kAccessed = 32,
  kDirty = 64,
  kPageSizeBit = 128,
  kGlobal = 256,
  kNoExecute = 1ull << 63,
};
enum PageFaultBit : uint32_t {
  kFaultPresent = 1,
  kFaultWrite = 2,
  kFaultUser = 4,
  kFaultReserved = 8,
  kFaultFetch = 16
};

constexpr uint64_t kFrameMask = 0x000F'FFFF'FFFF'F000;

// One entry used by the walk, to set its A and D bits when all is decided.
struct Step {
  uint64_t address = 0;
  uint64_t value = 0;
};

struct Walk {
  enum class Outcome : uint8_t { kMapped, kNotPresent, kReserved };
  Outcome outcome = Outcome::kMapped;
  PageMapping mapping;
  Step steps[4];
  unsigned step_count = 0;
  unsigned entry_size = 8;
};

// All ones where there is no RAM, as a bus without an answer gives.
uint64_t read_entry(const Cpu& cpu, uint64_t address, unsigned size) {
  if (!cpu.memory->is_ram({address}, size)) return size == 8 ? ~0ull : 0xFFFF'FFFFull;
  const uint8_t* host = cpu.memory->host_base() + address;
  return size == 8 ? load_word<uint64_t>(host) : load_word<uint32_t>(host);
}

// 4-level paging and, from level 2 on, PAE. `table` holds the entries of level `level` (4 = PML4 ... 1 = page table).
Walk walk_wide(const Cpu& cpu, uint64_t linear, uint64_t table, unsigned level) {
  Walk result;
  const bool four_level = level == 4;
  uint64_t reserved = kFrameMask & ~cpu.physical_mask;
  if ((cpu.efer & kEferNxe) == 0) reserved |= kNoExecute;
  if (!four_level) reserved |= 0x7FF0'0000'0000'0000;
  PageMapping& mapping = result.mapping;
  for (;; --level) {
    const unsigned shift = 12 + 9 * (level - 1);
    const uint64_t address = table + ((linear >> shift) & 0x1FF) * 8;
    const uint64_t entry = read_entry(cpu, address, 8);
    result.steps[result.step_count++] = {address, entry};
    if ((entry & kPresent) == 0) {
      result.outcome = Walk::Outcome::kNotPresent;
      return result;
    }
    const bool large = level != 1 && (entry & kPageSizeBit) != 0;
    uint64_t forbidden = reserved;
    if (level == 4) forbidden |= kPageSizeBit;
    // Bit 12 of a large page is its PAT bit.
    if (large && level != 4) forbidden |= ((1ull << shift) - 1) & ~0x1FFFull;
    if ((entry & forbidden) != 0) {
      result.outcome = Walk::Outcome::kReserved;
      return result;
    }
    mapping.user &= (entry & kUser) != 0;
    mapping.writable &= (entry & kWritable) != 0;
    mapping.executable &= (entry & kNoExecute) == 0;
    if (level == 1 || large) {
      mapping.page_shift = static_cast<uint8_t>(shift);
      mapping.global = (entry & kGlobal) != 0 && (cpu.cr4 & kCr4Pge) != 0;
      mapping.dirty = (entry & kDirty) != 0;
      const uint64_t offset_mask = (1ull << shift) - 1;
      mapping.physical = ((entry & kFrameMask & ~offset_mask) | (linear & offset_mask)) & ~(kPageSize - 1);
      return result;
    }
    table = entry & kFrameMask;
  }
}

Walk walk_narrow(const Cpu& cpu, uint64_t linear) {
  Walk result;
  result.entry_size = 4;
  PageMapping& mapping = result.mapping;
  const uint64_t directory_address = (cpu.cr3 & 0xFFFF'F000) + ((linear >> 22) & 0x3FF) * 4;
  const uint64_t directory = read_entry(cpu, directory_address, 4);
  result.steps[result.step_count++] = {directory_address, directory};
  if ((directory & kPresent) == 0) {
    result.outcome = Walk::Outcome::kNotPresent;
    return result;
  }
  mapping.user = (directory & kUser) != 0;
  mapping.writable = (directory & kWritable) != 0;
  if ((directory & kPageSizeBit) != 0 && (cpu.cr4 & kCr4Pse) != 0) {
    // PSE-36: bits 20:13 are address bits 39:32, as far as MAXPHYADDR goes; bit 21 is reserved.
    const uint64_t high = (directory >> 13 & 0xFF) << 32;
    if ((directory & (1u << 21)) != 0 || (high & ~cpu.physical_mask) != 0) {
      result.outcome = Walk::Outcome::kReserved;
      return result;
    }
    mapping.page_shift = 22;
    mapping.global = (directory & kGlobal) != 0 && (cpu.cr4 & kCr4Pge) != 0;
    mapping.dirty = (directory & kDirty) != 0;
    mapping.physical = high | (directory & 0xFFC0'0000) | (linear & 0x3F'F000);
    return result;
  }
  const uint64_t address = (directory & 0xFFFF'F000) + ((linear >> 12) & 0x3FF) * 4;
  const uint64_t entry = read_entry(cpu, address, 4);
  result.steps[result.step_count++] = {address, entry};
  if ((entry & kPresent) == 0) {
    result.outcome = Walk::Outcome::kNotPresent;
    return result;
  }
  mapping.user &= (entry & kUser) != 0;
  mapping.writable &= (entry & kWritable) != 0;
  mapping.global = (entry & kGlobal) != 0 && (cpu.cr4 & kCr4Pge) != 0;
  mapping.dirty = (entry & kDirty) != 0;
  mapping.physical = entry & 0xFFFF'F000;
  return result;
}

Walk walk_tables(const Cpu& cpu, uint64_t linear) {
  if ((cpu.efer & kEferLma) != 0) return walk_wide(cpu, linear, cpu.cr3 & kFrameMask & cpu.physical_mask, 4);
  if ((cpu.cr4 & kCr4Pae) == 0) return walk_narrow(cpu, linear);
  const uint64_t pdpte = cpu.pdptes[(linear >> 30) & 3];
  if ((pdpte & kPresent) == 0) {
    Walk result;
    result.outcome = Walk::Outcome::kNotPresent;
    return result;
  }
  return walk_wide(cpu, linear, pdpte & kFrameMask, 2);
}

// Sets bits in an entry as it was when the walk read it; false when it has changed since.
bool set_bits(Cpu& cpu, const Step& step, unsigned size, uint64_t bits) {
  if ((step.value & bits) == bits) return true;
  if (!cpu.memory->is_ram({step.address}, size)) return true;  // nothing answers there
  uint8_t* host = cpu.memory->host_base() + step.address;
  bool done = false;
  if (size == 8) {
    uint64_t expected = step.value;
    done = __atomic_compare_exchange_n(reinterpret_cast<uint64_t*>(host), &expected, expected | bits, false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  } else {
    auto expected = static_cast<uint32_t>(step.value);
    done =
        __atomic_compare_exchange_n(reinterpret_cast<uint32_t*>(host), &expected,
                                    expected | static_cast<uint32_t>(bits), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  }
  const uint8_t flags = cpu.memory->page_flags(step.address >> kPageShift).load(std::memory_order_relaxed);
  if ((flags & (memory::kPageDirty | memory::kPageCode)) != memory::kPageDirty) {
    cpu.memory->mark_written({step.address}, size);
  }
  return done;
}

uint32_t fault_code(const Cpu& cpu, WalkAccess access, Rights rights) {
  uint32_t code = rights == Rights::kUser ? uint32_t{kFaultUser} : 0;
  if (access == WalkAccess::kWrite) code |= kFaultWrite;
  const bool reports_fetch = (cpu.cr4 & kCr4Smep) != 0 || ((cpu.cr4 & kCr4Pae) != 0 && (cpu.efer & kEferNxe) != 0);
  if (access == WalkAccess::kExecute && reports_fetch) code |= kFaultFetch;
  return code;
}

}  // namespace

PageRights rights_of(const Cpu& cpu, const PageMapping& mapping, Rights rights) {
  if (rights == Rights::kUser) {
    return {
        .read = mapping.user, .write = mapping.user && mapping.writable, .execute = mapping.user && mapping.executable};
  }
  const bool data = !mapping.user || rights == Rights::kSupervisor;
  return {.read = data,
          .write = data && (mapping.writable || (cpu.cr0 & kCr0Wp) == 0),
          .execute = mapping.executable && !(mapping.user && (cpu.cr4 & kCr4Smep) != 0)};
}

WalkResult try_walk(Cpu& cpu, uint64_t linear, WalkAccess access, Rights rights) {
  if ((cpu.cr0 & kCr0Pg) == 0) return {.mapping = {.physical = linear & 0xFFFF'F000}};
  const auto fault = [&](uint32_t bits) {
    return WalkResult{.mapping = {}, .faulted = true, .error_code = fault_code(cpu, access, rights) | bits};
  };
  while (true) {
    Walk found = walk_tables(cpu, linear);
    if (found.outcome == Walk::Outcome::kNotPresent) return fault(0);
    if (found.outcome == Walk::Outcome::kReserved) return fault(kFaultPresent | kFaultReserved);
    const PageRights allowed = rights_of(cpu, found.mapping, rights);
    const bool granted = access == WalkAccess::kRead    ? allowed.read
                         : access == WalkAccess::kWrite ? allowed.write
                                                        : allowed.execute;
    if (!granted) return fault(kFaultPresent);

    bool unchanged = true;
    for (unsigned i = 0; i < found.step_count && unchanged; ++i) {
      const bool is_leaf = i + 1 == found.step_count;
      const uint64_t bits = kAccessed | (is_leaf && access == WalkAccess::kWrite ? uint64_t{kDirty} : 0);
      unchanged = set_bits(cpu, found.steps[i], found.entry_size, bits);
    }
    if (!unchanged) continue;  // another processor changed an entry meanwhile: walk what is there now
    if (access == WalkAccess::kWrite) found.mapping.dirty = true;
    return {.mapping = found.mapping};
  }
}

std::optional<PageMapping> look_up(const Cpu& cpu, uint64_t linear) {
  if ((cpu.cr0 & kCr0Pg) == 0) return PageMapping{.physical = linear & 0xFFFF'F000};
  const Walk found = walk_tables(cpu, linear);
  if (found.outcome != Walk::Outcome::kMapped) return std::nullopt;
  return found.mapping;
}

bool load_pdptes(Cpu& cpu, uint64_t cr3) {
  std::array<uint64_t, 4> entries{};
  for (unsigned i = 0; i < 4; ++i) {
    entries[i] = read_entry(cpu, (cr3 & 0xFFFF'FFE0) + i * 8, 8);
    const uint64_t reserved =
        ~(cpu.physical_mask & kFrameMask) & ~uint64_t{0xE19};  // P, PWT, PCD and ignored 11:9 are free
    if ((entries[i] & kPresent) != 0 && (entries[i] & reserved) != 0) return false;
  }
  cpu.pdptes = entries;
  return true;
}

}  // namespace bulkhead::engine::mmu
