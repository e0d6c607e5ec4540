#include "support/os/huge_page.h"

#include <cstdint>

#include <sys/mman.h>

namespace bulkhead {
namespace {

// MADV_COLLAPSE, Linux 6.1: for memfds too, where the host's settings give them no huge pages by themselves.
constexpr int kCollapse = 25;

}  // namespace

void make_huge_page(void* begin) {
  // Where no page is there at all, the kernel would not know which to begin with.
  (void)*static_cast<const volatile uint8_t*>(begin);
  (void)::madvise(begin, kHugePageSize, kCollapse);
}

}  // namespace bulkhead
