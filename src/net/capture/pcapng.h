// Frames as a pcapng file (draft-ietf-opsawg-pcapng) for Wireshark and an IDS: an Ethernet interface for each port of
// the switch, by its name, with times in nanoseconds and a frame's direction. Two files of at most half the limit take
// turns, so that the latest frames are always there; what a former process wrote is kept and gone on with.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "support/os/fd.h"

namespace bulkhead::net::capture {

struct Captured {
  ByteSpan frame;
  uint64_t time_ns = 0;   // since 1970
  std::string_view port;  // where it was seen
  bool is_sent = false;   // by that port, else to it
};

class PcapngRing {
 public:
  static constexpr uint64_t kLeastBytes = 256 * 1024;
  // Names in a file; with one more the other file has its turn.
  static constexpr size_t kMaximumPorts = 4096;

  // Opens path and path.1, which nothing else writes; a block that a former process did not end is cut off, and a file
  // no larger than ours of nothing but zeroes, as a power cut leaves one, begins anew. Nothing is opened afterwards.
  // The error names the file, and what of it is no pcapng file.
  static Result<std::unique_ptr<PcapngRing>> create(const std::string& path, uint64_t limit_bytes);
  [[nodiscard]] static std::array<std::string, 2> files_of(const std::string& path) { return {path, path + ".1"}; }

  // A frame that cannot be written is counted.
  void write(const Captured& captured);
  [[nodiscard]] uint64_t lost() const { return lost_; }

 private:
  PcapngRing(Fd first, Fd second, uint64_t file_bytes)
      : files_{std::move(first), std::move(second)}, limit_(file_bytes) {}
  // The other file, from its start.
  [[nodiscard]] bool begin_file();
  // Behind what is there.
  [[nodiscard]] bool begin_section();
  [[nodiscard]] bool put(ByteSpan block);

  std::array<Fd, 2> files_;
  uint64_t limit_;
  size_t current_ = 0;
  uint64_t part_ = 0;                                   // how many files there have been before the current one
  uint64_t written_ = 0;                                // of the current file
  std::map<std::string, uint32_t, std::less<>> ports_;  // numbers of the current section's interfaces
  uint64_t lost_ = 0;
};

}  // namespace bulkhead::net::capture
