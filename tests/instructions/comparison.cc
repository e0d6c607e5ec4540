#include "instructions/comparison.h"

#include <fmt/format.h>

namespace bulkhead::instructions {
namespace {

using engine::decoder::Instruction;
using engine::decoder::Mnemonic;
using engine::decoder::OperandKind;

constexpr uint32_t kComparedFlags = engine::decoder::kArithmeticFlags | engine::decoder::kFlagDf;
constexpr std::array<const char*, 16> kGprNames = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                                   "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

// The count of a shift or rotate as the processor masks it.
unsigned shift_count(const Instruction& instruction, const Registers& before) {
  const unsigned last = instruction.info->operand_count - 1u;
  unsigned count = 1;
  const OperandKind kind = instruction.info->operands[last].kind;
  if (kind == OperandKind::kCl) count = static_cast<unsigned>(before.gpr[cpu::kRcx]);
  if (kind == OperandKind::kUnsigned || kind == OperandKind::kImmediate) count = static_cast<unsigned>(instruction.immediate);
  return count & (instruction.operand_size == 8 ? 63u : 31u);
}

std::string describe(const Outcome& outcome) {
  if (!outcome.faulted) return "no fault";
  return fmt::format("vector {} error {:#x} cr2 {:#x}", outcome.vector, outcome.error_code, outcome.cr2);
}

std::string bytes_of(const Registers& registers, size_t offset, size_t count) {
  std::string text;
  for (size_t i = count; i-- > 0;) text += fmt::format("{:02x}", registers.xsave[offset + i]);
  return text;
}

}  // namespace

uint32_t undefined_flags(const Instruction& instruction, const Registers& before) {
  using namespace engine::decoder;
  using enum Mnemonic;
  uint32_t undefined = instruction.info->flags_undefined;
  const unsigned bits = instruction.operand_size * 8u;
  switch (instruction.mnemonic) {
    case kShl: case kShr: case kSar: {
      const unsigned count = shift_count(instruction, before);
      if (count == 0) return 0;
      if (count > 1) undefined |= kFlagOf;
      if (count >= bits && instruction.mnemonic != kSar) undefined |= kFlagCf;
      return undefined;
    }
    case kRol: case kRor: case kRcl: case kRcr:
      return shift_count(instruction, before) > 1 ? kFlagOf : 0;
    case kShld: case kShrd: {
      const unsigned count = shift_count(instruction, before);
      if (count == 0) return 0;
      if (count > 1) undefined |= kFlagOf;
      if (count > bits) undefined |= kArithmeticFlags;
      return undefined;
    }
    default:
      return undefined;
  }
}

bool is_undefined(const Instruction& instruction, const Registers& before) {
  using enum Mnemonic;
  if (instruction.operand_size != 2) return false;
  if (instruction.mnemonic == kBswap) return true;
  return (instruction.mnemonic == kShld || instruction.mnemonic == kShrd) && shift_count(instruction, before) > 16;
}

std::vector<std::string> compare(const Registers& expected, const Outcome& expected_outcome, const Registers& actual,
                                 const Outcome& actual_outcome, uint32_t ignored_flags) {
  std::vector<std::string> differences;
  if (expected_outcome != actual_outcome) {
    differences.push_back(fmt::format("expected {}, got {}", describe(expected_outcome), describe(actual_outcome)));
  }
  for (size_t i = 0; i < 16; ++i) {
    if (expected.gpr[i] != actual.gpr[i]) {
      differences.push_back(fmt::format("{}: expected {:016x}, got {:016x}", kGprNames[i], expected.gpr[i], actual.gpr[i]));
    }
  }
  if (expected.rip != actual.rip) differences.push_back(fmt::format("rip: expected {:x}, got {:x}", expected.rip, actual.rip));
  const uint64_t compared = kComparedFlags & ~ignored_flags;
  if (((expected.rflags ^ actual.rflags) & compared) != 0) {
    differences.push_back(fmt::format("rflags: expected {:x}, got {:x} (of {:x})", expected.rflags & compared,
                                      actual.rflags & compared, compared));
  }
  const auto compare_field = [&](const std::string& name, size_t offset, size_t count) {
    if (std::memcmp(expected.xsave.data() + offset, actual.xsave.data() + offset, count) == 0) return;
    differences.push_back(fmt::format("{}: expected {}, got {}", name, bytes_of(expected, offset, count), bytes_of(actual, offset, count)));
  };
  compare_field("x87 control", kControlWord, 2);
  compare_field("x87 status", kStatusWord, 2);
  compare_field("x87 tags", kTagWord, 1);
  compare_field("mxcsr", kMxcsr, 4);
  for (size_t i = 0; i < 8; ++i) compare_field(fmt::format("st{}", i), kX87Registers + 16 * i, 10);
  for (size_t i = 0; i < 16; ++i) compare_field(fmt::format("xmm{}", i), kXmmRegisters + 16 * i, 16);
  for (size_t i = 0; i < 16; ++i) compare_field(fmt::format("ymm{} high half", i), kYmmHighHalves + 16 * i, 16);
  return differences;
}

}  // namespace bulkhead::instructions
