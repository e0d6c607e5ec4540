// Names, features and resolved operands of decoded instructions.
#include "engine/decoder/instruction.h"

#include <algorithm>

#include "engine/decoder/decoder.h"

namespace bulkhead::engine::decoder {
namespace {

// "Addps" -> "addps", with room for the longest.
struct Name {
  std::array<char, 20> text{};
  uint8_t length = 0;
};

consteval Name lower(std::string_view name) {
  Name result;
  for (const char letter : name)
    result.text[result.length++] = letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter + 32) : letter;
  return result;
}

constexpr std::array<Name, static_cast<size_t>(Mnemonic::kCount)> kNames = {
    lower("(invalid)"),
#define BULKHEAD_MNEMONIC(name) lower(#name),
#include "engine/decoder/mnemonics.inc"
#undef BULKHEAD_MNEMONIC
};

// In the order of Feature; the same spelling as in cpu/model.h.
constexpr std::array<std::string_view, static_cast<size_t>(Feature::kCount)> kFeatureNames = {
    "",         "fpu",     "tsc",   "msr",           "cx8",       "sep",     "cmov",   "clflush", "mmx",
    "fxsr",     "sse",     "sse2",  "pni",           "pclmulqdq", "monitor", "ssse3",  "fma",     "cx16",
    "sse4_1",   "sse4_2",  "movbe", "popcnt",        "aes",       "xsave",   "avx",    "f16c",    "rdrand",
    "fsgsbase", "bmi1",    "avx2",  "bmi2",          "invpcid",   "rdseed",  "adx",    "smap",    "clflushopt",
    "clwb",     "sha_ni",  "rdpid", "xsaveopt",      "xsavec",    "xgetbv1", "xsaves", "syscall", "rdtscp",
    "lm",       "lahf_lm", "abm",   "3dnowprefetch", "svm",       "vmx"};

}  // namespace

std::string_view mnemonic_name(Mnemonic mnemonic) {
  const Name& name = kNames[static_cast<size_t>(mnemonic)];
  return {name.text.data(), name.length};
}

std::string_view feature_name(Feature feature) {
  return kFeatureNames[static_cast<size_t>(feature)];
}

void DecodeOptions::set(Feature feature, bool present) {
  const uint64_t bit = uint64_t{1} << static_cast<unsigned>(feature);
  features = present ? features | bit : features & ~bit;
}

DecodeOptions options_for(const cpu::FeatureSet& features) {
  // A feature that the decoder knows and no model ever shows (SVM, VMX, MONITOR) stays absent.
  DecodeOptions options{.features = 1};  // kBase
  for (const cpu::Feature& known : cpu::feature_table()) {
    const auto* const found = std::find(kFeatureNames.begin(), kFeatureNames.end(), known.name);
    if (found == kFeatureNames.end() || !features.has(known.name)) continue;
    options.set(static_cast<Feature>(found - kFeatureNames.begin()), true);
  }
  return options;
}

uint16_t width_in_bytes(const Instruction& instruction, OperandWidth width) {
  const bool is_memory = instruction.has_memory();
  const uint16_t operand = instruction.operand_size;
  const uint16_t vector = instruction.vector_size;
  switch (width) {
    case OperandWidth::kNone:
      return 0;
    case OperandWidth::kByte:
      return 1;
    case OperandWidth::kWord:
      return 2;
    case OperandWidth::kDword:
      return 4;
    case OperandWidth::kQword:
      return 8;
    case OperandWidth::kTenByte:
      return 10;
    case OperandWidth::kXmm:
      return 16;
    case OperandWidth::kYmm:
      return 32;
    case OperandWidth::kOperand:
      return operand;
    case OperandWidth::kOperandMax4:
      return operand < 4 ? operand : 4;
    case OperandWidth::kDwordOrQword:
      return operand == 8 ? 8 : 4;
    case OperandWidth::kWordOrOperand:
      return is_memory ? 2 : operand;
    case OperandWidth::kByteOrDword:
      return is_memory ? 1 : 4;
    case OperandWidth::kWordOrDword:
      return is_memory ? 2 : 4;
    case OperandWidth::kAddress:
      return instruction.address_size;
    case OperandWidth::kVector:
      return vector;
    case OperandWidth::kHalfVector:
      return vector / 2;
    case OperandWidth::kQuarterVector:
      return vector / 4;
    case OperandWidth::kEighthVector:
      return vector / 8;
    case OperandWidth::kFarPointer:
      return static_cast<uint16_t>(operand + 2);
    case OperandWidth::kBound:
    case OperandWidth::kPair:
      return static_cast<uint16_t>(operand * 2);
    case OperandWidth::kDescriptor:
      return static_cast<uint16_t>(operand + 2);
    case OperandWidth::kX87Environment:
      return operand == 2 ? 14 : 28;
    case OperandWidth::kX87State:
      return operand == 2 ? 94 : 108;
    case OperandWidth::kFxsave:
      return 512;
    case OperandWidth::kXsave:
      return 0;
  }
  return 0;
}

uint16_t operand_size_bytes(const Instruction& instruction, unsigned index) {
  return width_in_bytes(instruction, instruction.info->operands[index].width);
}

uint8_t operand_register(const Instruction& instruction, unsigned index) {
  using enum OperandKind;
  switch (instruction.info->operands[index].kind) {
    case kGprReg:
    case kSegment:
    case kControl:
    case kDebug:
    case kMmxReg:
    case kXmmReg:
      return instruction.reg;
    case kGprRm:
    case kMmxRm:
    case kXmmRm:
      return instruction.has_memory() ? kNoRegister : instruction.rm;
    case kGprOpcode:
    case kStRm:
      return instruction.rm;
    case kGprVvvv:
    case kXmmVvvv:
      return instruction.vvvv;
    case kXmmIs4:
      return instruction.is4;
    case kAccumulator:
    case kXmm0:
    case kSt0:
      return 0;
    case kCl:
      return cpu::kRcx;
    case kDx:
      return cpu::kRdx;
    default:
      return kNoRegister;
  }
}

}  // namespace bulkhead::engine::decoder
