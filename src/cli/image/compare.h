// Whether two images hold the same.
#pragma once

#include <optional>

#include "block/format/image.h"

namespace bulkhead::cli {

// Of the same size. The first byte that differs, or none. What reads as zeroes in both is not read.
Result<std::optional<uint64_t>> first_difference(block::Image& a, block::Image& b, bool quiet);

}  // namespace bulkhead::cli
