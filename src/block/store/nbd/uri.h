// Which paths are not of files but of disks that an NBD server keeps.
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

namespace bulkhead::block::nbd {

[[nodiscard]] inline bool is_uri(std::string_view path) {
  constexpr std::array<std::string_view, 4> kSchemes{"nbd://", "nbds://", "nbd+unix://", "nbds+unix://"};
  return std::ranges::any_of(kSchemes, [&](std::string_view scheme) { return path.starts_with(scheme); });
}

}  // namespace bulkhead::block::nbd
