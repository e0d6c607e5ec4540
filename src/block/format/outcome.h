// A value, or the Status that a guest's request ends with: what runs on the path of a request, where no text is wanted.
#pragma once

#include <expected>

#include "block/request.h"

namespace bulkhead::block {

template <typename T = void>
using Outcome = std::expected<T, Status>;

inline Outcome<> done(Status status) {
  if (status == Status::kOk) return {};
  return std::unexpected(status);
}

}  // namespace bulkhead::block
