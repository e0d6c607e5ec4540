// Any bytes as a VMDK file.
#include "block/testing/fuzz_image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bulkhead::block::testing::fuzz_image("vmdk", {data, size});
  return 0;
}
