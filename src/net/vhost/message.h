// Messages of the vhost-user protocol (QEMU's docs/interop/vhost-user), as far as a network card needs them: a header,
// a small payload, and descriptors beside it. What comes in is bounded here and believed nowhere.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "net/frame/offload.h"
#include "support/os/fd.h"

namespace bulkhead::net::vhost {

enum class Request : uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kResetOwner = 4,
  kSetMemoryTable = 5,
  kSetRingSize = 8,
  kSetRingAddress = 9,
  kSetRingBase = 10,
  kGetRingBase = 11,
  kSetRingKick = 12,
  kSetRingCall = 13,
  kSetRingError = 14,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kGetQueueCount = 17,
  kSetRingEnable = 18,
  kSendRarp = 19,
};

inline constexpr uint32_t kVersion = 1, kVersionMask = 3, kReplyFlag = 4, kNeedReplyFlag = 8;
// Of a network card (VIRTIO 1.2, 5.1.3): what the device does for the driver, and what the driver does itself.
inline constexpr uint64_t kFeatureChecksum = 1 << 0, kFeatureHostTcp4 = 1 << 11, kFeatureHostTcp6 = 1 << 12,
                          kFeatureHostUdp = uint64_t{1} << 56;
inline constexpr uint64_t kFeatureGuestChecksum = 1 << 1, kFeatureGuestTcp4 = 1 << 7, kFeatureGuestTcp6 = 1 << 8,
                          kFeatureGuestUdp4 = uint64_t{1} << 54, kFeatureGuestUdp6 = uint64_t{1} << 55;
inline constexpr uint64_t kOffloadFeatures = kFeatureChecksum | kFeatureHostTcp4 | kFeatureHostTcp6 | kFeatureHostUdp |
                                             kFeatureGuestChecksum | kFeatureGuestTcp4 | kFeatureGuestTcp6 |
                                             kFeatureGuestUdp4 | kFeatureGuestUdp6;
// What each side takes, by the features that both have.
[[nodiscard]] frame::OffloadSupport taken_by_device(uint64_t features);
[[nodiscard]] frame::OffloadSupport taken_by_driver(uint64_t features);

inline constexpr uint64_t kFeatureProtocol = uint64_t{1} << 30, kFeatureVersion1 = uint64_t{1} << 32;
inline constexpr uint64_t kProtocolRarp = 1 << 2, kProtocolReplyAck = 1 << 3;
inline constexpr uint64_t kNoDescriptor = 1 << 8;  // of a kick or call
inline constexpr size_t kMaximumPayload = 512, kMaximumDescriptors = 8;

struct MemoryRegion {
  uint64_t guest_address = 0;
  uint64_t size = 0;
  uint64_t user_address = 0;  // as the front end has it mapped
  uint64_t file_offset = 0;
};

struct RingAddress {
  uint32_t index = 0;
  uint32_t flags = 0;
  uint64_t descriptors = 0;  // user addresses of the front end
  uint64_t used = 0;
  uint64_t available = 0;
  uint64_t log = 0;
};

struct Message {
  Request request{};
  uint32_t flags = 0;
  std::vector<uint8_t> payload;
  std::vector<Fd> descriptors;

  // The first eight bytes; 0 when there are fewer.
  [[nodiscard]] uint64_t number() const;
  // Two 32-bit words: a ring and a value.
  [[nodiscard]] std::pair<uint32_t, uint32_t> ring_state() const;
};

[[nodiscard]] Message make_message(Request request, ByteSpan payload = {});
[[nodiscard]] Message make_message(Request request, uint64_t number);
[[nodiscard]] Message make_message(Request request, uint32_t ring, uint32_t value);

// The next message of a stream socket, waiting for it where the socket waits. Nothing at the end of the stream; an
// error when the message is none, or comes in drops.
Result<std::optional<Message>> receive_message(int socket);
Result<> send_message(int socket, const Message& message);

}  // namespace bulkhead::net::vhost
