// The far end of a serial line in a repeatable run: it takes everything at once, waiting for the host if it must, and
// gives no input, because neither the guest's output nor its instruction count may depend on how fast somebody reads.
#pragma once

#include <chrono>

#include "console/byte_stream.h"
#include "console/descriptor_stream.h"

namespace bulkhead::vmm {

class OutputOnly final : public console::ByteStream {
 public:
  explicit OutputOnly(console::DescriptorStream& line) : line_(line) {}

  size_t write(ByteSpan bytes) override {
    // What a reader does not take for this long is lost.
    constexpr std::chrono::milliseconds kPatience{10'000};
    for (ByteSpan rest = bytes; !rest.empty();) {
      rest = rest.subspan(line_.write(rest));
      if (!rest.empty() && !line_.flush(kPatience)) break;
    }
    return bytes.size();
  }
  size_t read(MutableByteSpan /*out*/) override { return 0; }
  void set_listener(std::function<void()> /*on_ready*/) override {}

 private:
  console::DescriptorStream& line_;
};

}  // namespace bulkhead::vmm
