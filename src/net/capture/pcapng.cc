#include "net/capture/pcapng.h"

#include <algorithm>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bulkhead::net::capture {
namespace {

constexpr uint32_t kSectionHeader = 0x0A0D0D0A, kInterface = 1, kEnhancedPacket = 6, kByteOrder = 0x1A2B3C4D;
constexpr uint16_t kEthernet = 1, kOptionResolution = 9;
constexpr uint8_t kNanoseconds = 9;

// A block's type and size, its body, and its size again.
class Block {
 public:
  explicit Block(uint32_t type) { put(type).put(uint32_t{0}); }
  template <typename T>
  Block& put(T value) {
    const ByteSpan bytes = as_bytes(value);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Block& put(ByteSpan bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    bytes_.resize((bytes_.size() + 3) / 4 * 4);
    return *this;
  }
  const std::vector<uint8_t>& finish() {
    const auto size = static_cast<uint32_t>(bytes_.size() + 4);
    store(bytes_.data() + 4, size);
    put(size);
    return bytes_;
  }

 private:
  std::vector<uint8_t> bytes_;
};

}  // namespace

Result<PcapngRing> PcapngRing::create(const std::string& path, uint64_t limit_bytes) {
  if (limit_bytes < kLeastBytes) return fail("capture '{}': a limit below {} bytes", path, kLeastBytes);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW;
  PcapngRing ring(TRY(open_file(path, kFlags, 0600)), TRY(open_file(path + ".1", kFlags, 0600)), limit_bytes / 2);
  if (!ring.begin_file()) return fail_errno(errno, "capture '{}'", path);
  return ring;
}

bool PcapngRing::begin_file() {
  const int file = files_[current_].get();
  if (::ftruncate(file, 0) != 0 || ::lseek(file, 0, SEEK_SET) != 0) return false;
  std::vector<uint8_t> bytes =
      Block(kSectionHeader).put(kByteOrder).put(uint16_t{1}).put(uint16_t{0}).put(~uint64_t{0}).finish();
  const std::vector<uint8_t> interface = Block(kInterface)
                                             .put(kEthernet)
                                             .put(uint16_t{0})
                                             .put(uint32_t{0})
                                             .put(kOptionResolution)
                                             .put(uint16_t{1})
                                             .put(uint32_t{kNanoseconds})
                                             .put(uint32_t{0})
                                             .finish();
  bytes.insert(bytes.end(), interface.begin(), interface.end());
  written_ = bytes.size();
  return write_all(file, bytes).has_value();
}

void PcapngRing::write(ByteSpan frame, uint64_t time_ns) {
  const auto size = static_cast<uint32_t>(frame.size());
  const std::vector<uint8_t> block = Block(kEnhancedPacket)
                                         .put(uint32_t{0})
                                         .put(static_cast<uint32_t>(time_ns >> 32))
                                         .put(static_cast<uint32_t>(time_ns))
                                         .put(size)
                                         .put(size)
                                         .put(frame)
                                         .finish();
  if (written_ + block.size() > limit_) {
    current_ ^= 1;
    if (!begin_file()) {
      ++lost_;
      return;
    }
  }
  if (!write_all(files_[current_].get(), block)) {
    ++lost_;
    return;
  }
  written_ += block.size();
}

}  // namespace bulkhead::net::capture
