// A kernel of a few instructions for tests of whole VMs.
#pragma once

#include <cstdint>
#include <vector>

#include "support/bytes.h"

namespace bulkhead::vmm {

inline constexpr uint32_t kLoadAddress = 0x100000;

template <typename T>
void append(std::vector<uint8_t>& out, T value) {
  const ByteSpan bytes = as_bytes(value);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

// A 32-bit ELF file with one segment: a Multiboot header, then the code, entered in flat protected mode.
inline std::vector<uint8_t> make_kernel(const std::vector<uint8_t>& code) {
  constexpr uint32_t kHeaders = 52 + 32, kMagic = 0x1BADB002;
  const auto size = static_cast<uint32_t>(12 + code.size());
  std::vector<uint8_t> file = {0x7F, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  append<uint16_t>(file, 2);  // executable
  append<uint16_t>(file, 3);  // i386
  for (const uint32_t word : {1u, kLoadAddress + 12, 52u, 0u, 0u}) append(file, word);
  for (const uint16_t half : {52, 32, 1, 0, 0, 0}) append(file, half);
  for (const uint32_t word : {1u, kHeaders, kLoadAddress, kLoadAddress, size, size, 7u, 4u}) append(file, word);
  for (const uint32_t word : {kMagic, 0u, 0u - kMagic}) append(file, word);
  file.insert(file.end(), code.begin(), code.end());
  return file;
}

}  // namespace bulkhead::vmm
