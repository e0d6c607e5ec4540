#include "device/ahci/controller.h"

#include <gtest/gtest.h>

#include "device/ahci/testing/ahci_driver.h"
#include "device/test_wires.h"
#include "device/virtio/manual_worker.h"
#include "device/virtio/testing/memory_disk.h"

namespace bulkhead::device::ahci {
namespace {

using namespace spec::ahci;
using AtaCommand = spec::ahci::Command;
using virtio::ManualWorker;
using virtio::MemoryDisk;

constexpr uint64_t kData = 0x80'0000;
constexpr uint64_t kNowhere = 1ull << 40;

// An adapter with a disk at port 0 and a CD at port 1, both started.
struct Machine {
  Machine() {
    for (size_t i = 0; i < disk.bytes.size(); ++i) disk.bytes[i] = static_cast<uint8_t>(i / 512 + 1);
    for (size_t i = 0; i < disc.bytes.size(); ++i) disc.bytes[i] = static_cast<uint8_t>(i / 2048 + 1);
    auto made = std::make_unique<ManualWorker>();
    worker = made.get();
    device = Controller::create("ahci0", {{disk, "SN-0042"}, {disc, "CD-1", DriveKind::kCdrom}}, *memory, messages,
                                std::move(made))
                 .value();
    device->attach(nullptr, irq.line());
    driver = std::make_unique<AhciDriver>(*device, *memory);
    driver->start(0);
    driver->start(1);
    worker->run();
  }
  ~Machine() {
    disk.complete_all();
    disc.complete_all();
  }
  [[nodiscard]] uint32_t port(uint32_t index, uint64_t offset) { return driver->read(AhciDriver::port(index, offset)); }
  // Carries a command out in slot 0 and returns the task file; what was interrupted for is acknowledged.
  uint32_t run(uint32_t index, const HostFis& fis, const std::vector<AhciDriver::Piece>& pieces, uint16_t flags = 5) {
    driver->put(index, 0, fis, pieces, flags);
    driver->issue(index, 1);
    worker->run();
    interrupts = port(index, kPortInterruptStatus);
    driver->write(AhciDriver::port(index, kPortInterruptStatus), UINT32_MAX);
    driver->write(kInterruptStatus, UINT32_MAX);
    return port(index, kTaskFile);
  }
  uint32_t packet(const std::vector<uint8_t>& bytes, uint32_t room = 2048, uint8_t features = 0) {
    std::vector<uint8_t> padded(16);
    std::ranges::copy(bytes, padded.begin());
    (void)memory->write({AhciDriver::table(1, 0) + kPacketOffset}, padded);
    HostFis fis = AhciDriver::fis(AtaCommand::kPacket);
    fis.features = features;
    const uint32_t task_file = run(1, fis, {{kData, room}}, 5 | kHeaderAtapi);
    if ((task_file & kStatusError) != 0) restart(1);
    return task_file;
  }
  void restart(uint32_t index) {
    const uint32_t command = port(index, kPortCommand);
    driver->write(AhciDriver::port(index, kPortCommand), command & ~kCommandStart);
    worker->run();
    EXPECT_EQ(port(index, kPortCommand) & kCommandListRunning, 0u);
    driver->write(AhciDriver::port(index, kPortCommand), command | kCommandStart);
  }
  [[nodiscard]] std::vector<uint8_t> get(uint64_t address, size_t size) const {
    std::vector<uint8_t> bytes(size);
    (void)memory->read({address}, bytes);
    return bytes;
  }

  std::unique_ptr<memory::GuestMemory> memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  MemoryDisk disk{1 << 22};
  MemoryDisk disc{1 << 20, true};
  RecordedMessages messages;
  RecordedIrq irq;
  ManualWorker* worker = nullptr;
  std::unique_ptr<Controller> device;
  std::unique_ptr<AhciDriver> driver;
  uint32_t interrupts = 0;
};

constexpr uint32_t kGood = kStatusReady | kStatusSeekComplete;

TEST(Ahci, SaysWhatIsAtItsPorts) {
  Machine machine;
  EXPECT_EQ(machine.driver->read(kVersion), kVersion131);
  EXPECT_EQ(machine.driver->read(kPortsImplemented), 3u);
  EXPECT_EQ(machine.driver->read(kCapabilities) & 0x1F, 1u);
  EXPECT_EQ(machine.port(0, kSignature), kDiskSignature);
  EXPECT_EQ(machine.port(1, kSignature), kAtapiSignature);
  EXPECT_EQ(machine.port(0, kSataStatus), kLinkUp);
  EXPECT_EQ(machine.port(2, kSataStatus), 0u);
}

TEST(Ahci, IdentifiesItsDrives) {
  Machine machine;
  EXPECT_EQ(machine.run(0, AhciDriver::fis(AtaCommand::kIdentify), {{kData, 512}}), kGood);
  EXPECT_EQ(machine.interrupts, kInterruptPioSetup | kInterruptRegisterFis);
  const std::vector<uint8_t> words = machine.get(kData, 512);
  EXPECT_EQ(load<uint64_t>(&words[200]), (1u << 22) / 512);
  EXPECT_EQ(words[20], 'N');
  EXPECT_EQ(words[21], 'S');
  EXPECT_EQ(machine.run(1, AhciDriver::fis(AtaCommand::kIdentifyPacket), {{kData, 512}}), kGood);
  EXPECT_EQ(load<uint16_t>(machine.get(kData, 2).data()), 0x8580);
  EXPECT_EQ(machine.run(1, AhciDriver::fis(AtaCommand::kIdentify), {{kData, 512}}),
            kGood | kStatusError | uint32_t{kErrorAbort} << 8);
}

TEST(Ahci, WritesAndReadsBackByDma) {
  Machine machine;
  (void)machine.memory->write({kData}, std::vector<uint8_t>(1024, 0xA5));
  EXPECT_EQ(machine.run(0, AhciDriver::fis(AtaCommand::kWriteDmaExt, 7, 2), {{kData, 512}, {kData + 512, 512}}), kGood);
  EXPECT_EQ(machine.disk.bytes[7 * 512], 0xA5);
  EXPECT_EQ(machine.disk.bytes[9 * 512], 10);
  EXPECT_EQ(machine.disk.flushes, 0);
  EXPECT_EQ(machine.run(0, AhciDriver::fis(AtaCommand::kReadDma, 8, 2), {{kData + 0x1000, 1024}}), kGood);
  EXPECT_EQ(machine.get(kData + 0x1000, 1)[0], 0xA5);
  EXPECT_EQ(machine.get(kData + 0x1200, 1)[0], 10);
  EXPECT_EQ(load<CommandHeader>(machine.get(AhciDriver::list(0), 32).data()).transferred, 1024u);
  EXPECT_EQ(machine.get(AhciDriver::received(0) + kReceivedRegister, 1)[0], kFisDeviceToHost);
  EXPECT_EQ(machine.run(0, AhciDriver::fis(AtaCommand::kWriteDmaFuaExt, 7, 1), {{kData, 512}}), kGood);
  EXPECT_EQ(machine.disk.flushes, 1);
  EXPECT_EQ(machine.run(0, AhciDriver::fis(AtaCommand::kFlushExt), {}), kGood);
  EXPECT_EQ(machine.disk.flushes, 2);
  HostFis disable = AhciDriver::fis(AtaCommand::kSetFeatures);
  disable.features = kDisableWriteCache;
  EXPECT_EQ(machine.run(0, disable, {}), kGood);
  EXPECT_EQ(machine.disk.flushes, 3) << "what was written with a cache is safe without one";
}

TEST(Ahci, QueuedCommandsEndInTheOrderOfTheDisk) {
  Machine machine;
  machine.disk.hold = true;
  for (const uint32_t slot : {3u, 4u}) {
    HostFis fis = AhciDriver::fis(AtaCommand::kReadQueued, slot, static_cast<uint16_t>(slot << 3));
    fis.features = 1;
    machine.driver->put(0, slot, fis, {{kData + 0x1000 * slot, 512}});
  }
  machine.driver->issue(0, 0x18, 0x18);
  machine.worker->run();
  ASSERT_EQ(machine.disk.held.size(), 2u);
  EXPECT_EQ(machine.port(0, kSataActive), 0x18u);
  machine.disk.complete(1);
  machine.worker->run();
  EXPECT_EQ(machine.port(0, kSataActive), 0x08u);
  EXPECT_EQ(machine.port(0, kPortInterruptStatus), kInterruptSetDeviceBits);
  EXPECT_EQ(machine.get(AhciDriver::received(0) + kReceivedSetDeviceBits, 8)[4], 0x10);
  machine.disk.complete(0);
  machine.worker->run();
  EXPECT_EQ(machine.port(0, kSataActive), 0u);
  EXPECT_EQ(machine.get(kData + 0x4000, 1)[0], 5);
}

TEST(Ahci, TrimsInPieces) {
  Machine machine;
  const uint64_t entries[64] = {8 | 8ull << 48, 16 | 8ull << 48, 0, 100 | 1ull << 48};
  (void)machine.memory->write({kData}, as_bytes(entries));
  HostFis fis = AhciDriver::fis(AtaCommand::kDataSetManagement, 0, 1);
  fis.features = kTrim;
  EXPECT_EQ(machine.run(0, fis, {{kData, 512}}), kGood);
  EXPECT_EQ(machine.disk.discards, 2);
  fis.count = 9;
  EXPECT_NE(machine.run(0, fis, {{kData, 512}}) & kStatusError, 0u);
}

TEST(Ahci, AnErrorStopsThePortUntilTheDriverDoes) {
  Machine machine;
  EXPECT_EQ(machine.run(0, AhciDriver::fis(AtaCommand::kReadDmaExt, 1 << 20, 1), {{kData, 512}}),
            kGood | kStatusError | uint32_t{kErrorNoSector} << 8);
  EXPECT_NE(machine.interrupts & kInterruptTaskFileError, 0u);
  EXPECT_EQ(machine.port(0, kCommandIssue), 1u);
  machine.driver->issue(0, 2);
  machine.worker->run();
  EXPECT_EQ(machine.port(0, kCommandIssue), 3u) << "nothing is taken";
  machine.restart(0);
  EXPECT_EQ(machine.port(0, kCommandIssue), 0u);
  EXPECT_EQ(machine.run(0, AhciDriver::fis(AtaCommand::kReadDmaExt, 0, 1), {{kData, 512}}), kGood);
  machine.disk.forced = block::Status::kIoError;
  EXPECT_EQ(machine.run(0, AhciDriver::fis(AtaCommand::kReadDmaExt, 0, 1), {{kData, 512}}),
            kGood | kStatusError | uint32_t{kErrorUncorrectable} << 8);
}

TEST(Ahci, TheLogTellsWhichQueuedCommandFailed) {
  Machine machine;
  machine.disk.forced = block::Status::kIoError;
  HostFis fis = AhciDriver::fis(AtaCommand::kReadQueued, 0, 5 << 3);
  fis.features = 1;
  machine.driver->put(0, 5, fis, {{kData, 512}});
  machine.driver->issue(0, 1 << 5, 1 << 5);
  machine.worker->run();
  EXPECT_NE(machine.port(0, kPortInterruptStatus) & kInterruptTaskFileError, 0u);
  EXPECT_EQ(machine.port(0, kSataActive), 1u << 5);
  machine.restart(0);
  EXPECT_EQ(machine.run(0, AhciDriver::fis(AtaCommand::kReadLogExt, kLogQueuedError, 1), {{kData, 512}}), kGood);
  const std::vector<uint8_t> log = machine.get(kData, 512);
  EXPECT_EQ(log[0], 5);
  EXPECT_EQ(log[3], kErrorUncorrectable);
}

TEST(Ahci, StructuresOutsideMemoryAreFatalForThePortOnly) {
  Machine machine;
  machine.driver->put(0, 0, AhciDriver::fis(AtaCommand::kReadDmaExt, 0, 1), {{kNowhere, 512}});
  machine.driver->issue(0, 1);
  machine.worker->run();
  EXPECT_NE(machine.port(0, kPortInterruptStatus) & kInterruptHostFatal, 0u);
  EXPECT_EQ(machine.packet({0x25}), kGood) << "the other port works on";
  machine.driver->write(AhciDriver::port(0, kListBaseHigh), 0x100);
  machine.restart(0);
  machine.driver->issue(0, UINT32_MAX);
  machine.worker->run();
  machine.driver->write(AhciDriver::port(0, kListBaseHigh), 0);
  machine.restart(0);
  EXPECT_EQ(machine.run(0, AhciDriver::fis(AtaCommand::kReadDmaExt, 0, 1), {{kData, 512}}), kGood);
  EXPECT_NE(machine.run(0, AhciDriver::fis(AtaCommand::kReadDmaExt, 0, 8), {{kData, 512}}) & kStatusError, 0u)
      << "too little room";
}

TEST(Ahci, AComresetWaitsForWhatIsInFlight) {
  Machine machine;
  machine.disk.hold = true;
  machine.driver->put(0, 0, AhciDriver::fis(AtaCommand::kReadDmaExt, 0, 1), {{kData, 512}});
  machine.driver->issue(0, 1);
  machine.worker->run();
  machine.driver->write(AhciDriver::port(0, kPortCommand), kCommandFisReceive);
  machine.driver->write(AhciDriver::port(0, kSataControl), 0x301);
  machine.driver->write(AhciDriver::port(0, kSataControl), 0x300);
  machine.worker->run();
  EXPECT_EQ(machine.port(0, kSataStatus), 0u);
  EXPECT_NE(machine.port(0, kPortCommand) & kCommandListRunning, 0u);
  machine.disk.hold = false;
  machine.disk.complete_all();
  machine.worker->run();
  EXPECT_EQ(machine.port(0, kSataStatus), kLinkUp);
  EXPECT_EQ(machine.port(0, kPortCommand) & kCommandListRunning, 0u);
  EXPECT_NE(machine.port(0, kSataError) & kErrorExchanged, 0u);
  machine.driver->start(0);
  EXPECT_EQ(machine.run(0, AhciDriver::fis(AtaCommand::kReadDmaExt, 2, 1), {{kData, 512}}), kGood);
  EXPECT_EQ(machine.get(kData, 1)[0], 3);
}

TEST(Ahci, AnAdapterResetForgetsThePorts) {
  Machine machine;
  machine.driver->write(kControl, kControlAhci | kControlReset);
  machine.worker->run();
  EXPECT_EQ(machine.driver->read(kControl), kControlAhci);
  EXPECT_EQ(machine.port(0, kListBase), 0u);
  machine.driver->start(0);
  EXPECT_EQ(machine.run(0, AhciDriver::fis(AtaCommand::kReadDmaExt, 2, 1), {{kData, 512}}), kGood);
}

TEST(Ahci, ThePinFollowsTheStatus) {
  Machine machine;
  EXPECT_FALSE(machine.irq.level());
  machine.driver->put(0, 0, AhciDriver::fis(AtaCommand::kReadDmaExt, 0, 1), {{kData, 512}});
  machine.driver->issue(0, 1);
  machine.worker->run();
  EXPECT_TRUE(machine.irq.level());
  EXPECT_EQ(machine.driver->read(kInterruptStatus), 1u);
  machine.driver->write(kInterruptStatus, 1);
  EXPECT_TRUE(machine.irq.level()) << "the port still has something to say";
  machine.driver->write(AhciDriver::port(0, kPortInterruptStatus), UINT32_MAX);
  machine.driver->write(kInterruptStatus, 1);
  EXPECT_FALSE(machine.irq.level());
}

TEST(Ahci, ReadsADisc) {
  Machine machine;
  EXPECT_EQ(machine.packet({0x25}), kGood);
  EXPECT_EQ(machine.get(kData, 8), (std::vector<uint8_t>{0, 0, 0x01, 0xFF, 0, 0, 8, 0}));
  EXPECT_EQ(machine.packet({0x28, 0, 0, 0, 0, 3, 0, 0, 2}, 4096, 1), kGood);
  EXPECT_EQ(machine.interrupts, kInterruptRegisterFis);
  EXPECT_EQ(machine.get(kData, 1)[0], 4);
  EXPECT_EQ(machine.get(kData + 2048, 1)[0], 5);
  EXPECT_EQ(machine.packet({0xA8, 0, 0, 0, 0, 7, 0, 0, 0, 1}), kGood);
  EXPECT_EQ(machine.interrupts, kInterruptPioSetup | kInterruptRegisterFis);
  EXPECT_EQ(machine.get(kData, 1)[0], 8);
  EXPECT_EQ(machine.packet({0x43, 2, 0, 0, 0, 0, 0, 0, 20}), kGood);
  EXPECT_EQ(machine.get(kData, 4), (std::vector<uint8_t>{0, 18, 1, 1}));
  EXPECT_EQ(machine.packet({0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 28}), kGood);
  EXPECT_EQ(machine.get(kData + 8, 2), (std::vector<uint8_t>{0x2A, 18}));
  EXPECT_EQ(machine.packet({0x46, 0, 0, 0, 0, 0, 0, 0, 8}), kGood);
  EXPECT_EQ(machine.get(kData + 6, 2), (std::vector<uint8_t>{0, 8}));
}

TEST(Ahci, ADiscCanBeEjectedUnlessItIsLocked) {
  Machine machine;
  EXPECT_EQ(machine.packet({0x1E, 0, 0, 0, 1}), kGood);
  EXPECT_NE(machine.packet({0x1B, 0, 0, 0, 2}) & kStatusError, 0u);
  EXPECT_EQ(machine.packet({0x1E}), kGood);
  EXPECT_EQ(machine.packet({0x1B, 0, 0, 0, 2}), kGood);
  EXPECT_EQ(machine.packet({0x00}) >> 8 >> 4, 2u) << "not ready";
  EXPECT_EQ(machine.packet({0x03, 0, 0, 0, 18}), kGood);
  EXPECT_EQ(machine.get(kData + 12, 1)[0], 0x3A);
  EXPECT_EQ(machine.packet({0x1B, 0, 0, 0, 3}), kGood);
  EXPECT_EQ(machine.packet({0x00}) >> 8 >> 4, 6u) << "told once that there is another disc";
  EXPECT_EQ(machine.packet({0x00}), kGood);
}

TEST(Ahci, RefusesPacketsThatMakeNoSense) {
  Machine machine;
  EXPECT_EQ(machine.packet({0x28, 0, 0, 0, 0x02, 0, 0, 0, 1}) >> 12, 5u) << "beyond the end";
  EXPECT_EQ(machine.packet({0xA8, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF}) >> 12, 5u);
  EXPECT_EQ(machine.packet({0xFF}) >> 12, 5u);
  EXPECT_EQ(machine.packet({0x12, 0, 0, 0, 4}, 2048), kGood);
  machine.disc.forced = block::Status::kIoError;
  EXPECT_EQ(machine.packet({0x28, 0, 0, 0, 0, 0, 0, 0, 1}) >> 12, 3u);
}

TEST(Ahci, GoesOnAfterItsStateWasCarriedOver) {
  Machine machine;
  machine.disk.forced = block::Status::kRetry;
  (void)machine.memory->write({kData}, std::vector<uint8_t>(512, 0x5A));
  machine.driver->put(0, 9, AhciDriver::fis(AtaCommand::kWriteDmaExt, 0, 1), {{kData, 512}});
  machine.driver->issue(0, 1 << 9);
  machine.worker->run();
  EXPECT_EQ(machine.port(0, kCommandIssue), 1u << 9);
  machine.device->pause();
  Machine other;
  std::vector<uint8_t> ram(machine.memory->low_size());
  ASSERT_TRUE(machine.memory->read({0}, ram));
  ASSERT_TRUE(other.memory->write({0}, ram));
  expect_round_trip(*machine.device, *other.device);
  machine.disk.forced = block::Status::kOk;
  for (Machine* each : {&machine, &other}) {
    each->device->resume();
    each->worker->run();
    EXPECT_EQ(each->port(0, kCommandIssue), 0u);
    EXPECT_EQ(each->disk.bytes[511], 0x5A);
    EXPECT_EQ(each->run(0, AhciDriver::fis(AtaCommand::kReadDmaExt, 2, 1), {{kData, 512}}), kGood);
  }
}

TEST(Ahci, ReadsAndWritesOfEveryWidthStayWithinTheBar) {
  Machine machine;
  for (size_t size = 1; size <= 8; ++size) {
    for (uint64_t offset = 0; offset + size <= Controller::kBarSize; offset += offset < 0x300 ? 1 : 29) {
      uint64_t value = UINT64_MAX;
      machine.device->read_mmio(offset, as_mutable_bytes(value).first(size));
      machine.device->write_mmio(offset, as_bytes(value).first(size));
    }
  }
  machine.worker->run();
  machine.device->reset();
  EXPECT_EQ(machine.port(0, kListBase), 0u);
}

}  // namespace
}  // namespace bulkhead::device::ahci
