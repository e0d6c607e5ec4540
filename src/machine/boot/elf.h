// An ELF file as a kernel loader sees it: segments to load and notes, with every offset checked against the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "machine/boot/placement.h"
#include "memory/guest_memory.h"
#include "support/bytes.h"
#include "support/result.h"

namespace bulkhead::machine::boot {

struct ElfImage {
  struct Segment {
    uint64_t physical_address = 0;
    uint64_t memory_size = 0;  // at least bytes.size(); the rest is zero
    ByteSpan bytes;
  };
  struct Note {
    std::string_view name;
    uint32_t type = 0;
    ByteSpan descriptor;
  };

  bool is_64_bit = false;
  uint64_t entry = 0;
  std::vector<Segment> segments;
  std::vector<Note> notes;

  [[nodiscard]] const Note* find_note(std::string_view name, uint32_t type) const;
};

// For the 386 and x86-64. Spans point into file.
Result<ElfImage> parse_elf(ByteSpan file);
// Claims a place for every segment and writes it.
Result<> load_segments(const ElfImage& image, memory::GuestMemory& memory, Placement& placement);

}  // namespace bulkhead::machine::boot
