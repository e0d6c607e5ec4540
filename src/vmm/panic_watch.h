// Looks for the line with which a Linux kernel says that it panicked, in what the guest writes to its serial line. It
// only gives an end a better name (a reset after a panic is a panic): a guest that lies deceives nobody but its own
// user, so nothing else may depend on it.
#pragma once

#include <optional>
#include <string>

#include "console/byte_stream.h"
#include "support/os/mutex.h"

namespace bulkhead::vmm {

class PanicWatch final : public console::ByteStream {
 public:
  explicit PanicWatch(console::ByteStream& line) : line_(line) {}

  size_t write(ByteSpan bytes) override;
  size_t read(MutableByteSpan out) override { return line_.read(out); }
  void set_listener(std::function<void()> on_ready) override { line_.set_listener(std::move(on_ready)); }

  // What stood behind "Kernel panic - not syncing: ", printable characters only, at most kMaximumMessage.
  [[nodiscard]] std::optional<std::string> message() const;
  void forget();

 private:
  static constexpr size_t kMaximumMessage = 160;
  void look_at(char byte) REQUIRES(mutex_);

  console::ByteStream& line_;
  mutable Mutex mutex_;
  size_t matched_ GUARDED_BY(mutex_) = 0;
  bool in_message_ GUARDED_BY(mutex_) = false;
  std::optional<std::string> message_ GUARDED_BY(mutex_);
};

}  // namespace bulkhead::vmm
