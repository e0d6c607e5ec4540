// Encryption as a filter: a LUKS volume whose bytes lie on another disk, with whatever stands in front of that, rather
// than in a file of its own. What goes on below is all encrypted.
#pragma once

#include <memory>
#include <string>

#include "block/encrypt/secret.h"
#include "block/format/disk_opener.h"
#include "block/store/store.h"

namespace bulkhead::block::luks {

// `below` holds the volume's header and its data, and answers what it is asked by other threads than those that submit
// to the volume: the workers wait for it. Without threads, it answers at once. Errors name `name`.
[[nodiscard]] Result<OpenedDisk> open_volume(OpenedDisk below, const std::string& name, Access access,
                                             const std::shared_ptr<DiskKey>& key, unsigned thread_count);

}  // namespace bulkhead::block::luks
