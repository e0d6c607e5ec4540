#include "kvm/probe.h"

#include <chrono>

#include <sys/ioctl.h>

#include "kvm/kvm_vcpu.h"
#include "kvm/virtual_machine.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"
#include "support/time/fake_clock.h"

namespace bulkhead::kvm {
namespace {

constexpr uint64_t kLoopCount = 1'000'000;  // two instructions each
constexpr uint64_t kExitCount = 50;
constexpr uint64_t kCodeAddress = 0x1000;
constexpr uint64_t kTableAddress = 0x2000;
constexpr uint16_t kProbePort = 0x80;
constexpr auto kTimeLimit = std::chrono::milliseconds(600);
// Hardware executes a thousand million a second; the slowest nested one seen, on a busy host, still does 40 million.
constexpr uint64_t kLeastInstructionsPerSecond = 10'000'000;
constexpr uint64_t kLeastExitsPerSecond = 200;

//   mov ecx, count; 1: dec ecx; jnz 1b; out 0x80, al      phase 1
//   mov ecx, count; 1: out 0x80, al; dec ecx; jnz 1b; hlt  phase 2
constexpr uint8_t kProgram[] = {0xB9, 0,    0,    0,    0,           // mov ecx, kLoopCount
                                0xFF, 0xC9, 0x75, 0xFC,              // dec ecx; jnz
                                0xE6, 0x80,                          // out 0x80, al
                                0xB9, 0,    0,    0,    0,           // mov ecx, kExitCount
                                0xE6, 0x80, 0xFF, 0xC9, 0x75, 0xFA,  // out; dec ecx; jnz
                                0xF4};                               // hlt

class ProbeIo final : public cpu::CpuIo {
 public:
  explicit ProbeIo(cpu::Vcpu& vcpu) : vcpu_(vcpu) {}
  void read_memory(GuestAddress, MutableByteSpan out) override { std::fill(out.begin(), out.end(), uint8_t{0xFF}); }
  void write_memory(GuestAddress, ByteSpan) override {}
  uint32_t read_port(uint16_t, unsigned) override { return UINT32_MAX; }
  void write_port(uint16_t port, unsigned, uint32_t) override {
    if (port != kProbePort) return;
    const auto now = std::chrono::steady_clock::now();
    if (writes_++ == 0) loop_end_ = now;
    if (writes_ == kExitCount + 1) {
      end_ = now;
      vcpu_.request_stop();
    }
  }
  std::optional<uint8_t> acknowledge_interrupt() override { return std::nullopt; }
  bool interrupt_pending() override { return false; }
  std::optional<uint64_t> read_apic_msr(uint32_t) override { return std::nullopt; }
  bool write_apic_msr(uint32_t, uint64_t) override { return false; }
  uint8_t read_task_priority() override { return 0; }
  void write_task_priority(uint8_t) override {}

  uint64_t writes_ = 0;
  std::chrono::steady_clock::time_point loop_end_, end_;

 private:
  cpu::Vcpu& vcpu_;
};

cpu::State long_mode_at(uint64_t rip) {
  cpu::State state = cpu::reset_state(0);
  state.rip = rip;
  state.cr0 = 0x80000011;
  state.cr3 = kTableAddress;
  state.cr4 = 0x20;
  state.efer = 0x500;
  const cpu::Segment data{.base = 0, .limit = 0xFFFFFFFF, .selector = 0x18, .attributes = 0xC093};
  for (auto& segment : state.segments) segment = data;
  state.segments[cpu::kCs] = {.base = 0, .limit = 0xFFFFFFFF, .selector = 0x10, .attributes = 0xA09B};
  state.tr = {.base = 0, .limit = 0x67, .selector = 0x20, .attributes = 0x8B};
  return state;
}

uint64_t per_second(uint64_t count, std::chrono::steady_clock::duration time) {
  const double seconds = std::chrono::duration<double>(time).count();
  return seconds > 0 ? static_cast<uint64_t>(static_cast<double>(count) / seconds) : UINT64_MAX;
}

}  // namespace

Result<ProbeReport> probe_hardware(System& system) {
  auto memory = TRY(memory::GuestMemory::create(memory::GuestMemory::kMinimumSize));
  uint8_t program[sizeof kProgram];
  std::memcpy(program, kProgram, sizeof program);
  store<uint32_t>(program + 1, kLoopCount);
  store<uint32_t>(program + 12, kExitCount);
  // Identity map of the first GiB with one 4-level chain of tables that ends in 2 MiB pages.
  bool written = memory->write({kCodeAddress}, program);
  written &= memory->write_object<uint64_t>({kTableAddress}, (kTableAddress + 0x1000) | 3);
  written &= memory->write_object<uint64_t>({kTableAddress + 0x1000}, (kTableAddress + 0x2000) | 3);
  for (uint64_t i = 0; i < 8; ++i) {
    written &= memory->write_object<uint64_t>({kTableAddress + 0x2000 + i * 8}, i << 21 | 0x83);
  }
  if (!written) return fail("kvm: the probe guest does not fit");

  FakeClock clock;
  auto machine = TRY(VirtualMachine::create(system, *memory, clock, LocalApics::kBoard));
  auto vcpu = TRY(machine->create_vcpu(0, {}));
  TRY(vcpu->set_state(long_mode_at(kCodeAddress)));
  ProbeIo io(*vcpu);

  Mutex mutex;
  ConditionVariable done_condition;
  bool done = false;
  Thread watchdog("kvm-probe", [&] {
    const LockGuard guard(mutex);
    const auto deadline = std::chrono::steady_clock::now() + kTimeLimit;
    while (!done && std::chrono::steady_clock::now() < deadline)
      done_condition.wait_for(mutex, std::chrono::milliseconds(50));
    if (!done) vcpu->request_stop();
  });
  const auto start = std::chrono::steady_clock::now();
  const cpu::StopReason reason = vcpu->run(io);
  {
    const LockGuard guard(mutex);
    done = true;
  }
  done_condition.notify_all();
  watchdog.join();

  ProbeReport report;
  if (reason == cpu::StopReason::kInternalError) {
    report.reason = fmt::format("/dev/kvm failed on a guest of nine instructions ({})", vcpu->error());
    return report;
  }
  if (io.writes_ <= kExitCount) {
    report.reason = fmt::format("/dev/kvm took over {} ms for a loop of {} instructions, so it emulates",
                                kTimeLimit.count(), 2 * kLoopCount);
    return report;
  }
  report.instructions_per_second = per_second(2 * kLoopCount, io.loop_end_ - start);
  report.exits_per_second = per_second(kExitCount, io.end_ - io.loop_end_);
  report.hardware_backed =
      report.instructions_per_second >= kLeastInstructionsPerSecond && report.exits_per_second >= kLeastExitsPerSecond;
  report.reason = fmt::format("/dev/kvm runs {} million kernel instructions and {} exits a second, {}",
                              report.instructions_per_second / 1'000'000, report.exits_per_second,
                              report.hardware_backed ? "so hardware carries it" : "so it emulates");
  return report;
}

}  // namespace bulkhead::kvm
