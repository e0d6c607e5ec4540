// Compresses units of an image. Each thread keeps its compressor.
#pragma once

#include <cstdint>
#include <vector>

#include "support/bytes.h"

namespace bulkhead::block {

enum class DeflateForm : uint8_t { kRaw, kZlib };

// At most limit bytes (RFC 1951, or with RFC 1950's frame around them); empty when they are not enough or memory is
// not.
std::vector<uint8_t> deflate(ByteSpan from, DeflateForm form, size_t limit);

}  // namespace bulkhead::block
