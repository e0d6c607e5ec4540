// For tests only: byte strings that reach every corner of the decoder. EncodingGenerator makes random ones from a seed:
// most look like instructions (prefixes, an opcode of a chosen map), the rest is noise. EncodingSweep counts through
// every opcode with every ModRM byte under the prefixes that matter.
#pragma once

#include <array>
#include <cstdint>

#include "engine/decoder/decoder.h"
#include "support/random.h"

namespace bulkhead::engine::decoder {

struct Encoding {
  std::array<uint8_t, 16> bytes{};
  DecodeMode mode = DecodeMode::kLong64;
};

class EncodingGenerator {
 public:
  explicit EncodingGenerator(uint64_t seed) : random_(seed) {}

  Encoding next() {
    Encoding encoding;
    fill(encoding, 0);
    choices_ = random_.next();
    const unsigned mode = take(3);
    // 64-bit mode gets more than half of all.
    encoding.mode = mode >= 4 ? DecodeMode::kLong64 : static_cast<DecodeMode>(mode);
    const bool is_64 = encoding.mode == DecodeMode::kLong64;
    if (take(3) == 0) return encoding;

    size_t at = 0;
    const auto put = [&encoding, &at](unsigned byte) { encoding.bytes[at++] = static_cast<uint8_t>(byte); };
    unsigned prefix_count = kPrefixCounts[take(4)];
    // Near the limit of 15 bytes now and then.
    if (take(5) == 0) prefix_count = 5 + take(3);
    const uint64_t prefix_choices = random_.next();
    for (unsigned i = 0; i < prefix_count; ++i) put(kPrefixes[prefix_choices >> (4 * i) & 15]);
    if (is_64 && take(1) != 0) put(0x40 + take(4));
    const auto any = static_cast<unsigned>(random_.next() & 0xFFFF);
    // Half of the VEX prefixes say that vvvv is not used.
    switch (take(3)) {
      case 0:
      case 1:
        break;  // one-byte map: the opcode is random already
      case 2:
      case 3:
        put(0x0F);
        break;
      case 4:
        put(0x0F);
        put(take(1) != 0 ? 0x38 : 0x3A);
        break;
      case 5:
        put(0xC5);
        put((any & 0xFF) | (is_64 ? 0 : 0xC0) | (take(1) != 0 ? 0x78 : 0));
        break;
      default:
        put(0xC4);
        put((any & 0xE0) | (1 + take(2) % 3) | (is_64 ? 0 : 0xC0));
        put(((any >> 8) & 0xFF) | (take(1) != 0 ? 0x78 : 0));
        break;
    }
    return encoding;
  }

  // Random bytes from `from` on.
  void fill(Encoding& encoding, size_t from) {
    const uint64_t low = random_.next(), high = random_.next();
    for (size_t i = from; i < encoding.bytes.size(); ++i)
      encoding.bytes[i] = static_cast<uint8_t>((i < 8 ? low : high) >> (8 * (i % 8)));
  }

 private:
  static constexpr std::array<uint8_t, 16> kPrefixCounts = {0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 3};
  static constexpr std::array<uint8_t, 16> kPrefixes = {0x66, 0x66, 0x66, 0xF3, 0xF3, 0xF2, 0xF2, 0x67,
                                                        0xF0, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, 0x66};

  unsigned take(unsigned bits) {
    const auto value = static_cast<unsigned>(choices_ & ((1u << bits) - 1));
    choices_ >>= bits;
    return value;
  }

  SeededRandom random_;
  uint64_t choices_ = 0;
};

class EncodingSweep {
 public:
  static constexpr uint64_t kLegacyCount = uint64_t{4} * 16 * 4 * 256 * 256;
  static constexpr uint64_t kVexCount = uint64_t{3} * 3 * 32 * 256 * 256;
  static constexpr uint64_t kCount = kLegacyCount + kVexCount;

  // What follows ModRM is random.
  static Encoding at(uint64_t index, EncodingGenerator& generator) {
    Encoding encoding;
    size_t length = 0;
    const auto put = [&encoding, &length](uint64_t byte) { encoding.bytes[length++] = static_cast<uint8_t>(byte); };
    const auto digit = [&index](uint64_t base) {
      const uint64_t value = index % base;
      index /= base;
      return value;
    };
    const bool is_vex = index >= kLegacyCount;
    if (is_vex) index -= kLegacyCount;
    const uint64_t modrm = digit(256), opcode = digit(256);
    if (is_vex) {
      const uint64_t fields = digit(32), map = 1 + digit(3);
      encoding.mode = static_cast<DecodeMode>(1 + digit(3));
      put(0xC4);
      put(0xE0 | map);
      // W, vvvv used or not, L, pp.
      put((fields & 1) << 7 | ((fields & 2) != 0 ? 0x78 : 0x28) | ((fields >> 2) & 1) << 2 | fields >> 3);
    } else {
      constexpr std::array<std::array<uint8_t, 2>, 16> kPrefixes = {{{},
                                                                     {0x66},
                                                                     {0xF3},
                                                                     {0xF2},
                                                                     {0x66, 0xF3},
                                                                     {0xF2, 0x66},
                                                                     {0xF0},
                                                                     {0x67},
                                                                     {0xF0, 0xF3},
                                                                     {0x2E},
                                                                     {0x65},
                                                                     {0x66, 0x67},
                                                                     {0x48},
                                                                     {0x66, 0x48},
                                                                     {0xF3, 0x4D},
                                                                     {0xF2, 0x42}}};
      for (const uint8_t prefix : kPrefixes[digit(16)])
        if (prefix != 0) put(prefix);
      const uint64_t map = digit(4);
      encoding.mode = static_cast<DecodeMode>(digit(4));
      if (map > 0) put(0x0F);
      if (map > 1) put(map == 2 ? 0x38 : 0x3A);
    }
    put(opcode);
    put(modrm);
    generator.fill(encoding, length);
    return encoding;
  }
};

}  // namespace bulkhead::engine::decoder
