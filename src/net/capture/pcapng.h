// Frames as a pcapng file (draft-ietf-opsawg-pcapng) for Wireshark and an IDS: one Ethernet interface, times in
// nanoseconds. Two files of at most half the limit take turns, so that the latest frames are always there.
#pragma once

#include <array>
#include <string>

#include "support/os/fd.h"

namespace bulkhead::net::capture {

class PcapngRing {
 public:
  static constexpr uint64_t kLeastBytes = 256 * 1024;

  // Makes path and path.1 anew. Nothing is opened afterwards.
  static Result<PcapngRing> create(const std::string& path, uint64_t limit_bytes);

  // A frame that cannot be written is counted.
  void write(ByteSpan frame, uint64_t time_ns);
  [[nodiscard]] uint64_t lost() const { return lost_; }

 private:
  PcapngRing(Fd first, Fd second, uint64_t file_bytes)
      : files_{std::move(first), std::move(second)}, limit_(file_bytes) {}
  [[nodiscard]] bool begin_file();

  std::array<Fd, 2> files_;
  uint64_t limit_;
  size_t current_ = 0;
  uint64_t written_ = 0;
  uint64_t lost_ = 0;
};

}  // namespace bulkhead::net::capture
