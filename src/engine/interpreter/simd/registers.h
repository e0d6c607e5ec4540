// The guest's vector registers inside the XSAVE image of Cpu, the checks that come before any vector instruction, and
// its memory operand. Intel SDM volume 1, 13.4; volume 2, 2.4 (exception types).
#pragma once

#include <cstdint>
#include <cstring>

#include "engine/interpreter/cpu.h"
#include "engine/interpreter/op.h"
#include "engine/interpreter/simd/stubs.h"
#include "engine/interpreter/system/system.h"
#include "engine/mmu/access.h"

namespace bulkhead::engine::simd {

inline constexpr size_t kMxcsrOffset = 24, kXmmOffset = 160, kYmmHighOffset = 576;

struct Vector128 {
  uint64_t lane[2];
};
struct Vector256 {
  uint64_t lane[4];
};

inline uint8_t* xmm(Cpu& cpu, unsigned number) {
  return cpu.xsave.data() + kXmmOffset + 16 * number;
}
inline uint8_t* ymm_high(Cpu& cpu, unsigned number) {
  return cpu.xsave.data() + kYmmHighOffset + 16 * number;
}

inline uint32_t mxcsr(const Cpu& cpu) {
  uint32_t value;
  std::memcpy(&value, cpu.xsave.data() + kMxcsrOffset, sizeof value);
  return value;
}
inline void set_mxcsr(Cpu& cpu, uint32_t value) {
  std::memcpy(cpu.xsave.data() + kMxcsrOffset, &value, sizeof value);
}

inline Vector128 read_xmm(Cpu& cpu, unsigned number) {
  Vector128 value;
  std::memcpy(&value, xmm(cpu, number), sizeof value);
  return value;
}
// Legacy SSE: the upper half of the YMM register stays.
inline void write_xmm(Cpu& cpu, unsigned number, const Vector128& value) {
  std::memcpy(xmm(cpu, number), &value, sizeof value);
}
inline void zero_upper(Cpu& cpu, unsigned number) {
  std::memset(ymm_high(cpu, number), 0, 16);
}

inline void read_ymm(Cpu& cpu, unsigned number, VectorRegister& value) {
  std::memcpy(&value.lane[0], xmm(cpu, number), 16);
  std::memcpy(&value.lane[2], ymm_high(cpu, number), 16);
}
inline void write_ymm(Cpu& cpu, unsigned number, const VectorRegister& value) {
  std::memcpy(xmm(cpu, number), &value.lane[0], 16);
  std::memcpy(ymm_high(cpu, number), &value.lane[2], 16);
}

// --- may the instruction run at all? #UD before #NM ---
[[noreturn]] void raise_unavailable(const Cpu& cpu, uint32_t needed);

[[gnu::always_inline]] inline void require_sse(const Cpu& cpu) {
  if ((cpu.mode.value & (ModeBits::kSse | ModeBits::kTaskSwitched)) != ModeBits::kSse) [[unlikely]] {
    raise_unavailable(cpu, ModeBits::kSse);
  }
}
[[gnu::always_inline]] inline void require_avx(const Cpu& cpu) {
  if ((cpu.mode.value & (ModeBits::kAvx | ModeBits::kTaskSwitched)) != ModeBits::kAvx) [[unlikely]] {
    raise_unavailable(cpu, ModeBits::kAvx);
  }
}
template <bool kVex>
[[gnu::always_inline]] inline void require(const Cpu& cpu) {
  if constexpr (kVex)
    require_avx(cpu);
  else
    require_sse(cpu);
}

// --- the memory operand ---
// kFlat: 64-bit addresses, which exist in 64-bit mode only.
template <bool kFlat, MemoryAccess kAccess>
[[gnu::always_inline]] inline uint64_t operand_address(Cpu& cpu, const Op& op, unsigned size) {
  if constexpr (kFlat) {
    const auto* registers = reinterpret_cast<const uint8_t*>(cpu.gpr.data());
    const auto field = [registers](unsigned offset) {
      uint64_t value;
      std::memcpy(&value, registers + offset, sizeof value);
      return value;
    };
    return field(op.base) + (field(op.index) << op.scale_log2) + static_cast<uint64_t>(op.displacement) +
           field(op.segment_base);
  }
  return linear_address<kAccess>(cpu, memory_segment(op), memory_offset(cpu, op), size);
}

inline void require_alignment(uint64_t linear, unsigned bytes) {
  if ((linear & (bytes - 1)) != 0) [[unlikely]]
    raise(kGeneralProtection, 0);
}

// 32 bytes as two host accesses of 16 where RAM allows it.
[[gnu::always_inline]] inline Vector256 read_256(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear) {
  if (const uint8_t* host = find_readable(cpu, linear, 32)) [[likely]] {
    const auto low = load_word<Vector128>(host), high = load_word<Vector128>(host + 16);
    return {{low.lane[0], low.lane[1], high.lane[0], high.lane[1]}};
  }
  return read_linear<Vector256>(cpu, segment, linear);
}
[[gnu::always_inline]] inline void write_256(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear,
                                             const Vector256& value) {
  if (uint8_t* host = find_writable(cpu, linear, 32)) [[likely]] {
    store_word<Vector128>(host, {{value.lane[0], value.lane[1]}});
    store_word<Vector128>(host + 16, {{value.lane[2], value.lane[3]}});
    return;
  }
  write_linear<Vector256>(cpu, segment, linear, value);
}

template <typename T, bool kFlat, unsigned kAlignment = 1>
[[gnu::always_inline]] inline T load(Cpu& cpu, const Op& op) {
  const uint64_t linear = operand_address<kFlat, MemoryAccess::kRead>(cpu, op, sizeof(T));
  if constexpr (kAlignment > 1) require_alignment(linear, kAlignment);
  if constexpr (sizeof(T) == 32)
    return read_256(cpu, memory_segment(op), linear);
  else
    return read_linear<T>(cpu, memory_segment(op), linear);
}
template <typename T, bool kFlat, unsigned kAlignment = 1>
[[gnu::always_inline]] inline void store(Cpu& cpu, const Op& op, const T& value) {
  const uint64_t linear = operand_address<kFlat, MemoryAccess::kWrite>(cpu, op, sizeof(T));
  if constexpr (kAlignment > 1) require_alignment(linear, kAlignment);
  if constexpr (sizeof(T) == 32)
    write_256(cpu, memory_segment(op), linear, value);
  else
    write_linear<T>(cpu, memory_segment(op), linear, value);
}

// Bytes that the instruction's alignment rule asks for; 1: any address.
inline unsigned required_alignment(const decoder::Instruction& instruction) {
  switch (instruction.info->alignment) {
    case decoder::Alignment::kNone:
      return 1;
    case decoder::Alignment::k16:
      return 16;
    case decoder::Alignment::kVectorSize:
      return instruction.vector_size;
    case decoder::Alignment::k64:
      return 64;
  }
  return 1;
}

// Memory operand of 1 to 32 bytes by the decoder's description, zero-extended.
void load_operand(Cpu& cpu, const Op& op, VectorRegister& out);
// The low memory_size bytes of the value.
void store_operand(Cpu& cpu, const Op& op, const VectorRegister& value);

}  // namespace bulkhead::engine::simd
