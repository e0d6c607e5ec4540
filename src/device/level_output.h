// A level-triggered output of a device. The device notes the level it wants while it holds its lock and drives the wire
// after it has let go; when several threads do so at once, the wire still ends at the level wanted last.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "device/wires.h"

namespace bulkhead::device {

// Wire has set(bool asserted), as IrqLine does.
template <typename Wire>
class BasicLevelOutput {
 public:
  explicit BasicLevelOutput(Wire wire) : wire_(std::move(wire)) {}

  // Under the device's lock. True when the level changed: settle() must follow once the lock is free.
  [[nodiscard]] bool want(bool asserted) { return wanted_.exchange(asserted, std::memory_order_acq_rel) != asserted; }
  [[nodiscard]] bool wanted() const { return wanted_.load(std::memory_order_acquire); }

  // With no lock held. One thread at a time drives the wire; one that comes meanwhile leaves its work to the first,
  // which looks again before it goes.
  void settle() {
    if (callers_.fetch_add(1, std::memory_order_acq_rel) != 0) return;
    uint32_t seen = 1;
    do {
      seen = callers_.load(std::memory_order_acquire);
      const bool asserted = wanted();
      if (asserted != driven_) {
        driven_ = asserted;
        wire_.set(asserted);
      }
    } while (!callers_.compare_exchange_strong(seen, 0, std::memory_order_acq_rel));
  }

 private:
  Wire wire_;
  std::atomic<bool> wanted_{false};
  std::atomic<uint32_t> callers_{0};
  bool driven_ = false;  // touched only by the thread that drives
};

using LevelOutput = BasicLevelOutput<IrqLine>;

}  // namespace bulkhead::device
