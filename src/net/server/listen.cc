#include "net/server/listen.h"

#include <cerrno>
#include <cstring>
#include <thread>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

namespace bulkhead::net::server {
namespace {

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  if (path.size() >= sizeof address.sun_path) {
    return fail("'{}': a socket's path has at most {} characters", path, sizeof address.sun_path - 1);
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// Held while a path is looked at and taken: of two that find nobody there the later would take away the earlier one's
// socket. It is the folder's own lock, and gone with its holder.
Result<Fd> lock_folder_of(const std::string& path) {
  constexpr unsigned kTries = 5000;
  const size_t slash = path.rfind('/');
  const std::string name = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  Fd folder = TRY(open_file(name, O_RDONLY | O_DIRECTORY));
  for (unsigned count = 0; ::flock(folder.get(), LOCK_EX | LOCK_NB) != 0; ++count) {
    if (errno != EWOULDBLOCK && errno != EINTR) return fail_errno(errno, "'{}': lock", name);
    if (count == kTries) return fail("'{}': another process has held this folder for {} s", name, kTries / 1000);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return folder;
}

}  // namespace

Result<Fd> connect_to(const std::string& path, std::chrono::seconds patience) {
  const sockaddr_un address = TRY(address_of(path));
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno(errno, "'{}'", path);
  const timeval limit{.tv_sec = patience.count(), .tv_usec = 0};
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return socket;
  if (errno == EAGAIN) return fail("'{}': a process listens there, and took nobody in for {} s", path, limit.tv_sec);
  return fail_errno(errno, "'{}'", path);
}

bool is_listening(const std::string& path) {
  const auto address = address_of(path);
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!address || !socket.valid()) return false;
  // Where there are too many at its door it says: again.
  return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0 || errno == EAGAIN;
}

Result<Fd> listen_at(const std::string& path) {
  const sockaddr_un address = TRY(address_of(path));
  const Fd lock = TRY(lock_folder_of(path));
  if (is_listening(path)) return fail("'{}': another process listens there", path);
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0) {
    if (!S_ISSOCK(status.st_mode)) return fail("'{}': is there and is no socket", path);
    ::unlink(path.c_str());
  }
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return fail_errno(errno, "'{}'", path);
  // The mode of the new file is that of the socket before it is bound.
  (void)::fchmod(socket.get(), 0600);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket.get(), 16) != 0) {
    return fail_errno(errno, "'{}'", path);
  }
  return socket;
}

}  // namespace bulkhead::net::server
