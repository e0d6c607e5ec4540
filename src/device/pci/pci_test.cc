#include <gtest/gtest.h>

#include <map>

#include "device/pci/bus.h"
#include "device/pci/host_bridge.h"
#include "device/pci/resources.h"

namespace bulkhead::device::pci {
namespace {

using namespace spec::pci;

struct Lines final : IrqLine::Receiver {
  void set_irq(uint32_t input, bool asserted) override { levels[input] = asserted; }
  std::map<uint32_t, bool> levels;
};

struct Sink final : MessageSink {
  void send_message(const InterruptMessage& message) override { messages.push_back(message); }
  std::vector<InterruptMessage> messages;
};

struct Power final : PowerControl {
  void request_power_off() override {}
  void request_reset() override { ++resets; }
  void request_exit(uint8_t) override {}
  int resets = 0;
};

struct RecordingBoard final : Board {
  void on_bars_moved(Function& function) override {
    ++calls;
    mappings = function.mappings();
  }
  int calls = 0;
  std::vector<BarMapping> mappings;
};

struct NullMmio final : Mmio {
  void read_mmio(uint64_t, MutableByteSpan) override {}
  void write_mmio(uint64_t, ByteSpan) override {}
};

struct NullPorts final : PortIo {
  uint32_t read_port(uint16_t, unsigned) override { return 0; }
  void write_port(uint16_t, unsigned, uint32_t) override {}
};

constexpr uint64_t kTestBar64Size = 1ull << 16;
constexpr uint8_t kTestBarIo = 2;

class TestFunction final : public Function {
 public:
  explicit TestFunction(MessageSink& sink, unsigned msi_vectors = 4)
      : Function({.vendor_id = 0x1AF4, .device_id = 0x1042, .class_code = kClassStorageOther, .interrupt_pin = 1}) {
    add_memory_bar(0, kTestBar64Size, BarKind::kMemory64, true, mmio_);
    add_io_bar(kTestBarIo, 32, ports_);
    add_memory_bar(3, 4096, BarKind::kMemory32, false, mmio_);
    add_msix(sink, 3, 0, 0x8000, 0xC000);
    if (msi_vectors != 0) add_msi(sink, msi_vectors);
  }
  using Function::msix;
  using Function::notify_msi;
  using Function::reset_config;
  using Function::restore_config;
  using Function::save_config;
  using Function::set_interrupt_pin_level;

 private:
  NullMmio mmio_;
  NullPorts ports_;
};

class Pci : public testing::Test {
 protected:
  Pci()
      : bus(&board, {IrqLine(lines, 0), IrqLine(lines, 1), IrqLine(lines, 2), IrqLine(lines, 3)}),
        bridge(0xE000'0000, 256),
        function(sink),
        ports(bus, power),
        ecam(bus, 2) {
    bus.add(bridge, 0);
    bus.add(function, 5);
  }

  uint32_t read(uint16_t offset, unsigned size, unsigned slot = 5) {
    uint32_t value = 0;
    bus.read_config(slot, 0, offset, as_mutable_bytes(value).first(size));
    return value;
  }
  void write(uint16_t offset, unsigned size, uint64_t value, unsigned slot = 5) {
    bus.write_config(slot, 0, offset, as_bytes(value).first(size));
  }
  uint8_t capability(uint8_t id) {
    uint32_t offset = read(kCapabilityPointer, 1);
    while (offset != 0 && read(static_cast<uint16_t>(offset), 1) != id)
      offset = read(static_cast<uint16_t>(offset + 1), 1);
    return static_cast<uint8_t>(offset);
  }

  Lines lines;
  Sink sink;
  Power power;
  RecordingBoard board;
  Bus bus;
  HostBridge bridge;
  TestFunction function;
  ConfigPorts ports;
  EcamWindow ecam;
};

TEST_F(Pci, ShowsItsIdentityThroughPortsAndEcam) {
  ports.write_port(0, 4, 0x8000'0000 | 5 << 11);
  EXPECT_EQ(ports.read_port(0, 4), 0x8000'2800u);
  EXPECT_EQ(ports.read_port(4, 4), 0x1042'1AF4u);
  EXPECT_EQ(ports.read_port(6, 2), 0x1042u);
  EXPECT_EQ(ports.read_port(5, 1), 0x1Au);
  uint32_t value = 0;
  ecam.read_mmio(5 << 15, as_mutable_bytes(value));
  EXPECT_EQ(value, 0x1042'1AF4u);
  EXPECT_EQ(read(kVendorId, 4, 0), 0x29C0'8086u);
}

TEST_F(Pci, AnswersOnesWhereThereIsNoFunction) {
  EXPECT_EQ(read(0, 4, 6), 0xFFFF'FFFFu);
  uint32_t value = 0;
  ecam.read_mmio((1 << 20) + (5 << 15), as_mutable_bytes(value));
  EXPECT_EQ(value, 0xFFFF'FFFFu);
  ecam.read_mmio((5 << 15) + 0x100, as_mutable_bytes(value));
  EXPECT_EQ(value, 0xFFFF'FFFFu);
  ports.write_port(0, 4, 0x8001'2800);
  EXPECT_EQ(ports.read_port(4, 4), 0xFFFF'FFFFu);
  ports.write_port(0, 4, 0x0000'2800);
  EXPECT_EQ(ports.read_port(4, 4), 0xFFFF'FFFFu);
}

TEST_F(Pci, SplitsAnAccessThatCrossesFromOneFunctionToTheNext) {
  uint64_t value = 0;
  ecam.read_mmio((5 << 15) - 4, as_mutable_bytes(value));
  EXPECT_EQ(value, 0x1042'1AF4'FFFF'FFFFu);
}

TEST_F(Pci, TakesTheConfigAddressByWholeDwordsOnlyAndTheResetControlByBytes) {
  ports.write_port(0, 4, 0x8000'2800);
  ports.write_port(0, 2, 0x1234);
  EXPECT_EQ(ports.read_port(0, 4), 0x8000'2800u);
  ports.write_port(1, 1, 0x02);
  EXPECT_EQ(power.resets, 0);
  ports.write_port(1, 1, 0x06);
  EXPECT_EQ(power.resets, 1);
  ports.write_port(1, 1, 0x06);
  EXPECT_EQ(power.resets, 1);
}

TEST_F(Pci, TellsTheSizeOfEachBar) {
  write(kBar0, 4, 0xFFFF'FFFF);
  write(kBar0 + 4, 4, 0xFFFF'FFFF);
  EXPECT_EQ(read(kBar0, 4), 0xFFFF'000Cu);
  EXPECT_EQ(read(kBar0 + 4, 4), 0xFFFF'FFFFu);
  write(kBar0 + 8, 4, 0xFFFF'FFFF);
  EXPECT_EQ(read(kBar0 + 8, 4), 0x0000'FFE1u);
  write(kBar0 + 12, 4, 0xFFFF'FFFF);
  EXPECT_EQ(read(kBar0 + 12, 4), 0xFFFF'F000u);
  write(kBar0 + 16, 4, 0xFFFF'FFFF);
  EXPECT_EQ(read(kBar0 + 16, 4), 0u);
}

TEST_F(Pci, MapsABarOnlyWhileTheCommandRegisterDecodesIt) {
  write(kBar0, 8, 0x80'0000'0000);
  EXPECT_EQ(board.calls, 0);
  write(kCommand, 2, kCommandMemory);
  ASSERT_EQ(board.mappings.size(), 1u);
  EXPECT_EQ(board.mappings[0].address, 0x80'0000'0000u);
  EXPECT_EQ(board.mappings[0].bar->size, kTestBar64Size);
  write(kBar0, 4, 0x4000'0000);
  EXPECT_EQ(board.mappings[0].address, 0x80'4000'0000u);
  write(kCommand, 2, 0);
  EXPECT_TRUE(board.mappings.empty());
}

TEST_F(Pci, MapsNoBarThatEndsOutsideItsSpace) {
  write(kCommand, 2, kCommandMemory | kCommandIo);
  write(kBar0, 8, 0xFFFF'FFFF'FFFF'0000);
  write(kBar0 + 12, 4, 0xFFFF'F000);
  write(kBar0 + 8, 4, 0xFFE0);
  ASSERT_EQ(board.mappings.size(), 2u);
  EXPECT_EQ(board.mappings[0].address, 0xFFE0u);
  EXPECT_EQ(board.mappings[1].address, 0xFFFF'F000u);
}

TEST_F(Pci, KeepsReadOnlyRegisters) {
  const uint32_t before = read(kVendorId, 4);
  for (uint16_t offset = 0; offset < kConfigSize; offset += 8) write(offset, 8, UINT64_MAX);
  EXPECT_EQ(read(kVendorId, 4), before);
  EXPECT_EQ(read(kInterruptPin, 1), 1u);
  EXPECT_EQ(read(kClassCode, 2), kClassStorageOther & 0xFFFF);
  EXPECT_NE(capability(kCapabilityMsix), 0);
  EXPECT_NE(capability(kCapabilityMsi), 0);
}

TEST_F(Pci, DrivesTheSharedLineWithTheOrOfItsPins) {
  TestFunction other(sink);
  bus.add(other, 9);
  ASSERT_EQ(Bus::line_of(5, 1), Bus::line_of(9, 1));
  const unsigned line = Bus::line_of(5, 1);
  function.set_interrupt_pin_level(true);
  other.set_interrupt_pin_level(true);
  function.set_interrupt_pin_level(false);
  EXPECT_TRUE(lines.levels[line]);
  EXPECT_EQ(read(kStatus, 2) & kStatusInterrupt, 0);
  EXPECT_NE(read(kStatus, 2, 9) & kStatusInterrupt, 0);
  write(kCommand, 2, kCommandInterruptDisable, 9);
  EXPECT_FALSE(lines.levels[line]);
  EXPECT_NE(read(kStatus, 2, 9) & kStatusInterrupt, 0);
  write(kCommand, 2, 0, 9);
  EXPECT_TRUE(lines.levels[line]);
  other.reset_config();
  EXPECT_FALSE(lines.levels[line]);
}

void set_entry(Msix& msix, unsigned vector, uint64_t address, uint32_t data, uint32_t control) {
  msix.write_table(vector * kMsixEntrySize, as_bytes(address));
  msix.write_table(vector * kMsixEntrySize + 8, as_bytes(data));
  msix.write_table(vector * kMsixEntrySize + 12, as_bytes(control));
}

TEST_F(Pci, SendsAnMsixMessageOnlyWhenEnabledUnmaskedAndBusMaster) {
  const auto control = static_cast<uint16_t>(capability(kCapabilityMsix) + kMsixControl);
  EXPECT_EQ(read(control, 2), 2u);
  set_entry(*function.msix(), 1, 0xFEE0'1000, 0x41, 0);
  function.msix()->notify(1);
  EXPECT_TRUE(sink.messages.empty());
  write(control, 2, kMsixEnable | kMsixFunctionMask);
  write(kCommand, 2, kCommandBusMaster);
  function.msix()->notify(1);
  EXPECT_TRUE(sink.messages.empty());
  uint64_t pending = 0;
  function.msix()->read_pending(0, as_mutable_bytes(pending));
  EXPECT_EQ(pending, 2u);
  write(kCommand, 2, 0);
  write(control, 2, kMsixEnable);
  EXPECT_TRUE(sink.messages.empty());
  write(kCommand, 2, kCommandBusMaster);
  ASSERT_EQ(sink.messages.size(), 1u);
  EXPECT_EQ(sink.messages[0], (InterruptMessage{.address = 0xFEE0'1000, .data = 0x41}));
  function.msix()->notify(0);
  EXPECT_EQ(sink.messages.size(), 1u);
  set_entry(*function.msix(), 0, 0xFEE0'0000, 0x42, 0);
  EXPECT_EQ(sink.messages.size(), 2u);
  function.msix()->notify(77);
  EXPECT_EQ(sink.messages.size(), 2u);
}

TEST_F(Pci, IgnoresWhatLiesBeyondTheMsixTable) {
  Msix& msix = *function.msix();
  const uint64_t ones = UINT64_MAX;
  msix.write_table(msix.table_size() - 4, as_bytes(ones));
  uint64_t value = 0;
  msix.read_table(msix.table_size() - 4, as_mutable_bytes(value));
  EXPECT_EQ(value, 1u);
  msix.read_table(msix.table_size() + 0x1000, as_mutable_bytes(value));
  EXPECT_EQ(value, 0u);
  msix.write_table(UINT64_MAX - 3, as_bytes(ones));
}

TEST_F(Pci, FoldsMsiVectorsIntoThoseGrantedAndKeepsMaskedOnesPending) {
  const uint8_t msi = capability(kCapabilityMsi);
  write(msi + kMsiAddressLow, 4, 0xFEE0'0000);
  write(msi + kMsiData, 2, 0x60);
  write(msi + kMsiMask, 4, 2);
  write(kCommand, 2, kCommandBusMaster);
  write(msi + kMsiControl, 2, kMsiEnable | 1 << 4);
  function.notify_msi(2);
  ASSERT_EQ(sink.messages.size(), 1u);
  EXPECT_EQ(sink.messages[0].data, 0x60u);
  function.notify_msi(3);
  EXPECT_EQ(sink.messages.size(), 1u);
  EXPECT_EQ(read(msi + kMsiPending, 4), 2u);
  write(msi + kMsiMask, 4, 0);
  ASSERT_EQ(sink.messages.size(), 2u);
  EXPECT_EQ(sink.messages[1].data, 0x61u);
}

TEST_F(Pci, PlacesEveryBarInsideItsWindowAlignedToItsSize) {
  ResourceWindows windows{
      .memory32 = {0xC000'0000, 0x1'4000}, .memory64 = {1ull << 39, 1 << 20}, .io = {0x6000, 0x1000}};
  windows.interrupt_numbers = {16, 17, 18, 19};
  TestFunction second(sink);
  bus.add(second, 6);
  ASSERT_TRUE(assign_resources(bus, windows));
  EXPECT_EQ(read(kInterruptLine, 1), 16u + Bus::line_of(5, 1));
  EXPECT_EQ(read(kCommand, 2), kCommandIo | kCommandMemory);
  EXPECT_EQ(function.mappings().size(), 3u);
  EXPECT_EQ(function.mappings()[0].address, 0xC000'0000u);
  EXPECT_EQ(second.mappings()[0].address, 1ull << 39);
  windows.memory64.size = 0;
  const auto refused = assign_resources(bus, windows);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "PCI slot 6: no room for BAR 0 of 65536 bytes");
}

TEST_F(Pci, GivesBackItsSavedStateAndTellsTheBoard) {
  write(kBar0, 8, 0x80'0000'0000);
  write(kCommand, 2, kCommandMemory | kCommandBusMaster);
  write(static_cast<uint16_t>(capability(kCapabilityMsix) + kMsixControl), 2, kMsixEnable | kMsixFunctionMask);
  set_entry(*function.msix(), 2, 0xFEE0'0000, 0x43, 0);
  function.msix()->notify(2);
  StateWriter writer;
  function.save_config(writer);
  const auto bytes = writer.encode();

  TestFunction other(sink);
  bus.add(other, 7);
  ASSERT_TRUE(other.restore_config(StateReader::parse(bytes, "pci").value()));
  ASSERT_EQ(board.mappings.size(), 1u);
  EXPECT_EQ(board.mappings[0].address, 0x80'0000'0000u);
  EXPECT_TRUE(sink.messages.empty());
  write(static_cast<uint16_t>(capability(kCapabilityMsix) + kMsixControl), 2, kMsixEnable, 7);
  ASSERT_EQ(sink.messages.size(), 1u);
  EXPECT_EQ(sink.messages[0].data, 0x43u);
}

TEST_F(Pci, RefusesSavedStateOfAnotherDevice) {
  StateWriter writer;
  bridge.save_state(writer);
  const auto bytes = writer.encode();
  EXPECT_FALSE(function.restore_config(StateReader::parse(bytes, "pci").value()));
}

}  // namespace
}  // namespace bulkhead::device::pci
