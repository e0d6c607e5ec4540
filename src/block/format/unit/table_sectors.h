// The sectors of an image's tables in memory: read when they are asked for, forgotten when there are too many, kept
// when changed until they have been written. The caller holds one lock around every call.
#pragma once

#include <list>
#include <map>
#include <unordered_map>
#include <vector>

#include "block/format/outcome.h"
#include "block/store/store.h"

namespace bulkhead::block {

class TableSectors {
 public:
  static constexpr uint64_t kSector = 512;
  static constexpr size_t kMostSectors = (size_t{16} << 20) / kSector;
  // Sectors that lie together, to be written at once.
  struct Run {
    uint64_t offset = 0;
    std::vector<uint8_t> bytes;
  };

  explicit TableSectors(Store& store) : store_(store) {}
  // What is kept at most from now on, instead of kMostSectors; what has changed may be more for a while.
  void keep_at_most(size_t sectors) { most_sectors_ = sectors; }

  // The byte at an offset of the store and what follows it in its sector; good until the next call.
  Outcome<uint8_t*> look(uint64_t offset);
  Outcome<uint8_t*> change(uint64_t offset);
  // New sectors, all of one value, that nothing has to be read for.
  void add(uint64_t offset, uint64_t size, uint8_t value);

  // Whether so much has changed that it should be written before more does.
  [[nodiscard]] bool crowded() const { return changed_.size() >= most_sectors_ / 2; }
  // What has changed since the last call, as it is now.
  [[nodiscard]] std::vector<Run> take();
  // What take() gave was written, or was not and has to be given again.
  void finish(const std::vector<Run>& runs, bool written);

 private:
  struct Sector {
    std::list<uint64_t>::iterator recent;
    unsigned pins = 0;  // changed, or being written
    std::vector<uint8_t> bytes;
  };
  Sector& insert(uint64_t at);
  void make_room();
  void pin(uint64_t at);

  Store& store_;
  size_t most_sectors_ = kMostSectors;
  std::list<uint64_t> recent_;  // most recently used first
  std::unordered_map<uint64_t, Sector> sectors_;
  std::map<uint64_t, Sector*> changed_;
};

}  // namespace bulkhead::block
