// Instructions that compute nothing: NOP, prefetches, fences, PAUSE, cache hints, UD; and the ones that only ask the
// machine for a value: RDRAND, RDSEED, RDPID.
#include <thread>

#include "engine/interpreter/integer/alu.h"
#include "engine/interpreter/integer/families.h"
#include "engine/interpreter/system/system.h"

namespace bulkhead::engine::integer {
namespace {

using decoder::Mnemonic;

void do_nothing(Cpu&, const Op&) {}
// A vCPU that spins waits for another one, which may be without a host core: this one is offered now and then.
void pause(Cpu& cpu, const Op&) {
  constexpr uint32_t kPausesBeforeYield = 64;
  asm volatile("pause");
  if (++cpu.pause_count % kPausesBeforeYield == 0) std::this_thread::yield();
}
// Guest memory is reached by plain host instructions, so the host's own fence orders it.
void fence(Cpu&, const Op&) {
  asm volatile("mfence" : : : "memory");
}

// The line must be readable; that is all of CLFLUSH that can be seen.
void touch_line(Cpu& cpu, const Op& op) {
  const uint64_t offset = memory_offset(cpu, op);
  const uint64_t linear = linear_address<MemoryAccess::kRead>(cpu, segment_of(op), offset, 1);
  probe_read_linear(cpu, segment_of(op), linear, 1);
}

template <typename T>
void read_random(Cpu& cpu, const Op& op) {
  write_register<T>(cpu, op.rm, static_cast<T>(random_bits(cpu)));
  cpu.flags.ax = 0x0200 | ArithmeticFlags::kCarry;
}

void read_processor_id(Cpu& cpu, const Op& op) {
  write_register<uint64_t>(cpu, op.rm, processor_id(cpu));
}

void undefined(Cpu&, const Op&) {
  raise(kInvalidOpcode);
}

}  // namespace

bool select_other(const Selection& selection) {
  switch (selection.instruction.mnemonic) {
    case Mnemonic::kNop:
    case Mnemonic::kPrefetchnta:
    case Mnemonic::kPrefetcht0:
    case Mnemonic::kPrefetcht1:
    case Mnemonic::kPrefetcht2:
    case Mnemonic::kPrefetch:
    case Mnemonic::kPrefetchw:
      return use_handler(selection, do_nothing);
    case Mnemonic::kPause:
      return use_handler(selection, pause);
    case Mnemonic::kLfence:
    case Mnemonic::kSfence:
    case Mnemonic::kMfence:
      return use_handler(selection, fence);
    case Mnemonic::kClflush:
    case Mnemonic::kClflushopt:
    case Mnemonic::kClwb:
      return use_handler(selection, touch_line);
    case Mnemonic::kRdrand:
    case Mnemonic::kRdseed:
      return use_handler(selection, by_word_size(selection.instruction.operand_size,
                                                 []<typename T>() -> Handler { return read_random<T>; }));
    case Mnemonic::kRdpid:
      return use_handler(selection, read_processor_id);
    case Mnemonic::kUd0:
    case Mnemonic::kUd1:
    case Mnemonic::kUd2:
      return use_handler(selection, undefined);
    default:
      return false;
  }
}

}  // namespace bulkhead::engine::integer
