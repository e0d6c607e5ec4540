// Files that another file names: found below its folder, through no link, or not at all.
#pragma once

#include <string>

#include "block/format/image.h"

namespace bulkhead::block {

// A name as it is stated inside a file, as one below that file's folder; an absolute one is taken when it lies there.
[[nodiscard]] Result<std::string> name_below(const std::string& folder, const std::string& name);
// As open_image(), of a path that begins with the folder and a slash.
[[nodiscard]] Result<std::unique_ptr<Image>> open_image_below(const std::string& folder, const std::string& path,
                                                              std::string_view format, Access access,
                                                              Access backing_access, HostCache cache, Unlock unlock);

}  // namespace bulkhead::block
