// Assertions that stay on in every build: they guard against our own faults only and end this process.
// What a guest, an image or a peer can cause never reaches one.
#pragma once

namespace bulkhead {
[[noreturn]] void check_failed(const char* expression, const char* file, int line, const char* explanation);
}  // namespace bulkhead

#define CHECK(condition, explanation)                                        \
  do {                                                                       \
    if (!(condition)) [[unlikely]]                                           \
      ::bulkhead::check_failed(#condition, __FILE__, __LINE__, explanation); \
  } while (false)
