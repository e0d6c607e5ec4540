#include "device/pci/level_source.h"

namespace bulkhead::device::pci {

void LevelSource::want(bool level) {
  const LockGuard lock(mutex_);
  wanted_ = level;
}

void LevelSource::settle() {
  mutex_.lock();
  // Another thread inside the loop below will see what was recorded before it leaves.
  if (settling_) {
    mutex_.unlock();
    return;
  }
  settling_ = true;
  while (driven_ != wanted_) {
    const bool level = wanted_;
    driven_ = level;
    mutex_.unlock();
    line_.set(level);
    mutex_.lock();
  }
  settling_ = false;
  mutex_.unlock();
}

}  // namespace bulkhead::device::pci
