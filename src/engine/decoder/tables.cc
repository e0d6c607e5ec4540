// Turns the rows of the opcodes_*.h lists into look-up tables, at compile time.
#include "engine/decoder/tables.h"

#include "engine/decoder/opcodes_general.h"
#include "engine/decoder/opcodes_sse.h"
#include "engine/decoder/opcodes_system.h"
#include "engine/decoder/opcodes_vex.h"
#include "engine/decoder/opcodes_x87.h"

namespace bulkhead::engine::decoder::tables {
namespace {

// Separate lists, so that each stays within what a compiler evaluates in one constant.
consteval auto general_rows() {
  Builder<640> t;
  add_arithmetic(t);
  add_bits(t);
  add_moves(t);
  add_stack_and_control(t);
  add_strings(t);
  return t;
}
consteval auto system_rows() {
  Builder<400> t;
  add_ports_and_flags(t);
  add_descriptor_tables(t);
  add_group_7_registers(t);
  add_state_management(t);
  add_hints(t);
  add_x87_memory(t);
  add_x87_registers(t);
  return t;
}
consteval auto vector_rows() {
  Builder<900> t;
  add_sse_moves(t);
  add_sse_arithmetic(t);
  add_conversions(t);
  add_packed_integers(t);
  add_sse4_integers(t);
  add_cryptography(t);
  add_avx(t);
  add_gathers(t);
  add_fma(t);
  return t;
}

constexpr auto kGeneral = general_rows();
constexpr auto kSystem = system_rows();
constexpr auto kVector = vector_rows();
constexpr size_t kRowCount = kGeneral.count + kSystem.count + kVector.count;

constexpr const Row& row_at(size_t index) {
  if (index < kGeneral.count) return kGeneral.rows[index];
  index -= kGeneral.count;
  return index < kSystem.count ? kSystem.rows[index] : kVector.rows[index - kSystem.count];
}

constexpr Immediates immediates_of(const OpcodeInfo& info) {
  for (const OperandSpec& operand : info.operands) {
    switch (operand.kind) {
      case OperandKind::kUnsigned:
        if (operand.width == OperandWidth::kByte) return Immediates::kUnsigned8;
        return info.mnemonic == Mnemonic::kEnter ? Immediates::kEnter : Immediates::kUnsigned16;
      case OperandKind::kImmediate:
        if (operand.width == OperandWidth::kByte) return Immediates::kSigned8;
        return operand.width == OperandWidth::kOperand ? Immediates::kFull : Immediates::kSignedMax32;
      case OperandKind::kRelative:
        return operand.width == OperandWidth::kByte ? Immediates::kSigned8 : Immediates::kRelative;
      case OperandKind::kFarPointer:
        return Immediates::kFarPointer;
      case OperandKind::kXmmIs4:
        return Immediates::kRegister;
      case OperandKind::kMoffs:
        return Immediates::kMoffs;
      default:
        break;
    }
  }
  return Immediates::kNone;
}

constexpr void describe_registers(Entry& entry, const OpcodeInfo& info) {
  using enum OperandKind;
  bool has_mmx = false, has_xmm = false;
  for (const OperandSpec& operand : info.operands) {
    const bool is_byte = operand.width == OperandWidth::kByte;
    switch (operand.kind) {
      case kGprReg:
        entry.reg_field = is_byte ? Field::kByte : Field::kExtended;
        break;
      case kXmmReg:
        entry.reg_field = Field::kExtended;
        break;
      case kSegment:
        entry.reg_field = Field::kSegment;
        break;
      case kControl:
        entry.reg_field = Field::kControl;
        break;
      case kDebug:
        entry.reg_field = Field::kDebug;
        break;
      case kGprRm:
      case kGprOpcode:
        entry.rm_field = is_byte ? Field::kByte : Field::kExtended;
        break;
      case kXmmRm:
        entry.rm_field = Field::kExtended;
        break;
      default:
        break;
    }
    has_mmx |= operand.kind == kMmxReg || operand.kind == kMmxRm;
    has_xmm |= operand.kind == kXmmReg || operand.kind == kXmmRm || operand.kind == kXmmVvvv;
  }
  entry.vector_size = has_xmm ? 16 : has_mmx ? 8 : 0;
  const OperandKind destination = info.operands[0].kind;
  entry.destination_is_rm = destination == kXmmRm || destination == kMmxRm;
}

consteval auto make_infos() {
  std::array<OpcodeInfo, kRowCount> infos{};
  for (size_t i = 0; i < kRowCount; ++i) {
    infos[i] = row_at(i).info;
    for (const OperandSpec& operand : infos[i].operands) {
      using enum OperandKind;
      if (operand.kind == kGprRm || operand.kind == kMemory || operand.kind == kMoffs || operand.kind == kVsib ||
          operand.kind == kMmxRm || operand.kind == kXmmRm) {
        infos[i].memory_width = operand.width;
        infos[i].memory_access = operand.access;
      }
    }
  }
  return infos;
}
constexpr std::array<OpcodeInfo, kRowCount> kInfos = make_infos();

consteval auto make_entries() {
  std::array<Entry, kRowCount> entries{};
  for (size_t i = 0; i < kRowCount; ++i) {
    const Row& row = row_at(i);
    Entry& entry = entries[i];
    entry.info = &kInfos[i];
    entry.prefix = row.prefix;
    entry.mod = row.mod;
    entry.rm = row.rm;
    entry.w = row.w;
    entry.length = row.length;
    entry.modes = row.modes;
    entry.attributes = row.attributes;
    entry.feature = row.info.feature;
    entry.immediates = immediates_of(row.info);
    describe_registers(entry, row.info);
  }
  return entries;
}
constexpr std::array<Entry, kRowCount> kEntries = make_entries();

constexpr size_t kTableCount = static_cast<size_t>(Table::kCount);
constexpr size_t kKeyCount = kTableCount * 256;

constexpr size_t key_of(const Row& row) {
  return static_cast<size_t>(row.table) * 256 + row.opcode;
}

// Row numbers ordered by table and opcode, and where each opcode's begin.
struct Order {
  std::array<uint16_t, kRowCount> rows{};
  std::array<uint16_t, kKeyCount + 1> first{};
};
consteval Order make_order() {
  Order order;
  for (size_t i = 0; i < kRowCount; ++i) ++order.first[key_of(row_at(i)) + 1];
  for (size_t key = 0; key < kKeyCount; ++key)
    order.first[key + 1] = static_cast<uint16_t>(order.first[key + 1] + order.first[key]);
  std::array<uint16_t, kKeyCount> used{};
  for (size_t i = 0; i < kRowCount; ++i) {
    const size_t key = key_of(row_at(i));
    order.rows[static_cast<size_t>(order.first[key]) + used[key]++] = static_cast<uint16_t>(i);
  }
  return order;
}
constexpr Order kOrder = make_order();

struct Lookup {
  std::array<Opcode, kKeyCount> opcodes{};
  std::array<Slot, 2600> slots{};
  std::array<uint16_t, 2600> candidates{};
};
consteval Lookup make_lookup() {
  Lookup lookup;
  size_t slot_count = 0, candidate_count = 0;
  for (size_t key = 0; key < kKeyCount; ++key) {
    const size_t first = kOrder.first[key], last = kOrder.first[key + 1];
    if (first == last) continue;
    Opcode& opcode = lookup.opcodes[key];
    opcode.exists = true;
    opcode.first_slot = static_cast<uint16_t>(slot_count);
    for (size_t i = first; i < last; ++i) {
      const Row& row = row_at(kOrder.rows[i]);
      opcode.is_group |= row.reg >= 0;
      opcode.has_modrm |= row.has_modrm;
      opcode.mod_ignored |= (row.attributes & kModIgnored) != 0;
    }
    for (int index = 0; index < (opcode.is_group ? 16 : 1); ++index) {
      Slot& slot = lookup.slots[slot_count++];
      slot.first = static_cast<uint16_t>(candidate_count);
      for (size_t i = first; i < last; ++i) {
        const Row& row = row_at(kOrder.rows[i]);
        const bool mod_fits = !opcode.is_group || (row.mod & (index < 8 ? 1 : 2)) != 0;
        if (!mod_fits || (row.reg >= 0 && row.reg != index % 8)) continue;
        lookup.candidates[candidate_count++] = kOrder.rows[i];
        ++slot.count;
      }
    }
  }
  return lookup;
}
constexpr Lookup kLookup = make_lookup();

}  // namespace

constinit const Tables kTables = {.opcodes = kLookup.opcodes.data(),
                                  .slots = kLookup.slots.data(),
                                  .candidates = kLookup.candidates.data(),
                                  .entries = kEntries.data(),
                                  .entry_count = kEntries.size()};

}  // namespace bulkhead::engine::decoder::tables
