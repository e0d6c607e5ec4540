// What a guest's disk is to the device in front of it, and what each filter, format and store is to the layer above: a
// range of bytes that takes requests. It answers every request, from any thread, in any order.
#pragma once

#include <cstdint>

#include "block/request.h"

namespace bulkhead::block {

struct Geometry {
  uint64_t size = 0;                   // bytes, a multiple of sector_size
  uint32_t sector_size = 512;          // least unit of a request: a power of two
  uint32_t physical_block_size = 512;  // writing less than this costs a read
  bool read_only = false;
};

class Disk {
 public:
  virtual ~Disk() = default;
  // From any thread. Fixed, but that a disk may grow (LiveDisk::grow()): what was given before lives as long as the
  // disk and keeps the old size.
  [[nodiscard]] virtual const Geometry& geometry() const = 0;
  // From any thread, with no lock held. Waits for storage with at most one small transfer at a time
  // (block/on_the_spot.h); may complete before it returns. A request that does not fit the geometry completes with
  // kOutOfRange or kReadOnly.
  virtual void submit(Request request) = 0;
};

// The status a request earns by the geometry alone: kOk when it may go on.
[[nodiscard]] Status check_against(const Geometry& geometry, const Request& request);

}  // namespace bulkhead::block
