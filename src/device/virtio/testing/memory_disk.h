// A disk in memory for tests that completes requests at once, or when told to and in any order.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <vector>

#include "block/disk.h"

namespace bulkhead::device::virtio {

class MemoryDisk final : public block::Disk {
 public:
  explicit MemoryDisk(uint64_t size, bool read_only = false) : bytes(size) {
    geometry_ = {.size = size, .sector_size = 512, .physical_block_size = 4096, .read_only = read_only};
  }
  ~MemoryDisk() override { complete_all(); }

  [[nodiscard]] const block::Geometry& geometry() const override { return geometry_; }
  void submit(block::Request request) override {
    if (before_submit) before_submit();
    if (hold) {
      held.push_back(std::move(request));
    } else {
      carry_out(std::move(request));
    }
  }
  void complete(size_t index) {
    block::Request request = std::move(held[index]);
    held.erase(held.begin() + static_cast<ptrdiff_t>(index));
    carry_out(std::move(request));
  }
  void grow(uint64_t size) {
    bytes.resize(size);
    geometry_.size = size;
  }
  // The size alone: there are no bytes behind it.
  void claim(uint64_t size) { geometry_.size = size; }
  void complete_all() {
    while (!held.empty()) complete(0);
  }

  std::vector<uint8_t> bytes;
  bool hold = false;
  std::function<void()> before_submit;
  block::Status forced = block::Status::kOk;
  std::deque<block::Request> held;
  int flushes = 0;
  int discards = 0;

 private:
  void carry_out(block::Request request) {
    block::Status status = block::check_against(geometry_, request);
    if (status == block::Status::kOk) status = forced;
    if (status == block::Status::kOk) transfer(request);
    request.complete(status);
  }
  void transfer(const block::Request& request) {
    auto place = bytes.begin() + static_cast<ptrdiff_t>(request.offset());
    switch (request.operation()) {
      case block::Operation::kRead:
        for (const MutableByteSpan& buffer : request.buffers()) {
          std::copy_n(place, buffer.size(), buffer.begin());
          place += static_cast<ptrdiff_t>(buffer.size());
        }
        break;
      case block::Operation::kWrite:
        for (const MutableByteSpan& buffer : request.buffers()) place = std::copy(buffer.begin(), buffer.end(), place);
        break;
      case block::Operation::kFlush:
        ++flushes;
        break;
      case block::Operation::kDiscard:
        ++discards;
        break;
      case block::Operation::kWriteZeroes:
        std::fill_n(place, request.size(), uint8_t{0});
        break;
    }
  }
  block::Geometry geometry_;
};

}  // namespace bulkhead::device::virtio
