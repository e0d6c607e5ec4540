#include "device/pci/resources.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "support/bytes.h"

namespace bulkhead::device::pci {
namespace {

using namespace spec::pci;

class Allocator {
 public:
  explicit Allocator(const Window& window) : next_(window.base), window_(window) {}

  // Aligned to its size, a power of two; nothing when the window is full. Address 0 is never given out.
  std::optional<uint64_t> take(uint64_t size) {
    const uint64_t address = align_up(std::max<uint64_t>(next_, 1), size);
    if (address < window_.base || !range_fits(address - window_.base, size, window_.size)) return std::nullopt;
    next_ = address + size;
    return address;
  }

 private:
  uint64_t next_;
  Window window_;
};

struct Demand {
  Function* function;
  unsigned slot;
  const Bar* bar;
  size_t order;
};

void write_register(Function& function, uint16_t offset, unsigned size, uint64_t value) {
  function.write_config(offset, as_bytes(value).first(size));
}

}  // namespace

Result<> assign_resources(Bus& bus, const ResourceWindows& windows) {
  std::vector<Demand> demands;
  for (unsigned slot = 0; slot < kSlotCount; ++slot) {
    for (unsigned number = 0; number < kFunctionCount; ++number) {
      Function* function = bus.find(slot, number);
      if (function == nullptr) continue;
      write_register(*function, kCommand, 2, 0);
      for (const Bar* bar : function->bars()) demands.push_back({function, slot, bar, demands.size()});
      if (function->interrupt_pin() != 0) {
        write_register(*function, kInterruptLine, 1,
                       windows.interrupt_numbers[Bus::line_of(slot, function->interrupt_pin())]);
      }
    }
  }
  // The largest first, so that alignment wastes nothing; ties in the order of slots, so that each run gives the same
  // map.
  std::ranges::sort(demands, {}, [](const Demand& demand) { return std::tuple(~demand.bar->size, demand.order); });

  Allocator memory32(windows.memory32);
  Allocator memory64(windows.memory64);
  Allocator io(windows.io);
  for (const Demand& demand : demands) {
    const Bar& bar = *demand.bar;
    std::optional<uint64_t> address = bar.kind == BarKind::kIo ? io.take(bar.size) : memory32.take(bar.size);
    if (!address && bar.kind == BarKind::kMemory64) address = memory64.take(bar.size);
    if (!address) return fail("PCI slot {}: no room for BAR {} of {} bytes", demand.slot, bar.index, bar.size);
    const auto offset = static_cast<uint16_t>(kBar0 + 4 * bar.index);
    write_register(*demand.function, offset, bar.kind == BarKind::kMemory64 ? 8 : 4, *address);
  }
  for (const Demand& demand : demands) write_register(*demand.function, kCommand, 2, kCommandIo | kCommandMemory);
  return {};
}

}  // namespace bulkhead::device::pci
