// The faults of a disk as its user writes them: "seed:7;delay:5ms;read-error:0.1%;bad:1M+64K".
#pragma once

#include <string>
#include <string_view>

#include "block/filter/fault_disk.h"
#include "support/result.h"

namespace bulkhead::vmm {

// They have passed block::check_faults(), and there is one.
Result<block::DiskFaults> parse_disk_faults(std::string_view text);
// The same in words for the log.
std::string describe(const block::DiskFaults& faults);

}  // namespace bulkhead::vmm
