// VHD images: fixed (the disk's bytes and a footer), dynamic, and differencing.
#pragma once

#include "block/format/image.h"

namespace bulkhead::block::vhd {

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener);
// Settings: subformat (fixed, dynamic; with a backing file it is differencing), block_size (of dynamic ones).
Result<> create(Store& store, const CreateOptions& options);

[[nodiscard]] Result<bool> ends_with_footer(Store& store);

}  // namespace bulkhead::block::vhd
