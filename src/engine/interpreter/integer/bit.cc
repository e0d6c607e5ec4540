// Single bits, scans and counts: BT family, BSF, BSR, TZCNT, LZCNT, POPCNT, BMI1, BZHI, PDEP, PEXT, CRC32, ADCX, ADOX.
#include <array>
#include <bit>

#include "engine/interpreter/integer/alu.h"
#include "engine/interpreter/integer/families.h"

namespace bulkhead::engine::integer {
namespace {

using decoder::Mnemonic;
using decoder::OperandKind;

// --- BT, BTS, BTR, BTC: only CF changes ---

void set_carry(Cpu& cpu, bool carry) {
  cpu.flags.ax =
      static_cast<uint16_t>((cpu.flags.ax & ~ArithmeticFlags::kCarry) | (carry ? ArithmeticFlags::kCarry : 0));
}

struct Keep {
  static constexpr bool kWrites = false;
  static uint64_t apply(uint64_t value, uint64_t) { return value; }
};
struct Set {
  static constexpr bool kWrites = true;
  static uint64_t apply(uint64_t value, uint64_t bit) { return value | bit; }
};
struct Reset {
  static constexpr bool kWrites = true;
  static uint64_t apply(uint64_t value, uint64_t bit) { return value & ~bit; }
};
struct Complement {
  static constexpr bool kWrites = true;
  static uint64_t apply(uint64_t value, uint64_t bit) { return value ^ bit; }
};

template <typename Operation, typename T, bool kImmediate>
void bit_register(Cpu& cpu, const Op& op) {
  const uint64_t position = kImmediate ? op.immediate : read_register<uint64_t>(cpu, op.reg);
  const uint64_t bit = uint64_t{1} << (position & (sizeof(T) * 8 - 1));
  const T value = read_register<T>(cpu, op.rm);
  set_carry(cpu, value & bit);
  if constexpr (Operation::kWrites) write_register<T>(cpu, op.rm, static_cast<T>(Operation::apply(value, bit)));
}

template <typename Operation, typename T, Addressing kAddressing, bool kImmediate, bool kLocked>
void bit_memory(Cpu& cpu, const Op& op) {
  uint64_t offset = effective_address<kAddressing>(cpu, op);
  uint64_t position = op.immediate;
  if constexpr (!kImmediate) {
    // A register counts bits from the address on, in both directions; the operand moves along by whole operands.
    const auto distance = static_cast<std::make_signed_t<T>>(read_register<T>(cpu, op.reg));
    position = static_cast<uint64_t>(static_cast<int64_t>(distance));
    offset += static_cast<uint64_t>((static_cast<int64_t>(distance) >> std::countr_zero(sizeof(T) * 8)) *
                                    static_cast<int64_t>(sizeof(T)));
    if constexpr (kAddressing != Addressing::kFlat) offset &= size_mask(op.instruction->address_size);
  }
  const uint64_t bit = uint64_t{1} << (position & (sizeof(T) * 8 - 1));
  if constexpr (!Operation::kWrites) {
    const uint64_t linear = segment_address<kAddressing, MemoryAccess::kRead>(cpu, op, offset, sizeof(T));
    set_carry(cpu, read_linear<T>(cpu, segment_of(op), linear) & bit);
  } else {
    const uint64_t linear = segment_address<kAddressing, MemoryAccess::kReadWrite>(cpu, op, offset, sizeof(T));
    modify_linear<T, kLocked>(cpu, segment_of(op), linear, [&](T old) {
      set_carry(cpu, old & bit);
      return static_cast<T>(Operation::apply(old, bit));
    });
  }
}

template <typename Operation>
bool select_bit_test(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  const bool immediate = operand_kind(selection, 1) != OperandKind::kGprReg;
  if (!selection.instruction.has_memory()) {
    return use_handler(selection, by_word_size(size, [&]<typename T>() -> Handler {
                         return immediate ? Handler{bit_register<Operation, T, true>}
                                          : Handler{bit_register<Operation, T, false>};
                       }));
  }
  const bool locked = Operation::kWrites && selection.instruction.has(decoder::kPrefixLock);
  return use_handler(selection,
                     by_word_size_and_addressing(selection, size, [&]<typename T, Addressing kAddressing>() -> Handler {
                       if (locked) {
                         return immediate ? Handler{bit_memory<Operation, T, kAddressing, true, Operation::kWrites>}
                                          : Handler{bit_memory<Operation, T, kAddressing, false, Operation::kWrites>};
                       }
                       return immediate ? Handler{bit_memory<Operation, T, kAddressing, true, false>}
                                        : Handler{bit_memory<Operation, T, kAddressing, false, false>};
                     }));
}

// --- one source, one destination: each apply(source, old destination, flags). Flags not named here are 0. ---

// With a source of 0 the destination keeps its value.
struct ScanForward {
  template <typename T>
  static T apply(T source, T old, ArithmeticFlags& flags) {
    flags.ax = source == 0 ? 0x0200 | ArithmeticFlags::kZero : 0x0200;
    return source == 0 ? old : static_cast<T>(std::countr_zero(source));
  }
};
struct ScanReverse {
  template <typename T>
  static T apply(T source, T old, ArithmeticFlags& flags) {
    flags.ax = source == 0 ? 0x0200 | ArithmeticFlags::kZero : 0x0200;
    return source == 0 ? old : static_cast<T>(sizeof(T) * 8 - 1 - static_cast<unsigned>(std::countl_zero(source)));
  }
};

template <typename T>
uint16_t count_flags(T source, T count) {
  uint16_t ax = 0x0200;
  if (source == 0) ax |= ArithmeticFlags::kCarry;
  if (count == 0) ax |= ArithmeticFlags::kZero;
  return ax;
}
struct CountTrailing {
  template <typename T>
  static T apply(T source, T, ArithmeticFlags& flags) {
    const T count = static_cast<T>(std::countr_zero(source));
    flags.ax = count_flags(source, count);
    return count;
  }
};
struct CountLeading {
  template <typename T>
  static T apply(T source, T, ArithmeticFlags& flags) {
    const T count = static_cast<T>(std::countl_zero(source));
    flags.ax = count_flags(source, count);
    return count;
  }
};
struct CountOnes {
  template <typename T>
  static T apply(T source, T, ArithmeticFlags& flags) {
    flags.ax = source == 0 ? 0x0200 | ArithmeticFlags::kZero : 0x0200;
    return static_cast<T>(std::popcount(source));
  }
};

template <typename Operation, typename T, typename Source>
void scan(Cpu& cpu, const Op& op) {
  const T source = Source::get(cpu, op);
  const T old = read_register<T>(cpu, op.reg);
  const T result = Operation::apply(source, old, cpu.flags);
  // BSF and BSR of 0 leave even the upper half of a 32-bit destination alone.
  if constexpr (std::is_same_v<Operation, ScanForward> || std::is_same_v<Operation, ScanReverse>) {
    if (source == 0) return;
  }
  write_register<T>(cpu, op.reg, result);
}

template <typename Operation>
bool select_scan(const Selection& selection) {
  return use_handler(selection, by_word_size_and_source(selection, selection.instruction.operand_size,
                                                        []<typename T, typename Source>() -> Handler {
                                                          return scan<Operation, T, Source>;
                                                        }));
}

// --- BMI1 and BMI2: SF and ZF of the result, CF by the operation, the rest 0 ---

template <typename T>
void set_bmi_flags(Cpu& cpu, T result, bool carry) {
  constexpr uint16_t kKept = 0x0200 | ArithmeticFlags::kSign | ArithmeticFlags::kZero;
  cpu.flags.ax = static_cast<uint16_t>((alu::result_flags(result) & kKept) | (carry ? ArithmeticFlags::kCarry : 0));
}

template <typename T, typename Source>
void and_not(Cpu& cpu, const Op& op) {
  const T result = static_cast<T>(~read_register<T>(cpu, op.vvvv) & Source::get(cpu, op));
  write_register<T>(cpu, op.reg, result);
  set_bmi_flags(cpu, result, false);
}

template <typename T, typename Source>
void extract_field(Cpu& cpu, const Op& op) {
  const T source = Source::get(cpu, op);
  const uint64_t control = read_register<uint64_t>(cpu, op.vvvv);
  const unsigned start = control & 0xFF;
  const unsigned length = control >> 8 & 0xFF;
  T result = start < sizeof(T) * 8 ? static_cast<T>(source >> start) : T{0};
  if (length < sizeof(T) * 8) result &= static_cast<T>((T{1} << length) - 1);
  write_register<T>(cpu, op.reg, result);
  cpu.flags.ax = result == 0 ? 0x0200 | ArithmeticFlags::kZero : 0x0200;
}

// The destination is vvvv.
template <typename T, typename Source>
void isolate_lowest(Cpu& cpu, const Op& op) {
  const T source = Source::get(cpu, op);
  const T result = source & (~source + 1);
  write_register<T>(cpu, op.vvvv, result);
  set_bmi_flags(cpu, result, source != 0);
}
template <typename T, typename Source>
void mask_to_lowest(Cpu& cpu, const Op& op) {
  const T source = Source::get(cpu, op);
  const T result = source ^ (source - 1);
  write_register<T>(cpu, op.vvvv, result);
  set_bmi_flags(cpu, result, source == 0);
}
template <typename T, typename Source>
void reset_lowest(Cpu& cpu, const Op& op) {
  const T source = Source::get(cpu, op);
  const T result = source & (source - 1);
  write_register<T>(cpu, op.vvvv, result);
  set_bmi_flags(cpu, result, source == 0);
}

template <typename T, typename Source>
void zero_high_bits(Cpu& cpu, const Op& op) {
  const T source = Source::get(cpu, op);
  const unsigned count = read_register<uint8_t>(cpu, op.vvvv);
  const bool all = count >= sizeof(T) * 8;
  const T result = all ? source : static_cast<T>(source & ((T{1} << count) - 1));
  write_register<T>(cpu, op.reg, result);
  set_bmi_flags(cpu, result, all);
}

template <typename T, typename Source>
void deposit(Cpu& cpu, const Op& op) {
  T mask = Source::get(cpu, op);
  T source = read_register<T>(cpu, op.vvvv);
  T result = 0;
  for (; mask != 0; mask &= mask - 1, source >>= 1) {
    if (source & 1) result |= mask & (~mask + 1);
  }
  write_register<T>(cpu, op.reg, result);
}
template <typename T, typename Source>
void extract(Cpu& cpu, const Op& op) {
  T mask = Source::get(cpu, op);
  const T source = read_register<T>(cpu, op.vvvv);
  T result = 0;
  for (unsigned position = 0; mask != 0; mask &= mask - 1, ++position) {
    if (source & mask & (~mask + 1)) result |= T{1} << position;
  }
  write_register<T>(cpu, op.reg, result);
}

// --- CRC32 (the Castagnoli polynomial, reflected), ADCX, ADOX ---

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0x82F63B78u : 0);
    table[i] = value;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

template <typename T, typename Source>
void accumulate_crc(Cpu& cpu, const Op& op) {
  uint64_t source = Source::get(cpu, op);
  auto crc = read_register<uint32_t>(cpu, op.reg);
  for (unsigned i = 0; i < sizeof(T); ++i, source >>= 8) crc = crc >> 8 ^ kCrcTable[(crc ^ source) & 0xFF];
  write_register<uint32_t>(cpu, op.reg, crc);
}

template <typename T, typename Source, uint16_t kFlag>
void add_with_flag(Cpu& cpu, const Op& op) {
  const T source = Source::get(cpu, op);
  T sum;
  const bool first = __builtin_add_overflow(read_register<T>(cpu, op.reg), source, &sum);
  const bool second = __builtin_add_overflow(sum, static_cast<T>((cpu.flags.ax & kFlag) != 0), &sum);
  write_register<T>(cpu, op.reg, sum);
  cpu.flags.ax = static_cast<uint16_t>((cpu.flags.ax & ~kFlag) | (first || second ? kFlag : 0));
}

// choose.operator()<T, Source>() for 32 and 64 bits.
template <typename Choose>
bool select_wide(const Selection& selection, Choose&& choose) {
  return use_handler(selection, by_word_size_and_source(selection, selection.instruction.operand_size,
                                                        [&]<typename T, typename Source>() -> Handler {
                                                          if constexpr (sizeof(T) == 2) {
                                                            return nullptr;
                                                          } else {
                                                            return choose.template operator()<T, Source>();
                                                          }
                                                        }));
}

bool select_crc(const Selection& selection) {
  const unsigned size = decoder::operand_size_bytes(selection.instruction, 1);
  return use_handler(selection, by_size_and_source(selection, size, []<typename T, typename Source>() -> Handler {
                       return accumulate_crc<T, Source>;
                     }));
}

}  // namespace

bool select_bit(const Selection& selection) {
  switch (selection.instruction.mnemonic) {
    case Mnemonic::kBt:
      return select_bit_test<Keep>(selection);
    case Mnemonic::kBts:
      return select_bit_test<Set>(selection);
    case Mnemonic::kBtr:
      return select_bit_test<Reset>(selection);
    case Mnemonic::kBtc:
      return select_bit_test<Complement>(selection);
    case Mnemonic::kBsf:
      return select_scan<ScanForward>(selection);
    case Mnemonic::kBsr:
      return select_scan<ScanReverse>(selection);
    case Mnemonic::kTzcnt:
      return select_scan<CountTrailing>(selection);
    case Mnemonic::kLzcnt:
      return select_scan<CountLeading>(selection);
    case Mnemonic::kPopcnt:
      return select_scan<CountOnes>(selection);
    case Mnemonic::kCrc32:
      return select_crc(selection);
    case Mnemonic::kAndn:
      return select_wide(selection, []<typename T, typename S>() -> Handler { return and_not<T, S>; });
    case Mnemonic::kBextr:
      return select_wide(selection, []<typename T, typename S>() -> Handler { return extract_field<T, S>; });
    case Mnemonic::kBlsi:
      return select_wide(selection, []<typename T, typename S>() -> Handler { return isolate_lowest<T, S>; });
    case Mnemonic::kBlsmsk:
      return select_wide(selection, []<typename T, typename S>() -> Handler { return mask_to_lowest<T, S>; });
    case Mnemonic::kBlsr:
      return select_wide(selection, []<typename T, typename S>() -> Handler { return reset_lowest<T, S>; });
    case Mnemonic::kBzhi:
      return select_wide(selection, []<typename T, typename S>() -> Handler { return zero_high_bits<T, S>; });
    case Mnemonic::kPdep:
      return select_wide(selection, []<typename T, typename S>() -> Handler { return deposit<T, S>; });
    case Mnemonic::kPext:
      return select_wide(selection, []<typename T, typename S>() -> Handler { return extract<T, S>; });
    case Mnemonic::kAdcx:
      return select_wide(
          selection, []<typename T, typename S>() -> Handler { return add_with_flag<T, S, ArithmeticFlags::kCarry>; });
    case Mnemonic::kAdox:
      return select_wide(selection, []<typename T, typename S>() -> Handler {
        return add_with_flag<T, S, ArithmeticFlags::kOverflow>;
      });
    default:
      return false;
  }
}

}  // namespace bulkhead::engine::integer
