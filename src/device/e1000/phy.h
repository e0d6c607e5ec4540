// The card's transceiver as the registers of its management interface (IEEE 802.3, 22.2.4; software developer's manual,
// 8): a copper port at 1000 Mb/s that has agreed with its partner whenever there is a cable.
#pragma once

#include <array>
#include <cstdint>

#include "spec/e1000.h"

namespace bulkhead::device::e1000 {

class Phy {
 public:
  using Registers = std::array<uint16_t, spec::e1000::kPhyRegisterCount>;

  static constexpr uint16_t k82540em = 0x0C20, k82574l = 0x0CB1;
  // One of those: the second word of its identity.
  explicit Phy(uint16_t identity) : identity_(identity) { reset(); }
  void reset();

  // number is below kPhyRegisterCount.
  [[nodiscard]] uint16_t read(unsigned number, bool link_up) const;
  // True when it begins to agree with its partner anew, which it has done at once.
  [[nodiscard]] bool write(unsigned number, uint16_t value);

  [[nodiscard]] const Registers& registers() const { return registers_; }
  // What a driver cannot have written is left out.
  void restore(const Registers& saved);

 private:
  const uint16_t identity_;
  Registers registers_{};
};

}  // namespace bulkhead::device::e1000
