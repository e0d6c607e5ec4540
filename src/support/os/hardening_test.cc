#include "support/os/hardening.h"

#include <cerrno>
#include <cstdlib>

#include <gtest/gtest.h>
#include <sys/mman.h>

namespace bulkhead {
namespace {

// In a process of its own, for there is no way back.
[[noreturn]] void forbid_and_try() {
  if (!forbid_writable_code()) std::_Exit(77);
  void* both = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (both != MAP_FAILED || errno != EACCES) std::_Exit(1);
  void* data = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED || ::mprotect(data, 4096, PROT_READ | PROT_EXEC) == 0) std::_Exit(2);
  std::_Exit(0);
}

TEST(Hardening, NoMemoryBecomesExecutableWhereTheKernelCanForbidIt) {
  EXPECT_EXIT(
      forbid_and_try(),
      [](int status) { return WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77); }, "");
}

}  // namespace
}  // namespace bulkhead
