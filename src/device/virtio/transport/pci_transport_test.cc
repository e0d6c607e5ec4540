#include "device/virtio/transport/pci_transport.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include <gtest/gtest.h>
#include <unistd.h>

#include "device/pci/bus.h"
#include "device/virtio/rng/rng.h"
#include "device/virtio/testing/fake_driver.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;

constexpr uint64_t kData = 0x80'0000;

struct Machine {
  Machine() {
    auto made = std::make_unique<ManualWorker>();
    worker = made.get();
    device = PciTransport::create(std::make_unique<RngModel>("rng0", random), *memory, sink, std::move(made)).value();
    driver = std::make_unique<FakeDriver>(*device, *memory);
  }
  void start(RingKind kind = kRingKinds[3], bool msix = true) {
    if (msix) driver->enable_msix();
    ASSERT_TRUE(driver->negotiate(kind.features()));
    driver->set_up_queue(0, 16);
    driver->go();
    ASSERT_EQ(driver->status() & kStatusNeedsReset, 0);
  }
  void ask_for_bytes(uint32_t size = 32) {
    const DriverBuffer buffer{kData, size, true};
    driver->ring(0).add({&buffer, 1});
    driver->kick(0);
    worker->run();
  }

  std::unique_ptr<memory::GuestMemory> memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  SeededRandom random{1};
  RecordingSink sink;
  ManualWorker* worker = nullptr;
  std::unique_ptr<PciTransport> device;
  std::unique_ptr<FakeDriver> driver;
};

class RngOnEveryRing : public testing::TestWithParam<RingKind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, RngOnEveryRing, testing::ValuesIn(kRingKinds));

TEST_P(RngOnEveryRing, FillsBuffersWithRandomBytes) {
  Machine machine;
  machine.start(GetParam());
  for (int round = 1; round <= 100; ++round) {
    machine.driver->put(kData, std::vector<uint8_t>(32));
    machine.ask_for_bytes();
    ASSERT_EQ(machine.driver->ring(0).take_used()->length, 32u);
    ASSERT_NE(machine.driver->get(kData, 32), std::vector<uint8_t>(32));
    ASSERT_EQ(machine.sink.count(FakeDriver::kQueueData), static_cast<size_t>(round));
  }
}

TEST(PciTransport, ShowsEveryStructureOfAModernDevice) {
  Machine machine;
  FakeDriver& driver = *machine.driver;
  EXPECT_EQ(driver.read_config(0, 4), 0x1044'1AF4u);
  EXPECT_EQ(driver.read_config(8, 1), 1u);
  std::vector<uint8_t> types;
  for (uint32_t at = driver.read_config(0x34, 1); at != 0; at = driver.read_config(static_cast<uint16_t>(at + 1), 1)) {
    if (driver.read_config(static_cast<uint16_t>(at), 1) != 9) continue;
    types.push_back(static_cast<uint8_t>(driver.read_config(static_cast<uint16_t>(at + 3), 1)));
    EXPECT_EQ(driver.read_config(static_cast<uint16_t>(at + 4), 1), PciTransport::kBar);
  }
  EXPECT_EQ(types, (std::vector<uint8_t>{kPciCommonConfig, kPciIsrConfig, kPciDeviceConfig, kPciNotifyConfig,
                                         kPciConfigAccess}));
}

TEST(PciTransport, KeepsFeaturesOkOnlyForWhatItOffers) {
  Machine machine;
  EXPECT_FALSE(machine.driver->negotiate(kFeatureEventIndex));
  machine.driver->set_status(0);
  EXPECT_FALSE(machine.driver->negotiate(kFeatureVersion1 | 1ull << 33));
  machine.driver->set_status(0);
  EXPECT_TRUE(machine.driver->negotiate(machine.driver->offered()));
  // Frozen from here on.
  machine.driver->write(0x0C, 4, 0);
  EXPECT_EQ(machine.driver->read(0x0C, 4), machine.driver->offered() >> 32);
}

TEST(PciTransport, IgnoresDriverOkBeforeFeaturesOk) {
  Machine machine;
  machine.driver->set_status(kStatusAcknowledge | kStatusDriver | kStatusDriverOk);
  EXPECT_EQ(machine.driver->status(), kStatusAcknowledge | kStatusDriver);
}

TEST(PciTransport, FreezesAQueueWhenItIsEnabled) {
  Machine machine;
  machine.start();
  FakeDriver& driver = *machine.driver;
  driver.write(0x18, 2, 64);
  driver.write(0x20, 8, 0xDEAD'0000);
  driver.write(0x1C, 2, 0);
  EXPECT_EQ(driver.read(0x18, 2), 16u);
  EXPECT_EQ(driver.read(0x20, 8), FakeDriver::kRings);
  EXPECT_EQ(driver.read(0x1C, 2), 1u);
  machine.ask_for_bytes();
  EXPECT_TRUE(driver.ring(0).take_used());
}

TEST(PciTransport, ShowsNothingForAQueueThatDoesNotExist) {
  Machine machine;
  ASSERT_TRUE(machine.driver->negotiate(kFeatureVersion1));
  machine.driver->write(0x16, 2, 1);
  EXPECT_EQ(machine.driver->read(0x18, 2), 0u);
  machine.driver->write(0x1C, 2, 1);
  EXPECT_EQ(machine.driver->read(0x1C, 2), 0u);
  machine.driver->write(0x16, 2, 0);
  machine.driver->write(0x18, 2, 65);
  machine.driver->write(0x18, 2, 0);
  EXPECT_EQ(machine.driver->read(0x18, 2), 64u);
}

TEST(PciTransport, TakesRegistersWholeAndAnyWidthOfRead) {
  Machine machine;
  FakeDriver& driver = *machine.driver;
  driver.write(0x16, 1, 1);
  EXPECT_EQ(driver.read(0x16, 2), 0u);
  driver.write(0x15, 4, UINT32_MAX);
  EXPECT_EQ(driver.read(0x16, 2), 0xFFFFu);
  EXPECT_EQ(driver.read(0x14, 1), 0u);
  driver.write(0x16, 2, 0);
  for (uint64_t offset = 0; offset < PciTransport::kBarSize; ++offset) {
    for (const unsigned size : {1u, 2u, 3u, 4u, 7u, 8u}) {
      if (offset + size <= PciTransport::kBarSize) (void)driver.read(offset, size);
    }
  }
  EXPECT_EQ(driver.read(0x17, 3), 64u << 8);
}

TEST(PciTransport, NeedsResetWhenAQueueCannotLieWhereTheDriverPutIt) {
  Machine machine;
  machine.driver->enable_msix();
  ASSERT_TRUE(machine.driver->negotiate(kFeatureVersion1));
  machine.driver->set_up_queue(0, 16);
  machine.driver->set_status(0);
  machine.driver->enable_msix();
  ASSERT_TRUE(machine.driver->negotiate(kFeatureVersion1));
  machine.driver->write(0x20, 8, 0xFEE0'0000);
  machine.driver->write(0x1C, 2, 1);
  machine.driver->go();
  EXPECT_NE(machine.driver->status() & kStatusNeedsReset, 0);
  EXPECT_EQ(machine.sink.count(FakeDriver::kConfigData), 1u);
  machine.driver->kick(0);
  machine.worker->run();
  machine.driver->set_status(0);
  machine.start();
  machine.ask_for_bytes();
  EXPECT_TRUE(machine.driver->ring(0).take_used());
}

TEST(PciTransport, NeedsResetWhenARingMakesNoSense) {
  Machine machine;
  machine.start(kRingKinds[0]);
  const DriverBuffer bad{0xFEE0'0000, 4, true};
  machine.driver->ring(0).add({&bad, 1});
  machine.driver->kick(0);
  machine.worker->run();
  EXPECT_NE(machine.driver->status() & kStatusNeedsReset, 0);
  EXPECT_EQ(machine.sink.count(FakeDriver::kConfigData), 1u);
}

TEST(PciTransport, UsesThePinAndTheInterruptStatusWithoutMsix) {
  Machine machine;
  machine.start(kRingKinds[0], false);
  machine.ask_for_bytes();
  EXPECT_TRUE(machine.driver->line.level);
  EXPECT_NE(machine.driver->read_config(spec::pci::kStatus, 2) & spec::pci::kStatusInterrupt, 0u);
  EXPECT_EQ(machine.driver->read(PciTransport::kIsrOffset, 1), kIsrQueue);
  EXPECT_FALSE(machine.driver->line.level);
  EXPECT_EQ(machine.driver->read(PciTransport::kIsrOffset, 1), 0u);
}

TEST(PciTransport, SendsNothingToAQueueWithoutAVector) {
  Machine machine;
  machine.start();
  machine.driver->write(0x1A, 2, 500);
  EXPECT_EQ(machine.driver->read(0x1A, 2), kNoVector);
  machine.ask_for_bytes();
  EXPECT_TRUE(machine.driver->ring(0).take_used());
  EXPECT_EQ(machine.sink.count(FakeDriver::kQueueData), 0u);
}

TEST(PciTransport, TouchesNoMemoryUntilItMayMasterTheBus) {
  Machine machine;
  machine.start();
  machine.driver->write_config(spec::pci::kCommand, 2, spec::pci::kCommandMemory);
  machine.ask_for_bytes();
  EXPECT_FALSE(machine.driver->ring(0).take_used());
  machine.driver->write_config(spec::pci::kCommand, 2, spec::pci::kCommandMemory | spec::pci::kCommandBusMaster);
  machine.worker->run();
  EXPECT_TRUE(machine.driver->ring(0).take_used());
}

TEST(PciTransport, ReachesTheBarThroughConfigurationSpace) {
  Machine machine;
  FakeDriver& driver = *machine.driver;
  uint32_t at = driver.read_config(0x34, 1);
  while (driver.read_config(static_cast<uint16_t>(at), 1) != 9 ||
         driver.read_config(static_cast<uint16_t>(at + 3), 1) != kPciConfigAccess) {
    at = driver.read_config(static_cast<uint16_t>(at + 1), 1);
  }
  const auto access = [&](uint32_t offset, uint32_t size) {
    driver.write_config(static_cast<uint16_t>(at + 8), 4, offset);
    driver.write_config(static_cast<uint16_t>(at + 12), 4, size);
  };
  access(0x18, 2);
  EXPECT_EQ(driver.read_config(static_cast<uint16_t>(at + 16), 4), 64u);
  access(0x14, 1);
  driver.write_config(static_cast<uint16_t>(at + 16), 4, kStatusAcknowledge);
  EXPECT_EQ(driver.status(), kStatusAcknowledge);
  // Not a register's width, not in the BAR, not this BAR: nothing happens.
  access(0x14, 3);
  driver.write_config(static_cast<uint16_t>(at + 16), 4, kStatusDriver);
  access(PciTransport::kBarSize, 4);
  driver.write_config(static_cast<uint16_t>(at + 16), 4, kStatusDriver);
  access(0x14, 1);
  driver.write_config(static_cast<uint16_t>(at + 4), 1, 1);
  driver.write_config(static_cast<uint16_t>(at + 16), 4, kStatusDriver);
  EXPECT_EQ(driver.status(), kStatusAcknowledge);
}

// A model with a number in its configuration.
class Numbered final : public Model {
 public:
  [[nodiscard]] std::string_view name() const override { return "numbered0"; }
  [[nodiscard]] uint16_t device_id() const override { return kDeviceEntropy; }
  [[nodiscard]] uint32_t pci_class() const override { return 0xFF0000; }
  [[nodiscard]] uint64_t features() const override { return 0; }
  [[nodiscard]] std::vector<uint16_t> queue_sizes() const override { return {16}; }
  void attach(Transport& with) override { transport = &with; }
  void read_config(uint64_t, MutableByteSpan out) const override {
    std::ranges::fill(out, static_cast<uint8_t>(number.load()));
  }
  void start(uint64_t) override {}
  [[nodiscard]] bool process(unsigned) override { return false; }
  [[nodiscard]] size_t in_flight() const override { return 0; }
  void stop() override {}
  void save_state(StateWriter&) const override {}
  Result<> restore_state(const StateReader&) override { return {}; }

  Transport* transport = nullptr;
  std::atomic<uint8_t> number{1};
};

// Whatever a driver on another vCPU reads first, it finds the number and the generation of before, or those of after.
TEST(PciTransport, ChangesItsGenerationTogetherWithTheConfiguration) {
  const auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  RecordingSink sink;
  auto made = std::make_unique<Numbered>();
  Numbered& model = *made;
  const auto device = PciTransport::create(std::move(made), *memory, sink, std::make_unique<ManualWorker>()).value();
  const auto read = [&](uint64_t offset) {
    uint8_t byte = 0;
    device->read_mmio(offset, as_mutable_bytes(byte));
    return byte;
  };
  const auto generation = [&] { return read(offsetof(CommonConfig, config_generation)); };
  const uint8_t old = generation();
  uint8_t early_generation = 0, early_number = 0, late_generation = 0;
  std::thread early, late;
  model.transport->change_config([&] {
    early = std::thread([&] {
      early_generation = generation();
      early_number = read(PciTransport::kDeviceOffset);
    });
    // Time to be wrong in.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    model.number = 2;
    late = std::thread([&] {
      EXPECT_EQ(read(PciTransport::kDeviceOffset), 2);
      late_generation = generation();
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  });
  early.join();
  late.join();
  EXPECT_NE(generation(), old);
  EXPECT_EQ(early_generation != old, early_number == 2);
  EXPECT_NE(late_generation, old);
}

TEST(PciTransport, OffersADoorbellForEachQueue) {
  Machine machine;
  machine.start();
  const auto bells = machine.device->doorbells();
  ASSERT_EQ(bells.size(), 1u);
  EXPECT_EQ(bells[0].offset, PciTransport::kNotifyOffset);
  const DriverBuffer buffer{kData, 16, true};
  machine.driver->ring(0).add({&buffer, 1});
  const uint64_t one = 1;
  ASSERT_EQ(::write(bells[0].event_fd, &one, sizeof one), static_cast<ssize_t>(sizeof one));
  machine.worker->run();
  EXPECT_TRUE(machine.driver->ring(0).take_used());
}

TEST(PciTransport, ReturnsToPowerOnStateByTheBoardsReset) {
  Machine machine;
  machine.start();
  machine.device->reset();
  EXPECT_EQ(machine.driver->status(), 0);
  EXPECT_EQ(machine.driver->read_config(spec::pci::kCommand, 2), 0u);
  EXPECT_TRUE(machine.device->mappings().empty());
  EXPECT_EQ(machine.driver->read(PciTransport::kTableOffset + 12, 4), 1u);
}

TEST(PciTransport, RefusesSavedStateThatNoDeviceCouldHave) {
  Machine machine;
  machine.start();
  StateWriter good;
  machine.device->save_state(good);
  const auto bytes = good.encode();
  const auto restores = [&](const std::string& field, uint64_t value) {
    // The name of an integer field is followed by its kind and its value.
    auto changed = bytes;
    const auto place = std::search(changed.begin(), changed.end(), field.begin(), field.end());
    EXPECT_NE(place, changed.end());
    std::memcpy(&*place + field.size() + 1, &value, sizeof value);
    Machine other;
    return other.device->restore_state(StateReader::parse(changed, "rng0").value()).has_value();
  };
  EXPECT_TRUE(restores("queue_select", 0));
  EXPECT_FALSE(restores("driver_features", UINT64_MAX));
  EXPECT_FALSE(restores("driver_features", 0));
  EXPECT_FALSE(restores("config_vector", 2));
  EXPECT_FALSE(restores("queue_count", 2));
  EXPECT_FALSE(restores("isr", 4));
  EXPECT_FALSE(restores("descriptors", 0xFEE0'0000));
  EXPECT_FALSE(restores("size", 7));
  EXPECT_FALSE(restores("next_used", 9));
}

TEST(PciTransport, RunsItsQueuesOnAThreadOfItsOwn) {
  const auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  HostRandom random;
  RecordingSink sink;
  const auto device = PciTransport::create(std::make_unique<RngModel>("rng0", random), *memory, sink).value();
  FakeDriver driver(*device, *memory);
  driver.enable_msix();
  for (int life = 0; life < 5; ++life) {
    ASSERT_TRUE(driver.negotiate(kRingKinds[life % 2 == 0 ? 7 : 3].features()));
    driver.write(0x10, 2, 0);
    driver.set_up_queue(0, 16);
    driver.go();
    for (size_t i = 1; i <= 100; ++i) {
      const size_t before = sink.count(FakeDriver::kQueueData);
      const DriverBuffer buffer{kData, 64, true};
      driver.ring(0).add({&buffer, 1});
      driver.kick(0);
      sink.wait_for(FakeDriver::kQueueData, before + 1);
      ASSERT_EQ(driver.ring(0).take_used()->length, 64u);
    }
    device->pause();
    StateWriter writer;
    device->save_state(writer);
    device->resume();
    driver.set_status(0);
    EXPECT_EQ(driver.status(), 0);
  }
}

}  // namespace
}  // namespace bulkhead::device::virtio
