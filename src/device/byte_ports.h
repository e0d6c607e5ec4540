// Port registers of one byte each, as the ISA bus had them: a wider access is one access a byte, from the lowest up.
#pragma once

#include <cstdint>

#include "device/device.h"

namespace bulkhead::device {

class BytePorts : public PortIo {
 public:
  uint32_t read_port(uint16_t offset, unsigned size) final {
    uint32_t value = 0;
    for (unsigned i = 0; i < size && i < 4; ++i) {
      value |= uint32_t{read_byte(static_cast<uint16_t>(offset + i))} << (8 * i);
    }
    return value;
  }
  void write_port(uint16_t offset, unsigned size, uint32_t value) final {
    for (unsigned i = 0; i < size && i < 4; ++i) {
      write_byte(static_cast<uint16_t>(offset + i), static_cast<uint8_t>(value >> (8 * i)));
    }
  }

 protected:
  // Any offset may come; what is not there reads 0xFF and takes nothing.
  virtual uint8_t read_byte(uint16_t offset) = 0;
  virtual void write_byte(uint16_t offset, uint8_t value) = 0;
};

}  // namespace bulkhead::device
