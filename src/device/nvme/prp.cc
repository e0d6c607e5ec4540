#include "device/nvme/prp.h"

#include <algorithm>
#include <vector>

namespace bulkhead::device::nvme {

using spec::nvme::Status;

namespace {

constexpr uint64_t kEntrySize = sizeof(uint64_t);

// All of a list's entries but the last name pages; the last one of a list page names the next list when more follows.
Status collect_list(memory::GuestMemory& memory, uint64_t page_size, uint64_t list, uint64_t left,
                    GuestBuffer& buffer) {
  std::vector<uint64_t> entries;
  for (bool first = true; left != 0; first = false) {
    const uint64_t place = list & (page_size - 1);
    // Only the first list may begin within a page (4.3), so each of the others has room for data.
    if (list % kEntrySize != 0 || (place != 0 && !first)) return Status::kInvalidPrpOffset;
    const uint64_t room = (page_size - place) / kEntrySize;
    const uint64_t wanted = (left + page_size - 1) / page_size;
    entries.resize(std::min(room, wanted));
    if (!memory.read({list}, {reinterpret_cast<uint8_t*>(entries.data()), entries.size() * kEntrySize})) {
      return Status::kDataTransferError;
    }
    const bool chained = wanted > room;
    const size_t data_entries = entries.size() - (chained ? 1 : 0);
    for (size_t i = 0; i < data_entries; ++i) {
      if ((entries[i] & (page_size - 1)) != 0) return Status::kInvalidPrpOffset;
      const uint64_t size = std::min(left, page_size);
      if (!buffer.append({entries[i]}, size)) return Status::kDataTransferError;
      left -= size;
    }
    if (chained) list = entries.back();
  }
  return Status::kSuccess;
}

}  // namespace

Status collect_pages(memory::GuestMemory& memory, uint64_t page_size, uint64_t prp1, uint64_t prp2, uint64_t size,
                     GuestBuffer& buffer) {
  if (prp1 % sizeof(uint32_t) != 0) return Status::kInvalidPrpOffset;
  const uint64_t first = std::min(size, page_size - (prp1 & (page_size - 1)));
  if (!buffer.append({prp1}, first)) return Status::kDataTransferError;
  const uint64_t left = size - first;
  if (left == 0) return Status::kSuccess;
  if (left > page_size) return collect_list(memory, page_size, prp2, left, buffer);
  if ((prp2 & (page_size - 1)) != 0) return Status::kInvalidPrpOffset;
  return buffer.append({prp2}, left) ? Status::kSuccess : Status::kDataTransferError;
}

}  // namespace bulkhead::device::nvme
