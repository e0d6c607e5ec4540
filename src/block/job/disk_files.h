// The files that a job makes, opens and closes in the middle of a guest's work: those of the host, or memory in a test.
#pragma once

#include <memory>
#include <string>

#include "block/encrypt/hidden_store.h"
#include "block/format/disk_opener.h"
#include "block/format/image.h"
#include "block/format/new_files.h"
#include "block/store/nbd/uri.h"

namespace bulkhead::block {

// Bytes that nobody else sees and that are gone when they are closed.
struct Scratch {
  std::unique_ptr<Store> store;
  uint64_t most_bytes = 0;  // that should be kept there
};

class DiskFiles {
 public:
  virtual ~DiskFiles() = default;
  // What a guest gets. Where `below` is not empty, the path is one in that folder that an image has named: it is
  // reached from there through no link.
  [[nodiscard]] virtual Result<OpenedDisk> open(const std::string& path, const std::string& format,
                                                Access backing_access, const std::string& below) = 0;
  // To be filled by a job.
  [[nodiscard]] virtual Result<std::unique_ptr<Image>> open_image(const std::string& path,
                                                                  const std::string& format) = 0;
  // To be read by a job.
  [[nodiscard]] virtual Result<std::unique_ptr<Image>> open_base(const std::string& path,
                                                                 const std::string& format) = 0;
  // The same for what the image at a path has, or is to have, as its backing file: the name is of a file below that
  // image's folder, reached through no link.
  [[nodiscard]] virtual Result<std::unique_ptr<Image>> open_backing_of(const std::string& path, const std::string& name,
                                                                       const std::string& format) = 0;
  // An empty image whose names outlast a power cut. It is removed with this object unless keep() comes before. A disk
  // that a server keeps is there already, of the right size; the job writes over what it holds.
  [[nodiscard]] virtual Result<> create(const std::string& path, const std::string& format,
                                        const CreateOptions& options) = 0;
  virtual void keep() = 0;
  // On the storage that path is on; at most half of what is free there.
  [[nodiscard]] virtual Result<Scratch> open_scratch(const std::string& path) = 0;
};

class HostFiles final : public DiskFiles {
 public:
  // Opens a disk to be written, with what stands in front of it.
  using Opener = std::function<Result<OpenedDisk>(const std::string& path, const std::string& format,
                                                  Access backing_access, const std::string& below)>;
  // With a key, every image that is opened or made is encrypted by it.
  HostFiles(HostCache cache, Opener opener, std::shared_ptr<DiskKey> key = nullptr)
      : cache_(cache), opener_(std::move(opener)), key_(std::move(key)) {}
  [[nodiscard]] Result<OpenedDisk> open(const std::string& path, const std::string& format, Access backing_access,
                                        const std::string& below) override {
    return opener_(path, format, backing_access, below);
  }
  [[nodiscard]] Result<std::unique_ptr<Image>> open_image(const std::string& path, const std::string& format) override {
    return block::open_image(path, format, Access::kReadWrite, Access::kReadOnly, cache_, {.key = key_});
  }
  [[nodiscard]] Result<std::unique_ptr<Image>> open_base(const std::string& path, const std::string& format) override {
    return block::open_image(path, format, Access::kReadOnly, Access::kReadOnly, cache_, {.key = key_});
  }
  [[nodiscard]] Result<std::unique_ptr<Image>> open_backing_of(const std::string& path, const std::string& name,
                                                               const std::string& format) override {
    ImageOpener opener(folder_of(path));
    opener.use_cache(cache_);
    opener.use_key({.key = key_});
    return opener.open_backing(name, format);
  }
  [[nodiscard]] Result<> create(const std::string& path, const std::string& format,
                                const CreateOptions& options) override {
    CreateOptions encrypted = options;
    encrypted.key = key_;
    if (nbd::is_uri(path)) return check_served_disk(path, format, encrypted);
    TRY(create_files(files_, path, format, encrypted));
    return sync_folder_of(path);
  }
  void keep() override { files_.keep(); }
  [[nodiscard]] Result<Scratch> open_scratch(const std::string& path) override {
    const uint64_t most_bytes = TRY(free_bytes_beside(path)) / 2;
    NewFiles files;
    std::unique_ptr<Store> store = TRY(files.create(path + ".aside"));
    if (key_) store = TRY(hide(std::move(store)));
    return Scratch{std::move(store), most_bytes};
  }

 private:
  const HostCache cache_;
  const Opener opener_;
  const std::shared_ptr<DiskKey> key_;
  NewFiles files_;
};

}  // namespace bulkhead::block
