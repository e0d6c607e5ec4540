// Large pieces of memory that the host's page tables hold as one entry each: what is all over the place in them costs
// fewer misses of its TLB.
#pragma once

#include <cstddef>

namespace bulkhead {

inline constexpr size_t kHugePageSize = size_t{2} << 20;

// Takes the kHugePageSize bytes at `begin`, aligned to as many and readable, into one page now, whatever has been
// written of them already. It is a request: a host that has no such page to give leaves things as they are.
void make_huge_page(void* begin);

}  // namespace bulkhead
