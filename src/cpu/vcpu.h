// One virtual processor. kvm/ and engine/ implement it; nothing above them knows which one runs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cpu/cpu_io.h"
#include "cpu/state.h"
#include "support/result.h"

namespace bulkhead::cpu {

enum class StopReason : uint8_t {
  kRequested,      // request_stop()
  kShutdown,       // triple fault: the processor stopped for good (a PC's board resets itself then)
  kDebug,          // a breakpoint, watchpoint or step of the debugger (set_debug)
  kInternalError,  // the engine cannot go on; Vcpu::error() says why. Ends this VM only.
  kCountReached,   // of a CountedVcpu: what stop_at() said
  kHalted,         // of a CountedVcpu: it waits for an interrupt, INIT or SIPI
};

// What a debugger outside of the guest asks for.
struct DebugRequest {
  struct Point {
    enum class Kind : uint8_t { kExecute, kWrite, kReadWrite };
    Kind kind;
    uint64_t address;  // linear
    uint8_t size;      // 1, 2, 4 or 8
  };
  bool single_step = false;
  std::vector<Point> points;  // at most kMaximumPoints
  static constexpr size_t kMaximumPoints = 256;
};

// Counters of the life of a vCPU, by name ("exits.mmio", "instructions", "tlb.misses", ...).
using Statistics = std::vector<std::pair<std::string, uint64_t>>;

class Vcpu {
 public:
  virtual ~Vcpu() = default;

  // Runs on the calling thread until the vCPU stops. A halted vCPU waits inside run().
  virtual StopReason run(CpuIo& io) = 0;

  // The following may come from any thread, before, during and after run().
  // The next or present run() returns kRequested within a bounded time; asked while not running, the next one returns
  // at once.
  virtual void request_stop() = 0;
  // The INTR pin: level, driven by the local APIC (and the PIC through it). Also wakes a halted vCPU.
  virtual void set_interrupt_request(bool asserted) = 0;
  virtual void raise_nmi() = 0;
  // INIT: waits for SIPI afterwards. SIPI starts at vector << 12 when it waits for it, else does nothing.
  virtual void raise_init() = 0;
  virtual void raise_sipi(uint8_t vector) = 0;

  // Only while run() is not active.
  virtual State get_state() = 0;
  virtual Result<> set_state(const State& state) = 0;
  virtual Result<> set_debug(const DebugRequest& request) = 0;
  // Physical address behind a linear one, by the present page tables, without side effects. For debuggers.
  virtual std::optional<GuestAddress> translate(uint64_t linear_address) = 0;

  [[nodiscard]] virtual Statistics statistics() const = 0;
  [[nodiscard]] virtual std::string error() const = 0;
};

// A vCPU that counts what it retires and stops at an exact count: what repeatable runs are made of. It never waits
// inside run(), and everything that a call of its CpuIo brings about (an interrupt, an earlier stop) takes effect
// behind the instruction that made the call. All of the following is for its own thread.
class CountedVcpu : public Vcpu {
 public:
  // Exact between instructions and within a call of CpuIo (the instruction that makes it does not count yet).
  [[nodiscard]] virtual uint64_t instruction_count() const = 0;
  // run() returns kCountReached with instruction_count() == count, at once when it is there already; or earlier, for
  // another reason. Holds until it is set anew; may be brought forward from within a call of CpuIo.
  virtual void stop_at(uint64_t count) = 0;
};

}  // namespace bulkhead::cpu
