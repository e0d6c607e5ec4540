// The registers that a user-mode instruction can see and change, in one value: what the host's CPU, the interpreter and
// the text cases exchange.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

namespace bulkhead::instructions {

// Read and written by host_cpu_entry.S, which knows these offsets.
struct alignas(64) Registers {
  std::array<uint64_t, 16> gpr{};
  uint64_t rflags = 2;
  uint64_t rip = 0;
  // x87, SSE and AVX in XSAVE's standard format: legacy region, header, upper halves of YMM.
  static constexpr size_t kXsaveSize = 832;
  alignas(64) std::array<uint8_t, kXsaveSize> xsave{};

  template <typename T>
  [[nodiscard]] T xsave_field(size_t offset) const {
    T value;
    std::memcpy(&value, xsave.data() + offset, sizeof value);
    return value;
  }
  template <typename T>
  void set_xsave_field(size_t offset, T value) {
    std::memcpy(xsave.data() + offset, &value, sizeof value);
  }
};

// Offsets in the XSAVE area (Intel SDM 1, 13.4).
enum XsaveOffset : size_t {
  kControlWord = 0,
  kStatusWord = 2,
  kTagWord = 4,
  kMxcsr = 24,
  kX87Registers = 32,
  kXmmRegisters = 160,
  kXstateBv = 512,
  kYmmHighHalves = 576,
};

// The reset values of x87 and SSE: all exceptions masked.
inline void reset_vector_state(Registers& registers) {
  registers.xsave.fill(0);
  registers.set_xsave_field<uint16_t>(kControlWord, 0x37F);
  registers.set_xsave_field<uint32_t>(kMxcsr, 0x1F80);
  registers.set_xsave_field<uint64_t>(kXstateBv, 7);
}

// How an instruction ended.
struct Outcome {
  bool faulted = false;
  uint8_t vector = 0;
  uint32_t error_code = 0;  // 0 where the vector has none
  uint64_t cr2 = 0;         // page faults only
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

}  // namespace bulkhead::instructions
