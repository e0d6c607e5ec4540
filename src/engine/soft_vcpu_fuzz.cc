// Any bytes as a guest: the first chooses the mode and the registers, the rest is code that also lies under the
// descriptor tables' pages where it may rewrite them. Whatever it does, only its own vCPU may come to harm. Stepped, so
// that every input ends.
#include "engine/testing.h"

using bulkhead::engine::testing::kCode;
using bulkhead::engine::testing::Machine;

namespace {

constexpr unsigned kMaximumSteps = 200;

bulkhead::cpu::State state_for(Machine& machine, uint8_t choice) {
  bulkhead::cpu::State state;
  switch (choice & 3) {
    case 0:
      state = machine.real_mode();
      break;
    case 1:
      state = machine.protected_mode();
      break;
    case 2:
      state = machine.long_mode();
      break;
    default:
      state = machine.user_mode();
      break;
  }
  // Registers that point at code, tables, the ends of RAM and beyond.
  constexpr uint64_t kValues[] = {0, 1, ~0ull, 0x1000, 0x2FFF, 0xFFFFFF, 0x1000000, 0xFED00000};
  for (unsigned i = 0; i < 16; ++i) {
    if (i != bulkhead::cpu::kRsp) state.gpr[i] = kValues[(i + choice / 4u) % 8];
  }
  state.cr0 &= ~uint64_t{(choice & 0x80) != 0 ? 0u : 8u};
  return state;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2 || size > 1024) return 0;
  static Machine* const machine = new Machine;
  machine->set(state_for(*machine, data[0]));
  for (size_t i = 1; i < size; ++i) machine->put_object(kCode + i - 1, data[i]);
  bulkhead::cpu::Vcpu& vcpu = *machine->vcpus[0];
  CHECK(vcpu.set_debug({.single_step = true, .points = {}}).has_value(), "stepping needs no points");
  for (unsigned step = 0; step < kMaximumSteps; ++step) {
    const bulkhead::cpu::StopReason reason = machine->run();
    CHECK(reason != bulkhead::cpu::StopReason::kInternalError, "the engine goes on whatever the guest does");
    if (reason == bulkhead::cpu::StopReason::kShutdown) break;
    if (machine->state().activity != bulkhead::cpu::Activity::kRunning) break;
  }
  machine->board().reads.clear();
  machine->board().writes.clear();
  machine->board().port_writes.clear();
  return 0;
}
