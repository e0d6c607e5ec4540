#include "vmm/gdb/packet.h"

namespace bulkhead::vmm::gdb {
namespace {

constexpr char kDigits[] = "0123456789abcdef";

}  // namespace

std::vector<Input> PacketReader::feed(ByteSpan bytes) {
  std::vector<Input> out;
  for (const uint8_t byte : bytes) {
    const char c = static_cast<char>(byte);
    switch (state_) {
      case State::kIdle:
        // Acknowledgements ('+', '-') need no answer on a reliable connection.
        if (byte == 3) out.push_back({Input::Kind::kInterrupt, {}});
        if (c == '$') {
          state_ = State::kData;
          data_.clear();
          sum_ = 0;
          too_long_ = false;
        }
        break;
      case State::kData:
        if (c == '#') {
          state_ = State::kChecksumHigh;
          break;
        }
        sum_ = static_cast<uint8_t>(sum_ + byte);
        if (c == '}') {
          state_ = State::kEscape;
        } else {
          add(byte);
        }
        break;
      case State::kEscape:
        sum_ = static_cast<uint8_t>(sum_ + byte);
        add(byte ^ 0x20);
        state_ = State::kData;
        break;
      case State::kChecksumHigh:
        given_sum_ = hex_digit(c) * 16;
        state_ = State::kChecksumLow;
        break;
      case State::kChecksumLow:
        state_ = State::kIdle;
        if (too_long_ || given_sum_ + hex_digit(c) != sum_) {
          out.push_back({Input::Kind::kBadPacket, {}});
        } else {
          out.push_back({Input::Kind::kPacket, std::move(data_)});
        }
        data_.clear();
        break;
    }
  }
  return out;
}

void PacketReader::add(uint8_t byte) {
  too_long_ |= data_.size() >= kMaximumPacket;
  if (!too_long_) data_.push_back(static_cast<char>(byte));
}

std::string frame(std::string_view data) {
  std::string out = "$";
  uint8_t sum = 0;
  const auto put = [&](char c) {
    out.push_back(c);
    sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(c));
  };
  for (const char c : data) {
    if (c == '$' || c == '#' || c == '}' || c == '*') {
      put('}');
      put(static_cast<char>(c ^ 0x20));
    } else {
      put(c);
    }
  }
  out.push_back('#');
  out.push_back(kDigits[sum >> 4]);
  out.push_back(kDigits[sum & 15]);
  return out;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string to_hex(ByteSpan bytes) {
  std::string out;
  out.reserve(2 * bytes.size());
  for (const uint8_t byte : bytes) {
    out.push_back(kDigits[byte >> 4]);
    out.push_back(kDigits[byte & 15]);
  }
  return out;
}

std::optional<std::vector<uint8_t>> from_hex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  std::vector<uint8_t> out;
  out.reserve(text.size() / 2);
  for (size_t i = 0; i < text.size(); i += 2) {
    const int high = hex_digit(text[i]);
    const int low = hex_digit(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<uint8_t>(high * 16 + low));
  }
  return out;
}

std::optional<uint64_t> take_hex(std::string_view& text) {
  uint64_t value = 0;
  size_t count = 0;
  while (count < text.size() && count < 16 && hex_digit(text[count]) >= 0) {
    value = value << 4 | static_cast<uint64_t>(hex_digit(text[count]));
    ++count;
  }
  if (count == 0) return std::nullopt;
  text.remove_prefix(count);
  return value;
}

bool take(std::string_view& text, char c) {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace bulkhead::vmm::gdb
