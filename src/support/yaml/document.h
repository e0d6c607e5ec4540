// YAML of a file that may come from anywhere: its size, depth, values and aliases are bounded before a tree is built,
// and no exception of yaml-cpp gets past read().
#pragma once

#include <string>
#include <string_view>

#include <yaml-cpp/yaml.h>

#include "support/result.h"

namespace bulkhead::yaml {

struct Limits {
  size_t bytes = size_t{256} * 1024;
  int levels = 16;
  int values = 10'000;
  int aliases = 64;
};

// Fails when text is larger than a limit, empty, or more than one document; what_is_allowed ends the message for an
// empty one. Throws what yaml-cpp throws and nothing else: call it by read().
Result<> check_limits(std::string_view text, const std::string& name, const Limits& limits,
                      std::string_view what_is_allowed);

// use(root) gives a Result; it may let exceptions of yaml-cpp through.
template <typename Use>
auto read(std::string_view text, const std::string& name, const Limits& limits, std::string_view what_is_allowed,
          Use&& use) -> decltype(use(YAML::Node())) {
  try {
    TRY(check_limits(text, name, limits, what_is_allowed));
    return use(YAML::Load(std::string(text)));
  } catch (const YAML::Exception& error) {
    return fail("{}:{}: not YAML: {}", name, error.mark.line + 1, error.msg);
  }
}

}  // namespace bulkhead::yaml
