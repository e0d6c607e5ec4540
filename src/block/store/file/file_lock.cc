#include "block/store/file/file_lock.h"

#include <cerrno>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bulkhead::block {
namespace {

// Descriptors that are looked at: of a host's own processes there are fewer.
constexpr unsigned kMostLooks = 200'000;
// A file is exchanged once in a while; more often, something is wrong.
constexpr unsigned kMostOpenings = 16;

std::string first_line(const std::filesystem::path& path) {
  std::string line;
  std::getline(std::ifstream(path), line);
  return line;
}

bool has_lock(const std::filesystem::path& fdinfo) {
  std::ifstream lines(fdinfo);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("lock:")) return true;
  }
  return false;
}

// " by process 4711 (bulkhead)". The kernel does not say who has a lock of this kind, but each process says which of
// its descriptors has one. Empty where the holder is somebody else's, or gone by now.
std::string holder_of(int fd) {
  struct stat wanted{};
  if (::fstat(fd, &wanted) != 0) return "";
  std::error_code error;
  unsigned looks = 0;
  for (std::filesystem::directory_iterator process("/proc", error), end; process != end; process.increment(error)) {
    const std::string id = process->path().filename();
    if (id.find_first_not_of("0123456789") != std::string::npos) continue;
    std::error_code unseen;
    for (std::filesystem::directory_iterator one(process->path() / "fd", unseen), last; !unseen && one != last;
         one.increment(unseen)) {
      if (++looks > kMostLooks) return "";
      struct stat found{};
      if (::stat(one->path().c_str(), &found) != 0 || found.st_ino != wanted.st_ino || found.st_dev != wanted.st_dev) {
        continue;
      }
      if (!has_lock(process->path() / "fdinfo" / one->path().filename())) continue;
      return fmt::format(" by process {} ({})", id, first_line(process->path() / "comm"));
    }
  }
  return "";
}

// error: what errno says where there is no descriptor.
Result<Fd> try_beneath(const std::string& folder, const std::string& name, int flags, unsigned mode, int& error) {
  const Fd directory = TRY(open_file(folder, O_PATH | O_DIRECTORY));
  struct open_how how{};
  how.flags = static_cast<uint64_t>(flags);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const int number = static_cast<int>(::syscall(SYS_openat2, directory.get(), name.c_str(), &how, sizeof how));
  error = number < 0 ? errno : 0;
  return Fd(number);
}

Result<Fd> refuse(const std::string& folder, const std::string& name, int error) {
  if (error == EXDEV || error == ELOOP) return fail("open '{}': the name leaves the folder '{}'", name, folder);
  return fail_errno(error, "open '{}/{}'", folder, name);
}

}  // namespace

Result<Fd> open_beneath(const std::string& folder, const std::string& name, int flags) {
  int error = 0;
  Fd file = TRY(try_beneath(folder, name, flags, 0, error));
  if (!file.valid()) return refuse(folder, name, error);
  return file;
}

Result<Fd> create_beneath(const std::string& folder, const std::string& name, unsigned mode) {
  int error = 0;
  Fd file = TRY(try_beneath(folder, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode, error));
  if (!file.valid() && error != EEXIST) return refuse(folder, name, error);
  return file;
}

Result<> lock_file(int fd, const std::string& path, Access access) {
  struct flock lock{};
  lock.l_type = access == Access::kReadOnly ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return {};
  if (errno != EAGAIN && errno != EACCES) return fail_errno(errno, "lock '{}'", path);
  const std::string holder = holder_of(fd);
  return fail("open '{}': in use{}{}", path, holder.empty() ? " by a virtual machine or another program" : holder,
              access == Access::kReadOnly ? ", which writes to it" : "");
}

Result<Fd> open_locked(const std::string& path, Access access, const std::function<Result<Fd>()>& open) {
  for (unsigned i = 0; i < kMostOpenings; ++i) {
    Fd file = TRY(open());
    TRY(lock_file(file.get(), path, access));
    struct stat own{}, named{};
    if (::fstat(file.get(), &own) != 0) return fail_errno(errno, "open '{}'", path);
    // Where nothing has the name any more, the next opening says so.
    if (::stat(path.c_str(), &named) == 0 && named.st_dev == own.st_dev && named.st_ino == own.st_ino) return file;
  }
  return fail("open '{}': another file has taken its name {} times meanwhile", path, kMostOpenings);
}

}  // namespace bulkhead::block
