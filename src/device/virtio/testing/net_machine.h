// A machine of one network card, its driver and its port, as the card's tests play with it.
#pragma once

#include <gtest/gtest.h>

#include "device/virtio/net/net.h"
#include "device/virtio/testing/fake_driver.h"
#include "device/virtio/testing/fake_port.h"

namespace bulkhead::device::virtio {

inline constexpr uint64_t kReceiveData = 0x80'0000, kTransmitData = 0x90'0000, kControlData = 0xA0'0000;
inline constexpr uint64_t kBasicNetFeatures = spec::virtio::kNetChecksum | spec::virtio::kNetGuestChecksum |
                                              spec::virtio::kNetMtu | spec::virtio::kNetMac |
                                              spec::virtio::kNetMergeableBuffers | spec::virtio::kNetStatus;
inline constexpr net::frame::MacAddress kNetMacAddress{{0x52, 0x54, 0, 1, 2, 3}};

struct NetMachine {
  using NetHeader = spec::virtio::NetHeader;

  explicit NetMachine(RingKind kind = kRingKinds[7], uint64_t features = kBasicNetFeatures,
                      const NetSettings& settings = {}) {
    auto made = std::make_unique<ManualWorker>();
    worker = made.get();
    device = PciTransport::create(std::make_unique<NetModel>("net0", port, kNetMacAddress, settings), *memory, sink,
                                  std::move(made))
                 .value();
    driver = std::make_unique<FakeDriver>(*device, *memory);
    driver->enable_msix();
    EXPECT_TRUE(driver->negotiate(kind.features() | features));
    const bool pairs = (features & (spec::virtio::kNetMultiqueue | spec::virtio::kNetScaling)) != 0;
    control = pairs ? 2u * settings.queue_pairs : 2;
    const unsigned count = (features & spec::virtio::kNetControlQueue) != 0 ? control + 1 : 2;
    for (uint16_t i = 0; i < count; ++i) driver->set_up_queue(i, 16);
    driver->go();
    worker->run();
  }
  NetModel& model() { return static_cast<NetModel&>(device->model()); }
  void offer(uint32_t size, unsigned slot, unsigned queue = 0) {
    const DriverBuffer buffer{kReceiveData + 0x1'0000 * slot, size, true};
    driver->ring(queue).add({&buffer, 1});
    driver->kick(queue);
    worker->run();
  }
  void arrive(std::vector<uint8_t> frame) {
    port.waiting.push_back(std::move(frame));
    port.listener();
    worker->run();
  }
  void transmit(const NetHeader& header, const std::vector<uint8_t>& frame, unsigned queue = 1) {
    driver->put(kTransmitData, as_bytes(header));
    driver->put(kTransmitData + 0x1000, frame);
    const DriverBuffer buffers[] = {{kTransmitData, sizeof header, false},
                                    {kTransmitData + 0x1000, static_cast<uint32_t>(frame.size()), false}};
    driver->ring(queue).add(buffers);
    driver->kick(queue);
    worker->run();
  }
  // The answer to a command; 0xFF when there was none.
  uint8_t command(uint8_t kind, uint8_t number, const std::vector<uint8_t>& data) {
    driver->put(kControlData, std::vector<uint8_t>{kind, number});
    if (!data.empty()) driver->put(kControlData + 0x1000, data);
    driver->put(kControlData + 0x8000, std::vector<uint8_t>{0xFF});
    std::vector<DriverBuffer> buffers = {{kControlData, 2, false}};
    if (!data.empty()) buffers.push_back({kControlData + 0x1000, static_cast<uint32_t>(data.size()), false});
    buffers.push_back({kControlData + 0x8000, 1, true});
    driver->ring(control).add(buffers);
    driver->kick(control);
    worker->run();
    EXPECT_TRUE(driver->ring(control).take_used());
    return driver->get(kControlData + 0x8000, 1)[0];
  }

  std::unique_ptr<memory::GuestMemory> memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  FakePort port;
  RecordingSink sink;
  ManualWorker* worker = nullptr;
  std::unique_ptr<PciTransport> device;
  std::unique_ptr<FakeDriver> driver;
  unsigned control = 2;
};

}  // namespace bulkhead::device::virtio
