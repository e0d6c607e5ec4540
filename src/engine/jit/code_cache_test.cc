#include "engine/jit/code_cache.h"

#include <array>
#include <cstdlib>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "engine/jit/jit.h"
#include "support/os/hardening.h"

namespace bulkhead::engine::jit {
namespace {

// mov eax, 42; ret
constexpr std::array<uint8_t, 6> kFunction = {0xB8, 42, 0, 0, 0, 0xC3};
BULKHEAD_CALLS_TRANSLATED_CODE int run(const uint8_t* place) {
  return reinterpret_cast<int (*)()>(reinterpret_cast<uintptr_t>(place))();
}

TEST(CodeCache, RunsWhatWasAddedAndWhatWasPatched) {
  auto cache = CodeCache::create(4096);
  if (!cache) GTEST_SKIP() << cache.error().message;
  const uint8_t* place = (*cache)->add(kFunction);
  ASSERT_NE(place, nullptr);
  EXPECT_EQ(run(place), 42);
  (*cache)->patch(place + 1, 7);
  EXPECT_EQ(run(place), 7);
}

TEST(CodeCache, RefusesWhatDoesNotFitAndBeginsAnewAfterAReset) {
  auto cache = CodeCache::create(4096);
  if (!cache) GTEST_SKIP() << cache.error().message;
  const uint8_t* first = (*cache)->add(kFunction);
  const size_t kept = (*cache)->used();
  const uint8_t* second = (*cache)->add(kFunction);
  while ((*cache)->add(kFunction) != nullptr) {
  }
  EXPECT_GE((*cache)->used() + kFunction.size(), (*cache)->capacity());
  (*cache)->reset(kept);
  EXPECT_EQ((*cache)->add(kFunction), second);
  EXPECT_EQ(run(first), 42);
}

TEST(CodeCache, NoPageIsWritableAndExecutable) {
  auto cache = CodeCache::create(1 << 20);
  if (!cache) GTEST_SKIP() << cache.error().message;
  ASSERT_NE((*cache)->add(kFunction), nullptr);
  std::ifstream maps("/proc/self/maps");
  int views = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("bulkhead-code") == std::string::npos) continue;
    ++views;
    const std::string rights = line.substr(line.find(' ') + 1, 4);
    EXPECT_FALSE(rights[1] == 'w' && rights[2] == 'x') << line;
  }
  EXPECT_EQ(views, 2);
}

// Exit status 0: a cache was made and run after that, and patched; else the step that failed.
[[noreturn]] void run_where_writable_code_is_forbidden() {
  (void)forbid_writable_code();
  auto cache = CodeCache::create(4096);
  if (!cache) std::_Exit(1);
  const uint8_t* place = (*cache)->add(kFunction);
  if (place == nullptr || run(place) != 42) std::_Exit(2);
  (*cache)->patch(place + 1, 7);
  std::_Exit(run(place) == 7 ? 0 : 3);
}

TEST(CodeCache, WorksWhereWritableCodeIsForbidden) {
  if (!CodeCache::create(4096)) GTEST_SKIP() << "no executable memory";
  EXPECT_EXIT(run_where_writable_code_is_forbidden(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace bulkhead::engine::jit
