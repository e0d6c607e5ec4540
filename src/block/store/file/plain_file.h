// A host file as a Store: what image formats stand on. Locked against a second opening for as long as it is open. What
// the host refuses is logged with the host's offset and reason. It never reports a flush as done after one has failed,
// because the kernel forgets the pages that it could not write.
#pragma once

#include <memory>

#include "block/store/file/direct_access.h"
#include "block/store/file/two_ways.h"
#include "block/store/store.h"
#include "support/log.h"
#include "support/os/fd.h"
#include "support/os/mutex.h"

namespace bulkhead::block {

class PlainFile final : public Store {
 public:
  // Alone for kReadWrite, shared with other readers for kReadOnly.
  static Result<std::unique_ptr<PlainFile>> open(const std::string& path, Access access,
                                                 HostCache cache = HostCache::kUsed);
  // The same for a name that came out of an image: it must stay below the folder and pass no symbolic link.
  static Result<std::unique_ptr<PlainFile>> open_below(const std::string& folder, const std::string& name,
                                                       Access access, HostCache cache = HostCache::kUsed);
  // Fails when the file exists.
  static Result<std::unique_ptr<PlainFile>> create(const std::string& path);
  // The same for a name that follows from one in an image; null where there is such a file.
  static Result<std::unique_ptr<PlainFile>> create_below(const std::string& folder, const std::string& name);

  [[nodiscard]] const std::string& name() const override { return path_; }
  [[nodiscard]] Result<uint64_t> size() override;
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override;
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override;
  [[nodiscard]] Status flush() override;
  [[nodiscard]] Status punch(uint64_t offset, uint64_t size) override;
  [[nodiscard]] Status truncate(uint64_t size) override;
  // A new file that takes the old one's name, owner and mode.
  [[nodiscard]] Result<> replace(ByteSpan bytes) override;
  [[nodiscard]] bool starts_as_zeroes() const override { return !is_device_; }
  [[nodiscard]] Status reserve(uint64_t offset, uint64_t size) override;
  [[nodiscard]] std::optional<uint64_t> allocated() override;
  [[nodiscard]] StoreExtent extent(uint64_t offset) override;

 private:
  PlainFile(std::string path, Fd file, DirectAccess direct)
      : path_(std::move(path)), file_(std::move(file)), direct_(std::move(direct)) {}
  [[nodiscard]] Status failed(std::string_view operation, uint64_t offset, int error);
  static Result<std::unique_ptr<PlainFile>> of_locked(std::string path, Fd file, Access access, HostCache cache);
  static Result<std::unique_ptr<PlainFile>> of_new(std::string path, Fd file);
  [[nodiscard]] int way_for(uint64_t offset, ByteSpan bytes) const {
    return direct_.fits(offset, bytes) ? direct_.fd() : file_.get();
  }

  const std::string path_;
  Fd file_;  // both change in replace() only
  DirectAccess direct_;
  bool is_device_ = false;             // a block device
  bool syncs_ = true;                  // false: a flush does nothing
  std::unique_ptr<TwoWays> two_ways_;  // for a new file that is not synced
  log::RateLimit error_limit_;
  Mutex flush_mutex_;
  bool flush_failed_ GUARDED_BY(flush_mutex_) = false;
};

}  // namespace bulkhead::block
