#include "device/virtio/queue/queue.h"

#include <bit>

#include "device/virtio/queue/packed_queue.h"
#include "device/virtio/queue/split_queue.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {
namespace {

struct Part {
  GuestAddress address;
  uint64_t size;
  uint64_t alignment;
};

bool is_valid(const memory::GuestMemory& memory, const Part& part) {
  return part.address.value % part.alignment == 0 && memory.is_ram(part.address, part.size);
}

}  // namespace

// Sizes and alignments: 2.7 and 2.8.10 of the specification.
std::unique_ptr<Queue> Queue::create(memory::GuestMemory& memory, const QueueConfig& config) {
  const uint64_t size = config.size;
  if (size == 0 || size > spec::virtio::kMaximumQueueSize) return nullptr;
  if (!is_valid(memory, {config.descriptors, size * sizeof(spec::virtio::SplitDescriptor), 16})) return nullptr;
  if (config.packed) {
    if (!is_valid(memory, {config.driver, sizeof(spec::virtio::PackedEvent), 4})) return nullptr;
    if (!is_valid(memory, {config.device, sizeof(spec::virtio::PackedEvent), 4})) return nullptr;
    return std::make_unique<PackedQueue>(memory, config);
  }
  if (!std::has_single_bit(size)) return nullptr;
  if (!is_valid(memory, {config.driver, 6 + 2 * size, 2})) return nullptr;
  if (!is_valid(memory, {config.device, 6 + sizeof(spec::virtio::SplitUsedElement) * size, 4})) return nullptr;
  return std::make_unique<SplitQueue>(memory, config);
}

}  // namespace bulkhead::device::virtio
