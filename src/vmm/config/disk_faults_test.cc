#include "vmm/config/disk_faults.h"

#include <gtest/gtest.h>

namespace bulkhead::vmm {
namespace {

TEST(ParseDiskFaults, TakesEveryWord) {
  const auto faults = parse_disk_faults(
      "seed:7;delay:5ms;jitter:250us;read-error:1%;write-error:2%;flush-error:3%;no-space:4%;torn:0.1%;"
      "torn-silent:0.0001%;misdirected:0.25%;bad:1M+64K;bad:4096+512;full:1G+1G");
  ASSERT_TRUE(faults) << faults.error().message;
  EXPECT_EQ(*faults, (block::DiskFaults{.seed = 7,
                                        .delay_ns = 5'000'000,
                                        .jitter_ns = 250'000,
                                        .read_error = 10'000,
                                        .write_error = 20'000,
                                        .flush_error = 30'000,
                                        .no_space = 40'000,
                                        .torn = 1'000,
                                        .torn_silent = 1,
                                        .misdirected = 2'500,
                                        .bad = {{1 << 20, 64 << 10}, {4096, 512}},
                                        .full = {{1 << 30, 1 << 30}}}));
  EXPECT_EQ(describe(*faults),
            "seed 7, delay 5000 us, jitter 250 us, read-error 1%, write-error 2%, flush-error 3%, no-space 4%, torn "
            "0.1%, torn-silent 0.0001%, misdirected 0.25%, bad 1048576+65536, bad 4096+512, full "
            "1073741824+1073741824");
}

TEST(ParseDiskFaults, SaysWhatIsWrong) {
  const auto error = [](std::string_view text) {
    const auto faults = parse_disk_faults(text);
    return faults ? "" : faults.error().message;
  };
  EXPECT_TRUE(error("").starts_with("no fault; allowed: ")) << error("");
  EXPECT_TRUE(error("seed:7").starts_with("no fault; allowed: "));
  EXPECT_TRUE(error("torm:1%").starts_with("torm:1%: unknown; allowed: seed, delay, ")) << error("torm:1%");
  EXPECT_EQ(error("torn:0.01"), "torn:0.01: allowed: 0% to 100%, with at most four decimals");
  EXPECT_EQ(error("torn"), "torn: allowed: 0% to 100%, with at most four decimals");
  EXPECT_EQ(error("delay:5"), "delay:5: allowed: a whole number and us, ms, s or m, at most an hour");
  EXPECT_EQ(error("delay:1m;torn:1%;delay:2m"), "delay stands twice");
  EXPECT_EQ(error("delay:2m"), "delay and jitter: at most 60 s");
  EXPECT_EQ(error("bad:1M"), "bad:1M: allowed: OFFSET+SIZE, like 1M+64K");
  EXPECT_EQ(error("bad:1M+0"), "no range: 1048576+0");
  EXPECT_TRUE(error("torn:60%;misdirected:41%").ends_with("more than 100% of the writes"));
}

}  // namespace
}  // namespace bulkhead::vmm
