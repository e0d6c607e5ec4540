// Makes the files of a new image. What exists already is left alone, and what was made is gone again unless it is kept.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "block/format/image.h"
#include "block/store/file/folder.h"

namespace bulkhead::block {

class NewFiles {
 public:
  NewFiles() = default;
  NewFiles(const NewFiles&) = delete;
  NewFiles& operator=(const NewFiles&) = delete;
  ~NewFiles();
  Result<std::unique_ptr<Store>> create(const std::string& path);
  // Where no name leads out of the folder; null where there is such a file. That it was made outlasts a power cut.
  Result<std::unique_ptr<Store>> create_below(const std::string& folder, const std::string& name);
  void keep() { paths_.clear(); }

 private:
  std::vector<std::string> paths_;
};

// An empty image of a format at path, with the files beside it that the format needs.
Result<> create_files(NewFiles& files, const std::string& path, const std::string& format, CreateOptions options);
// Whether a disk that a server keeps, which is raw, can take the place of a new image: it is as large. What it holds is
// left alone.
Result<> check_served_disk(const std::string& uri, const std::string& format, const CreateOptions& options);
// In its folder's file system, for who is not root.
Result<uint64_t> free_bytes_beside(const std::string& path);

}  // namespace bulkhead::block
