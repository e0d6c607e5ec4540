// These need /dev/kvm and say so when it is not there; what needs none is in the other tests.
#include <gtest/gtest.h>

#include "kvm/probe.h"
#include "kvm/virtual_machine.h"
#include "support/os/thread.h"
#include "support/time/fake_clock.h"

namespace bulkhead::kvm {
namespace {

class RecordingIo final : public cpu::CpuIo {
 public:
  void read_memory(GuestAddress, MutableByteSpan out) override { store_little(out, 0x1122334455667788); }
  void write_memory(GuestAddress address, ByteSpan in) override { memory_writes.emplace_back(address.value, load_little(in)); }
  uint32_t read_port(uint16_t port, unsigned) override { return port; }
  void write_port(uint16_t port, unsigned, uint32_t value) override {
    port_writes.emplace_back(port, value);
    if (port == 0xF4) vcpu->request_stop();
  }
  std::optional<uint8_t> acknowledge_interrupt() override {
    vcpu->set_interrupt_request(false);
    return std::exchange(pending, std::nullopt);
  }
  bool interrupt_pending() override { return pending.has_value(); }
  std::optional<uint64_t> read_apic_msr(uint32_t index) override { return index == 0x802 ? std::optional<uint64_t>(7) : std::nullopt; }
  bool write_apic_msr(uint32_t index, uint64_t value) override {
    msr_writes.emplace_back(index, value);
    return true;
  }
  uint8_t read_task_priority() override { return 0; }
  void write_task_priority(uint8_t) override {}

  cpu::Vcpu* vcpu = nullptr;
  std::optional<uint8_t> pending;
  std::vector<std::pair<uint16_t, uint32_t>> port_writes;
  std::vector<std::pair<uint64_t, uint64_t>> memory_writes;
  std::vector<std::pair<uint32_t, uint64_t>> msr_writes;
};

class Kvm : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = System::open();
    if (!opened) GTEST_SKIP() << opened.error().message;
    system = std::move(*opened);
    memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
    auto made = VirtualMachine::create(*system, *memory, clock);
    ASSERT_TRUE(made) << made.error().message;
    machine = std::move(*made);
    auto processor = machine->create_vcpu(0, {});
    ASSERT_TRUE(processor) << processor.error().message;
    vcpu = std::move(*processor);
    io.vcpu = vcpu.get();
  }

  // Real mode at 0:0x1000.
  void load(std::vector<uint8_t> code) {
    ASSERT_TRUE(memory->write({0x1000}, code));
    cpu::State state = cpu::reset_state(0);
    state.segments[cpu::kCs] = {.base = 0, .limit = 0xFFFF, .selector = 0, .attributes = 0x9B};
    state.rip = 0x1000;
    state.gpr[cpu::kRsp] = 0x800;
    const Result<> set = vcpu->set_state(state);
    ASSERT_TRUE(set) << set.error().message;
  }

  FakeClock clock;
  std::unique_ptr<System> system;
  std::unique_ptr<memory::GuestMemory> memory;
  std::unique_ptr<VirtualMachine> machine;
  std::unique_ptr<cpu::Vcpu> vcpu;
  RecordingIo io;
};

TEST_F(Kvm, ReachesPortsAndDeviceMemoryThroughCpuIo) {
  load({0xE5, 0x42,              // in ax, 0x42
        0xE7, 0x43,              // out 0x43, ax
        0xC6, 0x06, 0x10, 0x00, 0x5A,  // mov byte [0x10], 0x5A
        0xA1, 0x20, 0x00,        // mov ax, [0x20]
        0xE7, 0xF4});            // out 0xf4, ax
  cpu::State state = vcpu->get_state();
  state.segments[cpu::kDs].base = 0xD0000000;
  ASSERT_TRUE(vcpu->set_state(state));
  EXPECT_EQ(vcpu->run(io), cpu::StopReason::kRequested) << vcpu->error();
  EXPECT_EQ(io.port_writes, (std::vector<std::pair<uint16_t, uint32_t>>{{0x43, 0x42}, {0xF4, 0x7788}}));
  EXPECT_EQ(io.memory_writes, (std::vector<std::pair<uint64_t, uint64_t>>{{0xD0000010, 0x5A}}));
}

TEST_F(Kvm, WakesAHaltedVcpuWithTheVectorOfTheBoard) {
  load({0xFB, 0xF4, 0xE6, 0xF4});  // sti; hlt; out 0xf4, al
  ASSERT_TRUE(memory->write_object<uint32_t>({0x30 * 4}, 0x2000));
  ASSERT_TRUE(memory->write({0x2000}, std::vector<uint8_t>{0xE6, 0x99, 0xCF}));  // out 0x99, al; iret
  Thread other("wire", [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    io.pending = 0x30;
    vcpu->set_interrupt_request(true);
  });
  EXPECT_EQ(vcpu->run(io), cpu::StopReason::kRequested) << vcpu->error();
  other.join();
  ASSERT_EQ(io.port_writes.size(), 2u);
  EXPECT_EQ(io.port_writes[0].first, 0x99);
}

TEST_F(Kvm, StopsFromAnotherThreadAndGivesItsStateBack) {
  load({0xEB, 0xFE});  // jmp $
  Thread other("stop", [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    vcpu->request_stop();
  });
  EXPECT_EQ(vcpu->run(io), cpu::StopReason::kRequested) << vcpu->error();
  other.join();
  EXPECT_EQ(vcpu->get_state().rip, 0x1000u);
}

TEST_F(Kvm, KeepsEveryFieldOfTheState) {
  cpu::State state = cpu::reset_state(0);
  for (size_t i = 0; i < 16; ++i) state.gpr[i] = 0x0101010101010101 * i;
  state.rflags = 0xAD7 & ~0x8028ull;
  state.cr0 = 0x80010033;
  state.cr3 = 0x5000;
  state.cr4 = 0x6A0;
  state.efer = 0xD01;
  state.segments[cpu::kCs] = {.base = 0, .limit = 0xFFFFFFFF, .selector = 0x10, .attributes = 0xA09B};
  state.segments[cpu::kFs].base = 0x7F0012345678;
  state.tr = {.base = 0x1000, .limit = 0x67, .selector = 0x40, .attributes = 0x8B};
  state.msr_lstar = 0xFFFFFFFF81000000;
  state.msr_star = 0x23001000000000;
  state.dr = {1, 2, 3, 4};
  state.tsc_offset = 1000;
  state.xsave[160] = 0x5A;
  state.xsave[512] = 3;
  const Result<> set = vcpu->set_state(state);
  ASSERT_TRUE(set) << set.error().message;
  const cpu::State back = vcpu->get_state();
  EXPECT_EQ(back.gpr, state.gpr);
  EXPECT_EQ(back.rflags, state.rflags);
  EXPECT_EQ(back.segments[cpu::kCs], state.segments[cpu::kCs]);
  EXPECT_EQ(back.segments[cpu::kFs].base, state.segments[cpu::kFs].base);
  EXPECT_EQ(back.tr, state.tr);
  EXPECT_EQ(back.cr0, state.cr0);
  EXPECT_EQ(back.cr4, state.cr4);
  EXPECT_EQ(back.efer, state.efer);
  EXPECT_EQ(back.msr_lstar, state.msr_lstar);
  EXPECT_EQ(back.msr_star, state.msr_star);
  EXPECT_EQ(back.dr, state.dr);
  EXPECT_EQ(back.xsave[160], 0x5A);
}

TEST_F(Kvm, SaysWhatTheProbeFound) {
  const auto report = probe_hardware(*system);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_FALSE(report->reason.empty());
  std::printf("probe: %s\n", report->reason.c_str());
}

}  // namespace
}  // namespace bulkhead::kvm
