// A listening Unix socket at a path, for its owner alone. What an ended process left there is replaced; a path where
// somebody listens is not. Of several that begin at the same moment one gets it.
#pragma once

#include <chrono>
#include <string>

#include "support/os/fd.h"

namespace bulkhead::net::server {

Result<Fd> listen_at(const std::string& path);
// How long whoever asks a process waits for it, which may be held or have too many at its door.
inline constexpr std::chrono::seconds kAskPatience{10};
// Connects; the error names the path. What is then sent or read waits no longer either, each time.
Result<Fd> connect_to(const std::string& path, std::chrono::seconds patience = kAskPatience);
// Whether a process listens there, which need not take anybody in. Waits for nobody.
[[nodiscard]] bool is_listening(const std::string& path);

}  // namespace bulkhead::net::server
