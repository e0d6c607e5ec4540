// The card's EEPROM of 64 words (software developer's manual, 5): the address, the identity and a checksum, read word
// by word through a register or bit by bit as on its own four wires (93C46, Microwire). What a guest writes to it is
// lost.
#pragma once

#include <array>
#include <cstdint>

#include "net/frame/address.h"
#include "spec/e1000.h"

namespace bulkhead::device::e1000 {

struct EepromIdentity {
  uint16_t vendor_id = 0;
  uint16_t device_id = 0;
  uint16_t subsystem_vendor_id = 0;
  uint16_t subsystem_id = 0;
};

class Eeprom {
 public:
  Eeprom(const net::frame::MacAddress& mac, const EepromIdentity& identity);

  // Zero behind the last.
  [[nodiscard]] uint16_t word(unsigned index) const { return index < words_.size() ? words_[index] : uint16_t{0}; }

  // What the four wires do, with bits as in EECD.
  struct Wires {
    uint32_t levels = 0;   // clock, select and data in, as driven last
    uint32_t shifted = 0;  // what came in since the start bit, with it
    uint16_t out_word = 0;
    uint8_t out_left = 0;  // bits of it
    uint8_t address = 0;
    uint8_t reading = 0;
    uint8_t out = 1;
  };
  void drive(uint32_t levels);
  [[nodiscard]] uint32_t data_out() const { return wires_.out != 0 ? spec::e1000::kEepromOut : 0; }
  [[nodiscard]] const Wires& wires() const { return wires_; }
  // False, and nothing changed, for wires that drive() never leaves behind.
  [[nodiscard]] bool set_wires(const Wires& wires);

 private:
  void clock(bool data_in);

  std::array<uint16_t, spec::e1000::kEepromWords> words_{};
  Wires wires_;
};

}  // namespace bulkhead::device::e1000
