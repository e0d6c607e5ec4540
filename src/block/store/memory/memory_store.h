// Bytes in memory, for tests and fuzz targets. It refuses to grow beyond a limit, so a hostile image cannot fill the
// host.
#pragma once

#include <algorithm>
#include <vector>

#include "block/store/store.h"

namespace bulkhead::block {

class MemoryStore final : public Store {
 public:
  explicit MemoryStore(std::vector<uint8_t> bytes = {}, uint64_t limit = 64 << 20)
      : bytes_(std::move(bytes)), limit_(limit) {}

  [[nodiscard]] const std::string& name() const override { return name_; }
  [[nodiscard]] Result<uint64_t> size() override { return bytes_.size(); }
  [[nodiscard]] std::vector<uint8_t>& bytes() { return bytes_; }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan to) override {
    const uint64_t there = offset < bytes_.size() ? std::min<uint64_t>(to.size(), bytes_.size() - offset) : 0;
    if (there != 0) std::memcpy(to.data(), bytes_.data() + offset, there);
    std::ranges::fill(to.subspan(there), uint8_t{0});
    return Status::kOk;
  }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan from) override {
    if (!range_fits(offset, from.size(), limit_)) return Status::kNoSpace;
    if (offset + from.size() > bytes_.size()) bytes_.resize(offset + from.size());
    if (!from.empty()) std::memcpy(bytes_.data() + offset, from.data(), from.size());
    return Status::kOk;
  }
  [[nodiscard]] Status flush() override { return Status::kOk; }
  [[nodiscard]] Status punch(uint64_t offset, uint64_t size) override {
    const uint64_t end = std::min<uint64_t>(bytes_.size(), checked_add(offset, size).value_or(UINT64_MAX));
    if (offset < end) std::fill(bytes_.data() + offset, bytes_.data() + end, uint8_t{0});
    return Status::kOk;
  }
  [[nodiscard]] Status truncate(uint64_t size) override {
    if (size > limit_) return Status::kNoSpace;
    bytes_.resize(size);
    return Status::kOk;
  }
  [[nodiscard]] Result<> replace(ByteSpan bytes) override {
    if (bytes.size() > limit_) return fail("replace '{}': {} bytes are too many", name_, bytes.size());
    bytes_.assign(bytes.begin(), bytes.end());
    return {};
  }
  [[nodiscard]] Status reserve(uint64_t offset, uint64_t size) override {
    if (!range_fits(offset, size, limit_)) return Status::kNoSpace;
    if (offset + size > bytes_.size()) bytes_.resize(offset + size);
    return Status::kOk;
  }
  [[nodiscard]] StoreExtent extent(uint64_t offset) override { return {.size = bytes_.size() - offset}; }

 private:
  std::vector<uint8_t> bytes_;
  uint64_t limit_;
  std::string name_ = "memory";
};

}  // namespace bulkhead::block
