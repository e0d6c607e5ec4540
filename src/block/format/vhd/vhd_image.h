// VHD images: fixed (the disk's bytes and a footer), dynamic, and differencing.
#pragma once

#include "block/format/image.h"

namespace bulkhead::block::vhd {

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener);
// Settings: subformat (fixed, dynamic; with a backing file it is differencing), block_size (of dynamic ones),
// preallocation (of fixed ones).
Result<> create(Store& store, const CreateOptions& options);

// Whether 512 bytes that stand at an offset of a file, and end it, make what is before them a fixed disk.
[[nodiscard]] bool is_footer_of_fixed(ByteSpan bytes, uint64_t offset);

}  // namespace bulkhead::block::vhd
