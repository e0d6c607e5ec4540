// Any bytes as code, in any mode, with devices that answer with anything: the guest may ruin itself, nothing else may
// happen. Half of the inputs run instruction by instruction, half in blocks until a clock stops them.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <span>
#include <thread>

#include "engine/engine.h"
#include "engine/soft_vcpu.h"
#include "instructions/environment.h"
#include "memory/guest_memory.h"
#include "support/check.h"
#include "support/random.h"
#include "support/time/fake_clock.h"

namespace bulkhead::instructions {
namespace {

constexpr unsigned kMaximumSteps = 400;

// Devices that answer with random bytes and take everything.
class HostileBoard final : public cpu::CpuIo {
 public:
  void seed(uint64_t seed) { random_ = SeededRandom(seed); }
  void read_memory(GuestAddress, MutableByteSpan out) override { random_.fill(out); }
  void write_memory(GuestAddress, ByteSpan) override {}
  uint32_t read_port(uint16_t, unsigned) override { return static_cast<uint32_t>(random_.next()); }
  void write_port(uint16_t, unsigned, uint32_t) override {}
  std::optional<uint8_t> acknowledge_interrupt() override { return static_cast<uint8_t>(random_.next()); }
  bool interrupt_pending() override { return false; }
  std::optional<uint64_t> read_apic_msr(uint32_t) override { return random_.next(); }
  bool write_apic_msr(uint32_t, uint64_t) override { return true; }
  uint8_t read_task_priority() override { return 0; }
  void write_task_priority(uint8_t) override {}

 private:
  SeededRandom random_{1};
};

class Machine {
 public:
  Machine() {
    auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize);
    CHECK(memory.has_value(), "memory for the guest");
    memory_ = std::move(*memory);
    auto engine = engine::Engine::create(
        *memory_, clock_, random_, {.vcpu_count = 1, .features = engine::Engine::available_features(), .leaves = {{}}});
    CHECK(engine.has_value(), "an engine");
    engine_ = std::move(*engine);
    auto vcpu = engine_->create_vcpu(0);
    CHECK(vcpu.has_value(), "a vCPU");
    vcpu_ = std::move(*vcpu);
    stopper_ = std::thread([this] {
      while (!ends_.load()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        if (in_blocks_.load()) vcpu_->request_stop();
      }
    });
  }
  ~Machine() {
    ends_.store(true);
    stopper_.join();
  }

  // Byte 0: mode and manner; bytes 1 to 8: seed of the registers; the rest is code.
  void run(std::span<const uint8_t> input) {
    if (input.size() < 10) return;
    static constexpr std::array<const char*, 12> kModes = {"real16",        "v86",     "prot16",      "prot32",
                                                           "prot32 user",   "paged32", "pae32",       "compat32",
                                                           "compat32 user", "long64",  "long64 user", "paged32 user"};
    const char* mode = kModes[input[0] % 16 % kModes.size()];
    uint64_t seed = 0;
    std::memcpy(&seed, input.data() + 1, sizeof seed);
    environment::build(*memory_, mode);
    auto state = environment::initial_state(mode);
    CHECK(state.has_value(), "a mode of the environment");
    randomise(*state, seed);
    put_code(*state, input.subspan(9));
    if (!vcpu_->set_state(*state)) return;
    board_.seed(seed);
    if ((input[0] & 0x80) != 0) {
      run_blocks();
    } else {
      run_steps();
    }
  }

 private:
  static void randomise(cpu::State& state, uint64_t seed) {
    SeededRandom random(seed);
    for (unsigned i = 0; i < 16; ++i) {
      if (i == cpu::kRsp) continue;
      // Small numbers and addresses of the environment find more than random words.
      switch (random.below(4)) {
        case 0:
          state.gpr[i] = random.below(256);
          break;
        case 1:
          state.gpr[i] = random.below(0x6'0000);
          break;
        case 2:
          state.gpr[i] = environment::kHighScratch + random.below(0x2000);
          break;
        default:
          state.gpr[i] = random.next();
          break;
      }
    }
    state.rflags |= random.next() & 0xCD5;
    random.fill(MutableByteSpan(state.xsave).subspan(32, 384));
    random.fill(MutableByteSpan(state.xsave).subspan(576, 256));
  }

  void put_code(const cpu::State& state, std::span<const uint8_t> code) {
    const uint64_t at = environment::physical_of(state.segments[cpu::kCs].base + state.rip);
    CHECK(memory_->write({at}, code.first(std::min<size_t>(code.size(), 1024))), "code lies in RAM");
  }

  void run_steps() {
    CHECK(vcpu_->set_debug({.single_step = true, .points = {}}).has_value(), "single steps");
    const engine::Cpu& cpu = static_cast<engine::SoftVcpu&>(*vcpu_).cpu();
    for (unsigned i = 0; i < kMaximumSteps && cpu.activity == cpu::Activity::kRunning; ++i) {
      if (vcpu_->run(board_) == cpu::StopReason::kShutdown) return;
    }
  }

  void run_blocks() {
    CHECK(vcpu_->set_debug({}).has_value(), "no single steps");
    in_blocks_.store(true);
    (void)vcpu_->run(board_);
    in_blocks_.store(false);
  }

  FakeClock clock_;
  SeededRandom random_{1};
  HostileBoard board_;
  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<cpu::Vcpu> vcpu_;
  std::atomic<bool> in_blocks_{false}, ends_{false};
  std::thread stopper_;
};

}  // namespace
}  // namespace bulkhead::instructions

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static bulkhead::instructions::Machine machine;
  machine.run({data, size});
  return 0;
}
