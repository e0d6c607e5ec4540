// The order of a disk's filters as its user writes it, from the guest to the storage: "throttle+encrypt+fault+changes".
#pragma once

#include <string_view>
#include <vector>

#include "support/result.h"
#include "vmm/config/config.h"

namespace bulkhead::vmm {

// Each at most once.
[[nodiscard]] Result<std::vector<DiskFilter>> parse_disk_filters(std::string_view text);
// That the order names what the disk has and nothing else, and is one that there can be.
[[nodiscard]] Result<> check_disk_filters(const DiskConfig& disk, bool deterministic);

}  // namespace bulkhead::vmm
