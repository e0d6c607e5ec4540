#include "block/format/new_files.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include "block/store/file/plain_file.h"

namespace bulkhead::block {

NewFiles::~NewFiles() {
  for (const std::string& path : paths_) ::unlink(path.c_str());
}

Result<std::unique_ptr<Store>> NewFiles::create(const std::string& path) {
  auto store = TRY(PlainFile::create(path));
  paths_.push_back(path);
  return store;
}

Result<std::unique_ptr<Store>> NewFiles::create_below(const std::string& folder, const std::string& name) {
  auto store = TRY(PlainFile::create_below(folder, name));
  if (!store) return nullptr;
  paths_.push_back(store->name());
  TRY(sync_folder_of(store->name()));
  return store;
}

Result<> create_files(NewFiles& files, const std::string& path, const std::string& format, CreateOptions options) {
  const Format* const found = TRY(find_format(format));
  if (options.key && !found->encrypts)
    return fail("create '{}': {} images are not encrypted; state luks or qcow2", path, format);
  const auto store = TRY(files.create(path));
  const std::string folder = folder_of(path);
  options.file_name = path.substr(path.rfind('/') + 1);
  options.create_beside = [&](const std::string& name) { return files.create(folder + "/" + name); };
  TRY_IN(fmt::format("create '{}'", path), found->create(*store, options));
  return {};
}

Result<> check_served_disk(const std::string& uri, const std::string& format, const CreateOptions& options) {
  if (format != "raw") return fail("'{}': on a server, the format is raw", uri);
  if (!options.backing_name.empty()) return fail("a raw image cannot have a backing file");
  if (options.key) return fail("'{}': an encrypted disk is not copied to one that lies open", uri);
  const auto image = TRY(open_image(uri, format, Access::kReadWrite));
  const uint64_t size = image->geometry().size;
  if (size != options.size) return fail("'{}' has {} bytes, not {}", uri, size, options.size);
  return {};
}

Result<uint64_t> free_bytes_beside(const std::string& path) {
  struct statvfs status{};
  if (::statvfs(folder_of(path).c_str(), &status) != 0) return fail_errno(errno, "free space beside '{}'", path);
  return uint64_t{status.f_bavail} * status.f_frsize;
}

}  // namespace bulkhead::block
