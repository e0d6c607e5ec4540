// A virtio device on PCI, modern only (VIRTIO 1.2, 4.1): the capabilities, the common configuration with its
// negotiation, notifications, interrupts, and the life of the queues. Registers answer on the vCPU's thread; rings and
// the model live on the worker. Nothing that a driver writes ends the process: the device goes to "needs reset".
//
//   status 0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK (queues start) -> ... -> write 0: drain, then status
//   0
//                                                            \-> NEEDS_RESET: until reset
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"
#include "device/pci/function.h"
#include "device/virtio/model.h"
#include "device/virtio/worker.h"
#include "spec/virtio.h"
#include "support/log.h"
#include "support/os/mutex.h"

namespace bulkhead::device::virtio {

// Whether the driver may choose packed rings.
enum class RingOffer : uint8_t { kSplitOnly, kSplitAndPacked };

class PciTransport final : public Device, public ThreadedWork, public pci::Function, public Mmio, private Transport {
 public:
  // Everything is in one BAR; a queue's notification register stands at kNotifyOffset + 4 x its index.
  static constexpr uint8_t kBar = 0;
  static constexpr uint64_t kBarSize = 0x8000;
  static constexpr uint32_t kCommonOffset = 0x0000;
  static constexpr uint32_t kIsrOffset = 0x1000;
  static constexpr uint32_t kDeviceOffset = 0x2000;
  static constexpr uint32_t kNotifyOffset = 0x3000;
  static constexpr uint32_t kTableOffset = 0x4000;
  static constexpr uint32_t kPendingOffset = 0x5000;
  static constexpr uint32_t kAreaSize = 0x1000;
  static constexpr uint32_t kNotifyStride = 4;

  static Result<std::unique_ptr<PciTransport>> create(std::unique_ptr<Model> model, memory::GuestMemory& memory,
                                                      MessageSink& messages, std::unique_ptr<Worker> worker,
                                                      RingOffer rings = RingOffer::kSplitAndPacked);
  // As above, with a thread of its own for the queues.
  static Result<std::unique_ptr<PciTransport>> create(std::unique_ptr<Model> model, memory::GuestMemory& memory,
                                                      MessageSink& messages);
  // Waits for what is in flight.
  ~PciTransport() override;

  [[nodiscard]] Model& model() { return *model_; }
  // One for the configuration and one for each queue.
  [[nodiscard]] unsigned msix_vector_count() const { return static_cast<unsigned>(queue_sizes_.size() + 1); }

  // Device
  [[nodiscard]] std::string_view name() const override { return name_; }
  void reset() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;
  // ThreadedWork
  void pause() override;
  void resume() override;
  // Mmio: the BAR
  void read_mmio(uint64_t offset, MutableByteSpan out) override;
  void write_mmio(uint64_t offset, ByteSpan in) override;
  // pci::Function
  [[nodiscard]] std::vector<pci::Doorbell> doorbells() const override;

 private:
  // What the driver wrote about one queue; frozen once it is enabled (DEVICE_SAFETY rule 1).
  struct QueueRegisters {
    uint16_t size = 0;
    uint16_t vector = spec::virtio::kNoVector;
    bool enabled = false;
    uint64_t descriptors = 0;
    uint64_t driver = 0;
    uint64_t device = 0;
  };
  struct Registers {
    uint32_t device_feature_select = 0;
    uint32_t driver_feature_select = 0;
    uint64_t driver_features = 0;
    uint16_t config_vector = spec::virtio::kNoVector;
    uint8_t status = 0;
    uint8_t isr = 0;
    uint16_t queue_select = 0;
    std::vector<QueueRegisters> queues;
  };
  // What a register write asks for beyond the register itself.
  enum class Consequence : uint8_t { kNone, kStart, kReset };

  PciTransport(std::unique_ptr<Model> model, memory::GuestMemory& memory, MessageSink& messages,
               std::unique_ptr<Worker> worker, RingOffer rings);
  Result<> connect_worker();
  void add_virtio_capabilities();
  [[nodiscard]] Registers initial_registers() const;

  // Registers: pci_transport.cc
  void read_common(uint64_t offset, MutableByteSpan out);
  void write_common(uint64_t offset, ByteSpan in);
  [[nodiscard]] Consequence write_register(unsigned offset, unsigned size, uint64_t value) REQUIRES(mutex_);
  [[nodiscard]] Consequence write_status(uint8_t value) REQUIRES(mutex_);
  void write_driver_feature(uint32_t value) REQUIRES(mutex_);
  void write_queue_register(unsigned offset, unsigned size, uint64_t value) REQUIRES(mutex_);
  void read_isr(MutableByteSpan out);
  void write_notify(uint64_t offset);
  void before_config_read(uint16_t offset, size_t size) override;
  void after_config_write(uint16_t offset, size_t size) override;
  [[nodiscard]] bool config_access_target(uint64_t& offset, unsigned& size) const;

  // Life of the queues, on the worker: pci_transport_life.cc
  void start_queues();
  [[nodiscard]] std::unique_ptr<Queue> make_queue(const QueueRegisters& registers, uint64_t features) const;
  [[nodiscard]] bool is_processed(unsigned index) const;
  void process_queue(unsigned index);
  void begin_reset();
  void finish_reset_when_idle();
  void on_wake();
  void kick_all();

  // Transport
  [[nodiscard]] Queue* queue(unsigned index) override;
  void used(unsigned index) override;
  void needs_reset(std::string_view reason) override;
  [[nodiscard]] bool paused() const override { return paused_; }
  void wake() override { wake_event_->signal(); }
  void config_changed() override {
    change_config([] {});
  }
  void change_config(const std::function<void()>& change) override;
  void interrupt(uint8_t isr_bit, uint16_t vector);

  // Saved state, on the worker: pci_transport_state.cc
  void save_on_worker(StateWriter& writer) const;
  Result<> restore_on_worker(const StateReader& reader, const Registers& registers);
  [[nodiscard]] Result<Registers> read_registers(const StateReader& reader) const;

  const std::string name_;
  memory::GuestMemory& memory_;
  const uint64_t offered_features_;
  const std::vector<uint16_t> queue_sizes_;
  uint8_t config_access_capability_ = 0;
  bool connected_ = false;  // create() went through and the worker runs
  log::RateLimit fault_limit_;

  mutable Mutex mutex_;
  Registers registers_ GUARDED_BY(mutex_);
  bool resetting_ GUARDED_BY(mutex_) = false;
  uint8_t config_generation_ GUARDED_BY(mutex_) = 0;

  // Of the worker.
  std::vector<std::unique_ptr<Queue>> queues_;
  bool running_ = false;   // queues may be worked on
  bool started_ = false;   // the model was started and not stopped
  bool draining_ = false;  // a reset waits for what is in flight
  bool paused_ = false;

  // Each is used by those after it, until they have ended.
  std::vector<std::unique_ptr<EventFd>> notify_events_;
  std::unique_ptr<EventFd> wake_event_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Worker> worker_;
};

}  // namespace bulkhead::device::virtio
