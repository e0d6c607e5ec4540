#include "machine/acpi/aml_resources.h"

namespace bulkhead::machine::acpi::aml {
namespace {

// Small descriptors: tag and length in one byte; large ones: tag, then a 16-bit length.
enum Tag : uint8_t {
  kIrqWithoutFlags = 0x22,
  kIoPort = 0x47,
  kEnd = 0x79,
  kFixedMemory32 = 0x86,
  kAddressSpace32 = 0x87,
  kAddressSpace16 = 0x88,
  kAddressSpace64 = 0x8A,
};
enum WindowKind : uint8_t { kMemory = 0, kIo = 1, kBusNumbers = 2 };
constexpr uint8_t kProducerWithFixedEnds = 0x0C;  // minimum and maximum are fixed, positive decode
constexpr uint8_t kEntireIoRange = 0x03;
constexpr uint8_t kUncachedReadWrite = 0x01;

template <typename... Numbers>
Code bytes_of(Numbers... numbers) {
  Code code;
  const auto add = [&](auto number) {
    const ByteSpan bytes = as_bytes(number);
    code.insert(code.end(), bytes.begin(), bytes.end());
  };
  (add(numbers), ...);
  return code;
}

// Granularity, minimum, maximum, translation, length: each as wide as the descriptor's addresses (6.4.3.5).
template <typename T>
Code window(Tag tag, WindowKind kind, uint8_t type_flags, T first, T size) {
  return bytes_of(static_cast<uint8_t>(tag), static_cast<uint16_t>(3 + 5 * sizeof(T)), static_cast<uint8_t>(kind),
                  kProducerWithFixedEnds, type_flags, T{0}, first, static_cast<T>(first + size - 1), T{0}, size);
}

}  // namespace

Code resources(const std::vector<Code>& descriptors) {
  Code all = join(descriptors);
  // A checksum of 0 counts as right (6.4.2.9).
  all.insert(all.end(), {kEnd, 0});
  return buffer(all);
}

Code io_ports(uint16_t first, uint8_t count) {
  constexpr uint8_t kDecodes16 = 1;
  constexpr uint8_t kAlignment = 1;
  return bytes_of(static_cast<uint8_t>(kIoPort), kDecodes16, first, first, kAlignment, count);
}

Code isa_irq(unsigned irq) {
  return bytes_of(static_cast<uint8_t>(kIrqWithoutFlags), static_cast<uint16_t>(1u << irq));
}

Code fixed_memory(uint32_t address, uint32_t size) {
  constexpr uint8_t kReadWrite = 1;
  return bytes_of(static_cast<uint8_t>(kFixedMemory32), uint16_t{9}, kReadWrite, address, size);
}

Code bus_numbers(uint16_t first, uint16_t count) {
  return window<uint16_t>(kAddressSpace16, kBusNumbers, 0, first, count);
}

// A window that ends with the port space has a length of 0x10000 at most when it starts at 0, which no caller asks for.
Code io_window(uint16_t first, uint32_t count) {
  return window<uint16_t>(kAddressSpace16, kIo, kEntireIoRange, first, static_cast<uint16_t>(count));
}

Code memory_window32(uint32_t first, uint32_t size) {
  return window<uint32_t>(kAddressSpace32, kMemory, kUncachedReadWrite, first, size);
}

Code memory_window64(uint64_t first, uint64_t size) {
  return window<uint64_t>(kAddressSpace64, kMemory, kUncachedReadWrite, first, size);
}

}  // namespace bulkhead::machine::acpi::aml
