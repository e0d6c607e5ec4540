#include "device/legacy/debug_ports/debug_ports.h"

#include <algorithm>
#include <array>

namespace bulkhead::device::legacy {

Result<> PostCodePort::restore_state(const StateReader& reader) {
  code_ = static_cast<uint8_t>(TRY(reader.get("code", 0xFF)));
  return {};
}

Result<> SystemControlPort::restore_state(const StateReader& reader) {
  value_ = static_cast<uint8_t>(TRY(reader.get("value", 0xFF)));
  return {};
}

void SystemControlPort::write_byte(uint16_t offset, uint8_t value) {
  if (offset != 0) return;
  const uint8_t before = value_.exchange(value);
  if ((value & ~before & kReset) != 0) power_.request_reset();
}

DebugConsole::DebugConsole(console::ByteStream* stream) : stream_(stream) {
  if (stream_ != nullptr) stream_->set_listener([this] { pump(); });
}

DebugConsole::~DebugConsole() {
  if (stream_ != nullptr) stream_->set_listener({});
}

void DebugConsole::write_byte(uint16_t offset, uint8_t value) {
  if (offset != 0 || stream_ == nullptr) return;
  {
    LockGuard lock(mutex_);
    if (backlog_.size() < kBacklogSize) backlog_.push_back(value);
  }
  pump();
}

// One thread at a time offers the backlog to the stream; one that comes meanwhile leaves its work to the first.
void DebugConsole::pump() {
  if (stream_ == nullptr || pump_callers_.fetch_add(1, std::memory_order_acq_rel) != 0) return;
  uint32_t seen = 1;
  do {
    seen = pump_callers_.load(std::memory_order_acquire);
    std::array<uint8_t, 256> chunk;
    size_t taken = 0;
    do {
      size_t offered = 0;
      {
        LockGuard lock(mutex_);
        offered = std::min(backlog_.size(), chunk.size());
        std::copy_n(backlog_.begin(), offered, chunk.begin());
      }
      taken = offered == 0 ? 0 : std::min(stream_->write(ByteSpan(chunk).first(offered)), offered);
      LockGuard lock(mutex_);
      backlog_.erase(backlog_.begin(), backlog_.begin() + static_cast<ptrdiff_t>(std::min(taken, backlog_.size())));
    } while (taken != 0);
  } while (!pump_callers_.compare_exchange_strong(seen, 0, std::memory_order_acq_rel));
}

void DebugConsole::save_state(StateWriter& writer) const {
  LockGuard lock(mutex_);
  writer.put_bytes("backlog", backlog_);
}

Result<> DebugConsole::restore_state(const StateReader& reader) {
  const ByteSpan backlog = TRY(reader.get_bytes_up_to("backlog", kBacklogSize));
  {
    LockGuard lock(mutex_);
    backlog_.assign(backlog.begin(), backlog.end());
  }
  pump();
  return {};
}

}  // namespace bulkhead::device::legacy
