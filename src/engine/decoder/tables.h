// The opcode tables in the form the decoder looks them up: opcode -> slot (by ModRM.reg and mod where the opcode is a
// group)
// -> entries tried in order. Constant data, built by the compiler from the opcodes_*.h lists.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/decoder/rows.h"

namespace bulkhead::engine::decoder::tables {

// How a register field of ModRM is read.
enum class Field : uint8_t {
  kRaw,       // 3 bits: group extension, MMX, ST(i)
  kExtended,  // with the REX or VEX extension
  kByte,      // the same, and AH..BH without REX
  kSegment,
  kControl,
  kDebug,
};

enum class Immediates : uint8_t {
  kNone,
  kUnsigned8,
  kSigned8,
  kUnsigned16,
  kSignedMax32,  // operand_size, at most 4
  kFull,         // operand_size
  kRelative,     // 2 or 4
  kFarPointer,
  kEnter,     // 2 + 1
  kRegister,  // is4
  kMoffs,
};

struct Entry {
  const OpcodeInfo* info = nullptr;
  PrefixMask prefix = 0;
  uint8_t mod = 0;
  int8_t rm = -1;
  int8_t w = -1;
  VectorLength length = VectorLength::kBoth;
  uint8_t modes = 0;
  uint16_t attributes = 0;
  Feature feature = Feature::kBase;
  Field reg_field = Field::kRaw;
  Field rm_field = Field::kRaw;
  Immediates immediates = Immediates::kNone;
  uint8_t vector_size = 0;  // 0, 8 (MMX) or 16 (doubled by VEX.L)
  bool destination_is_rm = false;
};

struct Opcode {
  uint16_t first_slot = 0;
  bool exists = false;
  bool is_group = false;  // 16 slots: mod = 3, then ModRM.reg
  bool has_modrm = false;
  bool mod_ignored = false;
};

struct Slot {
  uint16_t first = 0;  // into the candidate list
  uint16_t count = 0;
};

struct Tables {
  const Opcode* opcodes;  // [table * 256 + opcode]
  const Slot* slots;
  const uint16_t* candidates;
  const Entry* entries;
  size_t entry_count;
};
extern const Tables kTables;

inline const Opcode& find_opcode(Table table, uint8_t opcode) {
  return kTables.opcodes[static_cast<size_t>(table) * 256 + opcode];
}

// group_index: ModRM.reg, plus 8 where mod is 3.
inline std::span<const uint16_t> candidates(const Opcode& opcode, unsigned group_index) {
  const Slot& slot = kTables.slots[opcode.first_slot + (opcode.is_group ? group_index : 0)];
  return {kTables.candidates + slot.first, slot.count};
}

inline const Entry& entry(uint16_t index) {
  return kTables.entries[index];
}

// Every row, for tests that walk the tables.
inline std::span<const Entry> all_entries() {
  return {kTables.entries, kTables.entry_count};
}

}  // namespace bulkhead::engine::decoder::tables
