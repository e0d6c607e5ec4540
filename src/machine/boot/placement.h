// Decides where in RAM a loader's pieces go, so that none ever lies on another or outside of RAM. It writes nothing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "machine/boot/memory_map.h"
#include "support/result.h"

namespace bulkhead::machine::boot {

class Placement {
 public:
  explicit Placement(const MemoryMap& map) : map_(map) {}

  // Takes exactly this range; the error names what is there already, or that it is not RAM.
  Result<> claim(std::string_view what, uint64_t start, uint64_t size);

  struct Request {
    std::string_view what;
    uint64_t size = 0;
    uint64_t alignment = 1;  // a power of two
    uint64_t from = 0;
    uint64_t to = UINT64_MAX;  // exclusive
  };
  // Takes the lowest or the highest free range that fits. A size of 0 is placed like one of 1.
  Result<uint64_t> place_lowest(const Request& request);
  Result<uint64_t> place_highest(const Request& request);

 private:
  struct Taken {
    std::string what;
    uint64_t start;
    uint64_t size;
  };
  [[nodiscard]] bool is_ram(uint64_t start, uint64_t size) const;
  [[nodiscard]] const Taken* overlap(uint64_t start, uint64_t size) const;

  MemoryMap map_;
  std::vector<Taken> taken_;
};

}  // namespace bulkhead::machine::boot
