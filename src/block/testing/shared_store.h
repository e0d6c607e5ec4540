// Stands for a file: it outlives the image that is opened on it and serves several threads. For tests.
#pragma once

#include <mutex>

#include "block/store/memory/memory_store.h"

namespace bulkhead::block::testing {

class SharedStore final : public Store {
 private:
  template <typename Call>
  auto guarded(Call call) {
    const std::lock_guard lock(mutex_);
    return call();
  }

 public:
  explicit SharedStore(MemoryStore& below) : below_(below) {}
  [[nodiscard]] const std::string& name() const override { return below_.name(); }
  [[nodiscard]] Result<uint64_t> size() override {
    return guarded([&] { return below_.size(); });
  }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override {
    return guarded([&] { return below_.read(offset, bytes); });
  }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override {
    return guarded([&] { return below_.write(offset, bytes); });
  }
  [[nodiscard]] Status flush() override { return Status::kOk; }
  [[nodiscard]] Status punch(uint64_t offset, uint64_t size) override {
    return guarded([&] { return below_.punch(offset, size); });
  }
  [[nodiscard]] Status truncate(uint64_t size) override {
    return guarded([&] { return below_.truncate(size); });
  }
  [[nodiscard]] StoreExtent extent(uint64_t offset) override {
    return guarded([&] { return below_.extent(offset); });
  }

 private:
  MemoryStore& below_;
  std::mutex mutex_;
};

}  // namespace bulkhead::block::testing
