#include "machine/board/machine.h"

#include <algorithm>
#include <deque>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "device/test_wires.h"
#include "spec/acpi/tables.h"
#include "spec/boot/multiboot.h"
#include "support/time/fake_clock.h"

namespace bulkhead::machine {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

// A processor that only remembers what happens to its pins.
class RecordedVcpu final : public cpu::Vcpu {
 public:
  cpu::StopReason run(cpu::CpuIo&) override { return cpu::StopReason::kRequested; }
  void request_stop() override {}
  void set_interrupt_request(bool asserted) override { interrupt_request = asserted; }
  void raise_nmi() override { ++nmi_count; }
  void raise_init() override { ++init_count; }
  void raise_sipi(uint8_t vector) override { sipi_vectors.push_back(vector); }
  cpu::State get_state() override { return state; }
  Result<> set_state(const cpu::State& to) override {
    state = to;
    return {};
  }
  Result<> set_debug(const cpu::DebugRequest&) override { return {}; }
  std::optional<GuestAddress> translate(uint64_t) override { return std::nullopt; }
  cpu::Statistics statistics() const override { return {}; }
  std::string error() const override { return {}; }

  cpu::State state;
  bool interrupt_request = false;
  int nmi_count = 0;
  int init_count = 0;
  std::vector<uint8_t> sipi_vectors;
};

class RecordedStream final : public console::ByteStream {
 public:
  size_t write(ByteSpan bytes) override {
    text.append(bytes.begin(), bytes.end());
    return bytes.size();
  }
  size_t read(MutableByteSpan) override { return 0; }
  void set_listener(std::function<void()>) override {}
  std::string text;
};

class MemoryDisk final : public block::Disk {
 public:
  [[nodiscard]] const block::Geometry& geometry() const override { return geometry_; }
  void submit(block::Request request) override { request.complete(block::Status::kOk); }

 private:
  block::Geometry geometry_{.size = 1 << 20};
};

// The smallest kernel that a loader takes: a Multiboot header that loads itself at 1 MiB.
std::vector<uint8_t> small_kernel() {
  using namespace spec::multiboot;
  const Header header{kHeaderMagic, kHasAddressFields, 0u - kHeaderMagic - kHasAddressFields};
  const AddressFields fields{0x10'0000, 0x10'0000, 0, 0, 0x10'0020};
  std::vector<uint8_t> file(64, 0x90);
  store(file.data(), header);
  store(&file[sizeof header], fields);
  return file;
}

// One machine with everything in it, and the guest's view of it.
struct Pc {
  static constexpr uint32_t kVcpuCount = 4;

  explicit Pc(device::MessageSink* host_local_apics = nullptr, uint32_t vcpu_count = kVcpuCount) : vcpus(vcpu_count) {
    MachineConfig config;
    config.vcpu_count = vcpu_count;
    config.debug_exit = true;
    machine = Machine::create(config, {.memory = *memory,
                                       .clock = clock,
                                       .random = random,
                                       .power = power,
                                       .serial = {&serial, nullptr, nullptr, nullptr},
                                       .debug_console = &debug,
                                       .virtio_console = &console,
                                       .disks = {{disk, "one"}},
                                       .host_local_apics = host_local_apics})
                  .value();
    for (uint32_t i = 0; i < vcpus.size(); ++i) machine->connect_vcpu(i, vcpus[i]);
  }
  Result<boot::Protocol> start() {
    return machine->start({.kernel_name = "tiny", .kernel = kernel, .command_line = "hello"});
  }

  void out8(uint16_t port, uint8_t value) { machine->cpu_io(0).write_port(port, 1, value); }
  void out32(uint16_t port, uint32_t value) { machine->cpu_io(0).write_port(port, 4, value); }
  uint32_t in(uint16_t port, unsigned size) { return machine->cpu_io(0).read_port(port, size); }
  template <typename T>
  T read(uint64_t address, uint32_t vcpu = 0) {
    T value;
    machine->cpu_io(vcpu).read_memory({address}, as_mutable_bytes(value));
    return value;
  }
  template <typename T>
  void write(uint64_t address, T value, uint32_t vcpu = 0) {
    machine->cpu_io(vcpu).write_memory({address}, as_bytes(value));
  }
  uint32_t config(unsigned slot, unsigned offset) {
    out32(0xCF8, 0x8000'0000 | slot << 11 | offset);
    return in(0xCFC, 4);
  }
  std::vector<uint8_t> saved() {
    StateWriter writer;
    machine->save_state(writer);
    return writer.encode();
  }
  // As after a BIOS: PIC vectors from 0x20 on, only the timer unmasked; the PIT at 1000 Hz.
  void program_timer() {
    for (const auto& [port, value] : std::initializer_list<std::pair<uint16_t, uint8_t>>{{0x20, 0x11},
                                                                                         {0x21, 0x20},
                                                                                         {0x21, 0x04},
                                                                                         {0x21, 0x01},
                                                                                         {0xA0, 0x11},
                                                                                         {0xA1, 0x28},
                                                                                         {0xA1, 0x02},
                                                                                         {0xA1, 0x01},
                                                                                         {0x21, 0xFE},
                                                                                         {0xA1, 0xFF},
                                                                                         {0x43, 0x34},
                                                                                         {0x40, 0xA9},
                                                                                         {0x40, 0x04}}) {
      out8(port, value);
    }
  }

  std::unique_ptr<memory::GuestMemory> memory = memory::GuestMemory::create(32 << 20).value();
  FakeClock clock;
  HostRandom random;
  device::RecordedPower power;
  RecordedStream serial;
  RecordedStream debug;
  RecordedStream console;
  MemoryDisk disk;
  std::vector<uint8_t> kernel = small_kernel();
  std::deque<RecordedVcpu> vcpus;
  std::unique_ptr<Machine> machine;
};

TEST(Machine, StartsTheBootstrapProcessorAtTheKernelAndLeavesTheOthersWaiting) {
  Pc pc;
  const auto protocol = pc.start();
  ASSERT_TRUE(protocol) << protocol.error().message;
  EXPECT_EQ(*protocol, boot::Protocol::kMultiboot);
  EXPECT_EQ(pc.vcpus[0].state.rip, 0x10'0020u);
  EXPECT_EQ(pc.vcpus[0].state.gpr[cpu::kRax], spec::multiboot::kBootMagic);
  for (uint32_t i = 1; i < Pc::kVcpuCount; ++i) {
    EXPECT_EQ(pc.vcpus[i].state.activity, cpu::Activity::kWaitForSipi);
    EXPECT_EQ(pc.vcpus[i].state.msr_mtrr_def_type, pc.vcpus[0].state.msr_mtrr_def_type);
  }
}

TEST(Machine, ShowsAcpiAndSmbiosWhereOperatingSystemsLook) {
  Pc pc;
  ASSERT_TRUE(pc.start());
  int rsdp_count = 0;
  int smbios_count = 0;
  for (uint64_t at = 0xE'0000; at < 0x10'0000; at += 16) {
    const auto bytes = pc.memory->read_object<std::array<char, 8>>({at}).value();
    rsdp_count += std::string_view(bytes.data(), 8) == "RSD PTR ";
    smbios_count += at >= 0xF'0000 && std::string_view(bytes.data(), 5) == "_SM3_";
  }
  EXPECT_EQ(rsdp_count, 1);
  EXPECT_EQ(smbios_count, 1);
  EXPECT_EQ(pc.memory->read_object<uint16_t>({0x413}).value(), 639);
}

TEST(Machine, RefusesMoreProcessorsThanThereCanBeAndMoreDisksThanSlots) {
  Pc pc;
  Wires wires{.memory = *pc.memory, .clock = pc.clock, .random = pc.random, .power = pc.power};
  MachineConfig config;
  config.vcpu_count = kMaximumVcpuCount + 1;
  EXPECT_THAT(Machine::create(config, wires).error().message, HasSubstr("17 vCPUs"));
  config.vcpu_count = 0;
  EXPECT_FALSE(Machine::create(config, wires));
  config.vcpu_count = 1;
  for (int i = 0; i < 32; ++i) wires.disks.push_back({pc.disk, "d"});
  EXPECT_THAT(Machine::create(config, wires).error().message, HasSubstr("all 32 slots are taken"));
}

TEST(Machine, NvmeDisksThatNameOneControllerShareItsSlot) {
  Pc pc;
  Wires wires{.memory = *pc.memory, .clock = pc.clock, .random = pc.random, .power = pc.power};
  MachineConfig config;
  for (int i = 0; i < 40; ++i) {
    wires.disks.push_back({pc.disk, "d", DiskBus::kNvme, DiskMedium::kFixed, 1, i % 2 == 0 ? "even" : "odd"});
  }
  const auto machine = Machine::create(config, wires);
  EXPECT_TRUE(machine) << machine.error().message;
}

TEST(Machine, SerialPortDebugConsoleAndPostCodeAnswerAtTheirPorts) {
  Pc pc;
  ASSERT_TRUE(pc.start());
  for (const char c : {'o', 'k'}) pc.out8(0x3F8, static_cast<uint8_t>(c));
  pc.out8(0xE9, 'd');
  pc.out8(0x80, 0x42);
  EXPECT_EQ(pc.serial.text, "ok");
  EXPECT_EQ(pc.debug.text, "d");
  EXPECT_EQ(pc.in(0x80, 1), 0x42u);
  EXPECT_EQ(pc.in(0x71, 1) & 0xFF00, 0u);
  EXPECT_EQ(pc.in(0x1F0, 2), 0xFFFFu);
}

TEST(Machine, PowerResetAndExitReachTheirOwner) {
  Pc pc;
  ASSERT_TRUE(pc.start());
  pc.machine->cpu_io(0).write_port(0x604, 2, 5u << 10 | 1u << 13);
  EXPECT_EQ(pc.power.power_off_count, 1);
  pc.out8(0xCF9, 0x06);
  EXPECT_EQ(pc.power.reset_count, 1);
  pc.out8(0x64, 0xFE);
  EXPECT_EQ(pc.power.reset_count, 2);
  pc.out32(0xF4, 3);
  EXPECT_EQ(pc.power.exits, std::vector<uint8_t>{7});
}

TEST(Machine, PciDevicesAreFoundByPortsAndByEcamWithTheirBarsDecoding) {
  Pc pc;
  ASSERT_TRUE(pc.start());
  EXPECT_EQ(pc.config(0, 0), 0x29C0'8086u);
  EXPECT_EQ(pc.config(1, 0), 0x1042'1AF4u);
  EXPECT_EQ(pc.config(2, 0), 0x1043'1AF4u);
  EXPECT_EQ(pc.config(3, 0), 0x1044'1AF4u);
  EXPECT_EQ(pc.config(4, 0), 0xFFFF'FFFFu);
  EXPECT_EQ(pc.read<uint32_t>(kEcamStart + (1 << 15)), 0x1042'1AF4u);

  const uint64_t bar = pc.config(1, 0x10) & ~0xFull;
  ASSERT_GE(bar, kPciWindow32Start);
  EXPECT_EQ(pc.read<uint16_t>(bar + 0x12), 1) << "the number of queues, in the common configuration";
  // Moving it is two writes; in between and afterwards there is one owner or none.
  pc.write<uint32_t>(kEcamStart + (1 << 15) + 0x10, kPciWindow32Start + 0x1000'0000);
  EXPECT_EQ(pc.read<uint16_t>(bar + 0x12), 0xFFFF);
  EXPECT_EQ(pc.read<uint16_t>(kPciWindow32Start + 0x1000'0000 + 0x12), 1);
  EXPECT_THAT(pc.machine->describe_bus(), Contains(HasSubstr("virtio-block0 bar0")));
}

struct RecordedDoorbells final : DoorbellHost {
  void add_doorbell(GuestAddress address, int) override { addresses.push_back(address.value); }
  void remove_doorbell(GuestAddress address, int) override { std::erase(addresses, address.value); }
  std::vector<uint64_t> addresses;
};

TEST(Machine, DoorbellsFollowTheirBars) {
  RecordedDoorbells doorbells;
  Pc pc;
  pc.machine->set_doorbell_host(doorbells);
  ASSERT_TRUE(pc.start());
  EXPECT_EQ(doorbells.addresses.size(), 4u) << "one queue of the disk, two of the console, one of the random source";
  const uint64_t moved_to = kPciWindow32Start + 0x1000'0000;
  pc.write<uint32_t>(kEcamStart + (1 << 15) + 0x10, static_cast<uint32_t>(moved_to));
  EXPECT_EQ(doorbells.addresses.size(), 4u);
  EXPECT_GE(doorbells.addresses.back(), moved_to);
  pc.write<uint16_t>(kEcamStart + (1 << 15) + 4, 0);
  EXPECT_EQ(doorbells.addresses.size(), 3u) << "memory decoding off";
}

TEST(Machine, ABarOverAChipsetRegisterYields) {
  Pc pc;
  ASSERT_TRUE(pc.start());
  const auto version = pc.read<uint32_t>(kHpetAddress);
  pc.write<uint32_t>(kEcamStart + (1 << 15) + 0x10, static_cast<uint32_t>(kHpetAddress));
  EXPECT_EQ(pc.read<uint32_t>(kHpetAddress), version);
}

TEST(Machine, TheTimerReachesTheProcessorThroughPicAndLocalApic) {
  Pc pc;
  ASSERT_TRUE(pc.start());
  pc.program_timer();
  EXPECT_FALSE(pc.vcpus[0].interrupt_request);
  pc.clock.advance(2'000'000);
  EXPECT_TRUE(pc.vcpus[0].interrupt_request);
  EXPECT_EQ(pc.machine->cpu_io(0).acknowledge_interrupt(), 0x20);
  EXPECT_FALSE(pc.vcpus[0].interrupt_request);
  EXPECT_FALSE(pc.machine->cpu_io(0).interrupt_pending());
}

TEST(Machine, EachProcessorSeesItsOwnLocalApicAndStartsOthersThroughIt) {
  Pc pc;
  ASSERT_TRUE(pc.start());
  for (uint32_t i = 0; i < Pc::kVcpuCount; ++i) EXPECT_EQ(pc.read<uint32_t>(kLocalApicAddress + 0x20, i), i << 24);
  pc.write<uint32_t>(kLocalApicAddress + 0x310, 2u << 24);
  pc.write<uint32_t>(kLocalApicAddress + 0x300, 0x4500);
  pc.write<uint32_t>(kLocalApicAddress + 0x300, 0x4608);
  EXPECT_EQ(pc.vcpus[2].init_count, 1);
  EXPECT_EQ(pc.vcpus[2].sipi_vectors, std::vector<uint8_t>{8});
  EXPECT_EQ(pc.vcpus[1].init_count, 0);
}

TEST(Machine, TheLocalApicMovesWithItsBaseRegister) {
  Pc pc;
  ASSERT_TRUE(pc.start());
  const auto base = pc.machine->cpu_io(1).read_apic_msr(0x1B);
  ASSERT_TRUE(base);
  EXPECT_EQ(*base & ~0xFFFull, kLocalApicAddress);
  ASSERT_TRUE(pc.machine->cpu_io(1).write_apic_msr(0x1B, *base | 1u << 10));
  EXPECT_EQ(pc.read<uint32_t>(kLocalApicAddress + 0x20, 1), 0xFFFF'FFFF) << "x2APIC mode has no page";
  EXPECT_EQ(pc.machine->cpu_io(1).read_apic_msr(0x802), 1u);
}

TEST(Machine, APowerButtonRaisesTheAcpiInterrupt) {
  Pc pc;
  ASSERT_TRUE(pc.start());
  // Input 9 of the I/O APIC: vector 0x51, level-triggered, to processor 0.
  pc.write<uint32_t>(kIoApicAddress, 0x10 + 2 * 9);
  pc.write<uint32_t>(kIoApicAddress + 0x10, 0x8051);
  pc.write<uint32_t>(kLocalApicAddress + 0xF0, 0x1FF);
  pc.machine->cpu_io(0).write_port(0x602, 2, 1u << 8);
  pc.machine->press_power_button();
  EXPECT_TRUE(pc.vcpus[0].interrupt_request);
  EXPECT_EQ(pc.machine->cpu_io(0).acknowledge_interrupt(), 0x51);
}

TEST(Machine, WithTheHostsLocalApicsMessagesGoThereAndThePicToTheProcessor) {
  device::RecordedMessages host;
  Pc pc(&host);
  ASSERT_TRUE(pc.start());
  pc.program_timer();
  pc.clock.advance(2'000'000);
  EXPECT_TRUE(pc.vcpus[0].interrupt_request);
  EXPECT_EQ(pc.machine->cpu_io(0).acknowledge_interrupt(), 0x20);
  pc.write<uint32_t>(kIoApicAddress, 0x10 + 2 * 2);
  pc.write<uint32_t>(kIoApicAddress + 0x10, 0x30);
  pc.clock.advance(2'000'000);
  ASSERT_FALSE(host.sent.empty());
  EXPECT_EQ(host.sent.back().data & 0xFF, 0x30u);
  EXPECT_FALSE(pc.machine->cpu_io(0).read_apic_msr(0x1B));
  EXPECT_EQ(pc.read<uint32_t>(kLocalApicAddress + 0x20), 0xFFFF'FFFF);
}

TEST(Machine, StartingAgainPutsEveryDeviceBack) {
  Pc pc;
  ASSERT_TRUE(pc.start());
  const auto at_start = pc.saved();
  pc.program_timer();
  pc.out8(0x3FB, 0x80);
  pc.out8(0x3F8, 12);
  pc.write<uint32_t>(kIoApicAddress, 0x10);
  pc.write<uint32_t>(kIoApicAddress + 0x10, 0x8051);
  pc.write<uint32_t>(kLocalApicAddress + 0xF0, 0x1FF);
  EXPECT_NE(pc.saved(), at_start);
  ASSERT_TRUE(pc.start());
  EXPECT_EQ(pc.saved(), at_start);
}

TEST(Machine, GoesOnInAnotherMachineFromItsSavedState) {
  Pc first;
  ASSERT_TRUE(first.start());
  first.program_timer();
  first.write<uint32_t>(kIoApicAddress, 0x10 + 2 * 4);
  first.write<uint32_t>(kIoApicAddress + 0x10, 0x44);
  first.write<uint32_t>(kLocalApicAddress + 0xF0, 0x1FF);
  first.write<uint32_t>(kEcamStart + (1 << 15) + 0x10, kPciWindow32Start + 0x1000'0000);
  first.clock.advance(1'500'000);
  ASSERT_TRUE(first.vcpus[0].interrupt_request);
  const auto bytes = first.saved();

  Pc second;
  second.clock.advance(1'500'000);
  const auto restored = second.machine->restore_state(StateReader::parse(bytes, "checkpoint").value());
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_EQ(second.saved(), bytes);
  EXPECT_TRUE(second.vcpus[0].interrupt_request);
  EXPECT_EQ(second.machine->cpu_io(0).acknowledge_interrupt(), 0x20);
  EXPECT_EQ(second.read<uint16_t>(kPciWindow32Start + 0x1000'0000 + 0x12), 1);
}

TEST(Machine, RefusesStateOfAnotherMachine) {
  Pc first;
  ASSERT_TRUE(first.start());
  Pc second(nullptr, 2);
  const auto restored = second.machine->restore_state(StateReader::parse(first.saved(), "checkpoint").value());
  ASSERT_FALSE(restored);
  EXPECT_THAT(restored.error().message, HasSubstr("checkpoint: has"));
}

}  // namespace
}  // namespace bulkhead::machine
