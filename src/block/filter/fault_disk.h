// A bad disk on purpose, from a seed, to try out what a system does before its own disks fail: errors, delay, torn and
// misdirected writes. What happens to a request is a function of the seed and of the request's number alone, so that a
// run with the same requests in the same order has the same faults. Never there unless a user asked for it; it says so.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "block/filter/holding_disk.h"
#include "support/log.h"
#include "support/os/mutex.h"
#include "support/random.h"
#include "support/result.h"
#include "support/time/clock.h"

namespace bulkhead::block {

struct DiskFaults {
  static constexpr uint32_t kAlways = 1'000'000;
  static constexpr uint64_t kMostDelay_ns = 60'000'000'000;
  static constexpr size_t kMostRanges = 64;

  struct Range {
    uint64_t offset = 0, size = 0;  // bytes
    friend bool operator==(const Range&, const Range&) = default;
  };

  uint64_t seed = 0;
  uint64_t delay_ns = 0;
  uint64_t jitter_ns = 0;  // up to so much more, evenly spread: requests overtake each other
  // Of a million requests of their kind.
  uint32_t read_error = 0;   // an I/O error, and nothing is read
  uint32_t write_error = 0;  // an I/O error, and nothing is written; of discards and zeroes too
  uint32_t flush_error = 0;  // what was written may be lost: no later flush succeeds either
  uint32_t no_space = 0;     // of writes and zeroes
  uint32_t torn = 0;         // only the first sectors of a write arrive, or none: an I/O error
  uint32_t torn_silent = 0;  // the same, and the answer is that all is well
  uint32_t misdirected = 0;  // a write lands at another place, and the answer is that all is well
  std::vector<Range> bad;    // whatever touches them but a flush: an I/O error
  std::vector<Range> full;   // writes and zeroes that touch them: no space
  friend bool operator==(const DiskFaults&, const DiskFaults&) = default;

  [[nodiscard]] bool any() const { return *this != DiskFaults{.seed = seed}; }
  [[nodiscard]] bool takes_time() const { return delay_ns != 0 || jitter_ns != 0; }
};

// That each value is within its bounds, and that the shares of what may happen to one request are at most everything.
Result<> check_faults(const DiskFaults& faults);

class FaultDisk final : public HoldingDisk {
 public:
  // The number of the next request, of one disk or of those that follow each other in a machine's life.
  using Count = std::shared_ptr<std::atomic<uint64_t>>;
  // faults have passed check_faults(); clock is there when they take time, and goes on while requests wait. name is for
  // the log.
  FaultDisk(std::unique_ptr<Disk> below, std::string name, DiskFaults faults, Clock* clock,
            Count count = std::make_shared<std::atomic<uint64_t>>(0));
  // What waits goes on at once.
  ~FaultDisk() override;

  [[nodiscard]] const Geometry& geometry() const override { return below_->geometry(); }
  void submit(Request request) override;
  void hurry() override;

 private:
  enum class Fault : uint8_t { kNone, kError, kNoSpace, kLost, kTorn, kTornSilent, kMisdirected };

  [[nodiscard]] Fault choose(const Request& request, SeededRandom& random);
  // Without waiting any more. random is that of the request.
  void carry_out(Request request, Fault fault, SeededRandom random);
  void tear(Request request, Fault fault, SeededRandom& random);
  void misdirect(Request request, SeededRandom& random);
  void say(const Request& request, std::string_view what);
  void on_timer();
  // Carries out all that waits.
  void let_go();

  struct Waiting {
    Request request;
    Fault fault;
    SeededRandom random;
  };

  const std::string name_;
  const DiskFaults faults_;
  Clock* const clock_;
  const Count count_;
  std::atomic<bool> is_lost_{false};  // a flush has failed
  log::RateLimit log_limit_;
  Mutex mutex_;
  bool hurried_ GUARDED_BY(mutex_) = false;  // nothing waits any more
  // By the time at which they go on, of one time in their order.
  std::multimap<uint64_t, Waiting> waiting_ GUARDED_BY(mutex_);
  // Answers what is under way before it is gone.
  std::unique_ptr<Disk> below_;
  // Last: its callback ends before the rest is gone. None without delay.
  std::unique_ptr<Timer> timer_;
};

}  // namespace bulkhead::block
