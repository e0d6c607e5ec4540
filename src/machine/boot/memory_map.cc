#include "machine/boot/memory_map.h"

#include "machine/board/address_map.h"

namespace bulkhead::machine::boot {

MemoryMap make_memory_map(const memory::GuestMemory& memory) {
  MemoryMap map{
      {0, kExtendedBiosDataStart, MemoryType::kRam},
      {kExtendedBiosDataStart, kVideoMemoryStart - kExtendedBiosDataStart, MemoryType::kReserved},
      {kFirmwareTablesStart, kHighMemoryStart - kFirmwareTablesStart, MemoryType::kReserved},
      {kHighMemoryStart, memory.low_size() - kHighMemoryStart, MemoryType::kRam},
      // Operating systems use ECAM only where the map says that nothing else may lie there.
      {kEcamStart, kEcamSize, MemoryType::kReserved},
  };
  if (memory.high_size() != 0) map.push_back({memory::GuestMemory::kHoleEnd, memory.high_size(), MemoryType::kRam});
  return map;
}

}  // namespace bulkhead::machine::boot
