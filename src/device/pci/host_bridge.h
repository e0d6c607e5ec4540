// Function 00:00.0, the memory controller hub by whose identity firmware knows the board (Intel Q35, 8086:29C0,
// datasheet 316966). Of its registers it shows PCIEXBAR, which says where ECAM is; the window itself does not move.
#pragma once

#include "device/device.h"
#include "device/pci/function.h"

namespace bulkhead::device::pci {

class HostBridge final : public Device, public Function {
 public:
  // ecam_base is aligned to the window's size, which is 64, 128 or 256 buses of 1 MiB.
  HostBridge(uint64_t ecam_base, unsigned bus_count);

  [[nodiscard]] std::string_view name() const override { return "host-bridge"; }
  void reset() override { reset_config(); }
  void save_state(StateWriter& writer) const override { save_config(writer); }
  Result<> restore_state(const StateReader& reader) override { return restore_config(reader); }
};

}  // namespace bulkhead::device::pci
