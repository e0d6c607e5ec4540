// A serial port: National Semiconductor PC16550D with FIFOs. It has no baud rate: what the guest sends goes to the
// stream at once, and what the stream has comes when the guest is ready for it. A stream without room holds back THRE;
// what a driver writes all the same waits in a bounded backlog, so that a slow terminal costs no output.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "console/byte_stream.h"
#include "device/byte_ports.h"
#include "device/device.h"
#include "device/level_output.h"
#include "device/wires.h"
#include "support/os/mutex.h"

namespace bulkhead::device::legacy {

class Uart final : public Device, public BytePorts {
 public:
  static constexpr uint16_t kRangeSize = 8;
  // Where COM1 to COM4 are, and their interrupts.
  static constexpr std::array<uint16_t, 4> kPorts{0x3F8, 0x2F8, 0x3E8, 0x2E8};
  static constexpr std::array<uint8_t, 4> kIrqs{4, 3, 4, 3};
  static constexpr size_t kFifoSize = 16;
  static constexpr size_t kBacklogSize = size_t{64} * 1024;

  // stream may be null: nothing is connected. It must outlive the port.
  Uart(std::string name, IrqLine irq, console::ByteStream* stream);
  ~Uart() override;

  [[nodiscard]] std::string_view name() const override { return name_; }
  void reset() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

  // Bytes dropped because the backlog was full.
  [[nodiscard]] uint64_t dropped_count() const { return dropped_count_.load(std::memory_order_relaxed); }

 private:
  struct Registers {
    uint8_t interrupt_enable = 0, fifo_control = 0, line_control = 0, modem_control = 0, scratch = 0;
    uint16_t divisor = 1;
    bool overrun = false;
    bool transmitter_interrupt = false;  // THRE has risen and not been told by IIR
    uint8_t modem_changes = 0;           // MSR, lower half
    // Reads of the line status with nothing between: a driver that polls for input.
    uint8_t status_polls = 0;
  };

  [[nodiscard]] uint8_t read_byte(uint16_t offset) override;
  void write_byte(uint16_t offset, uint8_t value) override;
  [[nodiscard]] uint8_t read_register(uint16_t offset) REQUIRES(mutex_);
  void write_register(uint16_t offset, uint8_t value) REQUIRES(mutex_);
  void write_fifo_control(uint8_t value) REQUIRES(mutex_);
  void write_modem_control(uint8_t value) REQUIRES(mutex_);
  void transmit(uint8_t byte) REQUIRES(mutex_);
  void receive(uint8_t byte) REQUIRES(mutex_);

  [[nodiscard]] bool has_fifo() const REQUIRES(mutex_);
  [[nodiscard]] bool is_looped() const REQUIRES(mutex_);
  [[nodiscard]] size_t receive_room() const REQUIRES(mutex_);
  [[nodiscard]] uint8_t line_status() const REQUIRES(mutex_);
  [[nodiscard]] uint8_t modem_inputs() const REQUIRES(mutex_);
  // IIR's lower four bits: the most urgent interrupt, or none.
  [[nodiscard]] uint8_t interrupt_identity() const REQUIRES(mutex_);

  // Moves bytes between the queues and the stream until neither moves, then drives the interrupt. With no lock held.
  void pump();
  // One round of it; true when something moved.
  bool pump_once();

  const std::string name_;
  console::ByteStream* const stream_;
  mutable Mutex mutex_;
  Registers registers_ GUARDED_BY(mutex_);
  std::vector<uint8_t> received_ GUARDED_BY(mutex_);  // at most kFifoSize
  std::vector<uint8_t> to_send_ GUARDED_BY(mutex_);   // at most kBacklogSize
  std::atomic<uint64_t> dropped_count_{0};
  std::atomic<uint32_t> pump_callers_{0};
  LevelOutput irq_;
};

}  // namespace bulkhead::device::legacy
