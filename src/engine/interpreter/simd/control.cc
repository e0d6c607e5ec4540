// MXCSR loads and stores, VZEROUPPER and VZEROALL.
#include "engine/interpreter/simd/families.h"
#include "engine/interpreter/simd/float_control.h"
#include "engine/interpreter/simd/registers.h"

namespace bulkhead::engine::simd {
namespace {

using decoder::Mnemonic;

template <bool kVex>
void load_mxcsr(Cpu& cpu, const Op& op) {
  require<kVex>(cpu);
  const auto value = load<uint32_t, false>(cpu, op);
  if ((value & ~uint32_t{kMxcsrWritable}) != 0) raise(kGeneralProtection, 0);
  set_mxcsr(cpu, value);
  leave_block_if_unmasked(cpu);
}

template <bool kVex>
void store_mxcsr(Cpu& cpu, const Op& op) {
  require<kVex>(cpu);
  store<uint32_t, false>(cpu, op, mxcsr(cpu));
}

// Outside of 64-bit mode registers 8 to 15 keep their values.
template <bool kAll>
void zero_registers(Cpu& cpu, const Op&) {
  require_avx(cpu);
  const size_t count = cpu.code64() ? 16 : 8;
  std::memset(ymm_high(cpu, 0), 0, 16 * count);
  if constexpr (kAll) std::memset(xmm(cpu, 0), 0, 16 * count);
}

}  // namespace

Handler select_control(const decoder::Instruction& instruction) {
  switch (instruction.mnemonic) {
    case Mnemonic::kLdmxcsr:
      return instruction.is_vex() ? load_mxcsr<true> : load_mxcsr<false>;
    case Mnemonic::kStmxcsr:
      return instruction.is_vex() ? store_mxcsr<true> : store_mxcsr<false>;
    case Mnemonic::kVzeroupper:
      return zero_registers<false>;
    case Mnemonic::kVzeroall:
      return zero_registers<true>;
    default:
      return nullptr;
  }
}

}  // namespace bulkhead::engine::simd
