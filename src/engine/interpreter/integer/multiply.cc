// MUL, IMUL, DIV, IDIV, MULX and the decimal adjustments.
#include "engine/interpreter/integer/alu.h"
#include "engine/interpreter/integer/families.h"

namespace bulkhead::engine::integer {
namespace {

using decoder::Mnemonic;

template <typename T>
struct Twice;
template <>
struct Twice<uint8_t> {
  using Unsigned = uint16_t;
  using Signed = int16_t;
};
template <>
struct Twice<uint16_t> {
  using Unsigned = uint32_t;
  using Signed = int32_t;
};
template <>
struct Twice<uint32_t> {
  using Unsigned = uint64_t;
  using Signed = int64_t;
};
template <>
struct Twice<uint64_t> {
  using Unsigned = unsigned __int128;
  using Signed = __int128;
};

// The double-width accumulator: AX for bytes, else rDX:rAX.
template <typename T>
typename Twice<T>::Unsigned read_wide(const Cpu& cpu) {
  if constexpr (sizeof(T) == 1) {
    return static_cast<uint16_t>(cpu.gpr[cpu::kRax]);
  } else {
    using Wide = typename Twice<T>::Unsigned;
    return static_cast<Wide>(static_cast<Wide>(static_cast<T>(cpu.gpr[cpu::kRdx])) << (sizeof(T) * 8)) |
           static_cast<T>(cpu.gpr[cpu::kRax]);
  }
}

template <typename T>
void write_halves(Cpu& cpu, T low, T high) {
  if constexpr (sizeof(T) == 1) {
    write_register<uint16_t>(cpu, 0, static_cast<uint16_t>(high << 8 | low));
  } else {
    write_register<T>(cpu, 0, low);
    write_register<T>(cpu, cpu::kRdx * 8, high);
  }
}

// CF and OF say whether the upper half matters; SF, ZF, AF and PF are undefined and 0 here.
void set_overflow(Cpu& cpu, bool overflow) {
  cpu.flags.ax = overflow ? 0x0200 | ArithmeticFlags::kCarry | ArithmeticFlags::kOverflow : 0x0200;
}

template <typename T, typename Source>
void multiply(Cpu& cpu, const Op& op) {
  using Wide = typename Twice<T>::Unsigned;
  const Wide product = static_cast<Wide>(static_cast<Wide>(static_cast<T>(cpu.gpr[cpu::kRax])) * Source::get(cpu, op));
  const T high = static_cast<T>(product >> (sizeof(T) * 8));
  write_halves<T>(cpu, static_cast<T>(product), high);
  set_overflow(cpu, high != 0);
}

template <typename T>
bool multiply_signed(T a, T b, T& low, T& high) {
  using Wide = typename Twice<T>::Signed;
  using Signed = std::make_signed_t<T>;
  const Wide product = static_cast<Wide>(static_cast<Wide>(static_cast<Signed>(a)) * static_cast<Signed>(b));
  low = static_cast<T>(product);
  high = static_cast<T>(product >> (sizeof(T) * 8));
  return product != static_cast<Signed>(low);
}

template <typename T, typename Source>
void multiply_signed_wide(Cpu& cpu, const Op& op) {
  T low, high;
  const bool overflow = multiply_signed<T>(static_cast<T>(cpu.gpr[cpu::kRax]), Source::get(cpu, op), low, high);
  write_halves<T>(cpu, low, high);
  set_overflow(cpu, overflow);
}

template <typename T, typename Source>
void multiply_signed_two(Cpu& cpu, const Op& op) {
  T low, high;
  const bool overflow = multiply_signed<T>(read_register<T>(cpu, op.reg), Source::get(cpu, op), low, high);
  write_register<T>(cpu, op.reg, low);
  set_overflow(cpu, overflow);
}

template <typename T, typename Source>
void multiply_signed_three(Cpu& cpu, const Op& op) {
  T low, high;
  const bool overflow = multiply_signed<T>(Source::get(cpu, op), static_cast<T>(op.immediate), low, high);
  write_register<T>(cpu, op.reg, low);
  set_overflow(cpu, overflow);
}

// Division leaves the flags, all undefined, as they were.
template <typename T, typename Source>
void divide(Cpu& cpu, const Op& op) {
  using Wide = typename Twice<T>::Unsigned;
  const T divisor = Source::get(cpu, op);
  const Wide dividend = read_wide<T>(cpu);
  if (divisor == 0 || static_cast<T>(dividend >> (sizeof(T) * 8)) >= divisor) raise(kDivideError);
  T quotient, remainder;
  if constexpr (sizeof(T) == 8) {
    // The check above is what keeps the host's DIV from faulting.
    asm("div %[divisor]"
        : "=a"(quotient), "=d"(remainder)
        : "a"(cpu.gpr[cpu::kRax]), "d"(cpu.gpr[cpu::kRdx]), [divisor] "r"(divisor)
        : "cc");
  } else {
    quotient = static_cast<T>(dividend / divisor);
    remainder = static_cast<T>(dividend % divisor);
  }
  write_halves<T>(cpu, quotient, remainder);
}

template <typename T, typename Source>
void divide_signed(Cpu& cpu, const Op& op) {
  using Unsigned = typename Twice<T>::Unsigned;
  using Wide = typename Twice<T>::Signed;
  using Signed = std::make_signed_t<T>;
  const auto divisor = static_cast<Wide>(static_cast<Signed>(Source::get(cpu, op)));
  const auto dividend = static_cast<Wide>(read_wide<T>(cpu));
  // The most negative dividend has no opposite; only dividing it by -1 would overflow here, and that never fits.
  if (divisor == 0) raise(kDivideError);
  if (divisor == -1 && static_cast<Unsigned>(dividend) == Unsigned{1} << (sizeof(Wide) * 8 - 1)) raise(kDivideError);
  const Wide quotient = static_cast<Wide>(dividend / divisor);
  if (quotient != static_cast<Signed>(quotient)) raise(kDivideError);
  write_halves<T>(cpu, static_cast<T>(quotient), static_cast<T>(dividend % divisor));
}

// The low half first: with one destination for both, the high half stays.
template <typename T, typename Source>
void multiply_flagless(Cpu& cpu, const Op& op) {
  using Wide = typename Twice<T>::Unsigned;
  const Wide product = static_cast<Wide>(static_cast<T>(cpu.gpr[cpu::kRdx])) * Source::get(cpu, op);
  write_register<T>(cpu, op.vvvv, static_cast<T>(product));
  write_register<T>(cpu, op.reg, static_cast<T>(product >> (sizeof(T) * 8)));
}

// --- decimal adjustment; OF and other undefined flags are 0 ---

uint8_t al(const Cpu& cpu) {
  return static_cast<uint8_t>(cpu.gpr[cpu::kRax]);
}
uint8_t ah(const Cpu& cpu) {
  return static_cast<uint8_t>(cpu.gpr[cpu::kRax] >> 8);
}

template <bool kSubtract>
void adjust_packed(Cpu& cpu, const Op&) {
  const uint8_t old = al(cpu);
  const bool old_carry = cpu.flags.carry();
  uint8_t value = old;
  bool carry = false, adjust = false;
  if ((old & 15) > 9 || cpu.flags.adjust()) {
    adjust = true;
    carry = old_carry || (kSubtract ? old < 6 : old > 0xF9);
    value = static_cast<uint8_t>(kSubtract ? value - 6 : value + 6);
  }
  if (old > 0x99 || old_carry) {
    value = static_cast<uint8_t>(kSubtract ? value - 0x60 : value + 0x60);
    carry = true;
  }
  write_register<uint8_t>(cpu, 0, value);
  uint16_t flags = alu::result_flags(value);
  if (carry) flags |= ArithmeticFlags::kCarry;
  if (adjust) flags |= ArithmeticFlags::kAdjust;
  cpu.flags.ax = flags;
}

template <bool kSubtract>
void adjust_unpacked(Cpu& cpu, const Op&) {
  uint16_t value = static_cast<uint16_t>(cpu.gpr[cpu::kRax]);
  const bool adjust = (value & 15) > 9 || cpu.flags.adjust();
  if (adjust) {
    if constexpr (kSubtract) {
      value = static_cast<uint16_t>(value - 6);
      value = static_cast<uint16_t>(value - 0x100);
    } else {
      value = static_cast<uint16_t>(value + 0x106);
    }
  }
  value &= 0xFF0F;
  write_register<uint16_t>(cpu, 0, value);
  cpu.flags.ax = adjust ? 0x0200 | ArithmeticFlags::kCarry | ArithmeticFlags::kAdjust : 0x0200;
}

void adjust_after_multiply(Cpu& cpu, const Op& op) {
  const auto base = static_cast<uint8_t>(op.immediate);
  if (base == 0) raise(kDivideError);
  const uint8_t value = al(cpu);
  const auto low = static_cast<uint8_t>(value % base);
  write_register<uint16_t>(cpu, 0, static_cast<uint16_t>(value / base << 8 | low));
  cpu.flags.ax = alu::result_flags(low);
}

void adjust_before_divide(Cpu& cpu, const Op& op) {
  const auto value = static_cast<uint8_t>(al(cpu) + ah(cpu) * static_cast<uint8_t>(op.immediate));
  write_register<uint16_t>(cpu, 0, value);
  cpu.flags.ax = alu::result_flags(value);
}

}  // namespace

bool select_multiply(const Selection& selection) {
  const unsigned size = selection.instruction.operand_size;
  switch (selection.instruction.mnemonic) {
    case Mnemonic::kMul:
      return use_handler(selection, by_size_and_source(selection, size, []<typename T, typename Source>() -> Handler {
                           return multiply<T, Source>;
                         }));
    case Mnemonic::kImul: {
      const unsigned operands = selection.instruction.info->operand_count;
      return use_handler(selection, by_size_and_source(selection, size, [&]<typename T, typename Source>() -> Handler {
                           if (operands == 1) return multiply_signed_wide<T, Source>;
                           return operands == 2 ? Handler{multiply_signed_two<T, Source>}
                                                : Handler{multiply_signed_three<T, Source>};
                         }));
    }
    case Mnemonic::kDiv:
      return use_handler(selection, by_size_and_source(selection, size, []<typename T, typename Source>() -> Handler {
                           return divide<T, Source>;
                         }));
    case Mnemonic::kIdiv:
      return use_handler(selection, by_size_and_source(selection, size, []<typename T, typename Source>() -> Handler {
                           return divide_signed<T, Source>;
                         }));
    case Mnemonic::kMulx:
      return use_handler(selection,
                         by_word_size_and_source(selection, size, []<typename T, typename Source>() -> Handler {
                           return multiply_flagless<T, Source>;
                         }));
    case Mnemonic::kDaa:
      return use_handler(selection, adjust_packed<false>);
    case Mnemonic::kDas:
      return use_handler(selection, adjust_packed<true>);
    case Mnemonic::kAaa:
      return use_handler(selection, adjust_unpacked<false>);
    case Mnemonic::kAas:
      return use_handler(selection, adjust_unpacked<true>);
    case Mnemonic::kAam:
      return use_handler(selection, adjust_after_multiply);
    case Mnemonic::kAad:
      return use_handler(selection, adjust_before_divide);
    default:
      return false;
  }
}

}  // namespace bulkhead::engine::integer
