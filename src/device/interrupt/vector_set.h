// 256 interrupt vectors as bits: the IRR, ISR and TMR of a local APIC.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>

namespace bulkhead::device::interrupt {

class VectorSet {
 public:
  void insert(uint8_t vector) { words_[vector >> 6] |= bit(vector); }
  void erase(uint8_t vector) { words_[vector >> 6] &= ~bit(vector); }
  [[nodiscard]] bool contains(uint8_t vector) const { return (words_[vector >> 6] & bit(vector)) != 0; }
  void clear() { words_ = {}; }

  [[nodiscard]] std::optional<uint8_t> highest() const {
    for (unsigned i = words_.size(); i-- > 0;) {
      if (words_[i] != 0) return static_cast<uint8_t>(i * 64 + 63 - static_cast<unsigned>(std::countl_zero(words_[i])));
    }
    return std::nullopt;
  }
  // Vectors 32 x index to 32 x index + 31, as one register shows them; index is 0 to 7.
  [[nodiscard]] uint32_t register_value(unsigned index) const {
    return static_cast<uint32_t>(words_[(index >> 1) & 3] >> (index % 2 * 32));
  }
  [[nodiscard]] bool has_reserved() const { return (words_[0] & 0xFFFF) != 0; }

 private:
  [[nodiscard]] static uint64_t bit(uint8_t vector) { return uint64_t{1} << (vector & 63); }
  std::array<uint64_t, 4> words_{};
};

}  // namespace bulkhead::device::interrupt
