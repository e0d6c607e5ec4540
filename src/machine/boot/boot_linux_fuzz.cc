#include "machine/boot/boot_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead::machine::boot;
  load_any({data, size}, Protocol::kLinux64);
  return 0;
}
