#include "block/encrypt/hidden_store.h"

#include "support/random.h"

namespace bulkhead::block {
namespace {

class HiddenStore final : public Store {
 public:
  HiddenStore(std::unique_ptr<Store> below, std::unique_ptr<SectorCipher> cipher)
      : below_(std::move(below)), cipher_(*below_, std::move(cipher), 0, 0) {}

  [[nodiscard]] const std::string& name() const override { return below_->name(); }
  [[nodiscard]] Result<uint64_t> size() override { return cipher_.size(); }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override { return cipher_.read(offset, bytes); }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override { return cipher_.write(offset, bytes); }
  [[nodiscard]] Status flush() override { return cipher_.flush(); }
  [[nodiscard]] Status punch(uint64_t offset, uint64_t size) override { return cipher_.punch(offset, size); }
  [[nodiscard]] Status truncate(uint64_t size) override { return cipher_.truncate(size); }
  [[nodiscard]] StoreExtent extent(uint64_t offset) override { return cipher_.extent(offset); }

 private:
  const std::unique_ptr<Store> below_;
  CipherStore cipher_;
};

class LockedStore final : public Store {
 public:
  explicit LockedStore(std::string name) : name_(std::move(name)) {}
  [[nodiscard]] const std::string& name() const override { return name_; }
  [[nodiscard]] Result<uint64_t> size() override { return fail("'{}' is locked", name_); }
  [[nodiscard]] Status read(uint64_t, MutableByteSpan) override { return Status::kUnsupported; }
  [[nodiscard]] Status write(uint64_t, ByteSpan) override { return Status::kUnsupported; }
  [[nodiscard]] Status flush() override { return Status::kOk; }
  [[nodiscard]] Status punch(uint64_t, uint64_t) override { return Status::kUnsupported; }
  [[nodiscard]] Status truncate(uint64_t) override { return Status::kUnsupported; }
  [[nodiscard]] StoreExtent extent(uint64_t) override { return {}; }

 private:
  const std::string name_;
};

}  // namespace

Result<std::unique_ptr<Store>> hide(std::unique_ptr<Store> store) {
  const CipherSpec spec;
  Secret key(spec.key_bytes);
  HostRandom().fill(key.bytes());
  auto cipher = TRY(SectorCipher::make(spec, key.bytes(), kCipherSector));
  return std::make_unique<HiddenStore>(std::move(store), std::move(cipher));
}

std::unique_ptr<Store> locked(const std::string& name) {
  return std::make_unique<LockedStore>(name);
}

}  // namespace bulkhead::block
