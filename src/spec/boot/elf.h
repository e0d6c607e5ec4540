// ELF (System V ABI, chapters 4 and 5; AMD64 supplement): the parts that a kernel loader reads.
#pragma once

#include <cstdint>

namespace bulkhead::spec::elf {

inline constexpr uint8_t kMagic[4] = {0x7F, 'E', 'L', 'F'};
inline constexpr uint8_t kClass32 = 1;
inline constexpr uint8_t kClass64 = 2;
inline constexpr uint8_t kLittleEndian = 1;
inline constexpr uint16_t kMachine386 = 3;
inline constexpr uint16_t kMachineX86_64 = 62;
inline constexpr uint32_t kSegmentLoad = 1;
inline constexpr uint32_t kSegmentNote = 4;

struct [[gnu::packed]] Identification {
  uint8_t magic[4];
  uint8_t file_class;
  uint8_t data;
  uint8_t version;
  uint8_t padding[9];
};
static_assert(sizeof(Identification) == 16);

struct [[gnu::packed]] Header32 {
  Identification identification;
  uint16_t type;
  uint16_t machine;
  uint32_t version;
  uint32_t entry;
  uint32_t program_header_offset;
  uint32_t section_header_offset;
  uint32_t flags;
  uint16_t header_size;
  uint16_t program_header_size;
  uint16_t program_header_count;
  uint16_t section_header_size;
  uint16_t section_header_count;
  uint16_t section_name_index;
};
static_assert(sizeof(Header32) == 52);

struct [[gnu::packed]] Header64 {
  Identification identification;
  uint16_t type;
  uint16_t machine;
  uint32_t version;
  uint64_t entry;
  uint64_t program_header_offset;
  uint64_t section_header_offset;
  uint32_t flags;
  uint16_t header_size;
  uint16_t program_header_size;
  uint16_t program_header_count;
  uint16_t section_header_size;
  uint16_t section_header_count;
  uint16_t section_name_index;
};
static_assert(sizeof(Header64) == 64);

struct [[gnu::packed]] ProgramHeader32 {
  uint32_t type;
  uint32_t offset;
  uint32_t virtual_address;
  uint32_t physical_address;
  uint32_t file_size;
  uint32_t memory_size;
  uint32_t flags;
  uint32_t alignment;
};
static_assert(sizeof(ProgramHeader32) == 32);

struct [[gnu::packed]] ProgramHeader64 {
  uint32_t type;
  uint32_t flags;
  uint64_t offset;
  uint64_t virtual_address;
  uint64_t physical_address;
  uint64_t file_size;
  uint64_t memory_size;
  uint64_t alignment;
};
static_assert(sizeof(ProgramHeader64) == 56);

// Followed by the name and the descriptor, each padded to the segment's alignment (4, or 8 where it says so).
struct [[gnu::packed]] NoteHeader {
  uint32_t name_size;
  uint32_t descriptor_size;
  uint32_t type;
};
static_assert(sizeof(NoteHeader) == 12);

}  // namespace bulkhead::spec::elf
