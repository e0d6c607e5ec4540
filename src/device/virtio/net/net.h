// The network card (VIRTIO 1.2, 5.1) with one pair of queues: frames between the driver's rings and a net::Port. What
// the driver sends is copied once, checked and completed before the port sees it; what the network sends waits in the
// port until the driver has room. Frames are no saved state: networks lose some.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "device/virtio/model.h"
#include "net/frame/address.h"
#include "net/frame/protocol.h"
#include "net/port.h"
#include "spec/virtio.h"
#include "support/log.h"

namespace bulkhead::device::virtio {

struct NetCounters {
  uint64_t sent_frames = 0;  // by the guest
  uint64_t sent_bytes = 0;
  uint64_t received_frames = 0;
  uint64_t received_bytes = 0;
  uint64_t refused_frames = 0;    // of the guest: no frames, or headers that make no sense
  uint64_t too_large_frames = 0;  // for the buffers that the guest offers
};

class NetModel final : public Model {
 public:
  static constexpr uint16_t kQueueSize = 256;
  static constexpr uint16_t kLeastMtu = 68;
  static constexpr uint16_t kDefaultMtu = 1500;
  // Buffers of the driver that one frame is spread over.
  static constexpr size_t kMaximumBuffers = 64;

  // The port outlives the model.
  NetModel(std::string name, net::Port& port, const net::frame::MacAddress& mac, uint16_t mtu = kDefaultMtu);
  ~NetModel() override;

  // From any thread.
  [[nodiscard]] NetCounters counters() const;

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] uint16_t device_id() const override { return spec::virtio::kDeviceNet; }
  [[nodiscard]] uint32_t pci_class() const override;
  [[nodiscard]] uint64_t features() const override;
  [[nodiscard]] std::vector<uint16_t> queue_sizes() const override { return {kQueueSize, kQueueSize}; }
  void attach(Transport& transport) override;
  void read_config(uint64_t offset, MutableByteSpan out) const override;
  void start(uint64_t negotiated) override { features_ = negotiated & features(); }
  [[nodiscard]] bool process(unsigned queue) override;
  void on_wake() override;
  [[nodiscard]] size_t in_flight() const override { return 0; }
  void stop() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

 private:
  enum class Delivery : uint8_t { kDone, kNoBuffers, kBroken };

  [[nodiscard]] bool process_receive(Queue& queue);
  [[nodiscard]] bool process_transmit(Queue& queue);
  // False when the port has no room.
  [[nodiscard]] bool transmit(const Chain& chain);
  // The frame of a chain, checked and complete; empty when it is none.
  [[nodiscard]] MutableByteSpan take_frame(const Chain& chain);
  [[nodiscard]] Delivery deliver(Queue& queue);
  void write_frame(size_t chain_count) const;
  [[nodiscard]] bool fetch();

  const std::string name_;
  net::Port& port_;
  const net::frame::MacAddress mac_;
  const uint16_t mtu_;
  Transport* transport_ = nullptr;

  // Of the worker.
  uint64_t features_ = 0;
  bool link_up_ = false;
  Chain chain_;
  std::vector<Chain> receive_chains_;
  std::vector<uint8_t> outgoing_;
  std::vector<uint8_t> incoming_;  // room for the largest frame
  size_t incoming_size_ = 0;       // of the frame that waits for buffers; 0: none

  std::atomic<uint64_t> sent_frames_ = 0, sent_bytes_ = 0, received_frames_ = 0, received_bytes_ = 0;
  std::atomic<uint64_t> refused_frames_ = 0, too_large_frames_ = 0;
};

}  // namespace bulkhead::device::virtio
