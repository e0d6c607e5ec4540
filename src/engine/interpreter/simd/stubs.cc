// Finds the pre-assembled host instruction of a guest instruction.
#include "engine/interpreter/simd/stubs.h"

#include <array>
#include <iterator>

extern "C" {
extern const uint8_t bulkhead_simd_stubs[];
extern const uint32_t bulkhead_simd_stub_offsets[];
}

namespace bulkhead::engine::simd {
namespace {

using decoder::Mnemonic;

struct Row {
  StubKey key;
  uint16_t immediate_count;
  bool uses_mxcsr;
};

constexpr bool f = true, i = false;
constexpr StubKey::Kind vex_kind(int l) {
  return l == 1 ? StubKey::Kind::kAvx256 : StubKey::Kind::kAvx128;
}

#define SSE(t, n, p, m, o) {{Mnemonic::k##n, StubKey::Kind::kSse, false, false}, 1, t},
#define SSEW(t, n, p, m, o) {{Mnemonic::k##n, StubKey::Kind::kSse, true, false}, 1, t},
#define SSEI(t, n, p, m, o, c) {{Mnemonic::k##n, StubKey::Kind::kSse, false, true}, c, t},
#define SSEWI(t, n, p, m, o, c) {{Mnemonic::k##n, StubKey::Kind::kSse, true, true}, c, t},
#define MMX(t, n, p, m, o) {{Mnemonic::k##n, StubKey::Kind::kMmx, false, false}, 1, t},
#define MMXI(t, n, p, m, o, c) {{Mnemonic::k##n, StubKey::Kind::kMmx, false, true}, c, t},
#define VEX(t, n, p, m, o, w, l, v) {{Mnemonic::k##n, vex_kind(l), w == 1, false}, 1, t},
#define VEXI(t, n, p, m, o, w, l, v, c) {{Mnemonic::k##n, vex_kind(l), w == 1, true}, c, t},
#define VEX_IS4(t, n, p, m, o, w, l) {{Mnemonic::k##n, vex_kind(l), w == 1, false}, 1, t},
constexpr Row kRows[] = {
#include "engine/interpreter/simd/stubs.inc"
};

constexpr size_t kStubBytes = 8;

constexpr size_t index_of(const StubKey& key) {
  return static_cast<size_t>(key.mnemonic) << 4 | static_cast<size_t>(key.kind) << 2 | (key.wide ? 2 : 0) |
         (key.immediate ? 1 : 0);
}

// Row number + 1 by key; 0: no such stub.
using RowIndex = std::array<uint16_t, static_cast<size_t>(Mnemonic::kCount) << 4>;

constexpr RowIndex make_row_index() {
  RowIndex index{};
  for (size_t row = 0; row < std::size(kRows); ++row) index[index_of(kRows[row].key)] = static_cast<uint16_t>(row + 1);
  return index;
}
constexpr RowIndex kRowIndex = make_row_index();

}  // namespace

Stub find_stub(const StubKey& key, uint8_t immediate) {
  uint16_t row = kRowIndex[index_of(key)];
  if (row == 0 && key.wide) {
    StubKey narrow = key;
    narrow.wide = false;
    row = kRowIndex[index_of(narrow)];
  }
  if (row == 0) return {};
  const Row& found = kRows[row - 1];
  // Immediate bits above the count have no effect.
  const size_t copy = immediate & (found.immediate_count - 1u);
  return {bulkhead_simd_stubs + bulkhead_simd_stub_offsets[row - 1] + copy * kStubBytes, found.uses_mxcsr};
}

}  // namespace bulkhead::engine::simd
