// Any bytes as a guest: the first chooses the mode and the registers, the rest is code that also lies under the
// descriptor tables' pages where it may rewrite them. Whatever it does, only its own vCPU may come to harm. Stepped, so
// that every input ends; RAM is as before for the next one, so that an input does the same alone.
#include "engine/testing.h"

using bulkhead::engine::testing::kCode;
using bulkhead::engine::testing::Machine;

namespace {

constexpr unsigned kMaximumSteps = 200;
constexpr uint64_t kPage = 4096;

// One mode of the processor.
class Start {
 public:
  explicit Start(unsigned mode) {
    switch (mode) {
      case 0:
        state_ = machine.real_mode();
        break;
      case 1:
        state_ = machine.protected_mode();
        break;
      case 2:
        state_ = machine.long_mode();
        break;
      default:
        state_ = machine.user_mode();
        break;
    }
    const uint8_t* ram = machine.memory->data({0}, machine.memory->size());
    image_.assign(ram, ram + machine.memory->size());
    machine.memory->take_dirty([](uint64_t) {});
  }

  void restore() {
    const auto write_page = [&](uint64_t page) {
      CHECK(machine.memory->write({page * kPage}, {image_.data() + page * kPage, kPage}), "a page of RAM");
    };
    machine.memory->take_dirty(write_page);
    machine.memory->take_dirty([](uint64_t) {});
    machine.board().reads.clear();
    machine.board().writes.clear();
    machine.board().port_writes.clear();
  }

  bulkhead::cpu::State state_for(uint8_t choice) const {
    bulkhead::cpu::State state = state_;
    // Registers that point at code, tables, the ends of RAM and beyond.
    constexpr uint64_t kValues[] = {0, 1, ~0ull, 0x1000, 0x2FFF, 0xFFFFFF, 0x1000000, 0xFED00000};
    for (unsigned i = 0; i < 16; ++i) {
      if (i != bulkhead::cpu::kRsp) state.gpr[i] = kValues[(i + choice / 4u) % 8];
    }
    state.cr0 &= ~uint64_t{(choice & 0x80) != 0 ? 0u : 8u};
    return state;
  }

  Machine machine;

 private:
  bulkhead::cpu::State state_;
  std::vector<uint8_t> image_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2 || size > 1024) return 0;
  static Start* const starts[] = {new Start(0), new Start(1), new Start(2), new Start(3)};
  Start& start = *starts[data[0] & 3];
  Machine& machine = start.machine;
  CHECK(machine.memory->write({kCode}, {data + 1, size - 1}), "code lies in RAM");
  machine.set(start.state_for(data[0]));
  bulkhead::cpu::Vcpu& vcpu = *machine.vcpus[0];
  CHECK(vcpu.set_debug({.single_step = true, .points = {}}).has_value(), "stepping needs no points");
  for (unsigned step = 0; step < kMaximumSteps; ++step) {
    const bulkhead::cpu::StopReason reason = machine.run();
    CHECK(reason != bulkhead::cpu::StopReason::kInternalError, "the engine goes on whatever the guest does");
    if (reason == bulkhead::cpu::StopReason::kShutdown) break;
    if (machine.state().activity != bulkhead::cpu::Activity::kRunning) break;
  }
  start.restore();
  return 0;
}
