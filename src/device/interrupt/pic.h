// The pair of 8259A interrupt controllers of a PC, the second cascaded on input 2 of the first, with the edge/level
// control registers (Intel 8259A data sheet; ICH9 data sheet 13.4). An edge stays latched when its line falls again, as
// the ICH latches the PIT's; a level that goes before the INTA cycle gives the spurious vector of input 7.
#pragma once

#include <cstdint>
#include <optional>

#include "device/byte_ports.h"
#include "device/device.h"
#include "device/interrupt/local_apic.h"
#include "device/level_output.h"
#include "device/wires.h"
#include "support/os/mutex.h"

namespace bulkhead::device::interrupt {

class Pic final : public Device, public IrqLine::Receiver, public ExternalVectorSource {
 public:
  static constexpr uint16_t kMasterPort = 0x20, kSlavePort = 0xA0, kEdgeLevelPort = 0x4D0;
  static constexpr uint16_t kRangeSize = 2;  // of each
  static constexpr uint32_t kInputCount = 16;

  // interrupt_request goes to LINT0 of the bootstrap processor.
  explicit Pic(IrqLine interrupt_request);

  // The ranges at kMasterPort, kSlavePort and kEdgeLevelPort.
  [[nodiscard]] PortIo& master_ports() { return master_ports_; }
  [[nodiscard]] PortIo& slave_ports() { return slave_ports_; }
  [[nodiscard]] PortIo& edge_level_ports() { return edge_level_ports_; }

  [[nodiscard]] std::string_view name() const override { return "pic"; }
  void reset() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

  // Inputs 0 to 15; 2 is the cascade and has no line.
  void set_irq(uint32_t input, bool asserted) override;
  // The INTA cycle.
  uint8_t acknowledge() override;

 private:
  enum class Cascade : uint8_t { kMaster, kSlave };
  enum class Initialisation : uint8_t { kReady, kWord2, kWord3, kWord4 };

  struct Chip {
    uint8_t lines = 0;       // the inputs' levels
    uint8_t edges = 0;       // latched rising edges
    uint8_t level_mask = 0;  // ELCR: inputs that are level-triggered
    uint8_t in_service = 0;
    uint8_t mask = 0;
    uint8_t vector_base = 0;
    uint8_t lowest_input = 7;  // has the lowest priority; the next one has the highest
    bool all_level = false;    // ICW1's LTIM
    bool single = false, needs_word4 = false;
    bool auto_end = false, rotate_on_auto_end = false;
    bool special_mask = false, fully_nested_special = false;
    bool reads_in_service = false, poll = false;
    Initialisation initialisation = Initialisation::kReady;

    [[nodiscard]] uint8_t requests() const;
    // Place in the order of priority, 0 the highest.
    [[nodiscard]] unsigned rank(unsigned input) const { return (input - lowest_input - 1u) & 7; }
    [[nodiscard]] std::optional<unsigned> first_of(uint8_t inputs) const;
    // The input that INT asks for.
    [[nodiscard]] std::optional<unsigned> pending(Cascade cascade) const;
    void set_line(unsigned input, bool asserted);
    void begin_service(unsigned input);
    void write_command(uint8_t value);
    void write_end_command(uint8_t value);
    void write_data(uint8_t value);
    uint8_t poll_input(Cascade cascade);

    void save(StateWriter writer) const;
    static Result<Chip> restore(const StateReader& reader);
  };

  class ChipPorts final : public BytePorts {
   public:
    ChipPorts(Pic& pic, bool is_slave) : pic_(pic), is_slave_(is_slave) {}

   private:
    uint8_t read_byte(uint16_t offset) override;
    void write_byte(uint16_t offset, uint8_t value) override;
    Pic& pic_;
    const bool is_slave_;
  };
  class EdgeLevelPorts final : public BytePorts {
   public:
    explicit EdgeLevelPorts(Pic& pic) : pic_(pic) {}

   private:
    uint8_t read_byte(uint16_t offset) override;
    void write_byte(uint16_t offset, uint8_t value) override;
    Pic& pic_;
  };

  uint8_t read_chip(bool is_slave, uint16_t offset);
  void write_chip(bool is_slave, uint16_t offset, uint8_t value);
  [[nodiscard]] std::optional<unsigned> master_pending() const REQUIRES(mutex_);
  // Carries the slave's request to the master; true when INT changed.
  [[nodiscard]] bool update() REQUIRES(mutex_);

  mutable Mutex mutex_;
  Chip master_ GUARDED_BY(mutex_);
  Chip slave_ GUARDED_BY(mutex_);
  LevelOutput interrupt_request_;
  ChipPorts master_ports_{*this, false};
  ChipPorts slave_ports_{*this, true};
  EdgeLevelPorts edge_level_ports_{*this};
};

}  // namespace bulkhead::device::interrupt
