#include "vmm/panic_watch.h"

#include <string_view>

namespace bulkhead::vmm {
namespace {

// Its first letter occurs only once, so a mismatch begins anew at 0 or 1.
constexpr std::string_view kMark = "Kernel panic - not syncing: ";

}  // namespace

size_t PanicWatch::write(ByteSpan bytes) {
  const size_t taken = line_.write(bytes);
  LockGuard guard(mutex_);
  for (const uint8_t byte : bytes.first(taken)) look_at(static_cast<char>(byte));
  return taken;
}

void PanicWatch::look_at(char byte) {
  if (in_message_) {
    in_message_ = byte >= ' ' && byte <= '~' && message_->size() < kMaximumMessage;
    if (in_message_) message_->push_back(byte);
    return;
  }
  matched_ = byte == kMark[matched_] ? matched_ + 1 : (byte == kMark[0] ? 1 : 0);
  if (matched_ < kMark.size()) return;
  matched_ = 0;
  in_message_ = true;
  message_ = "";
}

std::optional<std::string> PanicWatch::message() const {
  LockGuard guard(mutex_);
  return message_;
}

void PanicWatch::forget() {
  LockGuard guard(mutex_);
  matched_ = 0;
  in_message_ = false;
  message_.reset();
}

}  // namespace bulkhead::vmm
