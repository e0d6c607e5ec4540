// Any bytes as a QCOW2 file: opened, mapped, read, checked, written and repaired. Nothing may crash, hang or use much
// memory.
#include "block/format/qcow2/qcow2_image.h"
#include "block/store/memory/memory_store.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  using namespace bulkhead::block;
  if (size > (1 << 20)) return 0;
  for (const Access access : {Access::kReadOnly, Access::kReadWrite}) {
    auto store = std::make_unique<MemoryStore>(std::vector<uint8_t>(data, data + size), 8 << 20);
    const auto image = qcow2::open(std::move(store), access, ImageOpener("/nonexistent"));
    if (!image) continue;
    const uint64_t disk = (*image)->geometry().size;
    std::vector<uint8_t> bytes(4096, 0x5A);
    for (const uint64_t offset : {uint64_t{0}, disk / 2 & ~uint64_t{511}, disk < 4096 ? 0 : disk - 4096}) {
      if (disk < offset + bytes.size()) continue;
      (void)(*image)->map(offset);
      (void)(*image)->read(offset, bytes);
      if (access == Access::kReadOnly) continue;
      (void)(*image)->write(offset, bytes);
      (void)(*image)->write_compressed(align_down(offset, (*image)->compression_unit()), bytes);
      (void)(*image)->discard(offset, 4096);
      (void)(*image)->flush();
    }
    if (access == Access::kReadWrite) (void)(*image)->grow(disk + (1 << 20));
    (void)(*image)->check(Repair::kNone);
  }
  auto store = std::make_unique<MemoryStore>(std::vector<uint8_t>(data, data + size), 8 << 20);
  if (const auto image = qcow2::open(std::move(store), Access::kRepair, ImageOpener("/nonexistent"))) {
    (void)(*image)->check(Repair::kAll);
  }
  return 0;
}
