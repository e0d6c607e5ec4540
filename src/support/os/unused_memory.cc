#include "support/os/unused_memory.h"

#include <cstdint>

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

namespace bulkhead {
namespace {

// Segments that may not be written hold nothing of our own: what the loader relocates stands in writable ones.
int drop_read_only_segments(dl_phdr_info* object, size_t, void*) {
  const auto page_size = static_cast<uintptr_t>(::getpagesize());
  for (unsigned i = 0; i < object->dlpi_phnum; ++i) {
    const auto& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const uintptr_t begin = (object->dlpi_addr + segment.p_vaddr) & ~(page_size - 1);
    const uintptr_t end = object->dlpi_addr + segment.p_vaddr + segment.p_memsz;
    // Advice: what cannot be dropped stays.
    (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  return 0;
}

}  // namespace

void give_back_unused_memory() {
  (void)::malloc_trim(0);
  ::dl_iterate_phdr(drop_read_only_segments, nullptr);
}

}  // namespace bulkhead
