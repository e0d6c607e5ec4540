// Single ports of a byte each: the POST code (0x80), the debug console (0xE9), the debug exit (0xF4) and the system
// control port A (0x92). Port 0x80 is also what kernels write to for a delay, so it takes no lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "console/byte_stream.h"
#include "device/byte_ports.h"
#include "device/device.h"
#include "device/wires.h"
#include "support/os/mutex.h"

namespace bulkhead::device::legacy {

// Shows the last code that firmware or kernel wrote.
class PostCodePort final : public Device, public BytePorts {
 public:
  static constexpr uint16_t kPort = 0x80;

  [[nodiscard]] uint8_t code() const { return code_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::string_view name() const override { return "post-code"; }
  void reset() override { code_ = 0; }
  void save_state(StateWriter& writer) const override { writer.put("code", code()); }
  Result<> restore_state(const StateReader& reader) override;

 private:
  uint8_t read_byte(uint16_t offset) override { return offset == 0 ? code() : 0xFF; }
  void write_byte(uint16_t offset, uint8_t value) override {
    if (offset == 0) code_.store(value, std::memory_order_relaxed);
  }
  std::atomic<uint8_t> code_{0};
};

// Bytes written go to the stream; a read gives 0xE9, by which a guest finds the port. Output that the stream has no
// room for waits in a bounded backlog.
class DebugConsole final : public Device, public BytePorts {
 public:
  static constexpr uint16_t kPort = 0xE9;
  static constexpr size_t kBacklogSize = size_t{64} * 1024;

  // stream may be null; it must outlive the port.
  explicit DebugConsole(console::ByteStream* stream);
  ~DebugConsole() override;

  [[nodiscard]] std::string_view name() const override { return "debug-console"; }
  void reset() override {}
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

 private:
  uint8_t read_byte(uint16_t offset) override { return offset == 0 ? 0xE9 : 0xFF; }
  void write_byte(uint16_t offset, uint8_t value) override;
  void pump();

  console::ByteStream* const stream_;
  mutable Mutex mutex_;
  std::vector<uint8_t> backlog_ GUARDED_BY(mutex_);
  std::atomic<uint32_t> pump_callers_{0};
};

// A write of v ends the process with status 2v + 1, cut to 8 bits.
class DebugExit final : public Device, public BytePorts {
 public:
  static constexpr uint16_t kPort = 0xF4;

  explicit DebugExit(PowerControl& power) : power_(power) {}
  [[nodiscard]] std::string_view name() const override { return "debug-exit"; }
  void reset() override {}
  void save_state(StateWriter&) const override {}
  Result<> restore_state(const StateReader&) override { return {}; }

 private:
  uint8_t read_byte(uint16_t) override { return 0xFF; }
  void write_byte(uint16_t offset, uint8_t value) override {
    if (offset == 0) power_.request_exit(static_cast<uint8_t>(2 * value + 1));
  }
  PowerControl& power_;
};

// Bit 0 resets the machine when it rises; bit 1 is the A20 gate, which stays open on this board whatever it shows.
class SystemControlPort final : public Device, public BytePorts {
 public:
  static constexpr uint16_t kPort = 0x92;

  explicit SystemControlPort(PowerControl& power) : power_(power) {}
  [[nodiscard]] std::string_view name() const override { return "system-control"; }
  void reset() override { value_ = kAtPowerOn; }
  void save_state(StateWriter& writer) const override { writer.put("value", value_.load()); }
  Result<> restore_state(const StateReader& reader) override;

 private:
  static constexpr uint8_t kReset = 0x01, kA20 = 0x02, kAtPowerOn = kA20;
  uint8_t read_byte(uint16_t offset) override { return offset == 0 ? value_.load() : 0xFF; }
  void write_byte(uint16_t offset, uint8_t value) override;
  PowerControl& power_;
  std::atomic<uint8_t> value_{kAtPowerOn};
};

}  // namespace bulkhead::device::legacy
