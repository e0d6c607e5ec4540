#include "vmm/outcome.h"

#include <fmt/format.h>

namespace bulkhead::vmm {

int Outcome::exit_status() const {
  switch (kind) {
    case Kind::kPowerOff:
    case Kind::kQuit:
      return 0;
    case Kind::kDebugExit:
      return debug_status;
    case Kind::kHostError:
      return 4;
    case Kind::kEngineError:
      return 6;
    case Kind::kReset:
      return 10;
    case Kind::kTripleFault:
      return 12;
    case Kind::kPanic:
      return 14;
    case Kind::kStopped:
      return 16;
  }
  return 6;
}

std::string Outcome::line() const {
  const std::string more = detail.empty() ? std::string() : ": " + detail;
  switch (kind) {
    case Kind::kPowerOff:
      return "the guest powered off";
    case Kind::kQuit:
      return "ended by the user";
    case Kind::kDebugExit:
      return fmt::format("the guest wrote {} to the debug-exit port", debug_status / 2);
    case Kind::kReset:
      return "the guest reset itself";
    case Kind::kTripleFault:
      return "triple fault" + more;
    case Kind::kPanic:
      return "the guest panicked" + more;
    case Kind::kStopped:
      return "stopped before the guest had powered off";
    case Kind::kEngineError:
      return "the engine cannot go on" + more;
    case Kind::kHostError:
      return "the host cannot go on" + more;
  }
  return {};
}

}  // namespace bulkhead::vmm
