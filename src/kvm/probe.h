// Whether /dev/kvm is backed by hardware. Some hosts offer a /dev/kvm that emulates guest kernels instruction by
// instruction; there our own engine is faster and more exact, so "auto" must know.
#pragma once

#include <string>

#include "kvm/system.h"
#include "support/result.h"

namespace bulkhead::kvm {

struct ProbeReport {
  bool hardware_backed = false;
  std::string reason;  // one line for the operator, with the figures that decided
  uint64_t instructions_per_second = 0;
  uint64_t exits_per_second = 0;
};

// Runs a guest of a few instructions in 64-bit kernel mode: a counting loop, then port writes that each leave the
// guest. Takes a tenth of a second at the most on hardware and six tenths where everything is emulated.
Result<ProbeReport> probe_hardware(System& system);

}  // namespace bulkhead::kvm
