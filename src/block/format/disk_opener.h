// Opens a file as the disk that a guest gets, or whoever wants to know what a guest would get: a raw file by itself, an
// image of another format with workers in front. The format is stated.
#pragma once

#include <memory>
#include <string>

#include "block/disk.h"
#include "block/store/store.h"

namespace bulkhead::block {

class DiskKey;
class Image;
namespace file {
class FileStore;
}

struct OpenedDisk {
  std::unique_ptr<Disk> disk;
  Image* image = nullptr;            // behind the disk, as long as that lives; null for a raw file by itself
  file::FileStore* store = nullptr;  // the disk itself, where it is a raw file
};

// While nothing is under way; the disk's geometry has the new size afterwards. What is new reads as zeroes.
[[nodiscard]] Result<> grow_disk(const OpenedDisk& opened, uint64_t new_size);

// Without threads, requests are carried out by who submits them. The backing file is only read unless it is to be
// written. With `below`, path lies in that folder, and is reached from there through no link.
Result<OpenedDisk> open_disk(const std::string& path, const std::string& format, Access access, HostCache cache,
                             unsigned thread_count, Access backing_access = Access::kReadOnly,
                             std::shared_ptr<DiskKey> key = nullptr, const std::string& below = "");

}  // namespace bulkhead::block
