// Log lines for the operator, on standard error. Guest-fed lines go through a RateLimit so that a guest cannot flood
// it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include <fmt/format.h>

namespace bulkhead::log {

enum class Level { kDebug, kInfo, kWarning, kError };

void set_level(Level level);
void write(Level level, std::string_view line);

template <typename... Arguments>
void debug(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::kDebug, fmt::format(format, std::forward<Arguments>(arguments)...));
}
template <typename... Arguments>
void info(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::kInfo, fmt::format(format, std::forward<Arguments>(arguments)...));
}
template <typename... Arguments>
void warning(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::kWarning, fmt::format(format, std::forward<Arguments>(arguments)...));
}
template <typename... Arguments>
void error(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::kError, fmt::format(format, std::forward<Arguments>(arguments)...));
}

// Lets through the first kBurst events and then one per doubling of their count: 16, 32, 64, ... Callable from any
// thread.
class RateLimit {
 public:
  [[nodiscard]] bool allow() {
    const uint64_t count = count_.fetch_add(1, std::memory_order_relaxed) + 1;
    return count <= kBurst || (count & (count - 1)) == 0;
  }
  [[nodiscard]] uint64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  static constexpr uint64_t kBurst = 8;
  std::atomic<uint64_t> count_{0};
};

}  // namespace bulkhead::log
