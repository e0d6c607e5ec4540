// Which parts of a disk have been written since a moment, kept in its image: they outlast the program that wrote. After
// a program that ended without closing the image nobody knows what it wrote, and such a bitmap counts as lost.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "support/result.h"

namespace bulkhead::block {

struct Bitmap {
  std::string name;
  uint64_t granularity = 65536;  // bytes that a bit stands for
  bool automatic = true;         // every write is to be noted in it
  bool known = true;             // false: lost
};

class Bitmaps {
 public:
  virtual ~Bitmaps() = default;
  [[nodiscard]] virtual Result<std::vector<Bitmap>> list_bitmaps() = 0;
  // A new one: every write from now on is noted in it.
  [[nodiscard]] virtual Result<> add_bitmap(const std::string& name, uint64_t granularity) = 0;
  // Nothing else runs meanwhile.
  [[nodiscard]] virtual Result<> remove_bitmap(const std::string& name) = 0;
  // Of one that is known: each run that has been written.
  using Run = std::function<void(uint64_t offset, uint64_t size)>;
  [[nodiscard]] virtual Result<> each_changed(const std::string& name, const Run& run) = 0;
  // Of one that is known and automatic, in an image that is open for writing.
  [[nodiscard]] virtual Result<> note_changed(const std::string& name, uint64_t offset, uint64_t size) = 0;
};

}  // namespace bulkhead::block
