// A folder of files in memory that knows in which order they were changed, for jobs on disks and power cuts in the
// middle of them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "block/format/image_disk.h"
#include "block/job/disk_files.h"
#include "block/store/memory/memory_store.h"
#include "block/testing/crash_log.h"

namespace bulkhead::block::testing {

// A folder in memory that knows in which order its files were changed.
class Folder {
 public:
  struct File {
    MemoryStore now;
    CrashLog log;
    std::vector<uint64_t> times;
    uint64_t made_at = 0;
    bool was_there = false;  // before a job fills it, as a server's disk
  };

  // Called before every write to any file.
  std::function<void()> before_write;

  std::unique_ptr<Store> make(const std::string& path) {
    const LockGuard lock(mutex_);
    auto& file = files_[path];
    file = std::make_shared<File>();
    file->made_at = ++time_;
    return std::make_unique<Recorder>(*this, file);
  }
  // As one that a server keeps, of noise.
  void serve(const std::string& path, uint64_t size) {
    const auto store = make(path);
    (void)store->write(0, std::vector<uint8_t>(size, 0xEE));
    files_[path]->was_there = true;
  }
  Result<std::unique_ptr<Store>> open(const std::string& path) {
    const LockGuard lock(mutex_);
    const auto found = files_.find(path);
    if (found == files_.end()) return fail("open '{}': no such file", path);
    return std::make_unique<Recorder>(*this, found->second);
  }
  bool has(const std::string& path) {
    const LockGuard lock(mutex_);
    return files_.contains(path);
  }
  bool was_there(const std::string& path) {
    const LockGuard lock(mutex_);
    const auto found = files_.find(path);
    return found != files_.end() && found->second->was_there;
  }
  void remove(const std::string& path) {
    const LockGuard lock(mutex_);
    files_.erase(path);
  }
  uint64_t time() {
    const LockGuard lock(mutex_);
    return time_;
  }
  // What a power cut at a time may leave.
  void cut(uint64_t time, std::mt19937_64& random, Folder& left) const {
    for (const auto& [path, file] : files_) {
      if (file->made_at > time) continue;
      size_t end = 0, flush = 0;
      MemoryStore flushed;
      for (; end < file->log.size() && file->times[end] <= time; ++end) {
        if (file->log[end].kind == Change::Kind::kFlush) flush = end;
        // Done or not done, never in between.
        if (file->log[end].kind == Change::Kind::kReplace) flush = end + 1;
      }
      for (size_t i = 0; i < flush; ++i) {
        testing::apply(flushed, file->log[i], [](uint64_t) { return true; });
      }
      auto& copy = left.files_[path] = std::make_shared<File>();
      copy->now = testing::cut_state(flushed, file->log, flush, end, random);
    }
  }

 private:
  class Recorder final : public Store {
   public:
    Recorder(Folder& folder, std::shared_ptr<File> file) : folder_(folder), file_(std::move(file)) {}
    [[nodiscard]] const std::string& name() const override { return file_->now.name(); }
    [[nodiscard]] Result<uint64_t> size() override {
      const LockGuard lock(folder_.mutex_);
      return file_->now.size();
    }
    [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override {
      const LockGuard lock(folder_.mutex_);
      return file_->now.read(offset, bytes);
    }
    [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override {
      if (folder_.before_write) folder_.before_write();
      const LockGuard lock(folder_.mutex_);
      note({Change::Kind::kWrite, offset, bytes.size(), {bytes.begin(), bytes.end()}});
      return file_->now.write(offset, bytes);
    }
    [[nodiscard]] Status flush() override {
      const LockGuard lock(folder_.mutex_);
      note({.kind = Change::Kind::kFlush});
      return Status::kOk;
    }
    [[nodiscard]] Status punch(uint64_t offset, uint64_t size) override {
      const LockGuard lock(folder_.mutex_);
      note({.kind = Change::Kind::kPunch, .offset = offset, .size = size});
      return file_->now.punch(offset, size);
    }
    [[nodiscard]] Status truncate(uint64_t size) override {
      const LockGuard lock(folder_.mutex_);
      note({.kind = Change::Kind::kTruncate, .size = size});
      return file_->now.truncate(size);
    }
    [[nodiscard]] Result<> replace(ByteSpan bytes) override {
      const LockGuard lock(folder_.mutex_);
      note({Change::Kind::kReplace, 0, bytes.size(), {bytes.begin(), bytes.end()}});
      return file_->now.replace(bytes);
    }
    [[nodiscard]] bool starts_as_zeroes() const override { return !file_->was_there; }
    [[nodiscard]] StoreExtent extent(uint64_t offset) override {
      const LockGuard lock(folder_.mutex_);
      return file_->now.extent(offset);
    }

   private:
    void note(Change change) {
      file_->log.push_back(std::move(change));
      file_->times.push_back(++folder_.time_);
    }
    Folder& folder_;
    const std::shared_ptr<File> file_;
  };

  Mutex mutex_;
  std::map<std::string, std::shared_ptr<File>> files_;
  uint64_t time_ = 0;
};

inline Result<std::unique_ptr<Image>> open_in(Folder& folder, const std::string& path, const std::string& format,
                                              Access access, Access backing_access = Access::kReadOnly) {
  ImageOpener opener("/m");
  opener.take_files_from([&folder](const std::string& name, Access) { return folder.open("/m/" + name); });
  if (backing_access == Access::kReadWrite) opener.let_backing_be_written();
  return TRY(find_format(format))->open(TRY(folder.open(path)), access, opener);
}

// Where the guest's disk is from a time on.
struct Move {
  uint64_t time = 0;
  std::string path, format;
};

class FolderFiles final : public DiskFiles {
 public:
  FolderFiles(Folder& folder, std::vector<Move>& moves) : folder_(folder), moves_(moves) {}
  ~FolderFiles() override {
    for (const std::string& path : made_) folder_.remove(path);
  }
  [[nodiscard]] Result<OpenedDisk> open(const std::string& path, const std::string& format, Access backing_access,
                                        const std::string&) override {
    if (path == unopenable) return fail("open '{}': refused", path);
    auto image = TRY(open_in(folder_, path, format, Access::kReadWrite, backing_access));
    Image* const behind = image.get();
    moves_.push_back({folder_.time(), path, format});
    return OpenedDisk{std::make_unique<ImageDisk>(std::move(image), 2), behind};
  }
  [[nodiscard]] Result<std::unique_ptr<Image>> open_image(const std::string& path, const std::string& format) override {
    if (path == unfillable) return fail("open '{}': refused", path);
    return open_in(folder_, path, format, Access::kReadWrite);
  }
  [[nodiscard]] Result<std::unique_ptr<Image>> open_base(const std::string& path, const std::string& format) override {
    return open_in(folder_, path, format, Access::kReadOnly);
  }
  [[nodiscard]] Result<std::unique_ptr<Image>> open_backing_of(const std::string& path, const std::string& name,
                                                               const std::string& format) override {
    return open_in(folder_, path.substr(0, path.rfind('/') + 1) + name, format, Access::kReadOnly);
  }
  [[nodiscard]] Result<> create(const std::string& path, const std::string& format,
                                const CreateOptions& options) override {
    if (folder_.was_there(path)) return {};
    if (folder_.has(path)) return fail("create '{}': exists", path);
    const auto store = folder_.make(path);
    made_.push_back(path);
    return TRY(find_format(format))->create(*store, options);
  }
  void keep() override { made_.clear(); }
  [[nodiscard]] Result<Scratch> open_scratch(const std::string&) override {
    return Scratch{std::make_unique<MemoryStore>(std::vector<uint8_t>(), scratch_limit), scratch_most};
  }

  std::string unopenable, unfillable;
  uint64_t scratch_limit = uint64_t{64} << 20, scratch_most = UINT64_MAX;

 private:
  Folder& folder_;
  std::vector<Move>& moves_;
  std::vector<std::string> made_;
};

}  // namespace bulkhead::block::testing
