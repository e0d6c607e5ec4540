#include "support/time/counted_clock.h"

#include <vector>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

struct FakeCounter final : CountedClock::Counter {
  [[nodiscard]] uint64_t instruction_count() const override { return count; }
  void bring_forward(uint64_t to) override { limits.push_back(to); }
  uint64_t count = 0;
  std::vector<uint64_t> limits;
};

TEST(CountedClock, GoesWithTheInstructionsOfATurn) {
  CountedClock clock;
  FakeCounter counter;
  counter.count = 500;
  EXPECT_EQ(clock.now_ns(), 0u);
  clock.begin_turn(counter);
  counter.count += 30;
  EXPECT_EQ(clock.now_ns(), 30u);
  EXPECT_EQ(clock.tsc(), 30u);
  EXPECT_EQ(clock.end_turn(), 30u);
  counter.count = 0;
  EXPECT_EQ(clock.now_ns(), 30u);
  clock.skip_to(1000);
  clock.skip_to(900);
  EXPECT_EQ(clock.now_ns(), 1000u);
  EXPECT_EQ(clock.wall_ns(), CountedClock::kWallAtStartNs + 1000);
}

TEST(CountedClock, FiresInTheOrderOfDeadlinesThenOfArming) {
  CountedClock clock;
  std::vector<char> fired;
  const auto a = clock.make_timer("a", [&] { fired.push_back('a'); });
  const auto b = clock.make_timer("b", [&] { fired.push_back('b'); });
  const auto c = clock.make_timer("c", [&] { fired.push_back('c'); });
  a->arm(20);
  b->arm(20);
  c->arm(10);
  a->arm(20);
  EXPECT_EQ(clock.next_deadline_ns(), 10u);
  clock.skip_to(20);
  clock.fire_due();
  EXPECT_EQ(fired, (std::vector<char>{'c', 'b', 'a'}));
  EXPECT_EQ(clock.next_deadline_ns(), std::nullopt);
}

TEST(CountedClock, DoesNotFireEarlyNorWhatWasDisarmed) {
  CountedClock clock;
  int fired = 0;
  const auto early = clock.make_timer("early", [&] { ++fired; });
  const auto late = clock.make_timer("late", [&] { ++fired; });
  early->arm(5);
  early->disarm();
  late->arm(11);
  clock.skip_to(10);
  clock.fire_due();
  EXPECT_EQ(fired, 0);
}

TEST(CountedClock, TellsTheTurnOfAnEarlierDeadline) {
  CountedClock clock;
  clock.set_now_ns(100);
  FakeCounter counter;
  counter.count = 7;
  const auto timer = clock.make_timer("t", [] {});
  clock.begin_turn(counter);
  counter.count = 17;
  timer->arm(150);
  timer->arm(50);
  timer->arm(UINT64_MAX);
  EXPECT_EQ(counter.limits, (std::vector<uint64_t>{57, 7, UINT64_MAX - 93}));
  clock.end_turn();
}

TEST(CountedClock, EndsARoundOfATimerThatAlwaysFiresAgain) {
  CountedClock clock;
  unsigned fired = 0;
  std::unique_ptr<Timer> timer;
  timer = clock.make_timer("again", [&] {
    ++fired;
    timer->arm(0);
  });
  timer->arm(0);
  clock.fire_due();
  EXPECT_EQ(fired, CountedClock::kMaximumCallbacks);
}

}  // namespace
}  // namespace bulkhead
