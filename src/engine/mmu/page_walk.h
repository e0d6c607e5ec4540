// From a linear address to a physical one by the guest's page tables: 32-bit paging, PAE, 4-level. Intel SDM 3,
// chapter 4.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/interpreter/cpu.h"

namespace bulkhead::engine::mmu {

struct PageMapping {
  uint64_t physical = 0;  // of the 4 KiB page
  uint8_t page_shift = 12;
  bool user = true, writable = true, executable = true;  // all levels together
  bool global = false;
  bool dirty = true;  // the D bit is set
};

enum class WalkAccess : uint8_t { kRead, kWrite, kExecute };

struct WalkResult {
  PageMapping mapping;
  bool faulted = false;
  uint32_t error_code = 0;  // of the #PF
};
// Checks the rights, sets A bits, and the D bit for a write.
WalkResult try_walk(Cpu& cpu, uint64_t linear, WalkAccess access, Rights rights);
// The same; throws #PF with the linear address as given. Inline, because each frame between throw and catch costs time.
inline PageMapping walk(Cpu& cpu, uint64_t linear, WalkAccess access, Rights rights) {
  const WalkResult result = try_walk(cpu, linear, access, rights);
  if (result.faulted) [[unlikely]] {
    throw GuestFault{.vector = kPageFault, .has_error_code = true, .error_code = result.error_code, .cr2 = linear};
  }
  return result.mapping;
}
// What is mapped there, if anything, with no side effect and no rights asked for.
std::optional<PageMapping> look_up(const Cpu& cpu, uint64_t linear);

// What accesses with these rights may do with the page (CR0.WP, CR4.SMEP, CR4.SMAP applied).
struct PageRights {
  bool read = false, write = false, execute = false;
};
PageRights rights_of(const Cpu& cpu, const PageMapping& mapping, Rights rights);

// Reads the four PDPTEs of PAE paging at `cr3`. False: one has a reserved bit set, and nothing was changed (#GP).
[[nodiscard]] bool load_pdptes(Cpu& cpu, uint64_t cr3);
// True when the present mode uses them.
inline bool uses_pdptes(uint64_t cr0, uint64_t cr4, uint64_t efer) {
  return (cr0 & kCr0Pg) != 0 && (cr4 & kCr4Pae) != 0 && (efer & kEferLma) == 0;
}

}  // namespace bulkhead::engine::mmu
