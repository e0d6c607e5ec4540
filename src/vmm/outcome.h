// How the life of a VM ended, as a line for people and an exit status for programs. The debug-exit port gives odd
// statuses (2 x value + 1), so all others are even.
#pragma once

#include <cstdint>
#include <string>

namespace bulkhead::vmm {

struct Outcome {
  enum class Kind : uint8_t {
    kPowerOff,     // the guest switched itself off
    kQuit,         // the user ended it at the console or from the debugger
    kDebugExit,    // the guest wrote to the debug-exit port
    kReset,        // the guest reset itself and was not to be rebooted
    kTripleFault,  // a vCPU shut down
    kPanic,        // the guest's kernel said that it panicked, and reset or shut down after it
    kStopped,      // a second signal, before the guest had switched itself off
    kEngineError,  // the engine could not go on
    kHostError,    // the host could not (reloading the kernel failed)
  };
  Kind kind = Kind::kPowerOff;
  uint8_t debug_status = 0;  // 2 x what was written to the debug-exit port + 1
  std::string detail;

  static constexpr int kUsageError = 2;  // nothing was started
  [[nodiscard]] int exit_status() const;
  [[nodiscard]] std::string line() const;
};

}  // namespace bulkhead::vmm
