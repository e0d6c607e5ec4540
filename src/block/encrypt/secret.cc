#include "block/encrypt/secret.h"

#include <cerrno>
#include <chrono>

#include <fcntl.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <unistd.h>

#include "support/os/fd.h"

namespace bulkhead::block {
namespace {

constexpr int kPatienceMs = 10'000;

}  // namespace

void Secret::wipe() {
  if (!bytes_.empty()) ::OPENSSL_cleanse(bytes_.data(), bytes_.size());
}

Secret& Secret::operator=(Secret&& other) noexcept {
  wipe();
  bytes_ = std::move(other.bytes_);
  return *this;
}

Result<std::shared_ptr<DiskKey>> DiskKey::read(const std::string& path) {
  // A pipe without a writer must not hold us up.
  const Fd file = TRY(open_file(path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  Secret found(kMaximumBytes + 1);
  size_t size = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (size < found.size()) {
    const ssize_t count = ::read(file.get(), found.bytes().data() + size, found.size() - size);
    if (count == 0) break;
    if (count > 0) {
      size += static_cast<size_t>(count);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return fail_errno(errno, "read the secret '{}'", path);
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    pollfd wait{.fd = file.get(), .events = POLLIN, .revents = 0};
    if (left.count() <= 0 || ::poll(&wait, 1, static_cast<int>(left.count())) == 0) {
      return fail("read the secret '{}': nothing came within {} s", path, kPatienceMs / 1000);
    }
  }
  if (size == 0) return fail("the secret '{}' is empty", path);
  if (size > kMaximumBytes) return fail("the secret '{}' is larger than {} bytes", path, kMaximumBytes);
  return std::make_shared<DiskKey>(Secret(ByteSpan(found.bytes()).first(size)));
}

void DiskKey::keep(const std::string& of, ByteSpan volume_key) {
  const LockGuard lock(mutex_);
  if (keys_.size() < kMaximumKeys) keys_.insert_or_assign(of, Secret(volume_key));
}

std::optional<Secret> DiskKey::find(const std::string& of) {
  const LockGuard lock(mutex_);
  const auto found = keys_.find(of);
  if (found == keys_.end()) return std::nullopt;
  return Secret(std::as_const(found->second).bytes());
}

}  // namespace bulkhead::block
