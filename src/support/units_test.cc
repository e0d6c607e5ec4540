#include "support/units.h"

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

TEST(Units, DurationsAreWholeNumbersWithAUnitUpToAnHour) {
  EXPECT_EQ(parse_duration_ns("10us").value(), 10'000u);
  EXPECT_EQ(parse_duration_ns("250ms").value(), 250'000'000u);
  EXPECT_EQ(parse_duration_ns("2s").value(), 2'000'000'000u);
  EXPECT_EQ(parse_duration_ns("60m").value(), 3'600'000'000'000u);
  for (const char* wrong : {"", "5", "ms", "1.5s", "-1s", "5 ms", "61m", "99999999999999999999s"}) {
    EXPECT_FALSE(parse_duration_ns(wrong)) << wrong;
  }
}

TEST(Units, SharesAreExactMillionths) {
  EXPECT_EQ(parse_share("0%").value(), 0u);
  EXPECT_EQ(parse_share("0.1%").value(), 1'000u);
  EXPECT_EQ(parse_share("0.0001%").value(), 1u);
  EXPECT_EQ(parse_share("12.5%").value(), 125'000u);
  EXPECT_EQ(parse_share("100%").value(), 1'000'000u);
  for (const char* wrong : {"", "%", "1", "0.00001%", "100.0001%", "101%", "-1%", "1.%", ".5%"}) {
    EXPECT_FALSE(parse_share(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace bulkhead
