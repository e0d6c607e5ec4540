#include "support/os/busy_poll.h"

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

// Each look at it takes a microsecond.
struct FakeClock {
  static inline std::chrono::nanoseconds time{0};
  static std::chrono::nanoseconds now() { return time += 1us; }
};

struct Waited {
  int asked = 0;
  bool slept = false;
};

// A wait that is over `length` from now.
Waited wait(BusyPoll& poll, std::chrono::nanoseconds length) {
  const auto end = FakeClock::time + length;
  Waited waited;
  poll.wait<FakeClock>(
      [&] {
        ++waited.asked;
        return FakeClock::time >= end;
      },
      [&] {
        waited.slept = true;
        FakeClock::time = std::max(FakeClock::time, end);
      });
  return waited;
}

TEST(BusyPoll, SleepsAtOnceUntilAWaitWasShort) {
  BusyPoll poll;
  const Waited first = wait(poll, 20us);
  EXPECT_EQ(first.asked, 0);
  EXPECT_TRUE(first.slept);
  EXPECT_EQ(poll.window(), BusyPoll::kFirst);
}

TEST(BusyPoll, GrowsUntilShortWaitsAreNotSleptThrough) {
  BusyPoll poll;
  int slept = 0;
  for (int i = 0; i < 10; ++i) slept += wait(poll, 30us).slept ? 1 : 0;
  EXPECT_LE(slept, 4);
  const Waited last = wait(poll, 30us);
  EXPECT_FALSE(last.slept);
  EXPECT_GT(last.asked, 0);
  EXPECT_LE(poll.window(), BusyPoll::kLongest);
}

TEST(BusyPoll, GivesUpWhenWaitsAreLong) {
  BusyPoll poll;
  for (int i = 0; i < 10; ++i) (void)wait(poll, 30us);
  ASSERT_GT(poll.window(), 0ns);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(wait(poll, 4ms).slept);
  EXPECT_EQ(poll.window(), 0ns);
  EXPECT_EQ(wait(poll, 4ms).asked, 0);
}

TEST(BusyPoll, AsksNoLongerThanItsLongest) {
  BusyPoll poll;
  for (int i = 0; i < 10; ++i) (void)wait(poll, 45us);
  const auto begin = FakeClock::time;
  bool slept = false;
  std::chrono::nanoseconds asked_for{0};
  poll.wait<FakeClock>([] { return false; },
                       [&] {
                         slept = true;
                         asked_for = FakeClock::time - begin;
                       });
  EXPECT_TRUE(slept);
  EXPECT_LE(asked_for, BusyPoll::kLongest + 2us);
}

TEST(BusyPoll, OffItOnlySleeps) {
  BusyPoll poll(0ns);
  for (int i = 0; i < 3; ++i) {
    const Waited waited = wait(poll, 1us);
    EXPECT_EQ(waited.asked, 0);
    EXPECT_TRUE(waited.slept);
  }
  EXPECT_EQ(poll.window(), 0ns);
}

}  // namespace
}  // namespace bulkhead
