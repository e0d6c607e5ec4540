// What local APICs, I/O APIC and message-signalled interrupts say to each other, and its encoding as an address and
// data pair (Intel SDM 3, 11.11).
#pragma once

#include <cstdint>

#include "device/wires.h"

namespace bulkhead::device::interrupt {

enum class DeliveryMode : uint8_t {
  kFixed = 0,
  kLowestPriority = 1,
  kSmi = 2,
  kReserved = 3,
  kNmi = 4,
  kInit = 5,
  kStartUp = 6,
  kExtInt = 7,
};
enum class TriggerMode : uint8_t { kEdge = 0, kLevel = 1 };
enum class DestinationMode : uint8_t { kPhysical = 0, kLogical = 1 };

// What arrives at one local APIC.
struct Interrupt {
  uint8_t vector = 0;
  DeliveryMode mode = DeliveryMode::kFixed;
  TriggerMode trigger = TriggerMode::kEdge;
  friend bool operator==(const Interrupt&, const Interrupt&) = default;
};

struct Destination {
  uint32_t id = 0;  // APIC id or logical mask, as mode says; kBroadcast for all
  DestinationMode mode = DestinationMode::kPhysical;
  static constexpr uint32_t kBroadcast = 0xFFFFFFFF;
  friend bool operator==(const Destination&, const Destination&) = default;
};

inline constexpr uint64_t kMessageBase = 0xFEE00000;

[[nodiscard]] constexpr bool is_interrupt_message(const InterruptMessage& message) {
  return (message.address & ~uint64_t{0xFFFFF}) == kMessageBase;
}

// Eight bits of destination; all ones address every local APIC.
[[nodiscard]] constexpr Destination destination_of(const InterruptMessage& message) {
  const auto id = static_cast<uint32_t>((message.address >> 12) & 0xFF);
  const auto mode = static_cast<DestinationMode>((message.address >> 2) & 1);
  return {.id = id == 0xFF ? Destination::kBroadcast : id, .mode = mode};
}

[[nodiscard]] constexpr Interrupt interrupt_of(const InterruptMessage& message) {
  return {.vector = static_cast<uint8_t>(message.data),
          .mode = static_cast<DeliveryMode>((message.data >> 8) & 7),
          .trigger = static_cast<TriggerMode>((message.data >> 15) & 1)};
}

// The eight-bit destination of an I/O APIC redirection entry and what it sends.
[[nodiscard]] constexpr InterruptMessage make_message(uint8_t destination, DestinationMode mode, Interrupt interrupt) {
  constexpr uint32_t kLevelAssert = 1u << 14;
  const bool lowest = interrupt.mode == DeliveryMode::kLowestPriority;
  return {.address = kMessageBase | uint64_t{destination} << 12 | (lowest ? 8u : 0u) | static_cast<uint32_t>(mode) << 2,
          .data = interrupt.vector | static_cast<uint32_t>(interrupt.mode) << 8 | kLevelAssert |
                  static_cast<uint32_t>(interrupt.trigger) << 15};
}

}  // namespace bulkhead::device::interrupt
