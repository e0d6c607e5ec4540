#include "device/pci/host_bridge.h"

#include "support/check.h"

namespace bulkhead::device::pci {
namespace {

constexpr uint16_t kPcieXbar = 0x60;
constexpr uint64_t kPcieXbarEnable = 1;

// Bits 2:1 of PCIEXBAR.
constexpr uint64_t length_code(unsigned bus_count) {
  return bus_count == 256 ? 0 : bus_count == 128 ? 1 : 2;
}

}  // namespace

HostBridge::HostBridge(uint64_t ecam_base, unsigned bus_count)
    : Function({.vendor_id = 0x8086, .device_id = 0x29C0, .class_code = spec::pci::kClassHostBridge}) {
  CHECK(bus_count == 64 || bus_count == 128 || bus_count == 256, "PCIEXBAR knows 64, 128 or 256 buses");
  CHECK(ecam_base % (uint64_t{bus_count} << 20) == 0, "ECAM is aligned to its size");
  const uint64_t value = ecam_base | length_code(bus_count) << 1 | kPcieXbarEnable;
  set_register(kPcieXbar, 4, static_cast<uint32_t>(value), 0);
  set_register(kPcieXbar + 4, 4, static_cast<uint32_t>(value >> 32), 0);
}

}  // namespace bulkhead::device::pci
