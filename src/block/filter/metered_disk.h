// A disk that counts what goes through it to the disk below: requests, bytes, errors and how long they took, for
// statistics. It changes nothing about the requests.
#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "block/disk.h"
#include "block/filter/latency_histogram.h"

namespace bulkhead::block {

class MeteredDisk final : public Disk {
 public:
  static constexpr size_t kOperations = 5;
  // Nanoseconds of a clock that never goes back.
  using Now = uint64_t (*)();
  // Requests are counted when they come, the rest when they are answered; bytes of successful ones only. One that is
  // put off and comes again is two requests, and takes part in errors and latency only with its last answer.
  struct Counts {
    std::array<uint64_t, kOperations> requests{};  // by Operation
    std::array<uint64_t, kOperations> bytes{};
    std::array<LatencyHistogram::Summary, kOperations> latency{};
    uint64_t errors = 0;   // answered otherwise than kOk and kRetry
    uint64_t put_off = 0;  // answered with kRetry: the storage failed, and the machine waits for it
    uint64_t in_flight = 0;
  };

  // Without a clock no latency is counted.
  MeteredDisk(std::unique_ptr<Disk> below, Now now) : now_(now), below_(std::move(below)) {}

  [[nodiscard]] const Geometry& geometry() const override { return below_->geometry(); }
  void submit(Request request) override;
  // From any thread; the figures are of about the same moment.
  [[nodiscard]] Counts counts() const;

 private:
  void answered(Operation operation, uint64_t size, uint64_t began_ns, Status status);

  const Now now_;
  std::array<std::atomic<uint64_t>, kOperations> requests_{}, bytes_{};
  std::array<LatencyHistogram, kOperations> latency_;
  std::atomic<uint64_t> errors_{0}, put_off_{0}, answered_{0};
  // Last: it answers what is under way before it is gone.
  std::unique_ptr<Disk> below_;
};

}  // namespace bulkhead::block
