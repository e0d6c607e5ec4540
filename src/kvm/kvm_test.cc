// These need /dev/kvm and say so when it is not there; what needs none is in the other tests.
#include <algorithm>
#include <atomic>
#include <functional>

#include <gtest/gtest.h>

#include "kvm/kvm_vcpu.h"
#include "kvm/probe.h"
#include "kvm/virtual_machine.h"
#include "support/os/thread.h"
#include "support/time/fake_clock.h"

namespace bulkhead::kvm {
namespace {

class RecordingIo final : public cpu::CpuIo {
 public:
  void read_memory(GuestAddress, MutableByteSpan out) override { store_little(out, 0x1122334455667788); }
  void write_memory(GuestAddress address, ByteSpan in) override {
    memory_writes.emplace_back(address.value, load_little(in));
  }
  uint32_t read_port(uint16_t port, unsigned) override { return port; }
  void write_port(uint16_t port, unsigned, uint32_t value) override {
    port_writes.emplace_back(port, value);
    if (port == kRequestPort) {
      pending = 0x30;
      vcpu->set_interrupt_request(true);
    }
    if (port == 0xF4) vcpu->request_stop();
  }
  std::optional<uint8_t> acknowledge_interrupt() override {
    const int vector = pending.exchange(kNone);
    if (vector == kNone) return std::nullopt;
    vcpu->set_interrupt_request(false);
    return static_cast<uint8_t>(vector);
  }
  bool interrupt_pending() override { return pending != kNone; }
  std::optional<uint64_t> read_apic_msr(uint32_t index) override {
    return index == 0x802 ? std::optional<uint64_t>(7) : std::nullopt;
  }
  bool write_apic_msr(uint32_t index, uint64_t value) override {
    msr_writes.emplace_back(index, value);
    return true;
  }
  uint8_t read_task_priority() override { return 0; }
  void write_task_priority(uint8_t) override {}

  // A write here is a device's interrupt in the middle of the instruction that causes it.
  static constexpr uint16_t kRequestPort = 0x98;

  cpu::Vcpu* vcpu = nullptr;
  static constexpr int kNone = -1;
  std::atomic<int> pending{kNone};
  std::vector<std::pair<uint16_t, uint32_t>> port_writes;
  std::vector<std::pair<uint64_t, uint64_t>> memory_writes;
  std::vector<std::pair<uint32_t, uint64_t>> msr_writes;
};

class Kvm : public testing::Test {
 protected:
  void SetUp() override { set_up(LocalApics::kBoard); }

  void set_up(LocalApics local_apics) {
    auto opened = System::open();
    if (!opened) GTEST_SKIP() << opened.error().message;
    system = std::move(*opened);
    memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
    auto made = VirtualMachine::create(*system, *memory, clock, local_apics);
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

  // Until the guest or five seconds end it; meanwhile, other_thread has its turn after 20 ms.
  void run_with_watchdog(const std::function<void()>& other_thread) {
    std::atomic<bool> ended{false};
    Thread watchdog("watchdog", [&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      other_thread();
      for (int i = 0; i < 500 && !ended; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      if (!ended) vcpu->request_stop();
    });
    EXPECT_EQ(vcpu->run(io), cpu::StopReason::kRequested) << vcpu->error();
    ended = true;
  }

  FakeClock clock;
  std::unique_ptr<System> system;
  std::unique_ptr<memory::GuestMemory> memory;
  std::unique_ptr<VirtualMachine> machine;
  std::unique_ptr<KvmVcpu> vcpu;
  RecordingIo io;
};

TEST_F(Kvm, ReachesPortsAndDeviceMemoryThroughCpuIo) {
  load({0xE5, 0x42,                    // in ax, 0x42
        0xE7, 0x43,                    // out 0x43, ax
        0xC6, 0x06, 0x10, 0x00, 0x5A,  // mov byte [0x10], 0x5A
        0xA1, 0x20, 0x00,              // mov ax, [0x20]
        0xE7, 0xF4});                  // out 0xf4, ax
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

TEST_F(Kvm, AnInterruptCausedByAPortWriteReachesAGuestThatDoesNotLeaveAgain) {
  load({0xFB, 0xE6, 0x98, 0xEB, 0xFE});  // sti; out 0x98, al; jmp $
  ASSERT_TRUE(memory->write_object<uint32_t>({0x30 * 4}, 0x2000));
  ASSERT_TRUE(
      memory->write({0x2000}, std::vector<uint8_t>{0xE6, 0x99, 0xE6, 0xF4, 0xCF}));  // out 0x99, al; out 0xf4, al; iret
  run_with_watchdog([] {});
  ASSERT_EQ(io.port_writes.size(), 3u);
  EXPECT_EQ(io.port_writes[1].first, 0x99);
}

// When a request goes away and the next comes before the line has been driven low, it is never driven again.
TEST_F(Kvm, AnInterruptBehindALineThatStayedAssertedIsTaken) {
  const std::vector<uint8_t> halted = {0xFB, 0xF4, 0xEB, 0xFD}, running = {0xFB, 0xEB, 0xFE};  // sti; hlt; jmp or jmp $
  ASSERT_TRUE(memory->write_object<uint32_t>({0x30 * 4}, 0x2000));
  ASSERT_TRUE(memory->write({0x2000}, std::vector<uint8_t>{0xE6, 0x99, 0xE6, 0xF4, 0xCF}));
  for (const auto& code : {halted, running}) {
    load(code);
    io.port_writes.clear();
    vcpu->set_interrupt_request(true);
    run_with_watchdog([&] { io.pending = 0x30; });
    ASSERT_EQ(io.port_writes.size(), 2u);
    EXPECT_EQ(io.port_writes[0].first, 0x99);
  }
}

TEST_F(Kvm, AHaltWithInterruptsOffIsNotEndedByOne) {
  load({0xFA, 0xE6, 0x98, 0xF4, 0xE6, 0x99});  // cli; out 0x98, al; hlt; out 0x99, al
  Thread other("stop", [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    vcpu->request_stop();
  });
  EXPECT_EQ(vcpu->run(io), cpu::StopReason::kRequested) << vcpu->error();
  other.join();
  EXPECT_EQ(io.port_writes.size(), 1u);
  EXPECT_EQ(vcpu->get_state().activity, cpu::Activity::kHalted);
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

class KvmKernelApics : public Kvm {
 protected:
  void SetUp() override { set_up(LocalApics::kKernel); }

  // Enables the local APIC by its spurious-vector register, as software does through its page.
  void enable_apic() {
    LocalApicRegisters registers = vcpu->get_local_apic().value();
    registers.page[0xF0] = 0xFF;
    registers.page[0xF1] = 0x01;
    const Result<> set = vcpu->set_local_apic(registers);
    ASSERT_TRUE(set) << set.error().message;
  }
};

TEST_F(KvmKernelApics, InterruptsAHaltedVcpuByAnEvent) {
  load({0xFB, 0xF4, 0xE6, 0xF4});  // sti; hlt; out 0xf4, al
  ASSERT_TRUE(memory->write_object<uint32_t>({0x41 * 4}, 0x2000));
  ASSERT_TRUE(memory->write({0x2000}, std::vector<uint8_t>{0xE6, 0x99, 0xCF}));
  enable_apic();
  EventFd event = EventFd::create().value();
  const auto number = machine->interrupt_routes().connect(event.fd(), {.address = 0xFEE00000, .data = 0x40});
  ASSERT_TRUE(number) << number.error().message;
  ASSERT_TRUE(machine->interrupt_routes().change(*number, {.address = 0xFEE00000, .data = 0x41}));
  Thread other("wire", [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    event.signal();
  });
  EXPECT_EQ(vcpu->run(io), cpu::StopReason::kRequested) << vcpu->error();
  other.join();
  ASSERT_EQ(io.port_writes.size(), 2u);
  EXPECT_EQ(io.port_writes[0].first, 0x99);
  EXPECT_TRUE(machine->interrupt_routes().disconnect(*number, event.fd()));
  EXPECT_FALSE(machine->interrupt_routes().disconnect(*number, event.fd()));
}

TEST_F(KvmKernelApics, TellsTheBoardThatALevelInterruptEnded) {
  // sti; hlt; out 0x99, al; out 0xf4, al.  The handler ends the interrupt through the APIC's page, which DS reaches.
  load({0xFB, 0xF4, 0xE6, 0x99, 0xE6, 0xF4});
  ASSERT_TRUE(memory->write_object<uint32_t>({0x52 * 4}, 0x2000));
  ASSERT_TRUE(memory->write({0x2000}, std::vector<uint8_t>{0x66, 0xC7, 0x06, 0xB0, 0x00, 0, 0, 0, 0, 0xCF}));
  cpu::State state = vcpu->get_state();
  state.segments[cpu::kDs].base = 0xFEE00000;
  ASSERT_TRUE(vcpu->set_state(state));
  enable_apic();
  std::vector<uint8_t> ended;
  machine->set_end_of_interrupt([&](uint8_t vector) { ended.push_back(vector); });
  const Message level{.address = 0xFEE00000, .data = 0xC052};
  ASSERT_TRUE(machine->interrupt_routes().set_io_apic_input(16, level));
  ASSERT_TRUE(machine->interrupt_routes().send(level));
  EXPECT_EQ(vcpu->run(io), cpu::StopReason::kRequested) << vcpu->error();
  EXPECT_EQ(ended, (std::vector<uint8_t>{0x52}));
}

TEST_F(Kvm, MarksPagesThatTheGuestWroteAsDirty) {
  load({0xC6, 0x06, 0x10, 0x50, 0x01, 0xE6, 0xF4});  // mov byte [0x5010], 1; out 0xf4, al
  ASSERT_TRUE(machine->start_dirty_log());
  memory->take_dirty([](uint64_t) {});
  EXPECT_EQ(vcpu->run(io), cpu::StopReason::kRequested) << vcpu->error();
  ASSERT_TRUE(machine->collect_dirty());
  std::vector<uint64_t> pages;
  memory->take_dirty([&](uint64_t page) { pages.push_back(page); });
  // A host kernel may count more than was written (the pages around an emulated instruction), never less, and not all.
  EXPECT_TRUE(std::ranges::count(pages, 5u) == 1);
  EXPECT_EQ(std::ranges::count(pages, 9u), 0);
  EXPECT_TRUE(machine->stop_dirty_log());
}

TEST_F(Kvm, SignalsADoorbellInsteadOfCallingTheBoard) {
  load({0xC6, 0x06, 0x10, 0x00, 0x5A, 0xE6, 0xF4});  // mov byte [0x10], 0x5A; out 0xf4, al
  cpu::State state = vcpu->get_state();
  state.segments[cpu::kDs].base = 0xD0000000;
  ASSERT_TRUE(vcpu->set_state(state));
  EventFd event = EventFd::create().value();
  ASSERT_TRUE(machine->add_doorbell({0xD0000010}, 1, event.fd()));
  EXPECT_EQ(vcpu->run(io), cpu::StopReason::kRequested) << vcpu->error();
  EXPECT_TRUE(io.memory_writes.empty());
  EXPECT_EQ(event.take(), 1u);
  EXPECT_TRUE(machine->remove_doorbell({0xD0000010}, 1, event.fd()));
}

TEST_F(Kvm, AsksTheFallbackForAnInstructionThatTheHostCannotEmulate) {
  // pcmpistrm xmm0, [0x10], 8 on device memory: the host kernel has no emulation of it.
  load({0x66, 0x0F, 0x3A, 0x62, 0x06, 0x10, 0x00, 0x08, 0xE7, 0xF4});
  cpu::State state = vcpu->get_state();
  state.segments[cpu::kDs].base = 0xD0000000;
  state.cr4 = 0x200;
  ASSERT_TRUE(vcpu->set_state(state));
  int asked = 0;
  machine->set_fallback([&](uint32_t, cpu::State& at, cpu::CpuIo&) -> Result<> {
    ++asked;
    EXPECT_EQ(at.rip, 0x1000u);
    at.rip += 8;
    at.gpr[cpu::kRax] = 0x77;
    return {};
  });
  EXPECT_EQ(vcpu->run(io), cpu::StopReason::kRequested) << vcpu->error();
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(io.port_writes, (std::vector<std::pair<uint16_t, uint32_t>>{{0xF4, 0x77}}));
}

TEST_F(Kvm, SaysWhatTheProbeFound) {
  const auto report = probe_hardware(*system);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_FALSE(report->reason.empty());
  std::printf("probe: %s\n", report->reason.c_str());
}

}  // namespace
}  // namespace bulkhead::kvm
