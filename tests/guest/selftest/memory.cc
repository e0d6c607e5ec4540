// mmap, mprotect, munmap and mremap: permissions take effect at once, contents move with their pages.
#include <csetjmp>
#include <csignal>
#include <cstring>

#include <sys/mman.h>
#include <unistd.h>

#include "selftest.h"

namespace selftest {
namespace {

sigjmp_buf faulted;
void on_fault(int) {
  siglongjmp(faulted, 1);
}

bool faults(const std::function<void()>& body) {
  if (sigsetjmp(faulted, 1) != 0) return true;
  body();
  return false;
}

}  // namespace

void test_memory() {
  signal(SIGSEGV, on_fault);
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  constexpr size_t kPages = 2048;
  auto* memory =
      static_cast<uint8_t*>(mmap(nullptr, kPages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  expect(memory != MAP_FAILED, "mmap of 8 MiB");
  bool zero = true;
  for (size_t i = 0; i < kPages; ++i) zero &= memory[i * page + i % page] == 0;
  expect(zero, "new pages are zero");
  for (size_t i = 0; i < kPages; ++i) std::memcpy(memory + i * page, &i, sizeof i);

  volatile uint8_t* cell = memory + 5 * page;
  *cell = 1;
  for (int i = 0; i < 100; ++i) {
    mprotect(memory + 5 * page, page, PROT_READ);
    if (!faults([&] { *cell = 2; })) expect(false, "a write after mprotect to read-only faults");
    mprotect(memory + 5 * page, page, PROT_READ | PROT_WRITE);
    if (faults([&] { *cell = 5; })) expect(false, "a write after mprotect to writable succeeds");
  }
  munmap(memory + 6 * page, page);
  expect(faults([&] { (void)*static_cast<volatile uint8_t*>(memory + 6 * page); }), "a read after munmap faults");

  void* moved =
      mremap(memory + 1024 * page, 1024 * page, 1024 * page, MREMAP_MAYMOVE | MREMAP_FIXED, memory + (1u << 30));
  bool kept = moved != MAP_FAILED;
  for (size_t i = 0; kept && i < 1024; ++i) {
    size_t value;
    std::memcpy(&value, static_cast<uint8_t*>(moved) + i * page, sizeof value);
    kept = value == 1024 + i;
  }
  expect(kept, "contents move with mremap");
  expect(faults([&] { (void)*static_cast<volatile uint8_t*>(memory + 1024 * page); }),
         "the old place is gone after mremap");
  signal(SIGSEGV, SIG_DFL);
}

}  // namespace selftest
