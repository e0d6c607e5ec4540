#include "net/capture/pcapng.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bulkhead::net::capture {
namespace {

constexpr uint32_t kSectionHeader = 0x0A0D0D0A, kInterface = 1, kEnhancedPacket = 6, kByteOrder = 0x1A2B3C4D;
constexpr uint16_t kEthernet = 1, kOptionName = 2, kOptionResolution = 9;  // of an interface
constexpr uint16_t kOptionComment = 1;                                     // of a section
constexpr std::string_view kPart = "part ";
constexpr uint16_t kOptionFlags = 2;             // of a packet
constexpr uint32_t kInbound = 1, kOutbound = 2;  // as the switch sees it
constexpr uint8_t kNanoseconds = 9;
constexpr uint32_t kLeastBlock = 12;
constexpr size_t kLongestName = 64;
// Of blocks, beside what is in them, with its padding.
constexpr uint64_t kPacketOverhead = 48, kInterfaceOverhead = 40, kSectionSize = 72;

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

std::vector<uint8_t> interface_block(std::string_view name) {
  Block block(kInterface);
  block.put(kEthernet).put(uint16_t{0}).put(uint32_t{0});
  block.put(kOptionName).put(static_cast<uint16_t>(name.size()));
  block.put(ByteSpan(reinterpret_cast<const uint8_t*>(name.data()), name.size()));
  return block.put(kOptionResolution).put(uint16_t{1}).put(uint32_t{kNanoseconds}).put(uint32_t{0}).finish();
}

// The start of a section, which says the how many'th file of its capture this is: of two files the later one has the
// larger number.
std::vector<uint8_t> section_block(uint64_t part) {
  const std::string comment = fmt::format("{}{}", kPart, part);
  Block block(kSectionHeader);
  block.put(kByteOrder).put(uint16_t{1}).put(uint16_t{0}).put(~uint64_t{0});
  block.put(kOptionComment).put(static_cast<uint16_t>(comment.size()));
  block.put(ByteSpan(reinterpret_cast<const uint8_t*>(comment.data()), comment.size()));
  return block.put(uint32_t{0}).finish();
}

// Of a file's first bytes; 0 where it is not said.
uint64_t part_of(ByteSpan head) {
  constexpr size_t kTextAt = 28;
  if (head.size() < kTextAt || load<uint16_t>(head.data() + 24) != kOptionComment) return 0;
  const size_t size = std::min<size_t>(load<uint16_t>(head.data() + 26), head.size() - kTextAt);
  const std::string_view text(reinterpret_cast<const char*>(head.data()) + kTextAt, size);
  uint64_t part = 0;
  if (text.starts_with(kPart)) (void)std::from_chars(text.data() + kPart.size(), text.data() + text.size(), part);
  return part;
}

struct Former {
  uint64_t end = 0;   // of the last whole block; 0: there is none
  uint64_t part = 0;  // which file of its capture it is
};

// A file that was grown before the power went, and whose bytes had not reached the disk.
Result<bool> is_nothing_but_zeroes(int file, uint64_t size) {
  std::vector<uint8_t> bytes(size_t{64} << 10);
  for (uint64_t at = 0; at < size;) {
    const ssize_t count = ::pread(file, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (count < 0) return fail_errno(errno, "read at byte {}", at);
    if (count == 0) return false;
    if (std::ranges::any_of(ByteSpan(bytes).first(static_cast<size_t>(count)), [](uint8_t byte) { return byte != 0; }))
      return false;
    at += static_cast<uint64_t>(count);
  }
  return true;
}

// What a former process left in a file of at most so many bytes. Only the file's own owner writes it, but the process
// that did may have been killed, also within its first block, and the host's power may have gone.
Result<Former> read_former(int file, uint64_t limit_bytes) {
  struct stat status{};
  if (::fstat(file, &status) != 0) return fail_errno(errno, "size");
  const auto size = static_cast<uint64_t>(status.st_size);
  std::vector<uint8_t> window;
  uint64_t window_at = 0, at = 0, part = 0;
  bool is_ours = size == 0;
  while (size - at >= (at == 0 ? 1 : kLeastBlock)) {
    if (at < window_at || at + 12 > window_at + window.size()) {
      window.resize(std::min<uint64_t>(size - at, uint64_t{1} << 20));
      const ssize_t count = ::pread(file, window.data(), window.size(), static_cast<off_t>(at));
      if (count < 0) return fail_errno(errno, "read at byte {}", at);
      // No file of ours has less than a block's type: a lone line end is somebody's.
      if (at == 0) is_ours = count >= 4 && load<uint32_t>(window.data()) == kSectionHeader;
      if (count < 12) break;
      window.resize(static_cast<size_t>(count));
      window_at = at;
    }
    const uint8_t* const head = window.data() + (at - window_at);
    const auto type = load<uint32_t>(head), length = load<uint32_t>(head + 4);
    if (at == 0) is_ours = type == kSectionHeader && load<uint32_t>(head + 8) == kByteOrder;
    if (!is_ours) break;
    if (at == 0) part = part_of(window);
    if (length < kLeastBlock || length % 4 != 0 || length > size - at) break;
    at += length;
  }
  // More than a file of ours ever holds is somebody's, such as a new disk.
  if (!is_ours && size <= limit_bytes && TRY(is_nothing_but_zeroes(file, size))) return Former{};
  if (!is_ours) return fail("at byte 0: {} bytes that are no pcapng file of this program's; it is left as it is", size);
  return Former{.end = at, .part = part};
}

}  // namespace

Result<std::unique_ptr<PcapngRing>> PcapngRing::create(const std::string& path, uint64_t limit_bytes) {
  if (limit_bytes < kLeastBytes) return fail("capture '{}': a limit below {} bytes", path, kLeastBytes);
  constexpr int kFlags = O_RDWR | O_CREAT | O_NOFOLLOW;
  std::array<Fd, 2> files;
  std::array<Former, 2> former;
  const std::array<std::string, 2> names = files_of(path);
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string& name = names[i];
    files[i] = TRY(open_file(name, kFlags, 0600));
    former[i] = TRY_IN(fmt::format("capture '{}'", name), read_former(files[i].get(), limit_bytes / 2));
  }
  for (size_t i = 0; i < files.size(); ++i) {
    if (::ftruncate(files[i].get(), static_cast<off_t>(former[i].end)) != 0) {
      return fail_errno(errno, "capture '{}'", names[i]);
    }
  }
  std::unique_ptr<PcapngRing> ring(new PcapngRing(std::move(files[0]), std::move(files[1]), limit_bytes / 2));
  ring->current_ = former[1].end != 0 && (former[0].end == 0 || former[1].part > former[0].part) ? 1 : 0;
  ring->written_ = former[ring->current_].end;
  ring->part_ = former[ring->current_].part;
  const int file = ring->files_[ring->current_].get();
  const auto end = static_cast<off_t>(ring->written_);
  const bool is_ready = ::lseek(file, end, SEEK_SET) == end;
  // A process that starts again and again fills a file too.
  const bool is_full = ring->written_ + kSectionSize > ring->limit_;
  if (!is_ready || !(is_full ? ring->begin_file() : ring->begin_section())) {
    return fail_errno(errno, "capture '{}'", path);
  }
  return ring;
}

bool PcapngRing::put(ByteSpan block) {
  const int file = files_[current_].get();
  if (write_all(file, block)) {
    written_ += block.size();
    return true;
  }
  // Half a block would end the file for whoever reads it.
  const auto end = static_cast<off_t>(written_);
  (void)!::ftruncate(file, end);
  (void)::lseek(file, end, SEEK_SET);
  return false;
}

bool PcapngRing::begin_section() {
  ports_.clear();
  return put(section_block(part_));
}

bool PcapngRing::begin_file() {
  const int file = files_[current_ ^ 1].get();
  if (::ftruncate(file, 0) != 0 || ::lseek(file, 0, SEEK_SET) != 0) return false;
  current_ ^= 1;
  written_ = 0;
  ++part_;
  return begin_section();
}

void PcapngRing::write(const Captured& captured) {
  const auto size = static_cast<uint32_t>(captured.frame.size());
  const std::string_view name = captured.port.substr(0, kLongestName);
  auto port = ports_.find(name);
  const uint64_t room = size + kPacketOverhead + (port == ports_.end() ? kInterfaceOverhead + name.size() : 0);
  if (written_ + room > limit_ || (port == ports_.end() && ports_.size() >= kMaximumPorts)) {
    if (!begin_file()) {
      ++lost_;
      return;
    }
    port = ports_.end();
  }
  // Where there was no room for a section before, there may be now.
  if (written_ == 0 && !begin_section()) {
    ++lost_;
    return;
  }
  if (port == ports_.end()) {
    if (!put(interface_block(name))) {
      ++lost_;
      return;
    }
    port = ports_.emplace(name, static_cast<uint32_t>(ports_.size())).first;
  }
  Block block(kEnhancedPacket);
  block.put(port->second).put(static_cast<uint32_t>(captured.time_ns >> 32));
  block.put(static_cast<uint32_t>(captured.time_ns)).put(size).put(size).put(captured.frame);
  block.put(kOptionFlags).put(uint16_t{4}).put(captured.is_sent ? kInbound : kOutbound).put(uint32_t{0});
  if (!put(block.finish())) ++lost_;
}

}  // namespace bulkhead::net::capture
