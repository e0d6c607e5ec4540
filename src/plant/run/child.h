// A process that a supervisor starts: its output comes through a pipe, its input goes through another, and it is killed
// when the supervisor dies, so that nothing of a plant is left over.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

#include "support/os/fd.h"

namespace bulkhead::plant {

struct Child {
  pid_t pid = -1;
  Fd input;   // to write
  Fd output;  // to read: standard output and error

  static Result<Child> start(const std::string& program, const std::vector<std::string>& arguments);
};

}  // namespace bulkhead::plant
