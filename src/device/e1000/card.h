// Intel's 82540EM and 82574L, gigabit network cards for systems without virtio drivers (PCI/PCI-X Family of Gigabit
// Ethernet Controllers Software Developer's Manual, 317453; 82574 GbE Controller Family Datasheet, 317694): registers,
// EEPROM, PHY, rings of descriptors in both directions, filters, checksums, segmentation of TCP, VLAN tags and
// interrupts. Registers answer on the vCPU's thread; rings live on the worker. What a driver breaks stops a ring until
// it is set up anew, and never ends the process.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "device/e1000/eeprom.h"
#include "device/e1000/phy.h"
#include "device/pci/function.h"
#include "device/virtio/net/net.h"
#include "device/virtio/worker.h"
#include "memory/guest_memory.h"
#include "net/frame/offload.h"
#include "net/port.h"
#include "spec/e1000.h"
#include "support/log.h"
#include "support/os/fd.h"
#include "support/os/mutex.h"
#include "support/time/clock.h"

namespace bulkhead::device::e1000 {

using virtio::NetCounters, virtio::Worker;

enum class CardModel : uint8_t { k82540em, k82574l };

struct CardSettings {
  CardModel model = CardModel::k82540em;
  std::string name;  // in the machine and in saved state: "e1000-0"
  net::frame::MacAddress mac;
  uint16_t mtu = 1500;  // of the network; what the driver sends beyond it is lost
};

class Card final : public Device, public ThreadedWork, public pci::Function, public Mmio, public PortIo {
 public:
  static constexpr uint8_t kBar = 0, kPortBar = 2, kMsixBar = 3;
  static constexpr uint64_t kBarSize = 0x2'0000, kPortCount = 64;
  static constexpr uint64_t kMsixBarSize = 0x4000;
  static constexpr uint32_t kMsixPending = 0x2000;
  // Descriptors and frames that one turn takes before others have theirs.
  static constexpr uint32_t kTransmitBudget = 256, kReceiveBudget = 64;
  // The longest frame that a driver can ask for, with its checksum.
  static constexpr size_t kLongestFrame = 16384;

  // The port, the memory and the clock outlive the card.
  static Result<std::unique_ptr<Card>> create(CardSettings settings, net::Port& port, memory::GuestMemory& memory,
                                              Clock& clock, MessageSink& messages, std::unique_ptr<Worker> worker);
  ~Card() override;

  // From any thread.
  [[nodiscard]] NetCounters counters() const;

  // Device
  [[nodiscard]] std::string_view name() const override { return settings_.name; }
  void reset() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;
  // ThreadedWork
  void pause() override;
  void resume() override;
  // Mmio: the registers
  void read_mmio(uint64_t offset, MutableByteSpan out) override;
  void write_mmio(uint64_t offset, ByteSpan in) override;
  // PortIo: a window on them
  uint32_t read_port(uint16_t offset, unsigned size) override;
  void write_port(uint16_t offset, unsigned size, uint32_t value) override;

 private:
  struct RingRegisters {
    uint32_t base_low;
    uint32_t base_high;
    uint32_t length;
    uint32_t head;
    uint32_t tail;
  };
  // What a driver sees; those that do nothing here are kept as they were written.
  struct Registers {
    uint32_t control;
    uint32_t control_extended;
    uint32_t eeprom_read;
    uint32_t mdi;
    uint32_t flow_address_low;
    uint32_t flow_address_high;
    uint32_t flow_type;
    uint32_t vlan_type;
    uint32_t causes;
    uint32_t mask;
    uint32_t throttle;
    uint32_t receive_control;
    uint32_t flow_timer;
    uint32_t transmit_configuration;
    uint32_t transmit_control;
    uint32_t transmit_gap;
    uint32_t adaptive_spacing;
    uint32_t led;
    uint32_t packet_buffer;
    uint32_t flow_threshold_low;
    uint32_t flow_threshold_high;
    RingRegisters receive;
    uint32_t receive_delay;
    uint32_t receive_thresholds;
    uint32_t receive_absolute_delay;
    uint32_t receive_small_packets;
    RingRegisters transmit;
    uint32_t transmit_delay;
    uint32_t transmit_thresholds;
    uint32_t transmit_absolute_delay;
    uint32_t segmentation_pad;
    uint32_t receive_checksum;
    uint32_t wake_control;
    uint32_t wake_filter;
    uint32_t wake_status;
    uint32_t management;
    // Of the 82574L.
    uint32_t auto_clear;
    uint32_t auto_mask;
    uint32_t vectors;
    uint32_t configuration_owner;
    uint32_t split_control;
    uint32_t transmit_arbitration;
    uint32_t receive_filter;
    uint32_t scaling_control;
    uint32_t pcie_control;
    uint32_t semaphore;
    std::array<uint32_t, spec::e1000::kVectorCount> vector_throttles;

    uint32_t eeprom_request;  // EECD's bit
    uint32_t port_address;    // of the window
    std::array<uint32_t, spec::e1000::kReceiveAddressWords> addresses;
    std::array<uint32_t, spec::e1000::kMulticastWords> multicast;
    std::array<uint32_t, spec::e1000::kVlanWords> vlans;
    std::array<uint32_t, spec::e1000::kStatisticCount> statistics;
  };
  struct Plain;  // a register that is only kept
  [[nodiscard]] const Plain* find_plain(uint64_t offset) const;
  // The 82574L's MSI-X table, in a BAR of its own.
  class MsixWindow final : public Mmio {
   public:
    explicit MsixWindow(Card& card) : card_(card) {}
    void read_mmio(uint64_t offset, MutableByteSpan out) override;
    void write_mmio(uint64_t offset, ByteSpan in) override;

   private:
    Card& card_;
  };

  // A ring as it stood when a turn began, inside RAM, with head and tail inside the ring.
  struct Ring {
    // What head, tail and length count, whatever a descriptor takes.
    static constexpr uint32_t kPlaceSize = 16;
    uint64_t base = 0;
    uint32_t places = 0;
    uint32_t head = 0;
    uint32_t tail = 0;
    uint32_t generation = 0;
    uint32_t stride = 1;  // places that a descriptor takes
    [[nodiscard]] uint32_t count() const { return places / stride; }
    [[nodiscard]] uint32_t waiting() const { return (tail + places - head) % places / stride; }
    [[nodiscard]] GuestAddress at_head() const { return {base + uint64_t{head} * kPlaceSize}; }
    void advance() { head = head + stride == places ? 0 : head + stride; }
  };
  // Where checksums begin, stand and end (3.3.6); end 0 is the frame's.
  struct ChecksumPlace {
    uint8_t start = 0;
    uint8_t field = 0;
    uint16_t end = 0;
  };
  struct Context {
    ChecksumPlace ip, transport;
    uint16_t segment_size = 0;
    uint8_t header_size = 0;
    uint8_t command = 0;
  };
  // A frame that descriptors bring piece by piece.
  struct Assembly {
    uint32_t size = 0;
    uint32_t generation = 0;  // of the ring that it began in
    uint16_t vlan = 0;
    uint8_t options = 0;
    uint8_t started = 0;
    uint8_t segmented = 0;
    uint8_t tagged = 0;
    uint8_t spoiled = 0;  // too long, or not in RAM: nothing of it is sent
    uint8_t held = 0;     // whole, and waiting for room
  };
  // What the write-back of a received frame says of it.
  struct Verdict {
    uint8_t status = 0;
    uint8_t errors = 0;
    uint16_t checksum = 0;
    uint16_t special = 0;
  };
  enum class Delivery : uint8_t { kDone, kNoDescriptors };
  // What received frames are put into: the buffers that one descriptor names.
  struct Layout {
    enum class Kind : uint8_t { kLegacy, kExtended, kSplit } kind = Kind::kLegacy;
    std::array<size_t, spec::e1000::kSplitBuffers> sizes{};
    [[nodiscard]] size_t room() const { return sizes[0] + sizes[1] + sizes[2] + sizes[3]; }
  };

  Card(CardSettings settings, net::Port& port, memory::GuestMemory& memory, Clock& clock, MessageSink& messages,
       std::unique_ptr<Worker> worker);
  [[nodiscard]] bool is_82574() const { return settings_.model == CardModel::k82574l; }
  Result<> connect_worker();

  // Registers: registers.cc
  [[nodiscard]] uint32_t read_register(uint64_t offset);
  void write_register(uint64_t offset, uint32_t value);
  // What is to be done once the lock is let go.
  struct After {
    bool kick = false;
    bool wait = false;  // until work under way has ended
    bool reset = false;
  };
  [[nodiscard]] After write_locked(uint64_t offset, uint32_t value) REQUIRES(mutex_);
  [[nodiscard]] bool write_array(uint64_t offset, uint32_t value) REQUIRES(mutex_);
  [[nodiscard]] uint32_t* array_word(uint64_t offset) REQUIRES(mutex_);
  void write_mdi(uint32_t value) REQUIRES(mutex_);
  [[nodiscard]] uint32_t device_status() const REQUIRES(mutex_);
  [[nodiscard]] Registers registers_at_reset() const;
  void after_config_write(uint16_t offset, size_t size) override;

  // Interrupts: interrupts.cc
  void raise(uint32_t causes) REQUIRES(mutex_);
  void update_interrupts() REQUIRES(mutex_);
  void update_pin() REQUIRES(mutex_);
  void update_vectors() REQUIRES(mutex_);
  [[nodiscard]] uint32_t take_causes() REQUIRES(mutex_);
  // What the former decided; call with no lock held.
  void settle_interrupts();
  void on_timer();
  void count(uint8_t statistic, uint64_t more) REQUIRES(mutex_);
  void count_octets(uint8_t statistic, uint64_t more) REQUIRES(mutex_);
  // 0 to 5: up to 64 bytes, 127, 255, 511, 1023, more.
  [[nodiscard]] static uint8_t size_class(uint64_t wire_size);

  // On the worker: card.cc
  void on_kick();
  void look_at_link();
  void reset_on_worker();
  [[nodiscard]] std::optional<Ring> ring_of(const RingRegisters& registers, uint32_t generation,
                                            uint32_t stride = 1) const;

  // transmit.cc
  [[nodiscard]] bool process_transmit();
  // False when the port has no room: the descriptor is looked at again.
  [[nodiscard]] bool take(const spec::e1000::TransmitDescriptor& descriptor, const Registers& registers);
  void take_context(const spec::e1000::TransmitDescriptor& descriptor);
  void append(uint64_t address, uint32_t size);
  void finish_frame(const spec::e1000::TransmitDescriptor& descriptor, const Registers& registers);
  [[nodiscard]] bool make_checksums(const spec::e1000::TransmitDescriptor& descriptor);
  [[nodiscard]] bool make_segments();
  void insert_tag(const Registers& registers);
  [[nodiscard]] bool send();
  void count_sent();

  // receive.cc
  [[nodiscard]] bool process_receive();
  void discard_waiting();
  [[nodiscard]] bool fetch(const Registers& registers);
  [[nodiscard]] bool wants(ByteSpan frame, const Registers& registers, bool& exact) const;
  [[nodiscard]] bool prepare(MutableByteSpan frame, bool is_proven, bool exact, const Registers& registers);
  [[nodiscard]] Delivery deliver(Ring& ring, const Registers& registers);
  [[nodiscard]] static Layout layout_of(const Registers& registers);
  void give_back(const Ring& ring, Layout::Kind kind, const std::array<uint16_t, spec::e1000::kSplitBuffers>& lengths,
                 bool is_last);

  // Saved state: state.cc
  void save_on_worker(StateWriter& writer) const;
  Result<> restore_on_worker(const StateReader& reader);

  const CardSettings settings_;
  net::Port& port_;
  memory::GuestMemory& memory_;
  Clock& clock_;
  const size_t largest_frame_;
  log::RateLimit fault_limit_;

  mutable Mutex mutex_;
  Registers registers_ GUARDED_BY(mutex_);
  Eeprom eeprom_ GUARDED_BY(mutex_);
  Phy phy_ GUARDED_BY(mutex_);
  bool link_up_ GUARDED_BY(mutex_);
  bool pin_up_ GUARDED_BY(mutex_) = false;
  std::optional<uint64_t> last_interrupt_ns_ GUARDED_BY(mutex_);
  // Of messages: vectors to be sent, causes that have been told, and when each vector was sent last.
  uint32_t messages_due_ GUARDED_BY(mutex_) = 0;
  uint32_t causes_told_ GUARDED_BY(mutex_) = 0;
  std::array<std::optional<uint64_t>, spec::e1000::kVectorCount> last_message_ns_ GUARDED_BY(mutex_);
  // Count up when a ring is set up anew, so that a turn begun before leaves its head alone.
  uint32_t transmit_generation_ GUARDED_BY(mutex_) = 0;
  uint32_t receive_generation_ GUARDED_BY(mutex_) = 0;

  // Of the worker.
  bool paused_ = false;
  std::array<Context, 2> contexts_;  // for checksums, for segments
  Assembly assembly_;
  std::vector<uint8_t> outgoing_, incoming_, piece_;
  net::frame::Offload outgoing_offload_;
  net::frame::Segments segments_;  // of incoming_
  bool segments_exact_ = false;
  // The frame that waits for descriptors, with its padding, in one of the two above; empty: none.
  ByteSpan current_;
  Verdict verdict_;

  std::atomic<uint64_t> sent_frames_ = 0, sent_bytes_ = 0, received_frames_ = 0, received_bytes_ = 0;
  std::atomic<uint64_t> refused_frames_ = 0, too_large_frames_ = 0;

  MsixWindow msix_window_{*this};
  // Each is used by those after it, until they have ended.
  std::unique_ptr<Timer> throttle_timer_;
  std::unique_ptr<EventFd> kick_event_;
  std::unique_ptr<Worker> worker_;
};

}  // namespace bulkhead::device::e1000
