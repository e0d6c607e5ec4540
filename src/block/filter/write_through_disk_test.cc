#include "block/filter/write_through_disk.h"

#include <array>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace bulkhead::block {
namespace {

class Scripted final : public Disk {
 public:
  explicit Scripted(std::string& log) : log_(log) {}
  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  void submit(Request request) override {
    log_ += fmt::format("{} {} {};", to_string(request.operation()), request.offset(), request.size());
    const bool fails = request.offset() == 1024 || (request.operation() == Operation::kFlush && flush_fails);
    request.complete(fails ? Status::kIoError : Status::kOk);
  }
  bool flush_fails = false;

 private:
  std::string& log_;
  const Geometry geometry_{.size = 4096};
};

struct WriteThrough : testing::Test {
  std::string log;
  Scripted* below = new Scripted(log);
  WriteThroughDisk disk{std::unique_ptr<Disk>(below)};
  std::array<uint8_t, 512> bytes{};
  Status answer = Status::kUnsupported;
  Request::Completion keep() {
    return [this](Status status) { answer = status; };
  }
};

TEST_F(WriteThrough, FlushesAfterEveryChange) {
  disk.submit(Request::write(512, {bytes}, keep()));
  EXPECT_EQ(answer, Status::kOk);
  disk.submit(Request::discard(0, 512, keep()));
  disk.submit(Request::write_zeroes(0, 1024, Unmap::kYes, keep()));
  disk.submit(Request::read(0, {bytes}, keep()));
  EXPECT_EQ(log, "write 512 512;flush 0 0;discard 0 512;flush 0 0;write zeroes 0 1024;flush 0 0;read 0 512;");
}

TEST_F(WriteThrough, AnswersWithTheErrorOfEither) {
  disk.submit(Request::write(1024, {bytes}, keep()));
  EXPECT_EQ(answer, Status::kIoError);
  EXPECT_EQ(log, "write 1024 512;");
  below->flush_fails = true;
  answer = Status::kOk;
  disk.submit(Request::write(0, {bytes}, keep()));
  EXPECT_EQ(answer, Status::kIoError);
}

}  // namespace
}  // namespace bulkhead::block
