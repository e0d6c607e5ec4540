// Any bytes as a QCOW2 file.
#include "block/testing/fuzz_image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bulkhead::block::testing::fuzz_image("qcow2", {data, size});
  return 0;
}
