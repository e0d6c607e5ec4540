#include "vmm/panic_watch.h"

#include <gtest/gtest.h>

namespace bulkhead::vmm {
namespace {

class RecordingStream final : public console::ByteStream {
 public:
  size_t write(ByteSpan bytes) override {
    const size_t count = std::min(bytes.size(), room);
    text.append(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
    return count;
  }
  size_t read(MutableByteSpan) override { return 0; }
  void set_listener(std::function<void()>) override {}
  std::string text;
  size_t room = SIZE_MAX;
};

ByteSpan bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

TEST(PanicWatch, FindsTheMessageHoweverTheOutputIsCut) {
  RecordingStream line;
  PanicWatch watch(line);
  const std::string text = "KKernel panic\n[    1.2] Kernel panic - not syncing: Attempted to kill init!\r\nmore\n";
  for (const char byte : text) watch.write(bytes_of({&byte, 1}));
  EXPECT_EQ(line.text, text);
  EXPECT_EQ(watch.message(), "Attempted to kill init!");
  watch.forget();
  EXPECT_EQ(watch.message(), std::nullopt);
}

TEST(PanicWatch, LooksOnlyAtWhatTheLineTookAndBoundsTheMessage) {
  RecordingStream line;
  line.room = 3;
  PanicWatch watch(line);
  EXPECT_EQ(watch.write(bytes_of("Kernel panic - not syncing: x")), 3u);
  EXPECT_EQ(watch.message(), std::nullopt);
  line.room = SIZE_MAX;
  watch.write(bytes_of("Kernel panic - not syncing: \x1b[31m" + std::string(1000, 'x')));
  EXPECT_EQ(watch.message(), "");
  watch.write(bytes_of("\nKernel panic - not syncing: " + std::string(1000, 'x')));
  EXPECT_EQ(watch.message()->size(), 160u);
}

}  // namespace
}  // namespace bulkhead::vmm
