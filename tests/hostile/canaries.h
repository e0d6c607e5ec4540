// Memory of this process that nothing but its owner may write to, filled from a seed: around the window of guest RAM,
// on the heap and in static memory. And two things that must hold for the process as a whole.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "memory/guest_memory.h"
#include "support/os/fd.h"
#include "support/os/huge_page.h"
#include "support/result.h"

namespace bulkhead::hostile {

class Canaries {
 public:
  static constexpr size_t kEdgeSize = 1 << 20;  // at each end of the window

  explicit Canaries(uint64_t seed);
  // Leaves a hole in the address space between two regions, not much larger than the window that GuestMemory will
  // reserve for so much RAM, so that the kernel puts it there.
  Result<> make_place(uint64_t ram_bytes);
  // Fails when the memory, made since, lies elsewhere: then nothing would have been proved.
  Result<> check_place(const memory::GuestMemory& memory) const;
  // Lines that name what has changed; empty: nothing.
  [[nodiscard]] std::vector<std::string> changed() const;
  [[nodiscard]] uint64_t bytes() const;
  // Flips a bit of the canary whose name begins like this; false: there is none.
  bool falsify(const std::string& name);

 private:
  void forget_place();
  struct Canary {
    std::string name;
    uint8_t* at;
    size_t size;
    uint64_t seed;
  };
  void add(std::string name, uint8_t* at, size_t size);

  uint64_t next_seed_;
  std::vector<std::unique_ptr<uint8_t[]>> heap_;
  std::vector<Mapping> edges_;  // below and above guest RAM
  std::vector<Canary> canaries_;
  // Bytes beside the window. GuestMemory puts RAM at the border of a huge page, and so do kernels since 6.7 with large
  // mappings; what a machine maps before its RAM may come to lie there too, so each place has twice as many as the
  // last.
  uint64_t slack_ = 2 * kHugePageSize;
  size_t lasting_ = 0;  // canaries that do not belong to one memory
};

// Mappings of this process that are writable and executable, as /proc/self/maps has them.
Result<std::vector<std::string>> writable_code();
// Descriptors that this process holds.
Result<size_t> descriptor_count();

}  // namespace bulkhead::hostile
