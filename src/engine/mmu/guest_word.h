// Loads and stores of guest RAM as single host instructions, in program order and invisible to the compiler and to the
// sanitizers: other vCPUs and devices touch the same bytes at the same time, and x86's memory ordering does the rest.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace bulkhead::engine {

// A T at any address, over objects of any type.
template <typename T>
struct [[gnu::packed, gnu::may_alias]] UnalignedWord {
  T value;
};

template <typename T>
[[nodiscard, gnu::always_inline]] inline T load_word(const void* from) {
  if constexpr (std::is_integral_v<T>) {
    T value;
    if constexpr (sizeof(T) == 1)
      asm volatile("movb %1, %0" : "=q"(value) : "m"(static_cast<const UnalignedWord<T>*>(from)->value));
    if constexpr (sizeof(T) == 2)
      asm volatile("movw %1, %0" : "=r"(value) : "m"(static_cast<const UnalignedWord<T>*>(from)->value));
    if constexpr (sizeof(T) == 4)
      asm volatile("movl %1, %0" : "=r"(value) : "m"(static_cast<const UnalignedWord<T>*>(from)->value));
    if constexpr (sizeof(T) == 8)
      asm volatile("movq %1, %0" : "=r"(value) : "m"(static_cast<const UnalignedWord<T>*>(from)->value));
    return value;
  } else if constexpr (sizeof(T) == 16) {
    using Vector = long long __attribute__((vector_size(16), aligned(1), may_alias));
    Vector vector;
    asm volatile("movdqu %1, %0" : "=x"(vector) : "m"(*static_cast<const Vector*>(from)));
    T value;
    std::memcpy(&value, &vector, sizeof value);
    return value;
  } else {
    T value;
    auto* to = reinterpret_cast<uint8_t*>(&value);
    const auto* bytes = static_cast<const uint8_t*>(from);
    unsigned done = 0;
    for (; done + 8 <= sizeof(T); done += 8) {
      const uint64_t word = load_word<uint64_t>(bytes + done);
      std::memcpy(to + done, &word, 8);
    }
    for (; done < sizeof(T); ++done) to[done] = load_word<uint8_t>(bytes + done);
    return value;
  }
}

template <typename T>
[[gnu::always_inline]] inline void store_word(void* to, const std::type_identity_t<T>& value) {
  if constexpr (std::is_integral_v<T>) {
    if constexpr (sizeof(T) == 1)
      asm volatile("movb %1, %0" : "=m"(static_cast<UnalignedWord<T>*>(to)->value) : "q"(value));
    if constexpr (sizeof(T) == 2)
      asm volatile("movw %1, %0" : "=m"(static_cast<UnalignedWord<T>*>(to)->value) : "r"(value));
    if constexpr (sizeof(T) == 4)
      asm volatile("movl %1, %0" : "=m"(static_cast<UnalignedWord<T>*>(to)->value) : "r"(value));
    if constexpr (sizeof(T) == 8)
      asm volatile("movq %1, %0" : "=m"(static_cast<UnalignedWord<T>*>(to)->value) : "r"(value));
  } else if constexpr (sizeof(T) == 16) {
    using Vector = long long __attribute__((vector_size(16), aligned(1), may_alias));
    Vector vector;
    std::memcpy(&vector, &value, sizeof vector);
    asm volatile("movdqu %1, %0" : "=m"(*static_cast<Vector*>(to)) : "x"(vector));
  } else {
    const auto* from = reinterpret_cast<const uint8_t*>(&value);
    auto* bytes = static_cast<uint8_t*>(to);
    unsigned done = 0;
    for (; done + 8 <= sizeof(T); done += 8) {
      uint64_t word;
      std::memcpy(&word, from + done, 8);
      store_word<uint64_t>(bytes + done, word);
    }
    for (; done < sizeof(T); ++done) store_word<uint8_t>(bytes + done, from[done]);
  }
}

}  // namespace bulkhead::engine
