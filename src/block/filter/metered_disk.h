// A disk that counts what goes through it to the disk below: requests, bytes and errors, for statistics. It changes
// nothing about the requests.
#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "block/disk.h"

namespace bulkhead::block {

class MeteredDisk final : public Disk {
 public:
  static constexpr size_t kOperations = 5;
  // Requests are counted when they come, bytes and errors when they are answered; bytes of successful ones only.
  struct Counts {
    std::array<uint64_t, kOperations> requests{};  // by Operation
    std::array<uint64_t, kOperations> bytes{};
    uint64_t errors = 0;  // answered otherwise than kOk
    uint64_t in_flight = 0;
  };

  explicit MeteredDisk(std::unique_ptr<Disk> below) : below_(std::move(below)) {}

  [[nodiscard]] const Geometry& geometry() const override { return below_->geometry(); }
  void submit(Request request) override;
  // From any thread; the figures are of about the same moment.
  [[nodiscard]] Counts counts() const;

 private:
  void answered(Operation operation, uint64_t size, Status status);

  std::array<std::atomic<uint64_t>, kOperations> requests_{}, bytes_{};
  std::atomic<uint64_t> errors_{0}, answered_{0};
  // Last: it answers what is under way before it is gone.
  std::unique_ptr<Disk> below_;
};

}  // namespace bulkhead::block
