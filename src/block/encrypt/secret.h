// Bytes that nobody may find afterwards: a passphrase, a volume's key. Wiped when they go. Never: in a message, in a
// log, on a command line, in the environment.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "support/bytes.h"
#include "support/os/mutex.h"
#include "support/result.h"

namespace bulkhead::block {

class Secret {
 public:
  Secret() = default;
  explicit Secret(size_t size) : bytes_(size) {}
  explicit Secret(ByteSpan bytes) : bytes_(bytes.begin(), bytes.end()) {}
  Secret(Secret&& other) noexcept = default;
  Secret& operator=(Secret&& other) noexcept;
  ~Secret() { wipe(); }

  [[nodiscard]] ByteSpan bytes() const { return bytes_; }
  [[nodiscard]] MutableByteSpan bytes() { return bytes_; }
  [[nodiscard]] size_t size() const { return bytes_.size(); }

 private:
  void wipe();

  std::vector<uint8_t> bytes_;  // never resized, which would leave a copy behind
};

// What opens the images of one disk: its passphrase, and the keys that it has led to, so that a file that is opened
// again while a guest waits needs no derivation again. From any thread.
class DiskKey {
 public:
  explicit DiskKey(Secret passphrase) : passphrase_(std::move(passphrase)) {}
  // All bytes of a file, a line's end too; for a descriptor, the file is /dev/fd/N. 1 to kMaximumBytes of them; a pipe
  // has kPatience.
  static Result<std::shared_ptr<DiskKey>> read(const std::string& path);

  [[nodiscard]] ByteSpan passphrase() const { return passphrase_.bytes(); }
  // For the message about a wrong one: as an editor leaves it.
  [[nodiscard]] bool ends_with_newline() const { return passphrase_.bytes().back() == '\n'; }
  // `of` names a volume by what its header says of its key.
  void keep(const std::string& of, ByteSpan volume_key);
  [[nodiscard]] std::optional<Secret> find(const std::string& of);

 private:
  static constexpr size_t kMaximumBytes = 65536, kMaximumKeys = 64;

  const Secret passphrase_;
  Mutex mutex_;
  std::map<std::string, Secret> keys_ GUARDED_BY(mutex_);
};

}  // namespace bulkhead::block
