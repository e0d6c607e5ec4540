// How the stores of files open and lock them: against a second opening by whatever program, and from a folder downwards
// where a name is not the user's own.
#pragma once

#include <functional>
#include <string>

#include "block/store/store.h"
#include "support/os/fd.h"
#include "support/result.h"

namespace bulkhead::block {

// A name below a folder, reached through no link and never out of the folder (openat2). flags: of
// open(2).
[[nodiscard]] Result<Fd> open_beneath(const std::string& folder, const std::string& name, int flags);
// A new file there, to be read and written; no descriptor where the name is taken.
[[nodiscard]] Result<Fd> create_beneath(const std::string& folder, const std::string& name, unsigned mode);

// An open-file-description lock: it ends with the descriptor, whatever else this process opens and closes. Alone, or
// shared with other readers for kReadOnly. The error names the process that has the file, where this one may see it.
[[nodiscard]] Result<> lock_file(int fd, const std::string& path, Access access);

// Opens the file that a path names, by open(), and locks it. A file that loses its name in between, because another is
// put in its place, is let go, and that one opened: a lock on the old one would keep nobody out.
[[nodiscard]] Result<Fd> open_locked(const std::string& path, Access access, const std::function<Result<Fd>()>& open);

}  // namespace bulkhead::block
