// A disk whose bytes are the file's bytes. A file that is no multiple of 512 reads as zeroes to the end of its last
// sector.
#pragma once

#include "block/format/image.h"

namespace bulkhead::block::raw {

Result<std::unique_ptr<Image>> open(std::unique_ptr<Store> store, Access access, const ImageOpener& opener);
// No settings; no backing file.
Result<> create(Store& store, const CreateOptions& options);

}  // namespace bulkhead::block::raw
