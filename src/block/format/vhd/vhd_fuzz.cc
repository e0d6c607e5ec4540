// Any bytes as a VHD file, as they are and with checksums that fit, without which little would get past the headers.
#include "block/format/big_endian.h"
#include "block/testing/fuzz_image.h"

namespace {

void seal(bulkhead::MutableByteSpan bytes, size_t sum_at) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) sum += i < sum_at || i >= sum_at + 4 ? bytes[i] : 0;
  bulkhead::block::store32(&bytes[sum_at], ~sum);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using bulkhead::MutableByteSpan;
  auto files = bulkhead::block::testing::split_files({data, size});
  bulkhead::block::testing::fuzz_files("vhd", files);
  std::vector<uint8_t>& bytes = files.front();
  if (bytes.size() < 2048) return 0;
  seal(MutableByteSpan(bytes).first(512), 64);
  seal(MutableByteSpan(bytes).last(512), 64);
  seal(MutableByteSpan(bytes).subspan(512, 1024), 36);
  bulkhead::block::testing::fuzz_files("vhd", files);
  return 0;
}
