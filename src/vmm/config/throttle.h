// How fast a disk may be, as its user writes it: "iops=500,bps=20M,bps-burst=200M", for one disk or for a group of
// them.
#pragma once

#include <string>
#include <string_view>

#include "block/filter/throttle/throttle_disk.h"
#include "support/result.h"

namespace bulkhead::vmm {

// Disks that share limits.
struct DiskGroupConfig {
  std::string name;
  block::ThrottleLimits limits;
};

// Whether this is the name of a limit: iops, iops-burst, bps or bps-burst.
[[nodiscard]] bool is_limit(std::string_view name);
Result<> set_limit(block::ThrottleLimits& limits, std::string_view name, std::string_view value);
// "NAME,iops=500,bps=20M".
Result<DiskGroupConfig> parse_disk_group(std::string_view text);
// A burst is of a limit.
Result<> check_limits(const block::ThrottleLimits& limits);
// Of a group: 1 to 32 letters, digits, '-' and '_'.
Result<std::string> parse_group_name(std::string_view text);

}  // namespace bulkhead::vmm
