#include "block/store/file/folder.h"

#include <cerrno>
#include <filesystem>

#include <fcntl.h>
#include <unistd.h>

#include "support/os/fd.h"

namespace bulkhead::block {

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path();
  return folder.empty() ? "." : folder;
}

Result<> sync_folder_of(const std::string& path) {
  const Fd folder = TRY(open_file(folder_of(path), O_RDONLY | O_DIRECTORY));
  if (::fsync(folder.get()) != 0) return fail_errno(errno, "sync the folder of '{}'", path);
  return {};
}

}  // namespace bulkhead::block
