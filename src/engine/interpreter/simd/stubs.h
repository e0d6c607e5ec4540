// The pre-assembled host instructions of stubs.S and how to call one. A stub whose feature the host lacks is never
// called: the feature is then absent from the guest's model and the decoder refuses the opcode.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/decoder/instruction.h"

namespace bulkhead::engine::simd {

struct alignas(32) VectorRegister {
  uint64_t lane[4];
};

// The operands in and out. Offsets are known to stubs.S.
struct StubFrame {
  VectorRegister implicit{};  // XMM0 as an implicit operand
  VectorRegister reg{};       // ModRM.reg
  VectorRegister rm{};        // ModRM.rm
  VectorRegister first{};     // VEX.vvvv
  VectorRegister fourth{};    // is4
  uint64_t mmx_reg = 0, mmx_rm = 0;
  uint64_t rax = 0;      // implicit
  uint64_t gpr_reg = 0;  // RCX
  uint64_t gpr_rm = 0;   // RDX
  uint64_t rflags = 0;   // out
};
static_assert(offsetof(StubFrame, mmx_reg) == 160 && offsetof(StubFrame, rax) == 176 &&
              offsetof(StubFrame, rflags) == 200);

// Run a stub on the frame: SSE has no VEX.vvvv and no upper halves, MMX has MM and XMM registers. MXCSR is as the
// caller left it.
extern "C" {
// clang-format off
void bulkhead_simd_run_sse(StubFrame* frame, const void* stub);
void bulkhead_simd_run_avx(StubFrame* frame, const void* stub);
void bulkhead_simd_run_mmx(StubFrame* frame, const void* stub);
// clang-format on
}

struct Stub {
  const uint8_t* code = nullptr;  // nullptr: none for this instruction
  bool uses_mxcsr = false;
};

// The encodings that a mnemonic may have.
struct StubKey {
  decoder::Mnemonic mnemonic{};
  enum class Kind : uint8_t { kMmx, kSse, kAvx128, kAvx256 } kind = Kind::kSse;
  bool wide = false;       // REX.W or VEX.W; falls back to the encoding without
  bool immediate = false;  // has an immediate (which is not is4)
};
Stub find_stub(const StubKey& key, uint8_t immediate);

}  // namespace bulkhead::engine::simd
