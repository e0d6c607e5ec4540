// Port and memory space of the board. Who answers where may change at any time (a guest moves a BAR); accesses go on
// beside it: each reader keeps the last picture it took and looks only at a counter to learn that there is a newer one.
// An access never blocks on a lock of the bus and never reaches two owners of one address.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "machine/bus/bus_map.h"
#include "support/bytes.h"
#include "support/os/mutex.h"

namespace bulkhead::machine {

class Bus {
 public:
  Bus() = default;
  Bus(const Bus&) = delete;
  Bus& operator=(const Bus&) = delete;

  // False and nothing changed when the range is empty, leaves its space or overlaps another owner's. The target must
  // live as long as the bus: an access that began before an unmap may still reach it.
  [[nodiscard]] bool map_ports(std::string owner, uint32_t first, uint32_t count, device::PortIo& target);
  [[nodiscard]] bool map_mmio(std::string owner, GuestAddress first, uint64_t size, device::Mmio& target);
  // False when no range starts there.
  bool unmap_ports(uint32_t first);
  bool unmap_mmio(GuestAddress first);

  // Puts these in the place of all movable ranges in one step, so that nobody sees half of a change. One that overlaps
  // a fixed range or an earlier one of the list answers nowhere.
  void replace_movable(const std::vector<PortRange>& ports, const std::vector<MmioRange>& mmio);

  // The present picture, for descriptions of the board and tests.
  [[nodiscard]] BusMap map() const;

  // One thread's way in. Keeps its picture of the bus until an access finds a newer one; bounded by one a reader.
  class Reader {
   public:
    explicit Reader(const Bus& bus) : bus_(bus) { refresh(); }

    // Any size up to 64 bytes; cut into pieces of at most 8 bytes that lie within one owner's range.
    void read_memory(uint64_t address, MutableByteSpan out);
    void write_memory(uint64_t address, ByteSpan in);
    // size is 1, 2 or 4; an access that leaves its owner's range is cut into bytes.
    uint32_t read_port(uint16_t port, unsigned size);
    void write_port(uint16_t port, unsigned size, uint32_t value);

   private:
    void catch_up() {
      if (bus_.generation_.load(std::memory_order_acquire) != generation_) [[unlikely]]
        refresh();
    }
    void refresh();
    // Calls visit(range or nullptr, offset in it, offset in the access, piece size) for each piece of an access.
    template <typename Visit>
    void for_each_piece(uint64_t address, size_t size, Visit&& visit);
    [[nodiscard]] const PortRange* whole_range(uint16_t port, unsigned size) const;

    const Bus& bus_;
    BusMap map_;
    uint64_t generation_ = 0;
    size_t last_hit_ = 0;
  };

 private:
  void publish(BusMap map) REQUIRES(mutex_);

  mutable Mutex mutex_;
  BusMap map_ GUARDED_BY(mutex_);
  std::atomic<uint64_t> generation_{0};
};

}  // namespace bulkhead::machine
