// The setup header of a bzImage (Documentation/arch/x86/boot.rst), read with every bound checked.
#pragma once

#include "spec/boot/linux_boot.h"
#include "support/bytes.h"
#include "support/result.h"

namespace bulkhead::machine::boot {

struct LinuxImage {
  spec::linux_boot::SetupHeader header{};  // fields newer than the image's version are zero
  ByteSpan code;                           // the protected-mode part
};

Result<LinuxImage> parse_linux(ByteSpan kernel);
[[nodiscard]] bool linux_has_64_bit_entry(ByteSpan kernel);

}  // namespace bulkhead::machine::boot
