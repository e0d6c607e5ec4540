#include "machine/boot/boot.h"

#include "machine/boot/linux.h"

namespace bulkhead::machine::boot {
namespace {

Result<Protocol> detect_content(const Request& request) {
  if (looks_like_linux(request.kernel)) {
    return linux_has_64_bit_entry(request.kernel) ? Protocol::kLinux64 : Protocol::kLinux32;
  }
  // Before ELF: a Multiboot kernel is often an ELF file too, and says by its header what it wants.
  if (looks_like_multiboot(request.kernel)) return Protocol::kMultiboot;
  if (looks_like_elf(request.kernel)) return Protocol::kPvh;
  return fail("neither a bzImage, nor a Multiboot kernel, nor an ELF file ({} bytes)", request.kernel.size());
}

Result<cpu::State> load_by(Protocol protocol, const Request& request, const Surroundings& surroundings) {
  switch (protocol) {
    case Protocol::kPvh:
      return load_pvh(request, surroundings);
    case Protocol::kMultiboot:
      return load_multiboot(request, surroundings);
    default:
      return load_linux(request, surroundings, protocol);
  }
}

}  // namespace

std::string_view protocol_name(Protocol protocol) {
  switch (protocol) {
    case Protocol::kAutomatic:
      return "automatic";
    case Protocol::kLinux64:
      return "linux64";
    case Protocol::kLinux32:
      return "linux32";
    case Protocol::kPvh:
      return "pvh";
    case Protocol::kMultiboot:
      return "multiboot";
  }
  return "unknown";
}

Result<Protocol> detect(const Request& request) {
  if (request.protocol != Protocol::kAutomatic) return request.protocol;
  return TRY_IN(fmt::format("kernel '{}'", request.kernel_name), detect_content(request));
}

Result<Started> load_kernel(const Request& request, const Surroundings& surroundings) {
  const Protocol protocol = TRY(detect(request));
  cpu::State state = TRY_IN(fmt::format("kernel '{}'", request.kernel_name), load_by(protocol, request, surroundings));
  return Started{protocol, state};
}

}  // namespace bulkhead::machine::boot
