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
  if (kind == OperandKind::kUnsigned || kind == OperandKind::kImmediate)
    count = static_cast<unsigned>(instruction.immediate);
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
    case kShl:
    case kShr:
    case kSar: {
      const unsigned count = shift_count(instruction, before);
      if (count == 0) return 0;
      if (count > 1) undefined |= kFlagOf;
      if (count >= bits && instruction.mnemonic != kSar) undefined |= kFlagCf;
      return undefined;
    }
    case kRol:
    case kRor:
    case kRcl:
    case kRcr:
      return shift_count(instruction, before) > 1 ? kFlagOf : 0;
    case kShld:
    case kShrd: {
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

bool is_other_on_host(const Instruction& instruction, std::span<const uint8_t> code) {
  using enum Mnemonic;
  static const bool host_is_amd = __builtin_cpu_is("amd");
  if (!host_is_amd) return false;
  constexpr uint8_t kPrefetchOpcode = 0x0D, kRex = 0x40, kRexB = 1;
  switch (instruction.mnemonic) {
    case kNop:
      return instruction.opcode_map == engine::decoder::OpcodeMap::k0F && instruction.opcode == kPrefetchOpcode &&
             !instruction.has_memory();
    case kPause:
      return code.size() >= 2 && (code[code.size() - 2] & (0xF0 | kRexB)) == (kRex | kRexB);
    case kMovsxd:
      return instruction.operand_size == 2;
    case kSha1rnds4:
    case kSha1nexte:
    case kSha1msg1:
    case kSha1msg2:
    case kSha256rnds2:
    case kSha256msg1:
    case kSha256msg2:
      return instruction.has_memory();
    default:
      return false;
  }
}

void forgive_host(const Instruction& instruction, const Registers& actual, const Outcome& actual_outcome,
                  Registers& expected, Outcome& expected_outcome) {
  using enum Mnemonic;
  if (!expected_outcome.faulted || !actual_outcome.faulted) return;
  const Mnemonic mnemonic = instruction.mnemonic;
  const auto take = [&](size_t offset, size_t count) {
    std::memcpy(expected.xsave.data() + offset, actual.xsave.data() + offset, count);
  };
  constexpr uint8_t kPageFault = 14, kSimdFault = 19;
  // Linux reports every address above its own border as protected.
  if (expected_outcome.vector == kPageFault && expected_outcome.cr2 >> 47 != 0 &&
      expected_outcome.cr2 == actual_outcome.cr2) {
    expected_outcome.error_code = (expected_outcome.error_code & ~1u) | (actual_outcome.error_code & 1u);
  }
  // Where masked elements fault in a page is the processor's choice.
  const bool is_masked = mnemonic == kVmaskmovps || mnemonic == kVmaskmovpd || mnemonic == kVpmaskmovd ||
                         mnemonic == kVpmaskmovq || mnemonic == kMaskmovq || mnemonic == kMaskmovdqu;
  if (is_masked && expected_outcome.cr2 >> 12 == actual_outcome.cr2 >> 12) expected_outcome.cr2 = actual_outcome.cr2;
  // Intel's processors enter MMX state (TOP = 0, all tags valid) before the operand faults.
  const bool is_mmx = instruction.info->state == engine::decoder::StateComponent::kMmx || mnemonic == kCvtpi2ps ||
                      mnemonic == kCvtpi2pd || mnemonic == kCvtps2pi || mnemonic == kCvtpd2pi ||
                      mnemonic == kCvttps2pi || mnemonic == kCvttpd2pi;
  if (is_mmx) take(kControlWord, kMxcsr - kControlWord), take(kX87Registers, kXmmRegisters - kX87Registers);
  // A conversion has set its MXCSR flags when its store faults; a dot product stops at the first of its steps that
  // faults.
  const bool stores_conversion = mnemonic == kVcvtps2ph && expected_outcome.vector != kSimdFault;
  const bool has_steps = (mnemonic == kDpps || mnemonic == kDppd) && expected_outcome.vector == kSimdFault;
  if (stores_conversion || has_steps) take(kMxcsr, 4);
  // The interpreter sets PE by the masked response to underflow or overflow, the host by the result of unbounded
  // exponent.
  constexpr uint32_t kPrecision = 0x20, kOverflowOrUnderflow = 0x18;
  const auto mxcsr = expected.xsave_field<uint32_t>(kMxcsr);
  const bool range_fault = expected_outcome.vector == kSimdFault && (mxcsr & ~(mxcsr >> 7) & kOverflowOrUnderflow) != 0;
  if (range_fault) {
    expected.set_xsave_field<uint32_t>(kMxcsr,
                                       (mxcsr & ~kPrecision) | (actual.xsave_field<uint32_t>(kMxcsr) & kPrecision));
  }
}

std::vector<std::string> compare(const Registers& expected, const Outcome& expected_outcome, const Registers& actual,
                                 const Outcome& actual_outcome, uint32_t ignored_flags) {
  std::vector<std::string> differences;
  if (expected_outcome != actual_outcome) {
    differences.push_back(fmt::format("expected {}, got {}", describe(expected_outcome), describe(actual_outcome)));
  }
  for (size_t i = 0; i < 16; ++i) {
    if (expected.gpr[i] != actual.gpr[i]) {
      differences.push_back(
          fmt::format("{}: expected {:016x}, got {:016x}", kGprNames[i], expected.gpr[i], actual.gpr[i]));
    }
  }
  if (expected.rip != actual.rip)
    differences.push_back(fmt::format("rip: expected {:x}, got {:x}", expected.rip, actual.rip));
  const uint64_t compared = kComparedFlags & ~ignored_flags;
  if (((expected.rflags ^ actual.rflags) & compared) != 0) {
    differences.push_back(fmt::format("rflags: expected {:x}, got {:x} (of {:x})", expected.rflags & compared,
                                      actual.rflags & compared, compared));
  }
  const auto compare_field = [&](const std::string& name, size_t offset, size_t count) {
    if (std::memcmp(expected.xsave.data() + offset, actual.xsave.data() + offset, count) == 0) return;
    differences.push_back(fmt::format("{}: expected {}, got {}", name, bytes_of(expected, offset, count),
                                      bytes_of(actual, offset, count)));
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
