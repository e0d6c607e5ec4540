// The arithmetic of the integer instructions as pure functions: operands and flags in, result and flags out, computed
// by the host's own ALU. Nothing here touches memory or the vCPU. Flags that the manual leaves undefined get the values
// that README.md of this folder lists, whatever the host does.
#pragma once

#include <cstdint>
#include <type_traits>

#include "engine/interpreter/cpu.h"

namespace bulkhead::engine::alu {

// Each operation: static T apply(T destination, T source, ArithmeticFlags&). kWrites: the result goes to the
// destination.
#define BULKHEAD_BINARY(Name, text, writes)                                                      \
  struct Name {                                                                                  \
    static constexpr bool kWrites = writes;                                                      \
    template <typename T>                                                                        \
    static T apply(T a, T b, ArithmeticFlags& flags) {                                           \
      uint16_t ax;                                                                               \
      asm(text " %[b], %[a]\n\tlahf\n\tseto %%al" : [a] "+r"(a), "=&a"(ax) : [b] "r"(b) : "cc"); \
      flags.ax = ax;                                                                             \
      return a;                                                                                  \
    }                                                                                            \
  }
BULKHEAD_BINARY(Add, "add", true);
BULKHEAD_BINARY(Sub, "sub", true);
BULKHEAD_BINARY(Cmp, "cmp", false);
#undef BULKHEAD_BINARY

// AF is undefined after a logic operation and always 0 here.
#define BULKHEAD_LOGIC(Name, text, writes)                                                          \
  struct Name {                                                                                     \
    static constexpr bool kWrites = writes;                                                         \
    template <typename T>                                                                           \
    static T apply(T a, T b, ArithmeticFlags& flags) {                                              \
      uint16_t ax;                                                                                  \
      asm(text " %[b], %[a]\n\tlahf\n\tmov $0, %%al" : [a] "+r"(a), "=&a"(ax) : [b] "r"(b) : "cc"); \
      flags.ax = ax & static_cast<uint16_t>(~ArithmeticFlags::kAdjust);                             \
      return a;                                                                                     \
    }                                                                                               \
  }
BULKHEAD_LOGIC(And, "and", true);
BULKHEAD_LOGIC(Or, "or", true);
BULKHEAD_LOGIC(Xor, "xor", true);
BULKHEAD_LOGIC(Test, "test", false);
#undef BULKHEAD_LOGIC

#define BULKHEAD_WITH_CARRY(Name, text)                                 \
  struct Name {                                                         \
    static constexpr bool kWrites = true;                               \
    template <typename T>                                               \
    static T apply(T a, T b, ArithmeticFlags& flags) {                  \
      uint16_t ax;                                                      \
      asm("btl $8, %k[old]\n\t" text " %[b], %[a]\n\tlahf\n\tseto %%al" \
          : [a] "+&r"(a), "=&a"(ax)                                     \
          : [b] "r"(b), [old] "r"(static_cast<uint32_t>(flags.ax))      \
          : "cc");                                                      \
      flags.ax = ax;                                                    \
      return a;                                                         \
    }                                                                   \
  }
BULKHEAD_WITH_CARRY(Adc, "adc");
BULKHEAD_WITH_CARRY(Sbb, "sbb");
#undef BULKHEAD_WITH_CARRY

// One operand; INC and DEC leave CF alone, NOT all flags.
#define BULKHEAD_UNARY(Name, text)                                \
  struct Name {                                                   \
    template <typename T>                                         \
    static T apply(T a, ArithmeticFlags& flags) {                 \
      uint16_t ax;                                                \
      asm("btl $8, %k[old]\n\t" text " %[a]\n\tlahf\n\tseto %%al" \
          : [a] "+&r"(a), "=&a"(ax)                               \
          : [old] "r"(static_cast<uint32_t>(flags.ax))            \
          : "cc");                                                \
      flags.ax = ax;                                              \
      return a;                                                   \
    }                                                             \
  }
BULKHEAD_UNARY(Inc, "inc");
BULKHEAD_UNARY(Dec, "dec");
BULKHEAD_UNARY(Neg, "neg");
#undef BULKHEAD_UNARY

struct Not {
  template <typename T>
  static T apply(T a, ArithmeticFlags&) {
    return static_cast<T>(~a);
  }
};

// The count as the processor masks it: 6 bits for a 64-bit operand, else 5.
template <typename T>
constexpr uint8_t mask_count(uint8_t count) {
  return count & (sizeof(T) == 8 ? 63 : 31);
}

// Shifts: static T apply(T value, uint8_t masked_count, flags). AF is undefined, OF only defined for a count of 1: 0
// here.
#define BULKHEAD_SHIFT(Name, text)                                                                          \
  struct Name {                                                                                             \
    template <typename T>                                                                                   \
    static T apply(T a, uint8_t count, ArithmeticFlags& flags) {                                            \
      if (count == 0) return a;                                                                             \
      uint16_t ax;                                                                                          \
      asm(text " %%cl, %[a]\n\tlahf\n\tseto %%al" : [a] "+&r"(a), "=&a"(ax) : "c"(count) : "cc");           \
      const unsigned undefined = ArithmeticFlags::kAdjust | (count != 1 ? ArithmeticFlags::kOverflow : 0u); \
      flags.ax = static_cast<uint16_t>(ax & ~undefined);                                                    \
      return a;                                                                                             \
    }                                                                                                       \
  }
BULKHEAD_SHIFT(Shl, "shl");
BULKHEAD_SHIFT(Shr, "shr");
BULKHEAD_SHIFT(Sar, "sar");
#undef BULKHEAD_SHIFT

// Rotates change CF and OF only (OF: 0 unless the count is 1).
#define BULKHEAD_ROTATE(Name, text)                                                       \
  struct Name {                                                                           \
    template <typename T>                                                                 \
    static T apply(T a, uint8_t count, ArithmeticFlags& flags) {                          \
      if (count == 0) return a;                                                           \
      uint16_t ax;                                                                        \
      asm("btl $8, %k[old]\n\t" text " %%cl, %[a]\n\tlahf\n\tseto %%al"                   \
          : [a] "+&r"(a), "=&a"(ax)                                                       \
          : "c"(count), [old] "r"(static_cast<uint32_t>(flags.ax))                        \
          : "cc");                                                                        \
      constexpr unsigned kChanged = ArithmeticFlags::kCarry | ArithmeticFlags::kOverflow; \
      const unsigned defined = count == 1 ? kChanged : unsigned{ArithmeticFlags::kCarry}; \
      flags.ax = static_cast<uint16_t>((flags.ax & ~kChanged) | (ax & defined));          \
      return a;                                                                           \
    }                                                                                     \
  }
BULKHEAD_ROTATE(Rol, "rol");
BULKHEAD_ROTATE(Ror, "ror");
BULKHEAD_ROTATE(Rcl, "rcl");
BULKHEAD_ROTATE(Rcr, "rcr");
#undef BULKHEAD_ROTATE

// SF, ZF and PF of a result, everything else clear.
template <typename T>
inline uint16_t result_flags(T result) {
  uint16_t ax = 0x0200;
  if (result == 0) ax |= ArithmeticFlags::kZero;
  if (static_cast<std::make_signed_t<T>>(result) < 0) ax |= ArithmeticFlags::kSign;
  if (!__builtin_parity(static_cast<uint8_t>(result))) ax |= ArithmeticFlags::kParity;
  return ax;
}

// SHLD and SHRD. A 16-bit operand with a count above 16 is undefined: here the operands rotate through
// destination:source:destination, as Intel's processors do.
struct Shld {
  template <typename T>
  static T apply(T destination, T source, uint8_t count, ArithmeticFlags& flags) {
    if (count == 0) return destination;
    constexpr unsigned kBits = sizeof(T) * 8;
    T result;
    bool carry;
    if constexpr (sizeof(T) == 2) {
      const uint64_t wide = uint64_t{destination} << 32 | uint64_t{source} << 16 | destination;
      result = static_cast<T>(wide << count >> 32);
      carry = wide >> (48 - count) & 1;
    } else {
      result = static_cast<T>(destination << count | source >> (kBits - count));
      carry = destination >> (kBits - count) & 1;
    }
    set_flags(destination, result, count, carry, flags);
    return result;
  }

  template <typename T>
  static void set_flags(T destination, T result, uint8_t count, bool carry, ArithmeticFlags& flags) {
    uint16_t ax = result_flags(result);
    if (carry) ax |= ArithmeticFlags::kCarry;
    const bool sign_changed = static_cast<std::make_signed_t<T>>(destination ^ result) < 0;
    if (count == 1 && sign_changed) ax |= ArithmeticFlags::kOverflow;
    flags.ax = ax;
  }
};

struct Shrd {
  template <typename T>
  static T apply(T destination, T source, uint8_t count, ArithmeticFlags& flags) {
    if (count == 0) return destination;
    constexpr unsigned kBits = sizeof(T) * 8;
    T result;
    bool carry;
    if constexpr (sizeof(T) == 2) {
      const uint64_t wide = uint64_t{destination} << 32 | uint64_t{source} << 16 | destination;
      result = static_cast<T>(wide >> count);
      carry = wide >> (count - 1) & 1;
    } else {
      result = static_cast<T>(destination >> count | source << (kBits - count));
      carry = destination >> (count - 1) & 1;
    }
    Shld::set_flags(destination, result, count, carry, flags);
    return result;
  }
};

// Conditions by their encoding: O B Z BE S P L LE, and their opposites in the odd numbers.
template <unsigned kCondition>
inline bool condition_holds(ArithmeticFlags flags) {
  constexpr unsigned kKind = kCondition >> 1;
  const uint32_t ax = flags.ax;
  bool holds;
  if constexpr (kKind == 0) holds = ax & ArithmeticFlags::kOverflow;
  if constexpr (kKind == 1) holds = ax & ArithmeticFlags::kCarry;
  if constexpr (kKind == 2) holds = ax & ArithmeticFlags::kZero;
  if constexpr (kKind == 3) holds = ax & (ArithmeticFlags::kCarry | ArithmeticFlags::kZero);
  if constexpr (kKind == 4) holds = ax & ArithmeticFlags::kSign;
  if constexpr (kKind == 5) holds = ax & ArithmeticFlags::kParity;
  if constexpr (kKind == 6) holds = (ax >> 15 ^ ax) & 1;
  if constexpr (kKind == 7) holds = (ax & ArithmeticFlags::kZero) || ((ax >> 15 ^ ax) & 1);
  return holds != (kCondition & 1);
}

}  // namespace bulkhead::engine::alu
