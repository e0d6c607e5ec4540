// Takes away from a process all that it does not need any more: files by Landlock, system calls by seccomp. For
// processes that have opened what they work with. It cannot be undone and holds for the calling thread and all that it
// makes afterwards; a process that has others has given up nothing.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "support/result.h"

namespace bulkhead {

struct Confinement {
  // Folders in which files may still be removed; nothing can be opened anywhere.
  std::vector<std::string> removable_in;
  // Files that may still be read, where they are there.
  std::vector<std::string> readable;
  // System calls by name, besides those that every process of ours makes (memory, waiting, reading, writing, ending).
  std::vector<std::string> calls;
};

// What is refused then fails with EPERM. Returns what the host's kernel could not take away, a phrase each.
Result<std::vector<std::string>> confine(const Confinement& confinement);

}  // namespace bulkhead
