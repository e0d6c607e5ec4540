// XADD, CMPXCHG, CMPXCHG8B and CMPXCHG16B. Without LOCK the memory forms are plain read-modify-writes; a comparison
// that fails still writes the old value back, as the processor does.
#include "engine/interpreter/integer/alu.h"
#include "engine/interpreter/integer/families.h"

namespace bulkhead::engine::integer {
namespace {

using decoder::Mnemonic;

template <typename T>
void exchange_add_register(Cpu& cpu, const Op& op) {
  const T destination = read_register<T>(cpu, op.rm);
  const T sum = alu::Add::apply(destination, read_register<T>(cpu, op.reg), cpu.flags);
  write_register<T>(cpu, op.reg, destination);
  write_register<T>(cpu, op.rm, sum);  // last: with one register for both the sum stays
}

template <typename T, Addressing kAddressing, bool kLocked>
void exchange_add_memory(Cpu& cpu, const Op& op) {
  const T addend = read_register<T>(cpu, op.reg);
  T before = 0;
  modify<T, kAddressing, kLocked>(cpu, op, [&](T old) {
    before = old;
    return alu::Add::apply(old, addend, cpu.flags);
  });
  write_register<T>(cpu, op.reg, before);
}

template <typename T>
void compare_exchange_register(Cpu& cpu, const Op& op) {
  const T accumulator = static_cast<T>(cpu.gpr[cpu::kRax]);
  const T destination = read_register<T>(cpu, op.rm);
  alu::Cmp::apply(accumulator, destination, cpu.flags);
  if (accumulator == destination) {
    write_register<T>(cpu, op.rm, read_register<T>(cpu, op.reg));
  } else {
    write_register<T>(cpu, 0, destination);
  }
}

template <typename T, Addressing kAddressing, bool kLocked>
void compare_exchange_memory(Cpu& cpu, const Op& op) {
  const uint64_t linear = operand_address<kAddressing, MemoryAccess::kReadWrite>(cpu, op, sizeof(T));
  const T desired = read_register<T>(cpu, op.reg);
  const T accumulator = static_cast<T>(cpu.gpr[cpu::kRax]);
  T found = accumulator;
  const auto exchange = [&](T* host) {
    if constexpr (kLocked) {
      compare_exchange<T>(host, found, desired);
    } else {
      found = load_word<T>(host);
      store_word<T>(host, found == accumulator ? desired : found);
    }
  };
  if constexpr (kLocked) {
    update_locked_linear<T>(cpu, segment_of(op), linear, exchange);
  } else {
    update_linear<T>(cpu, segment_of(op), linear, exchange);
  }
  alu::Cmp::apply(accumulator, found, cpu.flags);
  // Equal: the accumulator is not written at all, not even the upper half of RAX.
  if (found != accumulator) write_register<T>(cpu, 0, found);
}

bool select_exchange_add(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  const bool locked = selection.instruction.has(decoder::kPrefixLock);
  if (!selection.instruction.has_memory()) {
    return use_handler(selection, by_size(size, []<typename T>() -> Handler { return exchange_add_register<T>; }));
  }
  return use_handler(selection,
                     by_size_and_addressing(selection, size, [&]<typename T, Addressing kAddressing>() -> Handler {
                       return locked ? Handler{exchange_add_memory<T, kAddressing, true>}
                                     : Handler{exchange_add_memory<T, kAddressing, false>};
                     }));
}

bool select_compare_exchange(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  const bool locked = selection.instruction.has(decoder::kPrefixLock);
  if (!selection.instruction.has_memory()) {
    return use_handler(selection, by_size(size, []<typename T>() -> Handler { return compare_exchange_register<T>; }));
  }
  return use_handler(selection,
                     by_size_and_addressing(selection, size, [&]<typename T, Addressing kAddressing>() -> Handler {
                       return locked ? Handler{compare_exchange_memory<T, kAddressing, true>}
                                     : Handler{compare_exchange_memory<T, kAddressing, false>};
                     }));
}

void set_zero(Cpu& cpu, bool zero) {
  cpu.flags.ax = static_cast<uint16_t>((cpu.flags.ax & ~ArithmeticFlags::kZero) | (zero ? ArithmeticFlags::kZero : 0));
}

template <Addressing kAddressing, bool kLocked>
void compare_exchange_8(Cpu& cpu, const Op& op) {
  const uint64_t linear = operand_address<kAddressing, MemoryAccess::kReadWrite>(cpu, op, 8);
  const uint64_t expected = cpu.gpr[cpu::kRdx] << 32 | static_cast<uint32_t>(cpu.gpr[cpu::kRax]);
  const uint64_t desired = cpu.gpr[cpu::kRcx] << 32 | static_cast<uint32_t>(cpu.gpr[cpu::kRbx]);
  uint64_t found = expected;
  if constexpr (kLocked) {
    update_locked_linear<uint64_t>(cpu, segment_of(op), linear,
                                   [&](uint64_t* host) { compare_exchange<uint64_t>(host, found, desired); });
  } else {
    update_linear<uint64_t>(cpu, segment_of(op), linear, [&](uint64_t* host) {
      found = load_word<uint64_t>(host);
      store_word<uint64_t>(host, found == expected ? desired : found);
    });
  }
  set_zero(cpu, found == expected);
  if (found == expected) return;
  cpu.gpr[cpu::kRax] = static_cast<uint32_t>(found);
  cpu.gpr[cpu::kRdx] = found >> 32;
}

struct alignas(16) Pair {
  uint64_t low, high;
};

// Always LOCKed on the host: there is no other instruction that moves 16 bytes at once on every processor.
template <Addressing kAddressing>
void compare_exchange_16(Cpu& cpu, const Op& op) {
  const uint64_t linear = operand_address<kAddressing, MemoryAccess::kReadWrite>(cpu, op, 16);
  if (linear % 16 != 0) raise(kGeneralProtection, 0);
  uint64_t low = cpu.gpr[cpu::kRax], high = cpu.gpr[cpu::kRdx];
  bool equal = false;
  update_locked_linear<Pair>(cpu, segment_of(op), linear, [&](Pair* host) {
    asm volatile("lock cmpxchg16b %[memory]"
                 : "+a"(low), "+d"(high), [memory] "+m"(*host), "=@ccz"(equal)
                 : "b"(cpu.gpr[cpu::kRbx]), "c"(cpu.gpr[cpu::kRcx])
                 : "memory");
  });
  set_zero(cpu, equal);
  if (equal) return;
  cpu.gpr[cpu::kRax] = low;
  cpu.gpr[cpu::kRdx] = high;
}

bool select_compare_exchange_8(const Selection& selection) {
  const bool locked = selection.instruction.has(decoder::kPrefixLock);
  if (selection.flat) {
    return use_handler(
        selection, locked ? compare_exchange_8<Addressing::kFlat, true> : compare_exchange_8<Addressing::kFlat, false>);
  }
  return use_handler(selection, locked ? compare_exchange_8<Addressing::kSegmented, true>
                                       : compare_exchange_8<Addressing::kSegmented, false>);
}

}  // namespace

bool select_atomic(const Selection& selection) {
  switch (selection.instruction.mnemonic) {
    case Mnemonic::kXadd:
      return select_exchange_add(selection);
    case Mnemonic::kCmpxchg:
      return select_compare_exchange(selection);
    case Mnemonic::kCmpxchg8b:
      return select_compare_exchange_8(selection);
    case Mnemonic::kCmpxchg16b:
      return use_handler(selection, selection.flat ? compare_exchange_16<Addressing::kFlat>
                                                   : compare_exchange_16<Addressing::kSegmented>);
    default:
      return false;
  }
}

}  // namespace bulkhead::engine::integer
