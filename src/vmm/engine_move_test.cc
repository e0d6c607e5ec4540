// A running guest moves from one engine and clock to another and on, and under KVM our interpreter steps in where the
// host kernel gives up. What needs /dev/kvm says so when it is not there.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <thread>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/checkpoint.h"
#include "vmm/tiny_kernel.h"
#include "vmm/vm.h"

namespace bulkhead::vmm {
namespace {

constexpr uint64_t kCounter = 0x200000;       // rounds of the guest's loop
constexpr uint64_t kTicks = 0x200004;         // interrupts of its local APIC's timer
constexpr uint64_t kFinish = 0x200008;        // not 0: the guest ends
constexpr uint64_t kIntegerOfX87 = 0x20000C;  // ST0 as it was stored last
constexpr int kDone = 43;                     // exit status 2 x 21 + 1; 45 says that something differed

// Counts in EBX, XMM0 and ST0 alike and in memory, in protected mode with its own GDT and IDT, compares the four each
// time, and watches that the TSC never goes back. Every 10 ms its local APIC's timer interrupts; the handler counts a
// tick and prints a dot. Ends through port 0xf4 with 21 when asked to, with 22 when something differs. Disassemble it
// with objdump -D -b binary -m i386 --adjust-vma=0x10000c.
const std::vector<uint8_t> kSelfCheckingGuest = {
    0xFA, 0xBC, 0x00, 0x00, 0x30, 0x00, 0x0F, 0x01, 0x15, 0x28, 0x01, 0x10, 0x00, 0xEA, 0x20, 0x00, 0x10, 0x00, 0x08,
    0x00, 0xB8, 0x10, 0x00, 0x00, 0x00, 0x8E, 0xD8, 0x8E, 0xC0, 0x8E, 0xD0, 0x0F, 0x01, 0x1D, 0x2E, 0x01, 0x10, 0x00,
    0x0F, 0x20, 0xC0, 0x83, 0xE0, 0xF3, 0x83, 0xC8, 0x22, 0x0F, 0x22, 0xC0, 0x0F, 0x20, 0xE0, 0x0D, 0x00, 0x02, 0x00,
    0x00, 0x0F, 0x22, 0xE0, 0xB8, 0xF2, 0x00, 0x10, 0x00, 0xBA, 0x00, 0x00, 0x08, 0x00, 0x66, 0x89, 0xC2, 0x66, 0xB8,
    0x00, 0x8E, 0x89, 0x15, 0x00, 0x02, 0x21, 0x00, 0xA3, 0x04, 0x02, 0x21, 0x00, 0xB0, 0xFF, 0xE6, 0x21, 0xE6, 0xA1,
    0xC7, 0x05, 0xF0, 0x00, 0xE0, 0xFE, 0xFF, 0x01, 0x00, 0x00, 0xC7, 0x05, 0xE0, 0x03, 0xE0, 0xFE, 0x0B, 0x00, 0x00,
    0x00, 0xC7, 0x05, 0x20, 0x03, 0xE0, 0xFE, 0x40, 0x00, 0x02, 0x00, 0xC7, 0x05, 0x80, 0x03, 0xE0, 0xFE, 0x80, 0x96,
    0x98, 0x00, 0xDB, 0xE3, 0xD9, 0xEE, 0x66, 0x0F, 0xEF, 0xC0, 0xB8, 0x01, 0x00, 0x00, 0x00, 0x66, 0x0F, 0x6E, 0xC8,
    0x31, 0xDB, 0x31, 0xF6, 0x31, 0xFF, 0xFB, 0x43, 0x66, 0x0F, 0xFE, 0xC1, 0xD9, 0xE8, 0xDE, 0xC1, 0x89, 0x1D, 0x00,
    0x00, 0x20, 0x00, 0x66, 0x0F, 0x7E, 0xC0, 0x39, 0xD8, 0x75, 0x2B, 0xDB, 0x15, 0x0C, 0x00, 0x20, 0x00, 0x39, 0x1D,
    0x0C, 0x00, 0x20, 0x00, 0x75, 0x1D, 0x0F, 0x31, 0x39, 0xFA, 0x72, 0x17, 0x77, 0x04, 0x39, 0xF0, 0x72, 0x11, 0x89,
    0xC6, 0x89, 0xD7, 0x83, 0x3D, 0x08, 0x00, 0x20, 0x00, 0x00, 0x74, 0xC2, 0xB0, 0x15, 0xE6, 0xF4, 0xB0, 0x16, 0xE6,
    0xF4, 0xF4, 0x50, 0x52, 0xFF, 0x05, 0x04, 0x00, 0x20, 0x00, 0x66, 0xBA, 0xF8, 0x03, 0xB0, 0x2E, 0xEE, 0xC7, 0x05,
    0xB0, 0x00, 0xE0, 0xFE, 0x00, 0x00, 0x00, 0x00, 0x5A, 0x58, 0xCF, 0x66, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x9B, 0xCF, 0x00, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x93, 0xCF, 0x00, 0x17,
    0x00, 0x10, 0x01, 0x10, 0x00, 0x07, 0x02, 0x00, 0x00, 0x21, 0x00};

// The soft engine with its machine's clock on a source of the test's choice.
class SoftOnClock final : public EngineBackend {
 public:
  explicit SoftOnClock(HostClock::Source source) : source_(source) {}
  [[nodiscard]] std::string_view name() const override { return soft_->name(); }
  [[nodiscard]] cpu::FeatureSet available_features() const override { return soft_->available_features(); }
  [[nodiscard]] HostClock::Source clock_source() const override { return source_; }
  Result<std::unique_ptr<VmEngine>> create(const EngineParts& parts) override { return soft_->create(parts); }

 private:
  HostClock::Source source_;
  std::unique_ptr<EngineBackend> soft_ = make_soft_backend();
};

// Where the guest runs for a while. KVM's clock is always the host's TSC.
struct Leg {
  EngineName engine;
  HostClock::Source soft_clock = HostClock::Source::kBest;
};
constexpr Leg kOnKvm{EngineName::kKvm};
constexpr Leg kOnSoft{EngineName::kSoft};
// Here the guest's TSC runs at 1 GHz, so it must be carried over by its value.
constexpr Leg kOnSoftWithoutTsc{EngineName::kSoft, HostClock::Source::kMonotonic};

class MoveTest : public testing::Test {
 protected:
  MoveTest() : directory_(testing::TempDir() + "bulkhead_move_" + std::to_string(::getpid())) {
    ::mkdir(directory_.c_str(), 0700);
    config_.memory_bytes = {16 << 20, "test"};
    config_.cpu_model = {"x86-64-v1", "test"};
    config_.debug_exit = {true, "test"};
    config_.kernel = {path("kernel"), "test"};
    config_.serial_lines.push_back({{console::Spec::Kind::kFile, path("serial")}, "test"});
  }
  ~MoveTest() override {
    for (const char* name : {"kernel", "serial", "checkpoint"}) ::unlink(path(name).c_str());
    ::rmdir(directory_.c_str());
  }
  [[nodiscard]] std::string path(const char* name) const { return directory_ + "/" + name; }
  std::unique_ptr<Vm> make(const Leg& leg, const std::vector<uint8_t>& code) {
    const std::vector<uint8_t> kernel = make_kernel(code);
    std::ofstream(path("kernel"), std::ios::binary)
        .write(reinterpret_cast<const char*>(kernel.data()), static_cast<std::streamsize>(kernel.size()));
    config_.engine = {leg.engine, "test"};
    EngineSources sources = EngineSources::of_this_host();
    sources.make_soft = [&] { return std::make_unique<SoftOnClock>(leg.soft_clock); };
    auto vm = Vm::create(config_, sources);
    EXPECT_TRUE(vm) << vm.error().message;
    return vm ? std::move(*vm) : nullptr;
  }
  static uint32_t word(Vm& vm, uint64_t address) { return vm.memory().read_object<uint32_t>({address}).value(); }

  // False when the guest has not come that far in time.
  static bool wait_until(const std::function<bool()>& reached) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!reached()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  // What the self-checking guest compares.
  static std::string describe(Vm& vm) {
    cpu::State state;
    const auto read = [&] { state = vm.vcpu(0).get_state(); };
    if (!vm.driver().call_at_rest(read)) read();  // a VM that has ended is at rest
    uint32_t xmm0 = 0;
    long double st0 = 0;
    constexpr size_t kSt0 = 32, kXmm0 = 160, kX87Size = 10;  // in the XSAVE area
    std::memcpy(&xmm0, &state.xsave[kXmm0], sizeof xmm0);
    std::memcpy(&st0, &state.xsave[kSt0], kX87Size);
    return fmt::format(
        "{}: rip {:#x}, EBX {}, XMM0 {}, ST0 {}, memory {} and {}, last TSC {:x}{:08x}, EDX:EAX {:x}{:08x}, {} ticks",
        vm.engine_name(), state.rip, state.gpr[cpu::kRbx], xmm0, static_cast<double>(st0), word(vm, kCounter),
        word(vm, kIntegerOfX87), state.gpr[cpu::kRdi], state.gpr[cpu::kRsi], state.gpr[cpu::kRdx], state.gpr[cpu::kRax],
        word(vm, kTicks));
  }

  // Lets the self-checking guest run on each leg and carries it on to the next by a checkpoint; ends it on the last.
  void travel(const std::vector<Leg>& legs, const Leg& last) {
    for (const Leg& leg : legs) {
      const auto vm = make(leg, kSelfCheckingGuest);
      ASSERT_TRUE(vm);
      if (&leg != &legs.front()) {
        const auto read = read_checkpoint(path("checkpoint"), *vm);
        ASSERT_TRUE(read) << read.error().message;
      }
      const uint32_t rounds = word(*vm, kCounter), ticks = word(*vm, kTicks);
      vm->start();
      const bool came_far = wait_until(
          [&] { return vm->driver().ended() || (word(*vm, kCounter) > rounds + 20 && word(*vm, kTicks) > ticks); });
      const auto written = write_checkpoint(path("checkpoint"), *vm);
      ASSERT_TRUE(written) << written.error().message << ", " << describe(*vm);
      ASSERT_TRUE(came_far) << "from " << rounds << " rounds and " << ticks << " ticks to " << describe(*vm);
    }
    const auto vm = make(last, kSelfCheckingGuest);
    ASSERT_TRUE(vm);
    ASSERT_TRUE(read_checkpoint(path("checkpoint"), *vm));
    ASSERT_TRUE(vm->memory().write_object<uint32_t>({kFinish}, 1));
    const std::string before = describe(*vm);
    vm->start();
    EXPECT_EQ(vm->driver().wait().exit_status(), kDone) << "from " << before << " to " << describe(*vm);
    vm->finish();
  }

  std::string directory_;
  VmConfig config_;
};

class EngineMove : public MoveTest {
 protected:
  void SetUp() override {
    const auto kvm = EngineSources::of_this_host().open_kvm();
    if (!kvm) GTEST_SKIP() << kvm.error().message;
  }
};

TEST_F(EngineMove, ARunningGuestGoesFromOneEngineToTheOtherAndBack) {
  travel({kOnSoft, kOnKvm, kOnSoftWithoutTsc, kOnKvm, kOnSoftWithoutTsc}, kOnKvm);
}

TEST_F(MoveTest, ARunningGuestGoesOnWhateverTheClocksRunOn) {
  travel({kOnSoft, kOnSoftWithoutTsc, kOnSoft, kOnSoft, kOnSoftWithoutTsc, kOnSoftWithoutTsc}, kOnSoft);
}

TEST_F(EngineMove, TheInterpreterDoesWhatTheHostKernelCannotEmulate) {
  // mov eax, cr4; or eax, 0x200; mov cr4, eax; mov eax, cr0; and eax, ~0xC; mov cr0, eax
  // pcmpeqd xmm0, xmm0; pcmpeqd xmm1, xmm1
  // psubd xmm0, [0xfed00000] (HPET's capabilities: no emulation in the host kernel)
  // psubd xmm1, xmm0; movd eax, xmm1 (the first word of the register); cmp eax, [0xfed00000]
  // jne wrong; mov al, 21; out 0xf4, al; wrong: mov al, 22; out 0xf4, al
  const auto vm =
      make(kOnKvm, {0x0F, 0x20, 0xE0, 0x0D, 0x00, 0x02, 0x00, 0x00, 0x0F, 0x22, 0xE0, 0x0F, 0x20, 0xC0, 0x83,
                    0xE0, 0xF3, 0x0F, 0x22, 0xC0, 0x66, 0x0F, 0x76, 0xC0, 0x66, 0x0F, 0x76, 0xC9, 0x66, 0x0F,
                    0xFA, 0x05, 0x00, 0x00, 0xD0, 0xFE, 0x66, 0x0F, 0xFA, 0xC8, 0x66, 0x0F, 0x7E, 0xC8, 0x3B,
                    0x05, 0x00, 0x00, 0xD0, 0xFE, 0x75, 0x04, 0xB0, 21,   0xE6, 0xF4, 0xB0, 22,   0xE6, 0xF4});
  ASSERT_TRUE(vm);
  vm->start();
  const Outcome outcome = vm->driver().wait();
  EXPECT_EQ(outcome.exit_status(), kDone) << outcome.line();
  const cpu::Statistics statistics = vm->vcpu(0).statistics();
  const auto failures = std::ranges::find(statistics, "exits.emulation-failure", &cpu::Statistics::value_type::first);
  ASSERT_NE(failures, statistics.end());
  EXPECT_GE(failures->second, 1u);
}

}  // namespace
}  // namespace bulkhead::vmm
