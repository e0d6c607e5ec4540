// Wires that only remember, and a way to send a device through its saved state: for the tests of devices.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "device/device.h"
#include "device/wires.h"

namespace bulkhead::device {

class RecordedIrq final : public IrqLine::Receiver {
 public:
  static constexpr uint32_t kInputCount = 32;
  void set_irq(uint32_t input, bool asserted) override {
    if (asserted && !levels.at(input)) ++rises.at(input);
    levels.at(input) = asserted;
  }
  [[nodiscard]] IrqLine line(uint32_t input = 0) { return IrqLine(*this, input); }
  [[nodiscard]] bool level(uint32_t input = 0) const { return levels.at(input); }
  // Rising edges since the last call.
  uint64_t take_rises(uint32_t input = 0) { return std::exchange(rises.at(input), 0); }

  std::array<bool, kInputCount> levels{};
  std::array<uint64_t, kInputCount> rises{};
};

class RecordedMessages final : public MessageSink {
 public:
  void send_message(const InterruptMessage& message) override { sent.push_back(message); }
  std::vector<InterruptMessage> sent;
};

class RecordedPins final : public CpuPins {
 public:
  void set_interrupt_request(bool asserted) override { interrupt_request = asserted; }
  void raise_nmi() override { ++nmi_count; }
  void raise_init() override { ++init_count; }
  void raise_sipi(uint8_t vector) override { sipi_vectors.push_back(vector); }

  bool interrupt_request = false;
  int nmi_count = 0, init_count = 0;
  std::vector<uint8_t> sipi_vectors;
};

class RecordedPower final : public PowerControl {
 public:
  void request_power_off() override { ++power_off_count; }
  void request_reset() override { ++reset_count; }
  void request_exit(uint8_t status) override { exits.push_back(status); }

  int power_off_count = 0, reset_count = 0;
  std::vector<uint8_t> exits;
};

inline std::vector<uint8_t> saved(const SavedState& device) {
  StateWriter writer;
  device.save_state(writer);
  return writer.encode();
}

inline Result<> restore(SavedState& device, const std::vector<uint8_t>& bytes) {
  return device.restore_state(TRY(StateReader::parse(bytes, "test")));
}

// Restores what `from` saved into `to`, and checks that `to` would save the same.
inline void expect_round_trip(const SavedState& from, SavedState& to) {
  const std::vector<uint8_t> bytes = saved(from);
  const Result<> restored = restore(to, bytes);
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_EQ(saved(to), bytes);
}

}  // namespace bulkhead::device
