// One PCI function: its configuration space with write masks, base address registers, capabilities and interrupts (PCI
// Local Bus Specification 3.0, chapter 6). A device derives from it and says at construction what it has; everything
// the guest does to configuration space afterwards is done here. It never touches guest memory.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "device/device.h"
#include "device/pci/level_source.h"
#include "device/pci/msix.h"
#include "device/wires.h"
#include "spec/pci.h"
#include "support/os/mutex.h"

namespace bulkhead::device::pci {

struct Identity {
  uint16_t vendor_id = 0;
  uint16_t device_id = 0;
  uint8_t revision = 0;
  uint32_t class_code = 0;  // base class, sub-class, interface: 24 bits
  uint16_t subsystem_vendor_id = 0;
  uint16_t subsystem_id = 0;
  uint8_t interrupt_pin = 0;  // 1 to 4 for INTA to INTD, 0 for none
};

enum class BarKind : uint8_t { kNone, kMemory32, kMemory64, kIo };

// A range that a function wants the board to put onto its bus. Stays the same for the function's life.
struct Bar {
  BarKind kind = BarKind::kNone;
  uint8_t index = 0;
  bool prefetchable = false;
  uint64_t size = 0;        // a power of two
  Mmio* mmio = nullptr;     // answers in memory space
  PortIo* ports = nullptr;  // answers in port space
};

// A BAR that decodes now: [address, address + size) is the function's, as far as the board has nothing else there.
struct BarMapping {
  const Bar* bar = nullptr;
  uint64_t address = 0;
};

// A register that only rings a bell: a write of any width at this offset of the BAR is the same as a signal on the
// eventfd, so a board may have the host kernel do it (ioeventfd).
struct Doorbell {
  uint8_t bar_index = 0;
  uint64_t offset = 0;
  int event_fd = -1;
};

class Function;

// What a function asks of the board.
class Board {
 public:
  virtual ~Board() = default;
  // The function's BARs moved, appeared or went away: ask function.mappings() anew, under the board's own lock so that
  // the last caller leaves the last state. Called with no lock held, from any thread.
  virtual void on_bars_moved(Function& function) = 0;
};

class Function {
 public:
  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;
  virtual ~Function();

  // offset + size never exceeds 4096; bytes beyond the 256 of configuration space read as ones and are not written.
  void read_config(uint16_t offset, MutableByteSpan out);
  void write_config(uint16_t offset, ByteSpan in);

  // The ranges it has, and those that decode now.
  [[nodiscard]] std::vector<const Bar*> bars() const;
  [[nodiscard]] std::vector<BarMapping> mappings() const;
  [[nodiscard]] virtual std::vector<Doorbell> doorbells() const { return {}; }

  [[nodiscard]] uint8_t interrupt_pin() const { return identity_.interrupt_pin; }
  [[nodiscard]] const Identity& identity() const { return identity_; }

  // For pci::Bus: where the function's interrupt pin goes and who maps its BARs; board may be nullptr.
  void attach(Board* board, IrqLine interrupt_line);
  void set_multi_function();

 protected:
  explicit Function(const Identity& identity);

  // ---- What the function has: during construction only. ----
  void add_memory_bar(uint8_t index, uint64_t size, BarKind kind, bool prefetchable, Mmio& target);
  void add_io_bar(uint8_t index, uint64_t size, PortIo& target);
  // body and writable begin after the two bytes of the capability header. Returns the capability's offset.
  uint8_t add_capability(uint8_t id, ByteSpan body, ByteSpan writable);
  // The device's BAR dispatch passes both ranges on to msix().
  void add_msix(MessageSink& sink, unsigned vector_count, uint8_t bar_index, uint32_t table_offset,
                uint32_t pending_offset);
  // vector_count is 1, 2, 4, 8, 16 or 32; the sink is the same as for MSI-X where a function has both.
  void add_msi(MessageSink& sink, unsigned vector_count);
  // A register outside the standard header.
  void set_register(uint16_t offset, unsigned size, uint32_t value, uint32_t writable);

  // ---- While it runs; no lock of the caller's is needed and none may be held. ----
  [[nodiscard]] Msix* msix() const { return msix_.get(); }
  [[nodiscard]] bool msix_enabled() const;
  [[nodiscard]] bool bus_master_enabled() const;
  // Level of the function's INTx pin; the disable bit and an enabled MSI or MSI-X keep it off the wire.
  // want_... only records, so that it may be called with the device's lock held; settle_... then drives the wire.
  void set_interrupt_pin_level(bool asserted);
  void want_interrupt_pin_level(bool asserted);
  void settle_interrupt_pin() { interrupt_.settle(); }
  // As pulse of one MSI vector: sent, set pending while masked, or lost while MSI is off.
  void notify_msi(unsigned vector);
  [[nodiscard]] uint32_t config_value(uint16_t offset, unsigned size) const;
  void set_config_value(uint16_t offset, unsigned size, uint32_t value);

  // For capabilities whose registers do something; called with no lock held.
  virtual void before_config_read(uint16_t /*offset*/, size_t /*size*/) {}
  virtual void after_config_write(uint16_t /*offset*/, size_t /*size*/) {}

  // As by the bus's reset line: BARs unmapped, interrupts off.
  void reset_config();
  void save_config(StateWriter& writer) const;
  Result<> restore_config(const StateReader& reader);

 private:
  struct Actions {
    std::vector<InterruptMessage> messages;
    bool bars_moved = false;
  };
  [[nodiscard]] uint64_t register_value(uint16_t offset, unsigned size) const REQUIRES(mutex_);
  [[nodiscard]] std::optional<uint64_t> bar_address(const Bar& bar) const REQUIRES(mutex_);
  [[nodiscard]] std::array<uint64_t, spec::pci::kBarCount> decoded_addresses() const REQUIRES(mutex_);
  [[nodiscard]] Actions apply_config() REQUIRES(mutex_);
  void apply_interrupt_pin() REQUIRES(mutex_);
  void take_msi(std::vector<InterruptMessage>& messages) REQUIRES(mutex_);
  void perform(const Actions& actions);

  const Identity identity_;
  std::array<Bar, spec::pci::kBarCount> bars_{};
  std::unique_ptr<Msix> msix_;
  MessageSink* sink_ = nullptr;
  uint8_t msix_capability_ = 0;
  uint8_t msi_capability_ = 0;
  uint8_t last_capability_ = 0;
  uint16_t free_config_ = spec::pci::kHeaderEnd;
  Board* board_ = nullptr;
  LevelSource interrupt_;

  mutable Mutex mutex_;
  std::array<uint8_t, spec::pci::kConfigSize> bytes_ GUARDED_BY(mutex_){};
  std::array<uint8_t, spec::pci::kConfigSize> writable_{};
  std::array<uint8_t, spec::pci::kConfigSize> at_reset_{};
  std::array<uint64_t, spec::pci::kBarCount> decoded_ GUARDED_BY(mutex_){};
  bool pin_level_ GUARDED_BY(mutex_) = false;
};

}  // namespace bulkhead::device::pci
