// The interval timer of a PC (Intel 8254) and port 0x61, which gates its speaker channel. Channel 0 pulses IRQ 0 each
// time its output rises; ticks that come while an earlier one has not been served are lost, as the controllers lose
// them.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "device/byte_ports.h"
#include "device/device.h"
#include "device/timer/pit_channel.h"
#include "device/wires.h"
#include "support/os/mutex.h"
#include "support/time/clock.h"

namespace bulkhead::device::timer {

class Pit final : public Device, public IrqLine::Receiver {
 public:
  static constexpr uint64_t kFrequencyHz = 1'193'182;
  static constexpr uint16_t kPort = 0x40, kRangeSize = 4;
  static constexpr uint16_t kControlPort = 0x61;  // one byte

  Pit(Clock& clock, IrqLine irq);

  [[nodiscard]] PortIo& ports() { return counter_ports_; }
  [[nodiscard]] PortIo& control_port() { return control_port_; }

  [[nodiscard]] std::string_view name() const override { return "pit"; }
  void reset() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

  // Input 0, from the HPET: while asserted (legacy replacement), the interrupt output is cut off.
  void set_irq(uint32_t input, bool asserted) override;

 private:
  class CounterPorts final : public BytePorts {
   public:
    explicit CounterPorts(Pit& pit) : pit_(pit) {}

   private:
    uint8_t read_byte(uint16_t offset) override;
    void write_byte(uint16_t offset, uint8_t value) override;
    Pit& pit_;
  };
  class ControlPort final : public BytePorts {
   public:
    explicit ControlPort(Pit& pit) : pit_(pit) {}

   private:
    uint8_t read_byte(uint16_t offset) override;
    void write_byte(uint16_t offset, uint8_t value) override;
    Pit& pit_;
  };

  [[nodiscard]] uint64_t tick() const {
    return Clock::scale(clock_.now_ns(), kFrequencyHz, Clock::kNanosecondsPerSecond);
  }
  void write_control(uint8_t value, uint64_t tick) REQUIRES(mutex_);
  void schedule(uint64_t tick) REQUIRES(mutex_);
  void on_timer();

  Clock& clock_;
  const IrqLine irq_;
  mutable Mutex mutex_;
  std::array<PitChannel, 3> channels_ GUARDED_BY(mutex_);
  uint8_t control_ GUARDED_BY(mutex_) = 0;  // port 0x61, the bits that read back
  bool cut_off_ GUARDED_BY(mutex_) = false;
  std::optional<uint64_t> due_tick_ GUARDED_BY(mutex_);  // of channel 0's next interrupt
  CounterPorts counter_ports_{*this};
  ControlPort control_port_{*this};
  std::unique_ptr<Timer> timer_;
};

}  // namespace bulkhead::device::timer
