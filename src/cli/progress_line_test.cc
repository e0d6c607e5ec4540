#include "cli/progress_line.h"

#include <gtest/gtest.h>

namespace bulkhead::cli {
namespace {

TEST(ProgressText, SaysHowFarHowFastAndHowLong) {
  EXPECT_EQ(progress_text(50 << 20, 200 << 20, 10 << 20), " 25.0 %     10.0 MiB/s     15 s left");
  EXPECT_EQ(progress_text(0, 200, 0), "  0.0 %");
  EXPECT_EQ(progress_text(300, 200, 100), "100.0 %      0.0 MiB/s      0 s left");
  EXPECT_EQ(progress_text(0, 0, 0), "100.0 %");
}

TEST(ProgressLine, NothingIsWrittenToAPipe) {
  testing::internal::CaptureStderr();
  {
    ProgressLine line(100);
    line.add(50);
    line.add(50);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace bulkhead::cli
