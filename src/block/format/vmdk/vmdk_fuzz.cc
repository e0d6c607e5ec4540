// Any bytes as a VMDK file, and as an extent that a descriptor elsewhere names.
#include "block/format/vmdk/sparse_extent.h"
#include "block/testing/fuzz_image.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::block;

void fuzz_extent(ByteSpan data, Access access) {
  if (data.size() > (size_t{4} << 20)) return;
  auto store = std::make_unique<MemoryStore>(std::vector<uint8_t>(data.begin(), data.end()), 8 << 20);
  const auto extent = vmdk::SparseExtent::open(std::move(store), access);
  if (!extent) return;
  const uint64_t size = (*extent)->geometry().size;
  std::vector<uint8_t> bytes(4096);
  for (const uint64_t offset : {uint64_t{0}, size / 2, size < bytes.size() ? 0 : size - bytes.size()}) {
    if (!range_fits(offset, bytes.size(), size)) continue;
    (void)(*extent)->map(offset);
    (void)(*extent)->read(offset, bytes);
    if (!(*extent)->geometry().read_only) (void)(*extent)->write(offset, bytes);
  }
  (void)(*extent)->check(Repair::kNone);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bulkhead::block::testing::fuzz_image("vmdk", {data, size});
  for (const Access access : {Access::kReadOnly, Access::kReadWrite}) fuzz_extent({data, size}, access);
  return 0;
}
