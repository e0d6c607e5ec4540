// What the loaders' fuzz targets share: a small machine that takes any bytes for a kernel.
#pragma once

#include "machine/boot/boot.h"
#include "support/check.h"

namespace bulkhead::machine::boot {

inline void load_any(ByteSpan bytes, Protocol protocol) {
  static const auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  static const MemoryMap map = make_memory_map(*memory);
  const Module module{"module", "argument", bytes.first(bytes.size() / 2)};
  for (const Protocol asked : {protocol, Protocol::kAutomatic}) {
    const auto started = load_kernel({"fuzz", bytes, "quiet", {module}, asked}, {*memory, map, 0xE'0000});
    if (!started) CHECK(started.error().message.starts_with("kernel 'fuzz': "), "an error names its file");
  }
}

}  // namespace bulkhead::machine::boot
