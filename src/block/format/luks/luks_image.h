// A disk in a LUKS1 or LUKS2 volume: a header, and sectors encrypted one by one. Where nothing has been written, it
// reads as noise. Without a secret it can be looked at and no more.
#pragma once

#include "block/format/image.h"

namespace bulkhead::block::luks {

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener);
// Settings: version (1, 2), preallocation, and those of make_volume() (volume_key.h).
Result<> create(Store& store, const CreateOptions& options);

}  // namespace bulkhead::block::luks
