// The one way to report an error whose cause is a user, the host or the network: Result<T> travels up to whoever can
// tell the user. Faults of the guest never become an Error, and our own faults are asserts (support/check.h).
#pragma once

#include <cerrno>
#include <expected>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fmt/format.h>

namespace bulkhead {

// One line of nouns and numbers for a person: "open 'plc.qcow2': cluster 0x1f000 lies outside the file (65536 bytes)".
struct Error {
  std::string message;

  // Puts what was being done in front: context("disk 'a.img'") turns "no such file" into "disk 'a.img': no such file".
  [[nodiscard]] Error in(std::string_view context) && { return Error{fmt::format("{}: {}", context, message)}; }
};

template <typename T = void>
using Result = std::expected<T, Error>;

template <typename... Arguments>
[[nodiscard]] std::unexpected<Error> fail(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return std::unexpected(Error{fmt::format(format, std::forward<Arguments>(arguments)...)});
}

// As fail(), with the text of an errno value at the end.
template <typename... Arguments>
[[nodiscard]] std::unexpected<Error> fail_errno(int error, fmt::format_string<Arguments...> format,
                                                Arguments&&... arguments) {
  return std::unexpected(Error{fmt::format("{}: {}", fmt::format(format, std::forward<Arguments>(arguments)...),
                                           std::generic_category().message(error))});
}

}  // namespace bulkhead

// The value of a Result, or return its error from the enclosing function.
#define TRY(expression)                                                       \
  ({                                                                          \
    auto try_result_ = (expression);                                          \
    if (!try_result_) return std::unexpected(std::move(try_result_).error()); \
    *std::move(try_result_);                                                  \
  })

// TRY with what was being done put in front of the message.
#define TRY_IN(context, expression)                                                       \
  ({                                                                                      \
    auto try_result_ = (expression);                                                      \
    if (!try_result_) return std::unexpected(std::move(try_result_).error().in(context)); \
    *std::move(try_result_);                                                              \
  })
