#include "device/virtio/rng/rng.h"

#include <algorithm>
#include <array>

#include "spec/pci.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

uint16_t RngModel::device_id() const {
  return spec::virtio::kDeviceEntropy;
}
uint32_t RngModel::pci_class() const {
  return spec::pci::kClassOther;
}

void RngModel::read_config(uint64_t, MutableByteSpan out) const {
  std::ranges::fill(out, uint8_t{0});
}

bool RngModel::process(unsigned index) {
  Queue* queue = transport_->queue(index);
  if (queue == nullptr) return false;
  const Drained drained = drain(*queue, chain_, [&](const Chain& chain) {
    const uint32_t size = std::min(chain.writable_size(), kMaximumFill);
    std::array<uint8_t, 256> bytes;
    for (uint32_t offset = 0; offset < size; offset += static_cast<uint32_t>(bytes.size())) {
      const MutableByteSpan piece = MutableByteSpan(bytes).first(std::min<size_t>(bytes.size(), size - offset));
      random_.fill(piece);
      (void)chain.write(offset, piece);
    }
    queue->push(chain, size);
    return true;
  });
  transport_->used(index);
  if (drained == Drained::kBroken) transport_->needs_reset("the entropy queue makes no sense");
  return drained == Drained::kMore;
}

}  // namespace bulkhead::device::virtio
