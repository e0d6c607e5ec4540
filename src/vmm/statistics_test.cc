#include "vmm/statistics.h"

#include <gtest/gtest.h>

namespace bulkhead::vmm {
namespace {

TEST(Statistics, ShowsAColumnForEachVcpuAndTheirSum) {
  const std::string table = format_statistics({{{"instructions", 1234567}, {"exits.port", 5}}, {{"instructions", 1}}},
                                              {{"serial0", {{"bytes out", 1000}}}});
  EXPECT_EQ(table,
            "vCPU                                           0               1             all\n"
            "  instructions                         1 234 567               1       1 234 568\n"
            "  exits.port                                   5               0               5\n"
            "serial0\n"
            "  bytes out                                1 000\n");
}

}  // namespace
}  // namespace bulkhead::vmm
