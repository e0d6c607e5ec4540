// Framing of gdb's remote protocol ("$data#checksum", acknowledgements, the interrupt byte) and its hexadecimal. The
// peer is foreign: a packet longer than kMaximumPacket is dropped, never grown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/bytes.h"

namespace bulkhead::vmm::gdb {

inline constexpr size_t kMaximumPacket = size_t{16} * 1024;

struct Input {
  enum class Kind : uint8_t { kPacket, kInterrupt, kBadPacket };
  Kind kind;
  std::string data;  // of a packet, its escapes undone
};

// Turns bytes, however they were cut, into packets.
class PacketReader {
 public:
  std::vector<Input> feed(ByteSpan bytes);

 private:
  enum class State : uint8_t { kIdle, kData, kEscape, kChecksumHigh, kChecksumLow };
  void add(uint8_t byte);

  State state_ = State::kIdle;
  std::string data_;
  bool too_long_ = false;
  uint8_t sum_ = 0;
  int given_sum_ = 0;
};

// "$data#checksum" with what must be escaped escaped.
std::string frame(std::string_view data);

// The value of a hexadecimal digit, or -1.
int hex_digit(char c);
std::string to_hex(ByteSpan bytes);
// Nothing when text is not pairs of digits.
std::optional<std::vector<uint8_t>> from_hex(std::string_view text);
// A hexadecimal number of at most 16 digits at the start of text, which moves past it.
std::optional<uint64_t> take_hex(std::string_view& text);
// True when text begins with c, which it moves past.
bool take(std::string_view& text, char c);

}  // namespace bulkhead::vmm::gdb
