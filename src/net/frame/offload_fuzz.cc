// A header of a virtqueue and a frame of a hostile sender: what is settled is cut into pieces that are frames of their
// own, none too large, which together say what the whole said.
#include <array>
#include <vector>

#include "net/frame/offload.h"
#include "support/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  using namespace bulkhead::net::frame;
  constexpr size_t kLargest = 1522;
  if (size < kVirtioHeaderSize + 1 || size > kVirtioHeaderSize + kMaximumFrameSize) return 0;
  auto offload = read_virtio_header({data, kVirtioHeaderSize}, OffloadSupport::all());
  if (!offload) return 0;
  std::vector<uint8_t> frame(data + kVirtioHeaderSize, data + size);
  if (!settle(frame, *offload, kLargest)) return 0;
  const std::vector<uint8_t> settled = frame;
  Offload again = *offload;
  CHECK(settle(frame, again, kLargest) && again == *offload && frame == settled, "what is settled stays so");
  const Headers whole = read_headers(frame);
  std::vector<uint8_t> said;
  size_t count = 0;
  for_each_piece(frame, *offload, [&](ByteSpan piece) {
    CHECK(piece.size() <= kLargest, "no piece is too large");
    ++count;
    if (!offload->is_checksum_open) return true;
    const Headers headers = read_headers(piece);
    CHECK(headers.fault == Fault::kNone && (headers.tcp || headers.udp), "a piece is a packet");
    CHECK(headers.ip->source == whole.ip->source && headers.ip->destination == whole.ip->destination, "addresses stay");
    const ByteSpan payload = piece.subspan(headers.transport_payload_offset, headers.transport_payload_size);
    said.insert(said.end(), payload.begin(), payload.end());
    return true;
  });
  CHECK(count == segment_count(whole, *offload), "as many pieces as said");
  if (offload->is_checksum_open) {
    CHECK(std::equal(
              said.begin(), said.end(), settled.begin() + static_cast<ptrdiff_t>(whole.transport_payload_offset),
              settled.begin() + static_cast<ptrdiff_t>(whole.transport_payload_offset + whole.transport_payload_size)),
          "the pieces say what the whole said");
  }
  const auto header = make_virtio_header(*offload, frame, 1);
  const auto read = read_virtio_header(header, OffloadSupport::all());
  CHECK(read && *read == *offload, "a header says what was meant");
  return 0;
}
