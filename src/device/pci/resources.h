// Gives every BAR of a bus an address and switches decoding on, as firmware would: for a guest that is booted without
// any. To be repeated after each machine reset.
#pragma once

#include <array>
#include <cstdint>

#include "device/pci/bus.h"
#include "support/result.h"

namespace bulkhead::device::pci {

struct Window {
  uint64_t base = 0;
  uint64_t size = 0;
};

struct ResourceWindows {
  Window memory32;  // below 4 GiB
  Window memory64;  // for what does not fit below; size 0: there is none
  Window io;
  // What the interrupt line registers show for each of the bus's four lines: the ISA or GSI number.
  std::array<uint8_t, kInterruptLineCount> interrupt_numbers{};
};

// Fails when a BAR finds no room; the error names slot, BAR and size.
Result<> assign_resources(Bus& bus, const ResourceWindows& windows);

}  // namespace bulkhead::device::pci
