// What a guest is told about its memory before it runs anything: the E820 map, in whatever clothes a boot protocol
// wants.
#pragma once

#include <cstdint>
#include <vector>

#include "memory/guest_memory.h"

namespace bulkhead::machine::boot {

// Values of ACPI 6.5, table 15.3.
enum class MemoryType : uint32_t { kRam = 1, kReserved = 2 };

struct MemoryRange {
  uint64_t start = 0;
  uint64_t size = 0;
  MemoryType type = MemoryType::kRam;
  friend bool operator==(const MemoryRange&, const MemoryRange&) = default;
};

// By address, without overlaps.
using MemoryMap = std::vector<MemoryRange>;

MemoryMap make_memory_map(const memory::GuestMemory& memory);

}  // namespace bulkhead::machine::boot
