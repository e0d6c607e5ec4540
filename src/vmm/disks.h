// Opens a VM's disk as its configuration states it. The format is stated or raw: it is never taken from bytes that a
// guest may have written.
#pragma once

#include <memory>

#include "block/disk.h"
#include "vmm/config/config.h"

namespace bulkhead::vmm {

// Without threads, requests are carried out by who submits them.
Result<std::unique_ptr<block::Disk>> open_disk(const DiskConfig& disk, unsigned thread_count);

}  // namespace bulkhead::vmm
