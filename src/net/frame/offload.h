// What a sender left to whoever carries its frame (VIRTIO 1.2, 5.1.6.2): a checksum that is not complete, a TCP stream
// or a row of UDP datagrams in one frame that is to be cut into many. Checked once against the frame's own headers
// (settle); afterwards a frame may travel whole to whoever understands it, and is cut for everybody else (Segments).
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "net/frame/headers.h"
#include "net/frame/protocol.h"
#include "support/bytes.h"

namespace bulkhead::net::frame {

enum class Segmentation : uint8_t { kNone, kTcpIpv4, kTcpIpv6, kUdp };

struct Offload {
  Segmentation segmentation = Segmentation::kNone;
  uint16_t segment_size = 0;        // payload bytes of each piece but the last
  bool is_checksum_open = false;    // at checksum_start + checksum_offset stands the pseudo header's sum
  bool is_checksum_proven = false;  // complete, and whoever made it is known to be right
  uint16_t checksum_start = 0;      // from the frame's first byte
  uint16_t checksum_offset = 0;

  [[nodiscard]] bool is_segmented() const { return segmentation != Segmentation::kNone; }
  // Nothing is left to do.
  [[nodiscard]] bool is_whole() const { return !is_segmented() && !is_checksum_open; }
  friend bool operator==(const Offload&, const Offload&) = default;
};

// What a receiver does itself.
struct OffloadSupport {
  bool checksum = false;
  bool tcp_ipv4 = false;
  bool tcp_ipv6 = false;
  bool udp_ipv4 = false;
  bool udp_ipv6 = false;

  [[nodiscard]] static constexpr OffloadSupport all() { return {true, true, true, true, true}; }
  [[nodiscard]] bool takes(const Offload& offload, ByteSpan frame) const;
  friend bool operator==(const OffloadSupport&, const OffloadSupport&) = default;
};

// More pieces than this are a way to make much out of little.
inline constexpr size_t kMaximumSegments = 2048;

// Believes nothing: what is left open must be what the frame's own headers say, or the frame is none (false). A
// checksum elsewhere than in TCP or UDP is completed here, so that nobody's later completing changes bytes that a
// policy has looked at. largest: of the frame, or of each piece when it is to be cut.
[[nodiscard]] bool settle(MutableByteSpan frame, Offload& offload, size_t largest);

// Turns a complete TCP frame of whatever size into one that is to be cut at segment_size. The frame was made by
// somebody trusted; false when it is no such frame.
[[nodiscard]] bool make_segmented(MutableByteSpan frame, uint16_t segment_size, Offload& offload);

// Completes in place what settle() left open, without cutting.
void complete(MutableByteSpan frame, Offload& offload);

// The pieces of a settled frame, each complete; none of a frame whose headers are not what its offload says. The frame
// outlives it.
class Segments {
 public:
  Segments() = default;
  Segments(ByteSpan frame, const Offload& offload);

  [[nodiscard]] size_t count() const { return count_; }
  [[nodiscard]] bool is_done() const { return next_ == count_; }
  [[nodiscard]] size_t largest_size() const { return headers_size_ + segment_size_; }
  // The next piece into out, which holds largest_size(); its size, 0 behind the last.
  [[nodiscard]] size_t next(MutableByteSpan out);

 private:
  void finish_headers(MutableByteSpan piece, size_t payload_size) const;

  ByteSpan frame_;
  Offload offload_;
  bool is_ipv4_ = false;
  size_t network_offset_ = 0;
  size_t headers_size_ = 0;  // all of them, copied in front of each piece
  size_t segment_size_ = 0;
  size_t count_ = 0;
  size_t next_ = 0;
};

// How many frames it stands for.
[[nodiscard]] size_t segment_count(const Headers& headers, const Offload& offload);

// Calls use(piece) for the frame itself when it is whole, else for each complete piece; until it says false.
template <typename Use>
void for_each_piece(ByteSpan frame, const Offload& offload, Use&& use) {
  if (offload.is_whole()) {
    (void)use(frame);
    return;
  }
  std::array<uint8_t, kMaximumFrameSize> piece;
  Segments segments(frame, offload);
  while (const size_t size = segments.next(piece)) {
    if (!use(ByteSpan(piece).first(size))) return;
  }
}

// ---- As it stands in front of a frame in a virtqueue ----

inline constexpr size_t kVirtioHeaderSize = 12;
// Nothing when the header says what is not allowed.
[[nodiscard]] std::optional<Offload> read_virtio_header(ByteSpan header, const OffloadSupport& allowed);
// buffer_count: of mergeable buffers. headers_size is a hint to the receiver.
[[nodiscard]] std::array<uint8_t, kVirtioHeaderSize> make_virtio_header(const Offload& offload, ByteSpan frame,
                                                                        uint16_t buffer_count);

}  // namespace bulkhead::net::frame
