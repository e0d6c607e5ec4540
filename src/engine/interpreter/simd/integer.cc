// The commonest integer and logical vector operations, on the host's SSE2 without a call: a 256-bit operation works on
// each half alone, as AVX2's do. Everything rarer goes through a stub (operate.cc).
#include <emmintrin.h>

#include "engine/interpreter/simd/families.h"
#include "engine/interpreter/simd/registers.h"

namespace bulkhead::engine::simd {
namespace {

using decoder::Instruction;
using decoder::Mnemonic;
using decoder::OperandKind;

enum class Width : uint8_t { kLegacy, kVex128, kVex256 };
constexpr bool is_vex(Width width) {
  return width != Width::kLegacy;
}
enum class Source : uint8_t { kRegister, kFlatMemory, kMemory };

__m128i load_aligned(const uint8_t* from) {
  return _mm_load_si128(reinterpret_cast<const __m128i*>(from));
}
void store_aligned(uint8_t* to, __m128i value) {
  _mm_store_si128(reinterpret_cast<__m128i*>(to), value);
}
__m128i as_vector(const uint64_t* lanes) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(lanes));
}

struct Halves {
  __m128i low, high;
};

// ModRM.rm as a register or memory; legacy memory operands are aligned.
template <Width kWidth, Source kSource>
[[gnu::always_inline]] inline Halves source(Cpu& cpu, const Op& op) {
  if constexpr (kSource == Source::kRegister) {
    const unsigned number = op.instruction->rm;
    if constexpr (kWidth == Width::kVex256)
      return {load_aligned(xmm(cpu, number)), load_aligned(ymm_high(cpu, number))};
    return {load_aligned(xmm(cpu, number)), __m128i{}};
  } else if constexpr (kWidth == Width::kVex256) {
    const auto value = load < Vector256, kSource == Source::kFlatMemory > (cpu, op);
    return {as_vector(value.lane), as_vector(value.lane + 2)};
  } else {
    const auto value = load < Vector128, kSource == Source::kFlatMemory, is_vex(kWidth) ? 1 : 16 > (cpu, op);
    return {as_vector(value.lane), __m128i{}};
  }
}

template <Width kWidth>
[[gnu::always_inline]] inline void write_result(Cpu& cpu, unsigned number, __m128i low, __m128i high) {
  store_aligned(xmm(cpu, number), low);
  if constexpr (kWidth == Width::kVex256) store_aligned(ymm_high(cpu, number), high);
  if constexpr (kWidth == Width::kVex128) store_aligned(ymm_high(cpu, number), _mm_setzero_si128());
}

template <auto kOperation, Width kWidth, Source kSource>
void binary(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  const Instruction& instruction = *op.instruction;
  const Halves second = source<kWidth, kSource>(cpu, op);
  const unsigned first = is_vex(kWidth) ? instruction.vvvv : instruction.reg;
  const __m128i low = kOperation(load_aligned(xmm(cpu, first)), second.low);
  __m128i high{};
  if constexpr (kWidth == Width::kVex256) high = kOperation(load_aligned(ymm_high(cpu, first)), second.high);
  write_result<kWidth>(cpu, instruction.reg, low, high);
}

template <Width kWidth, Source kSource>
void shuffle_dwords(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  const auto order = static_cast<unsigned>(op.immediate);
  const auto shuffled = [order](__m128i value) {
    uint32_t from[4];
    std::memcpy(from, &value, sizeof from);
    return _mm_setr_epi32(static_cast<int>(from[order & 3]), static_cast<int>(from[order >> 2 & 3]),
                          static_cast<int>(from[order >> 4 & 3]), static_cast<int>(from[order >> 6 & 3]));
  };
  const Halves value = source<kWidth, kSource>(cpu, op);
  write_result<kWidth>(cpu, op.instruction->reg, shuffled(value.low), shuffled(value.high));
}

template <Width kWidth>
void byte_mask(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  const Halves value = source<kWidth, Source::kRegister>(cpu, op);
  auto mask = static_cast<uint32_t>(_mm_movemask_epi8(value.low));
  if constexpr (kWidth == Width::kVex256) mask |= static_cast<uint32_t>(_mm_movemask_epi8(value.high)) << 16;
  cpu.gpr[op.instruction->reg] = mask;
}

// CF: nothing of the source outside the destination's bits; ZF: nothing in common.
template <Width kWidth, Source kSource>
void test_bits(Cpu& cpu, const Op& op) {
  require<is_vex(kWidth)>(cpu);
  const Halves rm = source<kWidth, kSource>(cpu, op);
  const unsigned reg = op.instruction->reg;
  const auto is_zero = [](__m128i value) {
    return _mm_movemask_epi8(_mm_cmpeq_epi8(value, _mm_setzero_si128())) == 0xFFFF;
  };
  __m128i common = _mm_and_si128(load_aligned(xmm(cpu, reg)), rm.low);
  __m128i outside = _mm_andnot_si128(load_aligned(xmm(cpu, reg)), rm.low);
  if constexpr (kWidth == Width::kVex256) {
    common = _mm_or_si128(common, _mm_and_si128(load_aligned(ymm_high(cpu, reg)), rm.high));
    outside = _mm_or_si128(outside, _mm_andnot_si128(load_aligned(ymm_high(cpu, reg)), rm.high));
  }
  cpu.flags.from_rflags((is_zero(common) ? decoder::kFlagZf : 0) | (is_zero(outside) ? decoder::kFlagCf : 0));
}

template <Width kWidth>
struct Chooser {
  const Instruction& instruction;

  [[nodiscard]] Source where() const {
    if (!instruction.has_memory()) return Source::kRegister;
    return is_flat(instruction) ? Source::kFlatMemory : Source::kMemory;
  }
  template <auto kOperation>
  [[nodiscard]] Handler two() const {
    switch (where()) {
      case Source::kRegister:
        return binary<kOperation, kWidth, Source::kRegister>;
      case Source::kFlatMemory:
        return binary<kOperation, kWidth, Source::kFlatMemory>;
      case Source::kMemory:
        break;
    }
    return binary<kOperation, kWidth, Source::kMemory>;
  }
  [[nodiscard]] Handler shuffle() const {
    return instruction.has_memory() ? shuffle_dwords<kWidth, Source::kMemory>
                                    : shuffle_dwords<kWidth, Source::kRegister>;
  }
  [[nodiscard]] Handler test() const {
    return instruction.has_memory() ? test_bits<kWidth, Source::kMemory> : test_bits<kWidth, Source::kRegister>;
  }
};

// A function object for an intrinsic, which has no address.
#define OPERATION(intrinsic) \
  ([](__m128i first, __m128i second) __attribute__((always_inline)) { return intrinsic(first, second); })

template <Width kWidth>
Handler choose(const Instruction& instruction) {
  const Chooser<kWidth> handler{instruction};
  switch (instruction.mnemonic) {
    case Mnemonic::kPxor:
    case Mnemonic::kXorps:
    case Mnemonic::kXorpd:
      return handler.template two<OPERATION(_mm_xor_si128)>();
    case Mnemonic::kPor:
    case Mnemonic::kOrps:
    case Mnemonic::kOrpd:
      return handler.template two<OPERATION(_mm_or_si128)>();
    case Mnemonic::kPand:
    case Mnemonic::kAndps:
    case Mnemonic::kAndpd:
      return handler.template two<OPERATION(_mm_and_si128)>();
    case Mnemonic::kPandn:
    case Mnemonic::kAndnps:
    case Mnemonic::kAndnpd:
      return handler.template two<OPERATION(_mm_andnot_si128)>();
    case Mnemonic::kPaddb:
      return handler.template two<OPERATION(_mm_add_epi8)>();
    case Mnemonic::kPaddw:
      return handler.template two<OPERATION(_mm_add_epi16)>();
    case Mnemonic::kPaddd:
      return handler.template two<OPERATION(_mm_add_epi32)>();
    case Mnemonic::kPaddq:
      return handler.template two<OPERATION(_mm_add_epi64)>();
    case Mnemonic::kPsubb:
      return handler.template two<OPERATION(_mm_sub_epi8)>();
    case Mnemonic::kPsubw:
      return handler.template two<OPERATION(_mm_sub_epi16)>();
    case Mnemonic::kPsubd:
      return handler.template two<OPERATION(_mm_sub_epi32)>();
    case Mnemonic::kPsubq:
      return handler.template two<OPERATION(_mm_sub_epi64)>();
    case Mnemonic::kPcmpeqb:
      return handler.template two<OPERATION(_mm_cmpeq_epi8)>();
    case Mnemonic::kPcmpeqw:
      return handler.template two<OPERATION(_mm_cmpeq_epi16)>();
    case Mnemonic::kPcmpeqd:
      return handler.template two<OPERATION(_mm_cmpeq_epi32)>();
    case Mnemonic::kPcmpgtb:
      return handler.template two<OPERATION(_mm_cmpgt_epi8)>();
    case Mnemonic::kPcmpgtd:
      return handler.template two<OPERATION(_mm_cmpgt_epi32)>();
    case Mnemonic::kPminub:
      return handler.template two<OPERATION(_mm_min_epu8)>();
    case Mnemonic::kPmaxub:
      return handler.template two<OPERATION(_mm_max_epu8)>();
    case Mnemonic::kPsubusb:
      return handler.template two<OPERATION(_mm_subs_epu8)>();
    case Mnemonic::kPmuludq:
      return handler.template two<OPERATION(_mm_mul_epu32)>();
    case Mnemonic::kPunpcklbw:
      return handler.template two<OPERATION(_mm_unpacklo_epi8)>();
    case Mnemonic::kPunpcklwd:
      return handler.template two<OPERATION(_mm_unpacklo_epi16)>();
    case Mnemonic::kPunpckldq:
      return handler.template two<OPERATION(_mm_unpacklo_epi32)>();
    case Mnemonic::kUnpcklpd:
    case Mnemonic::kPunpcklqdq:
      return handler.template two<OPERATION(_mm_unpacklo_epi64)>();
    case Mnemonic::kPunpckhdq:
      return handler.template two<OPERATION(_mm_unpackhi_epi32)>();
    case Mnemonic::kUnpckhpd:
    case Mnemonic::kPunpckhqdq:
      return handler.template two<OPERATION(_mm_unpackhi_epi64)>();
    case Mnemonic::kPshufd:
      return handler.shuffle();
    case Mnemonic::kPmovmskb:
      return byte_mask<kWidth>;
    case Mnemonic::kPtest:
      return handler.test();
    default:
      return nullptr;
  }
}

#undef OPERATION

}  // namespace

Handler select_integer(const Instruction& instruction) {
  for (const decoder::OperandSpec& operand : instruction.info->operands) {
    if (operand.kind == OperandKind::kMmxReg || operand.kind == OperandKind::kMmxRm) return nullptr;
  }
  if (!instruction.is_vex()) return choose<Width::kLegacy>(instruction);
  return is_256(instruction) ? choose<Width::kVex256>(instruction) : choose<Width::kVex128>(instruction);
}

}  // namespace bulkhead::engine::simd
