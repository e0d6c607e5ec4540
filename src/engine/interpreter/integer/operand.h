// How integer handlers reach registers and memory: by the offsets that prepare() laid down in the Op. All guest memory
// goes through engine/mmu; nothing here makes a host pointer from a guest value.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "engine/interpreter/cpu.h"
#include "engine/interpreter/op.h"
#include "engine/mmu/access.h"

namespace bulkhead::engine {

// How an instruction's memory operand is addressed; decided once, by prepare().
enum class Addressing : uint8_t {
  kFlat,       // 64-bit mode with 64-bit addresses: a base (FS, GS or 0) and no limit
  kSegmented,  // everything else: wrapped at the address size, segment limits and types checked
};

// --- registers, by byte offset from Cpu::gpr ---

template <typename T>
inline T read_register(const Cpu& cpu, unsigned offset) {
  T value;
  std::memcpy(&value, reinterpret_cast<const uint8_t*>(&cpu) + offset, sizeof(T));
  return value;
}

// A 32-bit write clears the upper half, narrower ones leave the rest alone.
template <typename T>
inline void write_register(Cpu& cpu, unsigned offset, std::type_identity_t<T> value) {
  if constexpr (sizeof(T) == 4) {
    const uint64_t wide = value;
    std::memcpy(reinterpret_cast<uint8_t*>(&cpu) + offset, &wide, sizeof(wide));
  } else {
    std::memcpy(reinterpret_cast<uint8_t*>(&cpu) + offset, &value, sizeof(T));
  }
}

// Replaces the low `size` bytes of a register as a write of that width would: rSI, rDI, rCX, rSP by address or stack
// size.
inline void write_sized(uint64_t& gpr, uint64_t value, unsigned size) {
  if (size == 8) {
    gpr = value;
  } else if (size == 4) {
    gpr = static_cast<uint32_t>(value);
  } else {
    gpr = (gpr & ~uint64_t{0xFFFF}) | static_cast<uint16_t>(value);
  }
}

inline uint64_t size_mask(unsigned size) {
  return size == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * size)) - 1;
}

// --- addresses ---

template <Addressing kAddressing>
inline uint64_t effective_address(const Cpu& cpu, const Op& op) {
  const uint64_t address = read_register<uint64_t>(cpu, op.base) +
                           (read_register<uint64_t>(cpu, op.index) << op.scale_log2) +
                           static_cast<uint64_t>(op.displacement);
  if constexpr (kAddressing == Addressing::kFlat) return address;
  return address & size_mask(op.instruction->address_size);
}

// Linear address of `size` bytes at `offset` in the op's segment. Segmented: #GP or #SS unless the segment allows it.
template <Addressing kAddressing, MemoryAccess kAccess>
inline uint64_t segment_address(Cpu& cpu, const Op& op, uint64_t offset, unsigned size) {
  if constexpr (kAddressing == Addressing::kFlat) return offset + read_register<uint64_t>(cpu, op.segment_base);
  return linear_address<kAccess>(cpu, static_cast<cpu::SegmentRegister>(op.segment), offset, size);
}

template <Addressing kAddressing, MemoryAccess kAccess>
inline uint64_t operand_address(Cpu& cpu, const Op& op, unsigned size) {
  return segment_address<kAddressing, kAccess>(cpu, op, effective_address<kAddressing>(cpu, op), size);
}

// --- the memory operand ---

inline cpu::SegmentRegister segment_of(const Op& op) {
  return static_cast<cpu::SegmentRegister>(op.segment);
}

template <typename T, Addressing kAddressing>
inline T load(Cpu& cpu, const Op& op) {
  return read_linear<T>(cpu, segment_of(op), operand_address<kAddressing, MemoryAccess::kRead>(cpu, op, sizeof(T)));
}

// Reads a T and gives it to kUse(cpu, op, value). The slow way is a tail call with nothing kept over it, so that hot
// handlers need no stack frame.
template <typename T, auto kUse>
[[gnu::noinline, gnu::cold]] void load_slow_then(Cpu& cpu, const Op& op, cpu::SegmentRegister segment,
                                                 uint64_t linear) {
  kUse(cpu, op, read_word_slow<T>(cpu, segment, linear));
}
template <typename T, auto kUse>
[[gnu::always_inline]] inline void read_then(Cpu& cpu, const Op& op, cpu::SegmentRegister segment, uint64_t linear) {
  if (const uint8_t* host = find_readable(cpu, linear, sizeof(T))) [[likely]] {
    kUse(cpu, op, load_word<T>(host));
    return;
  }
  load_slow_then<T, kUse>(cpu, op, segment, linear);
}
template <typename T, Addressing kAddressing, auto kUse>
[[gnu::always_inline]] inline void load_then(Cpu& cpu, const Op& op) {
  read_then<T, kUse>(cpu, op, segment_of(op), operand_address<kAddressing, MemoryAccess::kRead>(cpu, op, sizeof(T)));
}

// Writes value, then kThen(cpu, op): the same for stores.
template <typename T, auto kThen>
[[gnu::noinline, gnu::cold]] void write_slow_then(Cpu& cpu, const Op& op, cpu::SegmentRegister segment, uint64_t linear,
                                                  T value) {
  write_word_slow<T>(cpu, segment, linear, value);
  kThen(cpu, op);
}
template <typename T, auto kThen>
[[gnu::always_inline]] inline void write_then(Cpu& cpu, const Op& op, cpu::SegmentRegister segment, uint64_t linear,
                                              T value) {
  if (uint8_t* host = find_writable(cpu, linear, sizeof(T))) [[likely]] {
    store_word<T>(host, value);
    kThen(cpu, op);
    return;
  }
  write_slow_then<T, kThen>(cpu, op, segment, linear, value);
}

template <typename T, Addressing kAddressing>
inline void store(Cpu& cpu, const Op& op, std::type_identity_t<T> value) {
  const uint64_t linear = operand_address<kAddressing, MemoryAccess::kWrite>(cpu, op, sizeof(T));
  write_linear<T>(cpu, segment_of(op), linear, value);
}

// One LOCK CMPXCHG on guest memory; expected becomes what was there.
template <typename T>
inline bool compare_exchange(T* host, T& expected, T desired) {
  bool equal;
  asm volatile("lock cmpxchg %[desired], %[memory]"
               : "+a"(expected), [memory] "+m"(*host), "=@ccz"(equal)
               : [desired] "r"(desired)
               : "memory");
  return equal;
}

// Read-modify-write: change(old) gives the new value, and may set registers and flags because nothing faults after it
// began. It may run more than once when kLocked (another vCPU came between), so it must start from the same flags each
// time.
template <typename T, bool kLocked, typename Change>
inline void modify_linear(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear, Change&& change) {
  if constexpr (kLocked) {
    update_locked_linear<T>(cpu, segment, linear, [&](T* host) {
      T old = load_word<T>(host);
      while (!compare_exchange<T>(host, old, change(old))) {
      }
    });
  } else {
    update_linear<T>(cpu, segment, linear, [&](T* host) { store_word<T>(host, change(load_word<T>(host))); });
  }
}

template <typename T, Addressing kAddressing, bool kLocked, typename Change>
inline void modify(Cpu& cpu, const Op& op, Change&& change) {
  const uint64_t linear = operand_address<kAddressing, MemoryAccess::kReadWrite>(cpu, op, sizeof(T));
  modify_linear<T, kLocked>(cpu, segment_of(op), linear, change);
}

}  // namespace bulkhead::engine
