// The keyboard controller of a PC (Intel 8042 as in the IBM AT) and a PS/2 keyboard without keys: enough that an
// operating system finds both quickly and quietly, and can reset the machine through it. There is no auxiliary (mouse)
// port.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "device/byte_ports.h"
#include "device/device.h"
#include "device/level_output.h"
#include "device/wires.h"
#include "support/os/mutex.h"

namespace bulkhead::device::legacy {

class I8042 final : public Device {
 public:
  static constexpr uint16_t kDataPort = 0x60, kCommandPort = 0x64;  // one byte each

  I8042(IrqLine keyboard_irq, PowerControl& power);

  [[nodiscard]] PortIo& data_port() { return data_port_; }
  [[nodiscard]] PortIo& command_port() { return command_port_; }

  [[nodiscard]] std::string_view name() const override { return "i8042"; }
  void reset() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

 private:
  static constexpr size_t kMemorySize = 32;
  static constexpr size_t kQueueSize = 16;

  struct Registers {
    std::array<uint8_t, kMemorySize> memory{};  // byte 0 is the command byte
    uint8_t output_port = 0;
    uint8_t last_output = 0;  // what the data port shows
    bool output_full = false;
    bool last_was_command = false;  // status bit 3
    uint8_t awaited_command = 0;    // a controller command that waits for its byte; 0: none
    uint8_t awaited_keyboard = 0;   // as well, of the keyboard
    uint8_t scan_set = 2;
    uint8_t last_sent = 0;  // by the keyboard, for Resend
  };

  class DataPort final : public BytePorts {
   public:
    explicit DataPort(I8042& controller) : controller_(controller) {}

   private:
    uint8_t read_byte(uint16_t offset) override { return offset == 0 ? controller_.read_data() : 0xFF; }
    void write_byte(uint16_t offset, uint8_t value) override {
      if (offset == 0) controller_.write_data(value);
    }
    I8042& controller_;
  };
  class CommandPort final : public BytePorts {
   public:
    explicit CommandPort(I8042& controller) : controller_(controller) {}

   private:
    uint8_t read_byte(uint16_t offset) override { return offset == 0 ? controller_.read_status() : 0xFF; }
    void write_byte(uint16_t offset, uint8_t value) override {
      if (offset == 0) controller_.write_command(value);
    }
    I8042& controller_;
  };

  uint8_t read_data();
  uint8_t read_status() const;
  void write_data(uint8_t value);
  void write_command(uint8_t value);

  void answer(uint8_t byte) REQUIRES(mutex_);  // by the controller itself
  void keyboard_send(uint8_t byte) REQUIRES(mutex_);
  void keyboard_receive(uint8_t byte) REQUIRES(mutex_);
  // True: the machine is to be reset.
  [[nodiscard]] bool carry_out(uint8_t command) REQUIRES(mutex_);
  [[nodiscard]] bool carry_out_with(uint8_t command, uint8_t byte) REQUIRES(mutex_);
  // Puts the next byte before the guest if the last was read; true when the interrupt changed.
  [[nodiscard]] bool fill_output() REQUIRES(mutex_);

  PowerControl& power_;
  mutable Mutex mutex_;
  Registers registers_ GUARDED_BY(mutex_);
  std::deque<uint8_t> answers_ GUARDED_BY(mutex_);  // of the controller; go first
  std::deque<uint8_t> keyboard_queue_ GUARDED_BY(mutex_);
  LevelOutput irq_;
  DataPort data_port_{*this};
  CommandPort command_port_{*this};
};

}  // namespace bulkhead::device::legacy
