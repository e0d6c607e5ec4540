// A disk that may hold requests back for a time that its user has stated, or that stands before one that does.
#pragma once

#include "block/disk.h"

namespace bulkhead::block {

class HoldingDisk : public Disk {
 public:
  // It is about to go: what waits here or below goes on at once, and nothing waits for time any more.
  virtual void hurry() = 0;
};

inline void hurry(Disk& disk) {
  if (auto* const holding = dynamic_cast<HoldingDisk*>(&disk)) holding->hurry();
}

}  // namespace bulkhead::block
