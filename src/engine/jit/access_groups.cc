#include "engine/jit/access_groups.h"

#include <algorithm>

#include "engine/jit/instruction_kinds.h"

namespace bulkhead::engine::jit {
namespace {

using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OperandKind;

// What a register holds: an unknown value, and what has been added to it since.
struct Value {
  uint32_t root = 0;
  int64_t added = 0;
};

// Where an access goes, but for `offset`.
struct Place {
  uint32_t base = 0, index = 0;  // roots; 0: none
  uint8_t scale_log2 = 0;
  uint8_t segment = 0;
  friend bool operator==(const Place&, const Place&) = default;
};

struct Access {
  Place place;
  int64_t offset = 0;
  uint8_t size = 0;
  bool writes = false;
};

class Values {
 public:
  Values() {
    for (Value& value : registers_) value = {next_++, 0};
  }

  // The access that the translator would look up in one piece, if there is one.
  [[nodiscard]] std::optional<Access> access(const Op& op) const {
    const Instruction& instruction = *op.instruction;
    if (instruction.info == nullptr) return std::nullopt;
    const Value& rsp = registers_[cpu::kRsp];
    const auto stack = [&](int64_t offset, bool writes) {
      return Access{.place = {.base = rsp.root}, .offset = rsp.added + offset, .size = 8, .writes = writes};
    };
    switch (instruction.mnemonic) {
      case Mnemonic::kPush:
        if (instruction.has_memory() || instruction.operand_size != 8) return std::nullopt;
        return stack(-8, true);
      case Mnemonic::kCall:
        if (instruction.has_memory() || instruction.operand_size != 8) return std::nullopt;
        return stack(-8, true);
      case Mnemonic::kPop:
        if (instruction.has_memory() || instruction.operand_size != 8) return std::nullopt;
        return stack(0, false);
      case Mnemonic::kRet:
        if (instruction.operand_size != 8) return std::nullopt;
        return stack(0, false);
      case Mnemonic::kLeave:
        return Access{.place = {.base = registers_[cpu::kRbp].root},
                      .offset = registers_[cpu::kRbp].added,
                      .size = 8,
                      .writes = false};
      default:
        break;
    }
    if (!instruction.has_memory() || instruction.address_size != 8 || instruction.memory_size == 0 ||
        instruction.memory_size > 32 || instruction.info->memory_access == decoder::Access::kNone ||
        instruction.info->instruction_class == decoder::InstructionClass::kString) {
      return std::nullopt;
    }
    // A bit's number in a register may lead to any other word.
    const bool by_register = is_bit_test(instruction.mnemonic) && instruction.info->operand_count > 1 &&
                             instruction.info->operands[1].kind == OperandKind::kGprReg;
    if (by_register) return std::nullopt;
    // That of MOV from an absolute address has 64 bits.
    const auto displacement =
        static_cast<int64_t>(instruction.base == decoder::kRipRelative ? op.displacement : instruction.displacement);
    if (!AccessGroups::is_near(displacement)) return std::nullopt;
    Access access{.offset = displacement,
                  .size = static_cast<uint8_t>(instruction.memory_size),
                  .writes = instruction.info->memory_access != decoder::Access::kRead};
    if (op.segment >= cpu::kFs) access.place.segment = op.segment;
    if (instruction.base == decoder::kRipRelative) {
      access.place.base = kRip;
    } else if (instruction.base < 16) {
      access.place.base = registers_[instruction.base].root;
      access.offset += registers_[instruction.base].added;
    }
    if (instruction.index < 16) {
      access.place.index = registers_[instruction.index].root;
      access.place.scale_log2 = instruction.scale_log2;
      access.offset += registers_[instruction.index].added * (int64_t{1} << instruction.scale_log2);
    }
    return access;
  }

  void step(const Op& op) {
    const Instruction& instruction = *op.instruction;
    if (instruction.info == nullptr) {
      for (Value& value : registers_) value = {next_++, 0};
      return;
    }
    uint32_t written = written_registers(instruction);
    if (const auto known = result(op)) {
      registers_[known->first] = known->second;
      written &= ~(1u << known->first);
    }
    for (unsigned i = 0; i < 16; ++i) {
      if ((written >> i & 1) != 0) registers_[i] = {next_++, 0};
    }
  }

 private:
  static constexpr uint32_t kRip = 1;

  // The register whose value behind the instruction is known from those before it.
  [[nodiscard]] std::optional<std::pair<uint8_t, Value>> result(const Op& op) const {
    const Instruction& instruction = *op.instruction;
    if (instruction.operand_size != 8 || instruction.has(decoder::kPrefixRep) || instruction.has(decoder::kPrefixRepne))
      return std::nullopt;
    const auto plus = [&](uint8_t number, int64_t added) {
      return Value{registers_[number].root, registers_[number].added + added};
    };
    const bool is_register = !instruction.has_memory();
    switch (instruction.mnemonic) {
      case Mnemonic::kPush:
        return std::pair(uint8_t{cpu::kRsp}, plus(cpu::kRsp, -8));
      case Mnemonic::kPop:
        if (!is_register || instruction.rm == cpu::kRsp) return std::nullopt;
        return std::pair(uint8_t{cpu::kRsp}, plus(cpu::kRsp, 8));
      case Mnemonic::kAdd:
      case Mnemonic::kSub: {
        if (!is_register || instruction.immediate_length == 0 || instruction.rm >= 16) return std::nullopt;
        const int64_t added = instruction.mnemonic == Mnemonic::kAdd ? instruction.immediate : -instruction.immediate;
        return std::pair(instruction.rm, plus(instruction.rm, added));
      }
      case Mnemonic::kLea:
        if (instruction.index < 16 || instruction.base >= 16 || instruction.address_size != 8) return std::nullopt;
        return std::pair(instruction.reg, plus(instruction.base, instruction.displacement));
      case Mnemonic::kMov: {
        if (!is_register || instruction.immediate_length != 0 || instruction.info->operand_count != 2)
          return std::nullopt;
        const OperandKind to = instruction.info->operands[0].kind, from = instruction.info->operands[1].kind;
        if (to == OperandKind::kGprRm && from == OperandKind::kGprReg)
          return std::pair(instruction.rm, plus(instruction.reg, 0));
        if (to == OperandKind::kGprReg && from == OperandKind::kGprRm)
          return std::pair(instruction.reg, plus(instruction.rm, 0));
        return std::nullopt;
      }
      default:
        return std::nullopt;
    }
  }

  std::array<Value, 16> registers_;
  uint32_t next_ = kRip + 1;
};

}  // namespace

AccessGroups::AccessGroups(std::span<const Op> ops, uint64_t excluded) : op_count_(ops.size()) {
  struct Group {
    Place place;
    int64_t begin, end;
  };
  std::array<Group, kGroups> groups;
  std::array<uint8_t, kGroups> counts{};
  size_t group_count = 0;
  Values values;
  for (size_t i = 0; i < op_count_; ++i) {
    const std::optional<Access> access = values.access(ops[i]);
    values.step(ops[i]);
    if (!access || (excluded >> i & 1) != 0) continue;
    const int64_t begin = access->offset, end = begin + access->size;
    size_t found = kGroups;
    for (size_t n = group_count; n-- > 0;) {
      const Group& group = groups[n];
      const bool fits = std::max(group.end, end) - std::min(group.begin, begin) <= kSpan;
      if (group.place != access->place || !fits) continue;
      found = n;
      break;
    }
    if (found == kGroups) {
      if (group_count == kGroups) continue;
      found = group_count++;
      groups[found] = {access->place, begin, end};
    }
    Group& group = groups[found];
    group.begin = std::min(group.begin, begin);
    group.end = std::max(group.end, end);
    ++counts[found];
    members_[i] = {
        .offset = begin, .group = static_cast<uint8_t>(found), .size = access->size, .writes = access->writes};
  }
  for (Member& member : members_) {
    if (member.group != kNone && counts[member.group] < 2) member.group = kNone;
  }
}

std::optional<AccessGroups::Span> AccessGroups::span(size_t op) const {
  const Member& first = members_[op];
  int64_t begin = first.offset, end = begin + first.size;
  bool writes = first.writes, is_alone = true;
  for (size_t i = op + 1; i < op_count_; ++i) {
    const Member& other = members_[i];
    if (other.group != first.group) continue;
    is_alone = false;
    begin = std::min(begin, other.offset);
    end = std::max(end, other.offset + other.size);
    writes = writes || other.writes;
  }
  // What is looked up is never more than it says: translated code trusts in that.
  if (is_alone || end - begin > kSpan) return std::nullopt;
  return Span{.group = first.group,
              .begin = static_cast<int32_t>(begin - first.offset),
              .size = static_cast<uint32_t>(end - begin),
              .writes = writes};
}

}  // namespace bulkhead::engine::jit
