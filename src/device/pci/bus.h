// The root bus of the machine: 32 slots of 8 functions, reached through the ports 0xCF8/0xCFC and through the ECAM
// window, and the four interrupt lines that they share. Functions are added while the machine is built and belong to
// their owners.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>

#include "device/device.h"
#include "device/pci/function.h"
#include "device/wires.h"

namespace bulkhead::device::pci {

inline constexpr unsigned kInterruptLineCount = 4;

class Bus final : private IrqLine::Receiver {
 public:
  // lines are the interrupt inputs that the pins are wired to; board may be nullptr in tests.
  Bus(Board* board, const std::array<IrqLine, kInterruptLineCount>& lines);

  // The function must outlive the bus. Function 0 of a slot comes first.
  void add(Function& function, unsigned slot, unsigned number = 0);
  [[nodiscard]] Function* find(unsigned slot, unsigned number) const;

  // The usual swizzle: which of the four lines a pin (1 to 4 for INTA to INTD) of a slot drives. _PRT says the same.
  [[nodiscard]] static constexpr unsigned line_of(unsigned slot, unsigned pin) {
    return (slot + pin - 1) % kInterruptLineCount;
  }

  // offset + size is at most 4096. Where there is no function, reads give ones and writes are lost.
  void read_config(unsigned slot, unsigned number, uint16_t offset, MutableByteSpan out);
  void write_config(unsigned slot, unsigned number, uint16_t offset, ByteSpan in);

 private:
  void set_irq(uint32_t input, bool asserted) override;

  Board* board_;
  std::array<Function*, spec::pci::kSlotCount * spec::pci::kFunctionCount> functions_{};
  Mutex mutex_;
  std::bitset<spec::pci::kSlotCount * spec::pci::kFunctionCount> asserted_ GUARDED_BY(mutex_);
  std::array<LevelSource, kInterruptLineCount> lines_;
};

// The ports 0xCF8 to 0xCFF: configuration mechanism #1, and in the same dword, as a byte, the chipset's reset control
// register at 0xCF9 (1 in bit 2, risen from 0, resets the machine).
class ConfigPorts final : public Device, public PortIo {
 public:
  static constexpr uint16_t kFirstPort = spec::pci::kConfigAddressPort;
  static constexpr uint16_t kPortCount = 8;

  ConfigPorts(Bus& bus, PowerControl& power) : bus_(bus), power_(power) {}

  [[nodiscard]] std::string_view name() const override { return "pci-config-ports"; }
  void reset() override;
  uint32_t read_port(uint16_t offset, unsigned size) override;
  void write_port(uint16_t offset, unsigned size, uint32_t value) override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

 private:
  Bus& bus_;
  PowerControl& power_;
  mutable Mutex mutex_;
  uint32_t address_ GUARDED_BY(mutex_) = 0;
  uint8_t reset_control_ GUARDED_BY(mutex_) = 0;
};

// The ECAM window (PCI Express 7.2.2): 1 MiB a bus, 4 KiB a function; only bus 0 has functions.
class EcamWindow final : public Mmio {
 public:
  static constexpr uint64_t kBusSize = 1 << 20;

  // bus_count is 1 to 256.
  EcamWindow(Bus& bus, unsigned bus_count);

  [[nodiscard]] uint64_t size() const { return bus_count_ * kBusSize; }
  void read_mmio(uint64_t offset, MutableByteSpan out) override;
  void write_mmio(uint64_t offset, ByteSpan in) override;

 private:
  Bus& bus_;
  uint64_t bus_count_;
};

}  // namespace bulkhead::device::pci
