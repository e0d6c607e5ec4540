#include "device/virtio/console/console.h"

#include <gtest/gtest.h>

#include "device/virtio/testing/fake_driver.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;

constexpr uint64_t kInputData = 0x80'0000;
constexpr uint64_t kOutputData = 0x90'0000;

// The far end: input is what a test puts there, output is taken as far as there is room.
class FakeStream final : public console::ByteStream {
 public:
  size_t write(ByteSpan bytes) override {
    const size_t count = std::min(bytes.size(), room);
    output.append(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
    room -= count;
    return count;
  }
  size_t read(MutableByteSpan out) override {
    const size_t count = std::min(out.size(), input.size());
    std::copy_n(input.begin(), count, out.begin());
    input.erase(0, count);
    return count;
  }
  void set_listener(std::function<void()> on_ready) override { listener = std::move(on_ready); }

  std::string input;
  std::string output;
  size_t room = SIZE_MAX;
  std::function<void()> listener;
};

struct Machine {
  explicit Machine(RingKind kind = kRingKinds[7]) {
    auto made = std::make_unique<ManualWorker>();
    worker = made.get();
    device = PciTransport::create(std::make_unique<ConsoleModel>("console0", stream), *memory, sink, std::move(made))
                 .value();
    driver = std::make_unique<FakeDriver>(*device, *memory);
    driver->enable_msix();
    EXPECT_TRUE(driver->negotiate(kind.features() | kConsoleSize));
    driver->set_up_queue(0, 16);
    driver->set_up_queue(1, 16);
    driver->go();
    worker->run();
  }
  void offer_input(uint32_t size, unsigned slot = 0) {
    const DriverBuffer buffer{kInputData + 0x1000 * slot, size, true};
    driver->ring(0).add({&buffer, 1});
    driver->kick(0);
    worker->run();
  }
  void send(std::string_view text) {
    driver->put(kOutputData, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    const DriverBuffer buffer{kOutputData, static_cast<uint32_t>(text.size()), false};
    driver->ring(1).add({&buffer, 1});
    driver->kick(1);
    worker->run();
  }
  std::string received(unsigned slot = 0) {
    const auto used = driver->ring(0).take_used();
    if (!used) return {};
    const auto bytes = driver->get(kInputData + 0x1000 * slot, used->length);
    return {bytes.begin(), bytes.end()};
  }

  std::unique_ptr<memory::GuestMemory> memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  FakeStream stream;
  RecordingSink sink;
  ManualWorker* worker = nullptr;
  std::unique_ptr<PciTransport> device;
  std::unique_ptr<FakeDriver> driver;
};

class ConsoleOnEveryRing : public testing::TestWithParam<RingKind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, ConsoleOnEveryRing, testing::ValuesIn(kRingKinds));

TEST_P(ConsoleOnEveryRing, CarriesBytesBothWays) {
  Machine machine(GetParam());
  std::string expected;
  for (int round = 0; round < 50; ++round) {
    machine.send("line " + std::to_string(round));
    expected += "line " + std::to_string(round);
    ASSERT_TRUE(machine.driver->ring(1).take_used());
    machine.offer_input(64);
    EXPECT_FALSE(machine.driver->ring(0).take_used());
    machine.stream.input = "key " + std::to_string(round);
    machine.stream.listener();
    machine.worker->run();
    ASSERT_EQ(machine.received(), "key " + std::to_string(round));
  }
  EXPECT_EQ(machine.stream.output, expected);
}

TEST(Console, KeepsInputThatTheDriverHasNoRoomFor) {
  Machine machine;
  machine.stream.input = "0123456789";
  machine.stream.listener();
  machine.worker->run();
  machine.offer_input(4, 0);
  machine.offer_input(4, 1);
  EXPECT_EQ(machine.received(0), "0123");
  EXPECT_EQ(machine.received(1), "4567");
  machine.offer_input(4, 0);
  EXPECT_EQ(machine.received(0), "89");
}

TEST(Console, TakesNoMoreFromTheStreamThanItsBound) {
  Machine machine;
  machine.stream.input = std::string(100'000, 'x');
  machine.stream.listener();
  machine.worker->run();
  EXPECT_EQ(machine.stream.input.size(), 100'000 - ConsoleModel::kInputSize);
}

TEST_P(ConsoleOnEveryRing, WaitsForAStreamWithoutRoomAndLosesNothing) {
  Machine machine(GetParam());
  machine.stream.room = 3;
  machine.send("hello world");
  EXPECT_FALSE(machine.driver->ring(1).take_used());
  EXPECT_EQ(machine.stream.output, "hel");
  machine.device->pause();
  StateWriter writer;
  machine.device->save_state(writer);
  machine.device->resume();
  ASSERT_TRUE(machine.device->restore_state(StateReader::parse(writer.encode(), "console0").value()));
  machine.stream.room = 4;
  machine.stream.listener();
  machine.worker->run();
  EXPECT_EQ(machine.stream.output, "hello w");
  machine.stream.room = 100;
  machine.stream.listener();
  machine.worker->run();
  EXPECT_EQ(machine.stream.output, "hello world");
  EXPECT_TRUE(machine.driver->ring(1).take_used());
  EXPECT_GE(machine.sink.count(FakeDriver::kQueueData + 1), 1u);
}

TEST(Console, GivesOthersATurnDuringALongOutput) {
  Machine machine;
  const auto size = static_cast<uint32_t>(4 * ConsoleModel::kOutputATurn);
  const DriverBuffer buffer{0x40'0000, size, false};
  machine.driver->ring(1).add({&buffer, 1});
  machine.driver->kick(1);
  EXPECT_GE(machine.worker->run(), 4u);
  EXPECT_EQ(machine.stream.output.size(), size);
  EXPECT_TRUE(machine.driver->ring(1).take_used());
}

TEST(Console, TellsTheDriverWhenTheTerminalChangesItsSize) {
  Machine machine;
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset, 4), 25u << 16 | 80u);
  const uint64_t generation = machine.driver->read(0x15, 1);
  static_cast<ConsoleModel&>(machine.device->model()).set_size(132, 43);
  EXPECT_EQ(machine.driver->read(PciTransport::kDeviceOffset, 4), 43u << 16 | 132u);
  EXPECT_NE(machine.driver->read(0x15, 1), generation);
  EXPECT_EQ(machine.sink.count(FakeDriver::kConfigData), 1u);
}

TEST(Console, SavesInputThatTheDriverHasNotTaken) {
  Machine machine;
  machine.stream.input = "typed ahead";
  machine.stream.listener();
  machine.worker->run();
  StateWriter writer;
  machine.device->save_state(writer);
  Machine other;
  ASSERT_TRUE(other.device->restore_state(StateReader::parse(writer.encode(), "console0").value()));
  other.offer_input(64);
  EXPECT_EQ(other.received(), "typed ahead");
}

TEST(Console, LeavesTheStreamWhenItEnds) {
  FakeStream stream;
  {
    const ConsoleModel model("console0", stream);
  }
  EXPECT_FALSE(stream.listener);
}

}  // namespace
}  // namespace bulkhead::device::virtio
