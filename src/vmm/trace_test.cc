#include "vmm/trace.h"

#include <algorithm>

#include <gtest/gtest.h>
#include <unistd.h>

#include "support/time/fake_clock.h"
#include "vmm/fake_vcpu.h"

namespace bulkhead::vmm {
namespace {

class TraceTest : public testing::Test {
 protected:
  TraceTest() : path_(testing::TempDir() + "bulkhead_trace_" + std::to_string(::getpid())) {
    clock_.advance(1'500'000'000);
    tracer_ = Tracer::create(path_, clock_).value();
  }
  ~TraceTest() override { ::unlink(path_.c_str()); }
  [[nodiscard]] std::string text() const { return read_file(path_, 64 << 20).value(); }

  std::string path_;
  FakeClock clock_;
  NullCpuIo board_;
  std::unique_ptr<Tracer> tracer_;
};

TEST_F(TraceTest, WritesWhatWasAskedForAndPassesEverythingOn) {
  TracingCpuIo io(board_, *tracer_, {.exits = false, .mmio = true, .irq = false}, 3);
  EXPECT_EQ(io.read_port(0x64, 1), 0xFFu);
  uint8_t bytes[4];
  io.read_memory({0xFED00000}, bytes);
  EXPECT_EQ(bytes[3], 0xFF);
  EXPECT_EQ(text(), "    1.500000 cpu3 mmio read  0xfed00000 4 bytes: 0xffffffff\n");
}

TEST_F(TraceTest, ExitsIncludePortsMemoryAndMsrs) {
  TracingCpuIo io(board_, *tracer_, {.exits = true, .mmio = false, .irq = false}, 0);
  io.write_port(0xCF8, 4, 0x80000000);
  EXPECT_FALSE(io.write_apic_msr(0x80B, 0));
  EXPECT_EQ(text(),
            "    1.500000 cpu0 port write 0x0cf8 4 bytes: 0x80000000\n"
            "    1.500000 cpu0 msr  write 0x80b: 0x0 #GP\n");
}

TEST_F(TraceTest, AFloodOfAccessesWritesABoundedNumberOfLines) {
  TracingCpuIo io(board_, *tracer_, {.exits = true, .mmio = false, .irq = false}, 0);
  const auto begin = std::chrono::steady_clock::now();
  for (uint32_t i = 0; i < 3 * Tracer::kLinesASecond; ++i) io.read_port(0x80, 1);
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(std::chrono::steady_clock::now() - begin).count();
  const std::string written = text();
  EXPECT_LE(std::count(written.begin(), written.end(), '\n'), (seconds + 1) * (Tracer::kLinesASecond + 1));
}

}  // namespace
}  // namespace bulkhead::vmm
