// The network card (VIRTIO 1.2, 5.1): frames between the driver's rings and a net::Port, in as many pairs of queues as
// the machine has it given, with a control queue. What the driver sends is copied once and settled before the port sees
// it; what the network sends waits in the port until the driver has room. Frames are no saved state: networks lose
// some.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "device/virtio/model.h"
#include "device/virtio/net/receive_filter.h"
#include "device/virtio/net/steering.h"
#include "net/frame/address.h"
#include "net/frame/offload.h"
#include "net/frame/protocol.h"
#include "net/port.h"
#include "spec/virtio.h"
#include "support/log.h"

namespace bulkhead::device::virtio {

struct NetCounters {
  uint64_t sent_frames = 0;  // by the guest; one that is to be cut counts once
  uint64_t sent_bytes = 0;
  uint64_t received_frames = 0;
  uint64_t received_bytes = 0;
  uint64_t refused_frames = 0;    // of the guest: no frames, or headers that make no sense
  uint64_t too_large_frames = 0;  // for the buffers that the guest offers, or for the card
};

struct NetSettings {
  uint16_t mtu = 1500;
  uint16_t queue_pairs = 1;  // at most NetModel::kMaximumPairs
  bool offloads = true;      // checksums and cutting are left to whoever can
};

class NetModel final : public Model {
 public:
  static constexpr uint16_t kQueueSize = 256;
  static constexpr uint16_t kControlQueueSize = 64;
  static constexpr uint16_t kLeastMtu = 68;
  static constexpr uint16_t kDefaultMtu = 1500;
  static constexpr uint16_t kMaximumPairs = 8;
  // Buffers of the driver that one frame is spread over.
  static constexpr size_t kMaximumBuffers = 64;

  // The port outlives the model.
  NetModel(std::string name, net::Port& port, const net::frame::MacAddress& mac, const NetSettings& settings = {});
  ~NetModel() override;

  // From any thread.
  [[nodiscard]] NetCounters counters() const;

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] uint16_t device_id() const override { return spec::virtio::kDeviceNet; }
  [[nodiscard]] uint32_t pci_class() const override;
  [[nodiscard]] uint64_t features() const override;
  [[nodiscard]] std::vector<uint16_t> queue_sizes() const override;
  void attach(Transport& transport) override;
  void read_config(uint64_t offset, MutableByteSpan out) const override;
  void start(uint64_t negotiated) override;
  [[nodiscard]] bool has_work_at_once(unsigned queue) const override;
  [[nodiscard]] bool process(unsigned queue) override;
  [[nodiscard]] bool process_at_once(unsigned queue) override;
  EventFd* own_event() override { return port_.news(); }
  void on_wake() override;
  void resume() override;
  [[nodiscard]] size_t in_flight() const override { return 0; }
  void stop() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

 private:
  enum class Delivery : uint8_t { kDone, kNoBuffers, kBroken };

  // The control queue's place depends on what was negotiated (5.1.2).
  [[nodiscard]] unsigned control_queue() const;
  [[nodiscard]] bool has(uint64_t feature) const { return (features_ & feature) != 0; }

  [[nodiscard]] bool process_receive();
  // At most so many frames, and none above largest bytes.
  [[nodiscard]] bool process_transmit(unsigned index, Queue& queue, unsigned frames, size_t largest);
  // False when the port has no room.
  [[nodiscard]] bool transmit(const Chain& chain, uint16_t pair);
  // The frame of a chain, settled; empty when it is none.
  [[nodiscard]] MutableByteSpan take_frame(const Chain& chain, net::frame::Offload& offload);
  // The next frame for the driver, as the driver takes it, in current_; false when there is none.
  [[nodiscard]] bool fetch();
  [[nodiscard]] Delivery deliver(Queue& queue);
  void write_frame(size_t chain_count) const;

  // control.cc
  [[nodiscard]] bool process_control(Queue& queue);
  [[nodiscard]] bool command(ByteSpan bytes);
  [[nodiscard]] bool set_mac(ByteSpan address);
  [[nodiscard]] bool set_guest_offloads(ByteSpan mask);
  // The driver is to tell the network where its addresses are now.
  void ask_for_announcement();

  [[nodiscard]] net::frame::MacAddress mac() const;
  void set_guest_mac(const net::frame::MacAddress& mac);
  void set_features(uint64_t negotiated, uint64_t guest_offloads);

  const std::string name_;
  net::Port& port_;
  const net::frame::MacAddress own_mac_;
  const NetSettings settings_;
  const size_t largest_frame_;
  Transport* transport_ = nullptr;

  std::atomic<uint64_t> mac_;  // as the driver has set it
  std::atomic<bool> announce_ = false;

  // Of the worker.
  uint64_t features_ = 0;
  uint64_t guest_offloads_ = 0;  // of the features, those in use
  net::frame::OffloadSupport from_driver_, to_driver_;
  ReceiveFilter filter_;
  Steering steering_;
  bool link_up_ = false;
  bool announce_on_resume_ = false;
  Chain chain_;
  std::vector<Chain> receive_chains_;
  std::vector<uint8_t> outgoing_, incoming_, piece_;
  net::frame::Segments segments_;  // of incoming_, for a driver that takes no whole ones
  // The frame that waits for buffers, in one of the two above; empty: none.
  ByteSpan current_;
  net::frame::Offload current_offload_;
  uint16_t current_pair_ = 0;

  std::atomic<uint64_t> sent_frames_ = 0, sent_bytes_ = 0, received_frames_ = 0, received_bytes_ = 0;
  std::atomic<uint64_t> refused_frames_ = 0, too_large_frames_ = 0;
};

}  // namespace bulkhead::device::virtio
