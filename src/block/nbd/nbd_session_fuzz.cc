// Any bytes as what a client says to a session, on a small disk in memory: nothing may crash, hang or use much memory.
// The first byte's lowest bits say whether a sound negotiation comes first (1), with block status (2), and whether the
// export is read-only (4).
#include "block/format/image_disk.h"
#include "block/nbd/session.h"
#include "block/testing/shared_store.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::block;
using namespace bulkhead::block::nbd;

constexpr uint64_t kDiskBytes = 65536;

class Script final : public Channel {
 public:
  explicit Script(ByteSpan left) : left_(left) {}
  [[nodiscard]] bool read(MutableByteSpan bytes, Wait) override {
    if (left_.size() < bytes.size()) return false;
    if (!bytes.empty()) std::memcpy(bytes.data(), left_.data(), bytes.size());
    left_ = left_.subspan(bytes.size());
    return true;
  }
  [[nodiscard]] bool write(ByteSpan, ByteSpan) override { return true; }

 private:
  ByteSpan left_;
};

std::vector<uint8_t> negotiation(bool with_status) {
  Writer writer;
  writer.put(uint32_t{kFixedNewstyle});
  const auto option = [&](Option option, const std::vector<uint8_t>& data) {
    writer.put(kOptionMagic).put(static_cast<uint32_t>(option)).put(static_cast<uint32_t>(data.size())).put(data);
  };
  if (with_status) {
    option(Option::kStructuredReply, {});
    option(Option::kSetMetaContext, Writer()
                                        .put(uint32_t{0})
                                        .put(uint32_t{1})
                                        .put(static_cast<uint32_t>(kAllocation.size()))
                                        .put(kAllocation)
                                        .take());
  }
  option(Option::kGo, std::vector<uint8_t>(6));
  return writer.take();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::vector<uint8_t> script;
  if ((data[0] & 1) != 0) script = negotiation((data[0] & 2) != 0);
  script.insert(script.end(), data + 1, data + size);
  auto store = std::make_unique<MemoryStore>(std::vector<uint8_t>(kDiskBytes), kDiskBytes);
  auto image = find_format("raw").value()->open(std::move(store), Access::kReadWrite, ImageOpener("/nonexistent"));
  Image& behind = **image;
  ImageDisk disk(*std::move(image), 0);
  const Export served{.name = "plc", .disk = disk, .image = behind, .read_only = (data[0] & 4) != 0};
  Script channel(script);
  Session(channel, served).run();
  return 0;
}
