// Decodes one x86 instruction from bytes. A pure function of the bytes, the mode and the features: no CPU state, no
// memory, no allocation. Intel SDM volume 2, chapters 2 to 5 and appendices A and B.
#pragma once

#include <cstdint>
#include <span>

#include "cpu/model.h"
#include "engine/decoder/instruction.h"

namespace bulkhead::engine::decoder {

// Default operand and address size. Compatibility mode is kProtected16 or kProtected32.
enum class DecodeMode : uint8_t {
  kReal16,  // real and virtual-8086 mode: no VEX, no ARPL, SLDT, STR, LLDT, LTR, VERR, VERW, LAR, LSL
  kProtected16,
  kProtected32,
  kLong64,
};

struct DecodeOptions {
  uint64_t features = ~uint64_t{0};  // bit n = Feature n; an opcode without its feature is invalid

  [[nodiscard]] bool has(Feature feature) const { return (features >> static_cast<unsigned>(feature) & 1) != 0; }
  void set(Feature feature, bool present);
};
// The options of a CPU model.
DecodeOptions options_for(const cpu::FeatureSet& features);

inline constexpr size_t kMaxInstructionLength = 15;

enum class DecodeStatus : uint8_t {
  kOk,
  kNeedsMoreBytes,  // the bytes end inside the instruction; never returned for 15 bytes or more
  kInvalid,         // #UD
  kTooLong,         // more than 15 bytes: #GP(0)
};

struct DecodeResult {
  DecodeStatus status = DecodeStatus::kInvalid;
  Instruction instruction{};  // meaningful for kOk only
};

// A longer span than 15 bytes is welcome; only the first 15 are read.
DecodeResult decode(std::span<const uint8_t> bytes, DecodeMode mode, const DecodeOptions& options);
// The same without the copy.
DecodeStatus decode(std::span<const uint8_t> bytes, DecodeMode mode, const DecodeOptions& options, Instruction& out);

}  // namespace bulkhead::engine::decoder
