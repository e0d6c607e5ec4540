// MOVS, CMPS, STOS, LODS, SCAS, INS and OUTS, alone and repeated. Each element is complete, registers included, before
// the next begins: a fault or an interrupt in the middle of a repetition finds rSI, rDI and rCX where they belong and
// RIP at the instruction. A repeated instruction ends its block and sets cpu.rip, to itself when it has to come back.
#include <algorithm>

#include "engine/interpreter/integer/alu.h"
#include "engine/interpreter/integer/families.h"
#include "engine/interpreter/system/system.h"

namespace bulkhead::engine::integer {
namespace {

using decoder::Mnemonic;

uint64_t offset_in(const Cpu& cpu, const Op& op, cpu::Register index) {
  return cpu.gpr[index] & size_mask(op.instruction->address_size);
}

void advance(Cpu& cpu, const Op& op, cpu::Register index, uint64_t bytes) {
  const bool down = (cpu.system_flags & kFlagDirection) != 0;
  const uint64_t moved = down ? cpu.gpr[index] - bytes : cpu.gpr[index] + bytes;
  write_sized(cpu.gpr[index], moved, op.instruction->address_size);
}

// Host bytes of a run of elements from [index] upwards, as far as one page of RAM goes and at most `count` elements;
// the number of elements it holds replaces count. nullptr (take one element the long way) where a limit or a wrap may
// come into it.
template <typename T, MemoryAccess kAccess>
uint8_t* find_run(Cpu& cpu, const Op& op, cpu::SegmentRegister segment, cpu::Register index, uint64_t& count) {
  if ((cpu.system_flags & kFlagDirection) != 0) return nullptr;
  const uint64_t offset = offset_in(cpu, op, index);
  uint64_t linear = offset;
  if (cpu.mode.code64()) {
    if (segment >= cpu::kFs) linear += cpu.segments[segment].base;
  } else if (!cpu.mode.has(ModeBits::kFlat) || segment >= cpu::kFs || op.instruction->address_size != 4) {
    return nullptr;
  }
  count = std::min(count, (kPageSize - (linear & (kPageSize - 1))) / sizeof(T));
  if (count == 0) return nullptr;
  const auto bytes = static_cast<unsigned>(count * sizeof(T));
  return kAccess == MemoryAccess::kRead ? find_readable(cpu, linear, bytes) : find_writable(cpu, linear, bytes);
}

// Each operation: step() carries out one element; run() carries out some of at most `count` at once and says how many,
// or 0. Both advance the index registers. kComparesFlags: ends on ZF as REPE and REPNE say.

template <typename T>
struct MoveElements {
  static constexpr bool kCompares = false;

  static void step(Cpu& cpu, const Op& op) {
    const T value = read<T>(cpu, segment_of(op), offset_in(cpu, op, cpu::kRsi));
    write<T>(cpu, cpu::kEs, offset_in(cpu, op, cpu::kRdi), value);
    advance(cpu, op, cpu::kRsi, sizeof(T));
    advance(cpu, op, cpu::kRdi, sizeof(T));
  }

  // The host's own REP MOVS: element by element as far as overlapping operands can tell, and fast.
  static uint64_t run(Cpu& cpu, const Op& op, uint64_t count, bool) {
    const uint8_t* from = find_run<T, MemoryAccess::kRead>(cpu, op, segment_of(op), cpu::kRsi, count);
    if (from == nullptr) return 0;
    uint8_t* to = find_run<T, MemoryAccess::kWrite>(cpu, op, cpu::kEs, cpu::kRdi, count);
    if (to == nullptr) return 0;
    uint64_t left = count;
    if constexpr (sizeof(T) == 1) asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(left) : : "memory");
    if constexpr (sizeof(T) == 2) asm volatile("rep movsw" : "+S"(from), "+D"(to), "+c"(left) : : "memory");
    if constexpr (sizeof(T) == 4) asm volatile("rep movsl" : "+S"(from), "+D"(to), "+c"(left) : : "memory");
    if constexpr (sizeof(T) == 8) asm volatile("rep movsq" : "+S"(from), "+D"(to), "+c"(left) : : "memory");
    advance(cpu, op, cpu::kRsi, count * sizeof(T));
    advance(cpu, op, cpu::kRdi, count * sizeof(T));
    return count;
  }
};

template <typename T>
struct StoreElements {
  static constexpr bool kCompares = false;

  static void step(Cpu& cpu, const Op& op) {
    write<T>(cpu, cpu::kEs, offset_in(cpu, op, cpu::kRdi), static_cast<T>(cpu.gpr[cpu::kRax]));
    advance(cpu, op, cpu::kRdi, sizeof(T));
  }

  static uint64_t run(Cpu& cpu, const Op& op, uint64_t count, bool) {
    uint8_t* to = find_run<T, MemoryAccess::kWrite>(cpu, op, cpu::kEs, cpu::kRdi, count);
    if (to == nullptr) return 0;
    const uint64_t value = cpu.gpr[cpu::kRax];
    uint64_t left = count;
    if constexpr (sizeof(T) == 1) asm volatile("rep stosb" : "+D"(to), "+c"(left) : "a"(value) : "memory");
    if constexpr (sizeof(T) == 2) asm volatile("rep stosw" : "+D"(to), "+c"(left) : "a"(value) : "memory");
    if constexpr (sizeof(T) == 4) asm volatile("rep stosl" : "+D"(to), "+c"(left) : "a"(value) : "memory");
    if constexpr (sizeof(T) == 8) asm volatile("rep stosq" : "+D"(to), "+c"(left) : "a"(value) : "memory");
    advance(cpu, op, cpu::kRdi, count * sizeof(T));
    return count;
  }
};

template <typename T>
struct LoadElements {
  static constexpr bool kCompares = false;

  static void step(Cpu& cpu, const Op& op) {
    write_register<T>(cpu, 0, read<T>(cpu, segment_of(op), offset_in(cpu, op, cpu::kRsi)));
    advance(cpu, op, cpu::kRsi, sizeof(T));
  }
  static uint64_t run(Cpu&, const Op&, uint64_t, bool) { return 0; }
};

template <typename T>
struct CompareElements {
  static constexpr bool kCompares = true;

  static void step(Cpu& cpu, const Op& op) {
    const T first = read<T>(cpu, segment_of(op), offset_in(cpu, op, cpu::kRsi));
    const T second = read<T>(cpu, cpu::kEs, offset_in(cpu, op, cpu::kRdi));
    alu::Cmp::apply(first, second, cpu.flags);
    advance(cpu, op, cpu::kRsi, sizeof(T));
    advance(cpu, op, cpu::kRdi, sizeof(T));
  }

  static uint64_t run(Cpu& cpu, const Op& op, uint64_t count, bool while_equal) {
    const uint8_t* first = find_run<T, MemoryAccess::kRead>(cpu, op, segment_of(op), cpu::kRsi, count);
    if (first == nullptr) return 0;
    const uint8_t* second = find_run<T, MemoryAccess::kRead>(cpu, op, cpu::kEs, cpu::kRdi, count);
    if (second == nullptr) return 0;
    uint64_t done = 0;
    T a, b;
    do {
      a = load_word<T>(first + done * sizeof(T));
      b = load_word<T>(second + done * sizeof(T));
      ++done;
    } while (done < count && (a == b) == while_equal);
    alu::Cmp::apply(a, b, cpu.flags);
    advance(cpu, op, cpu::kRsi, done * sizeof(T));
    advance(cpu, op, cpu::kRdi, done * sizeof(T));
    return done;
  }
};

template <typename T>
struct ScanElements {
  static constexpr bool kCompares = true;

  static void step(Cpu& cpu, const Op& op) {
    const T value = read<T>(cpu, cpu::kEs, offset_in(cpu, op, cpu::kRdi));
    alu::Cmp::apply(static_cast<T>(cpu.gpr[cpu::kRax]), value, cpu.flags);
    advance(cpu, op, cpu::kRdi, sizeof(T));
  }

  static uint64_t run(Cpu& cpu, const Op& op, uint64_t count, bool while_equal) {
    const uint8_t* from = find_run<T, MemoryAccess::kRead>(cpu, op, cpu::kEs, cpu::kRdi, count);
    if (from == nullptr) return 0;
    const T wanted = static_cast<T>(cpu.gpr[cpu::kRax]);
    uint64_t done = 0;
    T value;
    do {
      value = load_word<T>(from + done * sizeof(T));
      ++done;
    } while (done < count && (value == wanted) == while_equal);
    alu::Cmp::apply(wanted, value, cpu.flags);
    advance(cpu, op, cpu::kRdi, done * sizeof(T));
    return done;
  }
};

template <typename T>
struct InputElements {
  static constexpr bool kCompares = false;

  // A port read cannot be taken back, so the destination is probed first.
  static void step(Cpu& cpu, const Op& op) {
    const auto port = static_cast<uint16_t>(cpu.gpr[cpu::kRdx]);
    const uint64_t offset = offset_in(cpu, op, cpu::kRdi);
    check_port(cpu, port, sizeof(T));
    probe_write(cpu, cpu::kEs, offset, sizeof(T));
    write<T>(cpu, cpu::kEs, offset, static_cast<T>(port_read(cpu, port, sizeof(T))));
    advance(cpu, op, cpu::kRdi, sizeof(T));
  }
  static uint64_t run(Cpu&, const Op&, uint64_t, bool) { return 0; }
};

template <typename T>
struct OutputElements {
  static constexpr bool kCompares = false;

  static void step(Cpu& cpu, const Op& op) {
    const auto port = static_cast<uint16_t>(cpu.gpr[cpu::kRdx]);
    check_port(cpu, port, sizeof(T));
    const T value = read<T>(cpu, segment_of(op), offset_in(cpu, op, cpu::kRsi));
    port_write(cpu, port, sizeof(T), value);
    advance(cpu, op, cpu::kRsi, sizeof(T));
  }
  static uint64_t run(Cpu&, const Op&, uint64_t, bool) { return 0; }
};

// The instruction is not finished: an interrupt or a trap comes first. It counts when it completes; the shadow of STI
// or MOV SS, which is told by the count, ends with the elements done so far.
void come_back(Cpu& cpu, const Op& op) {
  cpu.rip = cpu.block_rip + op.offset;
  --cpu.instruction_count;
  cpu.shadow_at_count = cpu.stack_shadow_at_count = ~0ull;
}

enum class Repeat : uint8_t { kWhileEqual, kWhileNotEqual };

template <typename Elements, Repeat kRepeat>
void repeat(Cpu& cpu, const Op& op) {
  const unsigned size = op.instruction->address_size;
  uint64_t& rcx = cpu.gpr[cpu::kRcx];
  uint64_t count = rcx & size_mask(size);
  constexpr bool kWhileEqual = kRepeat == Repeat::kWhileEqual;
  while (count != 0) {
    uint64_t done = cpu.stepping ? 0 : Elements::run(cpu, op, count, kWhileEqual);
    if (done == 0) {
      Elements::step(cpu, op);
      done = 1;
    }
    count -= done;
    write_sized(rcx, count, size);
    if constexpr (Elements::kCompares) {
      if (cpu.flags.zero() != kWhileEqual) break;
    }
    const bool interrupted = (cpu.attention.load(std::memory_order_relaxed) & cpu.attention_mask) != 0;
    if (count != 0 && (interrupted || cpu.stepping)) return come_back(cpu, op);
  }
  cpu.rip = cpu.block_rip + op.end_offset;
}

template <typename Elements>
void once(Cpu& cpu, const Op& op) {
  Elements::step(cpu, op);
}

template <template <typename> typename Elements>
bool select_elements(const Selection& selection) {
  const bool rep = selection.instruction.has(decoder::kPrefixRep);
  const bool repne = selection.instruction.has(decoder::kPrefixRepne);
  if (rep || repne) selection.op.ends_block = true;
  return use_handler(selection, by_size(selection.instruction.operand_size, [&]<typename T>() -> Handler {
                       if (rep) return repeat<Elements<T>, Repeat::kWhileEqual>;
                       if (repne) return repeat<Elements<T>, Repeat::kWhileNotEqual>;
                       return once<Elements<T>>;
                     }));
}

}  // namespace

bool select_string(const Selection& selection) {
  switch (selection.instruction.mnemonic) {
    case Mnemonic::kMovs:
      return select_elements<MoveElements>(selection);
    case Mnemonic::kStos:
      return select_elements<StoreElements>(selection);
    case Mnemonic::kLods:
      return select_elements<LoadElements>(selection);
    case Mnemonic::kCmps:
      return select_elements<CompareElements>(selection);
    case Mnemonic::kScas:
      return select_elements<ScanElements>(selection);
    case Mnemonic::kIns:
      return select_elements<InputElements>(selection);
    case Mnemonic::kOuts:
      return select_elements<OutputElements>(selection);
    default:
      return false;
  }
}

}  // namespace bulkhead::engine::integer
