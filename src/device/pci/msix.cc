#include "device/pci/msix.h"

#include <algorithm>

#include "spec/pci.h"
#include "support/check.h"

namespace bulkhead::device::pci {
namespace {

using spec::pci::kMsixEntrySize;

// Offsets within one entry of the table.
constexpr size_t kEntryData = 8;
constexpr size_t kEntryControl = 12;
constexpr uint8_t kEntryMasked = 1;

void read_bytes(const std::vector<uint8_t>& from, uint64_t offset, MutableByteSpan out) {
  std::fill(out.begin(), out.end(), uint8_t{0});
  if (offset >= from.size()) return;
  const uint64_t count = std::min<uint64_t>(out.size(), from.size() - offset);
  std::copy_n(from.begin() + static_cast<ptrdiff_t>(offset), count, out.begin());
}

}  // namespace

Msix::Msix(MessageSink& sink, unsigned vector_count)
    : sink_(sink),
      vector_count_(vector_count),
      table_size_(uint64_t{vector_count} * kMsixEntrySize),
      pending_size_(align_up(vector_count, 64) / 8),
      table_(table_size_),
      pending_(pending_size_) {
  CHECK(vector_count >= 1 && vector_count <= spec::pci::kMsixMaximumVectors, "an MSI-X table has 1 to 2048 entries");
  reset();
}

void Msix::read_table(uint64_t offset, MutableByteSpan out) const {
  const LockGuard lock(mutex_);
  read_bytes(table_, offset, out);
}

void Msix::read_pending(uint64_t offset, MutableByteSpan out) const {
  const LockGuard lock(mutex_);
  read_bytes(pending_, offset, out);
}

void Msix::write_table(uint64_t offset, ByteSpan in) {
  std::vector<InterruptMessage> messages;
  {
    const LockGuard lock(mutex_);
    if (offset >= table_.size()) return;
    const uint64_t end = offset + std::min<uint64_t>(in.size(), table_.size() - offset);
    for (uint64_t i = offset; i < end; ++i) {
      const uint64_t place = i % kMsixEntrySize;
      uint8_t writable = 0xFF;
      if (place == 0) writable = 0xFC;  // a message is a dword at a dword's address
      if (place >= kEntryControl) writable = place == kEntryControl ? kEntryMasked : 0;
      table_[i] = in[i - offset] & writable;
    }
    for (uint64_t entry = offset / kMsixEntrySize; entry * kMsixEntrySize < end; ++entry) {
      take_deliverable(static_cast<unsigned>(entry), messages);
    }
  }
  send(messages);
}

void Msix::notify(unsigned vector) {
  std::vector<InterruptMessage> messages;
  {
    const LockGuard lock(mutex_);
    if (vector >= vector_count_ || !enabled_) return;
    set_pending(vector, true);
    take_deliverable(vector, messages);
  }
  send(messages);
}

std::vector<InterruptMessage> Msix::set_control(bool enabled, bool function_masked) {
  const LockGuard lock(mutex_);
  std::vector<InterruptMessage> messages;
  enabled_ = enabled;
  function_masked_ = function_masked;
  for (unsigned vector = 0; vector < vector_count_; ++vector) take_deliverable(vector, messages);
  return messages;
}

void Msix::send(const std::vector<InterruptMessage>& messages) {
  for (const InterruptMessage& message : messages) sink_.send_message(message);
}

void Msix::reset() {
  const LockGuard lock(mutex_);
  enabled_ = false;
  function_masked_ = false;
  std::fill(table_.begin(), table_.end(), uint8_t{0});
  std::fill(pending_.begin(), pending_.end(), uint8_t{0});
  for (uint64_t entry = 0; entry < table_.size(); entry += kMsixEntrySize) table_[entry + kEntryControl] = kEntryMasked;
}

void Msix::save_state(StateWriter& writer) const {
  const LockGuard lock(mutex_);
  writer.put_bytes("table", table_).put_bytes("pending", pending_);
}

Result<> Msix::restore_state(const StateReader& reader) {
  const ByteSpan table = TRY(reader.get_bytes("table", table_size_));
  const ByteSpan pending = TRY(reader.get_bytes("pending", pending_size_));
  for (uint64_t entry = 0; entry < table.size(); entry += kMsixEntrySize) {
    if ((table[entry] & 3) != 0 || load<uint32_t>(&table[entry + kEntryControl]) > kEntryMasked) {
      return fail("{}: entry {} of the MSI-X table has reserved bits set", reader.path(), entry / kMsixEntrySize);
    }
  }
  for (uint64_t bit = vector_count_; bit < pending_size_ * 8; ++bit) {
    if ((pending[bit / 8] & (1u << (bit % 8))) != 0) {
      return fail("{}: MSI-X vector {} of {} is pending", reader.path(), bit, vector_count_);
    }
  }
  const LockGuard lock(mutex_);
  table_.assign(table.begin(), table.end());
  pending_.assign(pending.begin(), pending.end());
  return {};
}

bool Msix::masked(unsigned vector) const {
  return function_masked_ || (table_[vector * kMsixEntrySize + kEntryControl] & kEntryMasked) != 0;
}

InterruptMessage Msix::message(unsigned vector) const {
  const uint8_t* entry = &table_[vector * kMsixEntrySize];
  return {.address = load<uint64_t>(entry), .data = load<uint32_t>(entry + kEntryData)};
}

bool Msix::pending(unsigned vector) const {
  return (pending_[vector / 8] & (1u << (vector % 8))) != 0;
}

void Msix::set_pending(unsigned vector, bool pending) {
  const auto bit = static_cast<uint8_t>(1u << (vector % 8));
  if (pending) {
    pending_[vector / 8] |= bit;
  } else {
    pending_[vector / 8] &= static_cast<uint8_t>(~bit);
  }
}

void Msix::take_deliverable(unsigned vector, std::vector<InterruptMessage>& messages) {
  if (!enabled_ || !pending(vector) || masked(vector)) return;
  set_pending(vector, false);
  messages.push_back(message(vector));
}

}  // namespace bulkhead::device::pci
