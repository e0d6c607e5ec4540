// simd_handler(): which family carries an instruction out. Asked once an instruction when its block is made.
#include "engine/interpreter/integer/select_handler.h"
#include "engine/interpreter/simd/families.h"
#include "engine/interpreter/x87/handlers.h"

namespace bulkhead::engine {

Handler simd_handler(const decoder::Instruction& instruction) {
  // MMX first: its instructions share mnemonics with those on XMM registers.
  for (const auto select :
       {simd::select_mmx, simd::select_move, simd::select_integer, simd::select_lane, simd::select_masked,
        simd::select_control, simd::select_stub, simd::select_state, x87::select}) {
    if (const Handler handler = select(instruction)) return handler;
  }
  return nullptr;
}

}  // namespace bulkhead::engine
