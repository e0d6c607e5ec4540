// The folder that a file is in.
#pragma once

#include <string>

#include "support/result.h"

namespace bulkhead::block {

// Without a slash at its end; "." when the path names none.
[[nodiscard]] std::string folder_of(const std::string& path);
// That a file was made or renamed in its folder outlasts a power cut.
Result<> sync_folder_of(const std::string& path);

}  // namespace bulkhead::block
