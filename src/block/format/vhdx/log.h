// The log of a VHDX file: changes of its tables that somebody wrote there first and did not get to carry out. They are
// carried out when the image is opened to write, and looked through when it is only read. This program itself writes no
// log: its changes are ordered by flushes. Source: [MS-VHDX] 2.3.
#pragma once

#include <map>

#include "block/format/vhdx/header.h"

namespace bulkhead::block::vhdx {

inline constexpr uint64_t kLogSector = 4 * kKiB;

struct Replay {
  // In the order in which they were logged; later ones win.
  struct Change {
    uint64_t offset = 0, size = 0;
    std::vector<uint8_t> bytes;  // empty for zeroes
  };
  std::vector<Change> changes;
  uint64_t file_size = 0;  // at least so long is the file afterwards
};

// What the log holds; an error when it is damaged, or when the file is shorter than it was then.
Result<Replay> read_log(Store& store, const Header& header);
Result<> carry_out(Store& store, const Replay& replay);
// The store as it will be once that is carried out. Cannot be written.
std::unique_ptr<Store> look_through(std::unique_ptr<Store> store, Replay replay);

}  // namespace bulkhead::block::vhdx
