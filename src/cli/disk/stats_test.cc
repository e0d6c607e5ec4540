#include "cli/disk/stats.h"

#include <gtest/gtest.h>

namespace bulkhead::cli {
namespace {

const Facts kPlace = facts_of("file=/pool/a=b \"c\".qcow2\tformat=qcow2");
const Facts kStats = facts_of(
    "read_requests=3\tread_bytes=12288\tread_total_ns=9300\tread_p50_ns=4095\tread_p99_ns=1250000\tread_p999_ns=9999"
    "\tread_max_ns=3000000000\tread_histogram=4096:2,8192:1\twrite_requests=1\twrite_bytes=0\twrite_histogram="
    "\terrors=2\tput_off=5\tin_flight=1");

TEST(DiskStats, AreATableOfWhatThereWas) {
  EXPECT_EQ(disk_stats_text(1, kPlace, kStats),
            "1 /pool/a=b \"c\".qcow2 (qcow2)\n"
            "                  requests             bytes      p50      p99    p99.9      max\n"
            "  read                   3             12288    4.1us    1.2ms     10us     3.0s\n"
            "  write                  1                 0        -        -        -        -\n"
            "  errors 2, put off 5, in flight 1\n");
}

TEST(DiskStats, AreAnObjectAsJson) {
  const std::string json = disk_stats_json(0, kPlace, kStats);
  EXPECT_TRUE(
      json.starts_with("{\"disk\": 0, \"file\": \"/pool/a=b \\\"c\\\".qcow2\", \"format\": \"qcow2\", "
                       "\"read\": {\"requests\": 3, \"bytes\": 12288, \"total_us\": 9.300, \"p50_us\": 4.095"))
      << json;
  EXPECT_NE(json.find("\"histogram\": [{\"below_us\": 4.096, \"count\": 2}, {\"below_us\": 8.192, \"count\": 1}]}"),
            std::string::npos)
      << json;
  EXPECT_NE(json.find("\"flush\": {\"requests\": 0, "), std::string::npos) << json;
  EXPECT_TRUE(json.ends_with("\"errors\": 2, \"put_off\": 5, \"in_flight\": 1}")) << json;
}

}  // namespace
}  // namespace bulkhead::cli
