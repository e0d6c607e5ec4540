// Any bytes as a LUKS header, and what they ask for carried out within small limits. Input: what it is (1 byte: 0, a
// whole file; 1, the JSON of LUKS2; 2, a LUKS1 header within a qcow2 file), then the bytes.
#include "block/format/luks/luks_image.h"
#include "block/format/luks/volume_key.h"
#include "block/store/memory/memory_store.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::block;
using namespace bulkhead::block::luks;

constexpr Limits kSmall{.memory_kib = 256, .argon2_kib = 1024, .pbkdf2_iterations = 3000};
constexpr size_t kPlace = 1 << 20;

void open_file_of(ByteSpan data) {
  ImageOpener opener("/nonexistent");
  opener.use_key({.may_stay_locked = true});
  for (const Access access : {Access::kReadOnly, Access::kRepair}) {
    auto store = std::make_unique<MemoryStore>(std::vector<uint8_t>(data.begin(), data.end()), 8 << 20);
    const auto image = luks::open(std::move(store), access, opener);
    if (!image) continue;
    (void)(*image)->info();
    (void)(*image)->check(access == Access::kRepair ? Repair::kAll : Repair::kNone);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > kPlace) return 0;
  const ByteSpan bytes(data + 1, size - 1);
  if (data[0] % 3 == 0) {
    open_file_of(bytes);
    return 0;
  }
  MemoryStore store(std::vector<uint8_t>(bytes.begin(), bytes.end()), 8 << 20);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const auto header = data[0] % 3 == 1 ? parse2(text, "fuzz", kPlace) : read_header(store, 0, kPlace);
  if (!header) return 0;
  DiskKey key{Secret(as_bytes(kPlace))};
  (void)unlock(store, 0, *header, key, kSmall);
  return 0;
}
