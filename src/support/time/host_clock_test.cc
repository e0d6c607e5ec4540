#include "support/time/host_clock.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

// Waits for an event from another thread, without a sleep; fails the test after ten seconds.
class Latch {
 public:
  void open() {
    std::lock_guard guard(mutex_);
    ++count_;
    changed_.notify_all();
  }
  [[nodiscard]] bool wait(int count = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return count_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

constexpr uint64_t kMillisecond = 1'000'000;

class HostClockTest : public testing::TestWithParam<HostClock::Source> {};
INSTANTIATE_TEST_SUITE_P(Sources, HostClockTest,
                         testing::Values(HostClock::Source::kBest, HostClock::Source::kMonotonic),
                         [](const auto& info) {
                           return info.param == HostClock::Source::kBest ? "Best" : "Monotonic";
                         });

TEST_P(HostClockTest, StandsAtZeroUntilResumed) {
  HostClock clock(GetParam());
  EXPECT_EQ(clock.now_ns(), 0u);
  EXPECT_EQ(clock.tsc(), 0u);
  clock.resume();
  const uint64_t first = clock.now_ns();
  while (clock.now_ns() == first) {
  }
  EXPECT_GT(clock.now_ns(), first);
}

TEST_P(HostClockTest, KeepsTheTimeOfAPause) {
  HostClock clock(GetParam());
  clock.resume();
  while (clock.now_ns() < kMillisecond) {
  }
  clock.pause();
  const uint64_t tsc = clock.tsc();
  const uint64_t now = clock.now_ns();
  HostClock other(GetParam());
  other.resume();
  while (other.now_ns() < 5 * kMillisecond) {
  }
  EXPECT_EQ(clock.tsc(), tsc);
  EXPECT_EQ(clock.now_ns(), now);
  clock.resume();
  EXPECT_GE(clock.now_ns(), now);
  EXPECT_LT(clock.now_ns(), now + 5000 * kMillisecond);
}

TEST_P(HostClockTest, AgreesWithItsOwnTscAndWithTheHost) {
  HostClock clock(GetParam());
  clock.resume();
  timespec start{}, end{};
  clock_gettime(CLOCK_MONOTONIC, &start);
  const uint64_t begin_ns = clock.now_ns();
  while (clock.now_ns() < begin_ns + 50 * kMillisecond) {
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  const int64_t host_ns = (end.tv_sec - start.tv_sec) * 1'000'000'000ll + end.tv_nsec - start.tv_nsec;
  EXPECT_GE(host_ns, static_cast<int64_t>(50 * kMillisecond * 0.99));
  clock.pause();
  const auto by_tsc = static_cast<int64_t>(clock.scale(clock.tsc(), Clock::kNanosecondsPerSecond, clock.tsc_hz()));
  EXPECT_LE(std::abs(by_tsc - static_cast<int64_t>(clock.now_ns())), 1);
}

TEST_P(HostClockTest, FiresTimersInOrderAndNotBeforeTheirDeadline) {
  HostClock clock(GetParam());
  clock.resume();
  Latch latch;
  std::mutex mutex;
  std::vector<std::pair<int, uint64_t>> fired;
  const auto record = [&](int which) {
    std::lock_guard guard(mutex);
    fired.emplace_back(which, clock.now_ns());
    latch.open();
  };
  const auto late = clock.make_timer("late", [&] { record(2); });
  const auto early = clock.make_timer("early", [&] { record(1); });
  const uint64_t base = clock.now_ns();
  late->arm(base + 4 * kMillisecond);
  early->arm(base + 2 * kMillisecond);
  ASSERT_TRUE(latch.wait(2));
  std::lock_guard guard(mutex);
  EXPECT_EQ(fired[0].first, 1);
  EXPECT_GE(fired[0].second, base + 2 * kMillisecond);
  EXPECT_EQ(fired[1].first, 2);
  EXPECT_GE(fired[1].second, base + 4 * kMillisecond);
}

TEST_P(HostClockTest, FiresADeadlineOfThePastAtOnce) {
  HostClock clock(GetParam());
  clock.resume();
  Latch latch;
  const auto timer = clock.make_timer("t", [&] { latch.open(); });
  timer->arm(0);
  EXPECT_TRUE(latch.wait());
}

TEST_P(HostClockTest, DoesNotFireWhilePaused) {
  HostClock clock(GetParam());
  std::atomic<bool> fired = false;
  Latch latch;
  const auto timer = clock.make_timer("t", [&] {
    fired = true;
    latch.open();
  });
  timer->arm(0);
  HostClock other(GetParam());
  other.resume();
  Latch passed;
  const auto wait = other.make_timer("wait", [&] { passed.open(); });
  wait->arm(5 * kMillisecond);
  ASSERT_TRUE(passed.wait());
  EXPECT_FALSE(fired);
  clock.resume();
  EXPECT_TRUE(latch.wait());
}

TEST_P(HostClockTest, ADisarmedOrReplacedDeadlineDoesNotFire) {
  HostClock clock(GetParam());
  std::atomic<int> count = 0;
  Latch latch;
  const auto timer = clock.make_timer("t", [&] {
    ++count;
    latch.open();
  });
  const auto disarmed = clock.make_timer("d", [&] { count += 100; });
  timer->arm(0);
  timer->arm(1);
  disarmed->arm(0);
  disarmed->disarm();
  clock.resume();
  ASSERT_TRUE(latch.wait());
  clock.pause();
  EXPECT_EQ(count, 1);
}

TEST_P(HostClockTest, ATimerMayRearmAndDestroyItselfFromItsCallback) {
  HostClock clock(GetParam());
  Latch latch;
  std::unique_ptr<Timer> timer;
  int count = 0;
  timer = clock.make_timer("t", [&] {
    if (++count < 3) {
      timer->arm(clock.now_ns());
    } else {
      timer.reset();
      latch.open();
    }
  });
  timer->arm(0);
  clock.resume();
  EXPECT_TRUE(latch.wait());
  EXPECT_EQ(count, 3);
}

TEST_P(HostClockTest, DestructionWaitsForTheCallbackUnderWay) {
  HostClock clock(GetParam());
  Latch started;
  std::atomic<bool> ended = false;
  auto timer = clock.make_timer("t", [&] {
    started.open();
    const uint64_t begin = clock.now_ns();
    while (clock.now_ns() < begin + 2 * kMillisecond) {
    }
    ended = true;
  });
  timer->arm(0);
  clock.resume();
  ASSERT_TRUE(started.wait());
  timer.reset();
  EXPECT_TRUE(ended);
}

TEST_P(HostClockTest, RestoresASavedTime) {
  HostClock clock(GetParam());
  clock.set_now_ns(5'000'000'000'000);
  EXPECT_NEAR(static_cast<double>(clock.now_ns()), 5e12, 1.0);
  clock.resume();
  EXPECT_GE(clock.now_ns(), 4'999'999'999'999u);
}

// How often the threads of that name in this process gave up a processor of their own accord.
uint64_t sleeps_of(const std::string& thread) {
  uint64_t sum = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name, word;
    std::getline(std::ifstream(task.path() / "comm"), name);
    if (name != thread) continue;
    std::ifstream status(task.path() / "status");
    while (status >> word) {
      uint64_t count = 0;
      if (word == "voluntary_ctxt_switches:" && status >> count) sum += count;
    }
  }
  return sum;
}

TEST(HostClock, ADeadlineThatIsPutOffWakesNobody) {
  HostClock clock;
  clock.resume();
  Latch fired;
  auto timer = clock.make_timer("test", [&] { fired.open(); });
  const auto later = [&](uint64_t ns) { return clock.now_ns() + ns; };
  timer->arm(later(Clock::kNanosecondsPerSecond));
  const uint64_t before = sleeps_of("clock");
  constexpr int kTimes = 1000;
  for (int i = 0; i < kTimes; ++i) {
    timer->arm(later(100 * Clock::kNanosecondsPerSecond));
    if (i % 2 == 0) timer->disarm();
    std::this_thread::yield();
  }
  EXPECT_LT(sleeps_of("clock") - before, kTimes / 10u);
  // And one that comes first does.
  timer->arm(later(kMillisecond));
  EXPECT_TRUE(fired.wait());
}

TEST(HostClock, TypicalTimerLatencyIsSmall) {
  HostClock clock;
  clock.resume();
  std::vector<uint64_t> latencies;
  Latch latch;
  for (int i = 1; i <= 100; ++i) {
    const uint64_t deadline = clock.now_ns() + kMillisecond / 2;
    const auto timer = clock.make_timer("t", [&] {
      latencies.push_back(clock.now_ns() - deadline);
      latch.open();
    });
    timer->arm(deadline);
    ASSERT_TRUE(latch.wait(i));
  }
  std::sort(latencies.begin(), latencies.end());
  RecordProperty("median_latency_ns", std::to_string(latencies[50]));
  // Typically 5 to 60 us; the bound leaves room for a loaded machine and sanitizers.
  EXPECT_LT(latencies[50], 5 * kMillisecond);
}

}  // namespace
}  // namespace bulkhead
