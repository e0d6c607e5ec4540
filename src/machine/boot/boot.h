// Starts an operating system without firmware: finds out what kind of kernel a file is, puts it with its modules,
// command line and tables into RAM, and says how the bootstrap processor begins. The files are foreign bytes: every
// bound is checked, and each error names the file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cpu/state.h"
#include "machine/boot/memory_map.h"
#include "memory/guest_memory.h"
#include "support/bytes.h"
#include "support/result.h"

namespace bulkhead::machine::boot {

enum class Protocol : uint8_t {
  kAutomatic,  // by content; a bzImage by its 64-bit entry where it has one
  kLinux64,    // bzImage, 64-bit entry
  kLinux32,    // bzImage, 32-bit entry
  kPvh,        // ELF with Xen's PHYS32_ENTRY note
  kMultiboot,  // Multiboot 1
};
std::string_view protocol_name(Protocol protocol);

// An initrd (the first module of bzImage and PVH kernels) or a Multiboot module. The bytes belong to the caller.
struct Module {
  std::string name;
  std::string command_line;
  ByteSpan bytes;
};

struct Request {
  std::string kernel_name;
  ByteSpan kernel;
  std::string command_line;
  std::vector<Module> modules;
  Protocol protocol = Protocol::kAutomatic;
};

// What the board tells a kernel.
struct Surroundings {
  memory::GuestMemory& memory;
  const MemoryMap& map;
  uint64_t rsdp_address = 0;
};

struct Started {
  Protocol protocol;
  cpu::State state;  // of the bootstrap processor
};

// What the bytes are; kAutomatic in the request's protocol only, never in the answer.
Result<Protocol> detect(const Request& request);
// Writes RAM only. On an error RAM may hold a part of it.
Result<Started> load_kernel(const Request& request, const Surroundings& surroundings);

// The loaders of one protocol each, as load_kernel() calls them after detection; errors do not name the kernel file.
Result<cpu::State> load_linux(const Request& request, const Surroundings& surroundings, Protocol entry);
Result<cpu::State> load_pvh(const Request& request, const Surroundings& surroundings);
Result<cpu::State> load_multiboot(const Request& request, const Surroundings& surroundings);
[[nodiscard]] bool looks_like_linux(ByteSpan kernel);
[[nodiscard]] bool looks_like_multiboot(ByteSpan kernel);
[[nodiscard]] bool looks_like_elf(ByteSpan kernel);

}  // namespace bulkhead::machine::boot
