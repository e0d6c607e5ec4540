// A disk whose writes are safe as soon as they are answered: each is followed by a flush of the disk below.
#pragma once

#include <memory>

#include "block/disk.h"

namespace bulkhead::block {

class WriteThroughDisk final : public Disk {
 public:
  explicit WriteThroughDisk(std::unique_ptr<Disk> below) : below_(std::move(below)) {}

  [[nodiscard]] const Geometry& geometry() const override { return below_->geometry(); }
  void submit(Request request) override;

 private:
  // Answers what is under way before it is gone.
  std::unique_ptr<Disk> below_;
};

}  // namespace bulkhead::block
