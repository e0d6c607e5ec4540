#include "net/vhost/back_end.h"

#include <cstring>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

namespace bulkhead::net::vhost {
namespace {

constexpr uint64_t kFeatures = kFeatureProtocol | kFeatureVersion1 | kOffloadFeatures;
constexpr uint64_t kProtocolFeatures = kProtocolRarp | kProtocolReplyAck;

// Maps the file up to the region's end. A file that may shrink, or whose huge pages need not be there, would take this
// process down on the next access.
Result<Mapping> map_region(int file, const MemoryRegion& region) {
  struct stat status{};
  const uint64_t end = region.file_offset + region.size;
  if (::fstat(file, &status) != 0) return fail_errno(errno, "vhost-user: memory");
  if (static_cast<uint64_t>(status.st_size) < end) {
    return fail("vhost-user: memory: a region up to byte {:#x} of a file of {:#x} bytes", end, status.st_size);
  }
  const int seals = ::fcntl(file, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return fail("vhost-user: memory: a file that is not sealed against shrinking (memfd with F_SEAL_SHRINK)");
  }
  struct statfs system{};
  if (::fstatfs(file, &system) != 0) return fail_errno(errno, "vhost-user: memory");
  if (system.f_type == HUGETLBFS_MAGIC) return fail("vhost-user: memory: a file of huge pages, which may not be there");
  void* const address = ::mmap(nullptr, end, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  if (address == MAP_FAILED) return fail_errno(errno, "vhost-user: memory");
  return Mapping(address, end);
}

}  // namespace

MutableByteSpan BackEnd::at(uint64_t guest_address, uint64_t size) const {
  for (const Region& region : regions_) {
    const MemoryRegion& place = region.place;
    if (guest_address < place.guest_address) continue;
    const uint64_t offset = guest_address - place.guest_address;
    if (offset >= place.size || size > place.size - offset) continue;
    return {region.mapping.data() + place.file_offset + offset, static_cast<size_t>(size)};
  }
  return {};
}

uint8_t* BackEnd::user(uint64_t address, size_t size, size_t alignment) const {
  for (const Region& region : regions_) {
    const MemoryRegion& place = region.place;
    if (address < place.user_address) continue;
    const uint64_t offset = address - place.user_address;
    if (offset >= place.size || size > place.size - offset) continue;
    uint8_t* const found = region.mapping.data() + place.file_offset + offset;
    return reinterpret_cast<uintptr_t>(found) % alignment == 0 ? found : nullptr;
  }
  return nullptr;
}

Result<> BackEnd::set_memory(Message& message) {
  if (message.payload.size() < 8) return fail("vhost-user: a memory table of {} bytes", message.payload.size());
  const auto count = load<uint32_t>(message.payload.data());
  if (count == 0 || count > kMaximumRegions || message.descriptors.size() != count ||
      message.payload.size() < 8 + count * sizeof(MemoryRegion)) {
    return fail("vhost-user: a memory table of {} regions, {} descriptors and {} bytes", count,
                message.descriptors.size(), message.payload.size());
  }
  // Rings stand in memory that goes.
  for (Ring& ring : rings_) {
    if (ring.ring) ring.base = ring.ring->base();
    ring.ring.reset();
  }
  regions_.clear();
  for (size_t i = 0; i < count; ++i) {
    MemoryRegion region;
    std::memcpy(&region, message.payload.data() + 8 + i * sizeof region, sizeof region);
    if (region.size == 0 || region.size > kMaximumMemory || region.file_offset > kMaximumMemory ||
        region.guest_address + region.size < region.guest_address ||
        region.user_address + region.size < region.user_address) {
      return fail("vhost-user: a region of {:#x} bytes at {:#x}", region.size, region.guest_address);
    }
    regions_.push_back({region, TRY(map_region(message.descriptors[i].get(), region))});
  }
  for (Ring& ring : rings_) TRY(try_start(ring));
  return {};
}

Result<> BackEnd::try_start(Ring& ring) {
  if (!ring.address || ring.size == 0 || !ring.enabled || !ring.kick.valid() || ring.ring || regions_.empty())
    return {};
  const RingMemory memory{.descriptors = user(ring.address->descriptors, descriptors_size(ring.size), 16),
                          .available = user(ring.address->available, available_size(ring.size), 2),
                          .used = user(ring.address->used, used_size(ring.size), 4),
                          .size = ring.size};
  if (memory.descriptors == nullptr || memory.available == nullptr || memory.used == nullptr) {
    return fail("vhost-user: a ring outside the memory, or not aligned");
  }
  ring.ring.emplace(memory, ring.base);
  return {};
}

Result<> BackEnd::set_ring(const Message& message) {
  if (message.request == Request::kSetRingAddress) {
    if (message.payload.size() < sizeof(RingAddress)) return fail("vhost-user: a short ring address");
    RingAddress address;
    std::memcpy(&address, message.payload.data(), sizeof address);
    if (address.index >= kRingCount) return fail("vhost-user: ring {}", address.index);
    rings_[address.index].address = address;
    rings_[address.index].ring.reset();
    return try_start(rings_[address.index]);
  }
  const auto [index, value] = message.ring_state();
  if (index >= kRingCount) return fail("vhost-user: ring {}", index);
  Ring& ring = rings_[index];
  switch (message.request) {
    case Request::kSetRingSize:
      if (value == 0 || value > kMaximumRingSize || (value & (value - 1)) != 0) {
        return fail("vhost-user: a ring of {}; allowed: powers of two up to {}", value, kMaximumRingSize);
      }
      ring.size = static_cast<uint16_t>(value);
      ring.ring.reset();
      break;
    case Request::kSetRingBase:
      ring.base = static_cast<uint16_t>(value);
      ring.ring.reset();
      break;
    default:
      ring.enabled = value != 0;
      if (!ring.enabled && ring.ring) ring.base = ring.ring->base();
      if (!ring.enabled) ring.ring.reset();
  }
  return try_start(ring);
}

Result<> BackEnd::set_descriptor(Message& message) {
  const uint64_t number = message.number();
  const size_t index = number & 0xFF;
  if (message.payload.size() < 8 || index >= kRingCount) return fail("vhost-user: ring {}", index);
  const bool none = (number & kNoDescriptor) != 0;
  if (message.descriptors.size() != (none ? 0u : 1u))
    return fail("vhost-user: {} descriptors", message.descriptors.size());
  Fd given = none ? Fd() : std::move(message.descriptors[0]);
  // A write to it must never hold us up.
  if (given.valid()) (void)::fcntl(given.get(), F_SETFL, ::fcntl(given.get(), F_GETFL) | O_NONBLOCK);
  Ring& ring = rings_[index];
  if (message.request == Request::kSetRingCall) {
    ring.call = std::move(given);
    return {};
  }
  if (message.request == Request::kSetRingError) {
    ring.error = std::move(given);
    return {};
  }
  if (none) return fail("vhost-user: a ring without a kick");
  ring.kick = std::move(given);
  ++generation_;
  // Without protocol features a kick is what enables a ring.
  if ((features_ & kFeatureProtocol) == 0) ring.enabled = true;
  return try_start(ring);
}

Result<std::optional<Message>> BackEnd::handle(Message message) {
  std::optional<Message> reply;
  const bool needs_reply = (message.flags & kNeedReplyFlag) != 0;
  switch (message.request) {
    case Request::kGetFeatures:
      reply = make_message(message.request, kFeatures);
      break;
    case Request::kGetProtocolFeatures:
      reply = make_message(message.request, kProtocolFeatures);
      break;
    case Request::kGetQueueCount:
      reply = make_message(message.request, uint64_t{1});
      break;
    case Request::kSetFeatures:
      if ((message.number() & ~kFeatures) != 0) {
        return fail("vhost-user: features {:#x} that were not offered", message.number() & ~kFeatures);
      }
      if ((message.number() & kFeatureVersion1) == 0) return fail("vhost-user: a card older than VIRTIO 1.0");
      features_ = message.number();
      break;
    case Request::kSetProtocolFeatures:
      if ((message.number() & ~kProtocolFeatures) != 0)
        return fail("vhost-user: protocol features that were not offered");
      break;
    case Request::kSetMemoryTable:
      TRY(set_memory(message));
      break;
    case Request::kSetRingSize:
    case Request::kSetRingBase:
    case Request::kSetRingAddress:
    case Request::kSetRingEnable:
      TRY(set_ring(message));
      break;
    case Request::kSetRingKick:
    case Request::kSetRingCall:
    case Request::kSetRingError:
      TRY(set_descriptor(message));
      break;
    case Request::kGetRingBase: {
      const auto [index, value] = message.ring_state();
      if (index >= kRingCount) return fail("vhost-user: ring {}", index);
      Ring& ring = rings_[index];
      if (ring.ring) ring.base = ring.ring->base();
      ring.ring.reset();
      ring.kick.reset();
      ++generation_;
      reply = make_message(message.request, index, ring.base);
      break;
    }
    case Request::kSetOwner:
    case Request::kResetOwner:
    case Request::kSendRarp:
      break;
    default:
      return fail("vhost-user: request {}", static_cast<uint32_t>(message.request));
  }
  if (!reply && needs_reply) reply = make_message(message.request, uint64_t{0});
  if (reply) reply->flags = kVersion | kReplyFlag;
  return reply;
}

DeviceRing* BackEnd::ring(size_t index) {
  return rings_[index].ring ? &*rings_[index].ring : nullptr;
}

}  // namespace bulkhead::net::vhost
