// A CD drive's packet commands (MMC-6): what it answers at once, what it wants read, and its sense data. It sees
// packets and bytes only; the port moves them. Every length of a packet is clipped to what there is.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "support/bytes.h"
#include "support/result.h"
#include "support/state/state.h"

namespace bulkhead::device::ahci {

class Cdrom {
 public:
  static constexpr size_t kPacketSize = 16;
  // Sectors of one read: 32 MiB.
  static constexpr uint32_t kMaximumSectors = 16384;

  struct Answer {
    bool good = true;           // else the sense data tells why
    std::vector<uint8_t> data;  // to the driver
    uint64_t read_offset = 0;   // read_size bytes of the disc from here, when not 0
    uint64_t read_size = 0;
  };

  // disc_size in bytes; what is left of a last sector reads as part of the next smaller size.
  explicit Cdrom(uint64_t disc_size) : sector_count_(static_cast<uint32_t>(disc_size / 2048)) {}

  [[nodiscard]] Answer execute(const std::array<uint8_t, kPacketSize>& packet);
  // The disc could not be read.
  void read_failed() { set_sense(3, 0x11); }
  // Key of the last failure, as the error register shows it.
  [[nodiscard]] uint8_t sense_key() const { return sense_.key; }
  [[nodiscard]] bool has_disc() const { return !ejected_; }
  void reset();

  void save_state(StateWriter& writer) const;
  Result<> restore_state(const StateReader& reader);

 private:
  struct Sense {
    uint8_t key = 0;
    uint8_t code = 0;
    uint8_t qualifier = 0;
  };
  void set_sense(uint8_t key, uint8_t code, uint8_t qualifier = 0) { sense_ = {key, code, qualifier}; }
  [[nodiscard]] Answer failed(uint8_t key, uint8_t code, uint8_t qualifier = 0);
  [[nodiscard]] Answer read(uint64_t first, uint64_t count);
  [[nodiscard]] Answer start_stop(uint8_t flags);
  [[nodiscard]] Answer mode_sense(uint8_t page, size_t header_size, size_t room);
  [[nodiscard]] Answer read_toc(const std::array<uint8_t, kPacketSize>& packet);

  const uint32_t sector_count_;
  Sense sense_;
  bool ejected_ = false;
  bool locked_ = false;
  bool changed_ = false;  // a disc came in: told once, as unit attention
};

}  // namespace bulkhead::device::ahci
