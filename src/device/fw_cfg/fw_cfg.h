// The firmware configuration device: numbered items and named files that the machine tells its firmware and operating
// system, read byte by byte through ports or by DMA (spec/firmware/fw_cfg.h). Items are read-only to the guest and do
// not change while it runs. Its DMA reaches RAM only, and moves no more per request than the selected item holds plus a
// small budget.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "device/device.h"
#include "memory/guest_memory.h"
#include "support/os/mutex.h"

namespace bulkhead::device {

class FwCfg final : public Device, public PortIo {
 public:
  static constexpr uint16_t kFirstPort = 0x510;
  static constexpr uint16_t kPortCount = 12;

  explicit FwCfg(memory::GuestMemory& memory);

  // While no vCPU runs. Replaces what the key held.
  void set_item(uint16_t key, std::vector<uint8_t> bytes);
  // Not copied (kernels, initrds): the bytes stay where they are until they are replaced.
  void set_borrowed_item(uint16_t key, ByteSpan bytes);
  // As a little-endian number.
  template <typename T>
  void set_number(uint16_t key, T value) {
    const ByteSpan bytes = as_bytes(value);
    set_item(key, {bytes.begin(), bytes.end()});
  }
  // While the machine is built. name has at most 55 bytes; one that exists is our own fault.
  void add_file(std::string_view name, std::vector<uint8_t> bytes);

  [[nodiscard]] std::string_view name() const override { return "fw-cfg"; }
  void reset() override;
  uint32_t read_port(uint16_t offset, unsigned size) override;
  void write_port(uint16_t offset, unsigned size, uint32_t value) override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

 private:
  struct Item {
    std::vector<uint8_t> owned;
    ByteSpan bytes;
  };
  struct Position {
    uint16_t key = 0;
    uint32_t offset = 0;
  };
  void rebuild_directory();
  // The bytes of an item from an offset on; empty at its end and for a key that does not exist.
  [[nodiscard]] ByteSpan bytes_from(const Position& position) const;
  void run_dma(uint64_t address);
  // Performs one transfer; false when it must be reported as failed.
  [[nodiscard]] bool transfer(uint32_t control, uint32_t length, uint64_t address, Position& position);

  memory::GuestMemory& memory_;
  std::map<uint16_t, Item> items_;
  std::map<std::string, uint16_t, std::less<>> files_;

  mutable Mutex mutex_;
  Position position_ GUARDED_BY(mutex_);
  uint32_t dma_address_high_ GUARDED_BY(mutex_) = 0;
};

}  // namespace bulkhead::device
