// Physical region pages: where a command's data lies in guest memory (NVM Express 1.4, 4.3). Each list page is copied
// once; every entry is checked before it is used, and the command's length bounds how many are looked at.
#pragma once

#include <cstdint>

#include "device/guest_buffer.h"
#include "memory/guest_memory.h"
#include "spec/nvme.h"

namespace bulkhead::device::nvme {

// Appends size bytes to the buffer. Anything but success leaves a buffer of no use.
[[nodiscard]] spec::nvme::Status collect_pages(memory::GuestMemory& memory, uint64_t page_size, uint64_t prp1,
                                               uint64_t prp2, uint64_t size, GuestBuffer& buffer);

}  // namespace bulkhead::device::nvme
