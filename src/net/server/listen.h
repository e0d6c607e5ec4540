// A listening Unix socket at a path, for its owner alone. What an ended process left there is replaced; a path where
// somebody listens is not.
#pragma once

#include <string>

#include "support/os/fd.h"

namespace bulkhead::net::server {

Result<Fd> listen_at(const std::string& path);
// Connects; the error names the path.
Result<Fd> connect_to(const std::string& path);

}  // namespace bulkhead::net::server
