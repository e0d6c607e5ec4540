#include "net/tunnel/key_file.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/os/fd.h"

namespace bulkhead::net::tunnel {

Result<Secret> make_key_file(const std::string& path, RandomSource& random) {
  const Fd file = TRY(open_file(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  const Secret key = make_private_key(random);
  std::string line = key_text(key.bytes) + "\n";
  const auto written = write_all(file.get(), {reinterpret_cast<const uint8_t*>(line.data()), line.size()});
  OPENSSL_cleanse(line.data(), line.size());
  if (!written) return fail("'{}': {}", path, written.error().message);
  return key;
}

Result<Secret> read_key_file(const std::string& path) {
  const Fd file = TRY(open_file(path, O_RDONLY));
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, "'{}'", path);
  if ((status.st_mode & 077) != 0) {
    return fail("'{}': others may read or write it (mode {:03o}); allowed: 600", path, status.st_mode & 0777);
  }
  std::array<char, 64> bytes;
  const ssize_t count = ::read(file.get(), bytes.data(), bytes.size());
  if (count < 0) return fail_errno(errno, "'{}'", path);
  std::string_view line(bytes.data(), static_cast<size_t>(count));
  if (line.ends_with('\n')) line.remove_suffix(1);
  const auto key = parse_key(line);
  OPENSSL_cleanse(bytes.data(), bytes.size());
  if (!key) return fail("'{}': {}", path, key.error().message);
  return Secret(*key);
}

}  // namespace bulkhead::net::tunnel
