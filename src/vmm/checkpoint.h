// A whole machine as one file: its saved state, then its RAM, pages of zeroes left out. The same file serves both
// engines.
//
//   8 bytes  "BHCHECK1"
//   u64      size of the state, then the state (support/state)
//   runs     u64 page number, u64 page count (at most kMaximumRun), the pages
//   end      u64 UINT64_MAX, u64 0
#pragma once

#include <string>

#include "support/result.h"

namespace bulkhead::vmm {

class Vm;

// Brings the VM to rest, writes the file (it appears whole or not at all) and lets the VM go on.
Result<> write_checkpoint(const std::string& path, Vm& vm);
// Into a VM that has not been started. After an error it must be thrown away.
Result<> read_checkpoint(const std::string& path, Vm& vm);

}  // namespace bulkhead::vmm
