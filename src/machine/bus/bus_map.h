// What answers where in port and memory space: an immutable picture of the board at one moment. Readers share it
// without a lock; a change makes a new picture (machine/bus/bus.h). It never holds two owners of one address.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"
#include "memory/guest_address.h"

namespace bulkhead::machine {

// Fixed ranges are the board's own; movable ones are BARs, which a guest may put anywhere and which yield to fixed
// ones.
enum class RangeKind : uint8_t { kFixed, kMovable };

struct PortRange {
  std::string owner;
  uint32_t first = 0;
  uint32_t count = 0;
  device::PortIo* target = nullptr;
  RangeKind kind = RangeKind::kFixed;
};

struct MmioRange {
  std::string owner;
  uint64_t first = 0;
  uint64_t size = 0;
  device::Mmio* target = nullptr;
  RangeKind kind = RangeKind::kFixed;

  // Without wrapping: an address below first gives a huge offset.
  [[nodiscard]] bool contains(uint64_t address) const { return address - first < size; }
};

class PortMap {
 public:
  static constexpr uint32_t kPortCount = 0x10000;

  // The range of a port below kPortCount, or nullptr.
  [[nodiscard]] const PortRange* find(uint32_t port) const {
    const uint16_t slot = slots_[port];
    return slot == 0 ? nullptr : &ranges_[slot - 1u];
  }
  [[nodiscard]] const std::vector<PortRange>& ranges() const { return ranges_; }
  // False and unchanged when the range is empty, leaves port space or overlaps another.
  [[nodiscard]] bool add(PortRange range);
  // False when no range starts there.
  bool remove(uint32_t first);
  void remove_movable();

 private:
  void number_slots();

  std::vector<PortRange> ranges_;
  std::array<uint16_t, kPortCount> slots_{};  // index into ranges_ plus one; 0: nobody
};

class MmioMap {
 public:
  static constexpr size_t kNone = SIZE_MAX;

  // The index of the range that holds the address, or kNone. hint is tried first.
  [[nodiscard]] size_t find(uint64_t address, size_t hint) const;
  // Where the next range above an address starts; UINT64_MAX when there is none.
  [[nodiscard]] uint64_t next_start(uint64_t address) const;
  [[nodiscard]] const std::vector<MmioRange>& ranges() const { return ranges_; }
  // False and unchanged when the range is empty, wraps or overlaps another.
  [[nodiscard]] bool add(MmioRange range);
  bool remove(uint64_t first);
  void remove_movable();

 private:
  std::vector<MmioRange> ranges_;  // by address
};

// The two spaces are shared separately, so that moving a BAR does not copy the table of ports.
struct BusMap {
  std::shared_ptr<const PortMap> ports = std::make_shared<PortMap>();
  std::shared_ptr<const MmioMap> mmio = std::make_shared<MmioMap>();
};

}  // namespace bulkhead::machine
