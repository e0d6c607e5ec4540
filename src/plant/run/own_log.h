// What this process itself says, where nobody reads it at a terminal: a file that takes the place of some descriptors
// and begins anew when it is full; the one before is kept beside it as PATH.1.
#pragma once

#include <string>
#include <vector>

#include "support/result.h"

namespace bulkhead::plant {

class OwnLog {
 public:
  // Makes path anew, in the place of the descriptors.
  static Result<OwnLog> create(std::string path, std::vector<int> descriptors, uint64_t limit_bytes);

  // Call it now and then: the file is larger than the limit by what is written between two calls.
  void look_after() const;

 private:
  OwnLog(std::string path, std::vector<int> descriptors, uint64_t limit_bytes)
      : path_(std::move(path)), descriptors_(std::move(descriptors)), limit_(limit_bytes) {}
  [[nodiscard]] Result<> begin() const;

  std::string path_;
  std::vector<int> descriptors_;
  uint64_t limit_;
};

}  // namespace bulkhead::plant
