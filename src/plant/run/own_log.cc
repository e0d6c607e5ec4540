#include "plant/run/own_log.h"

#include <cstdio>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/os/fd.h"

namespace bulkhead::plant {

Result<OwnLog> OwnLog::create(std::string path, std::vector<int> descriptors, uint64_t limit_bytes) {
  OwnLog log(std::move(path), std::move(descriptors), limit_bytes);
  TRY(log.begin());
  return log;
}

Result<> OwnLog::begin() const {
  const Fd file = TRY(open_file(path_, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW, 0600));
  for (const int each : descriptors_) {
    if (::dup2(file.get(), each) < 0) return fail_errno(errno, "'{}'", path_);
  }
  return {};
}

void OwnLog::look_after() const {
  struct stat status{};
  if (::fstat(descriptors_.front(), &status) != 0 || static_cast<uint64_t>(status.st_size) <= limit_) return;
  (void)::rename(path_.c_str(), (path_ + ".1").c_str());
  // Where no other can be made, the old one goes on from its start.
  if (!begin()) (void)!::ftruncate(descriptors_.front(), 0);
}

}  // namespace bulkhead::plant
