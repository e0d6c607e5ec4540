// Copies one image's contents into another that reads as zeroes so far: several threads, holes and zeroes left out.
#pragma once

#include "block/format/image.h"

namespace bulkhead::cli {

enum class CopyMode : uint8_t { kPlain, kCompressed };

// What reads as zeroes is left out, or written over where the target is not a new one.
Result<> copy_image(block::Image& from, block::Image& to, CopyMode mode, bool quiet);

// For a new image that is thick: how far it is, on standard error when asked.
[[nodiscard]] block::Progress show_thick_progress(bool show);

}  // namespace bulkhead::cli
