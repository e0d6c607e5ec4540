#include "net/vhost/absence.h"

#include <vector>

#include <gtest/gtest.h>

namespace bulkhead::net::vhost {
namespace {

using namespace std::chrono_literals;

constexpr Absence::Clock::time_point kStart{1h};

TEST(Absence, OneThatIsBackWithinMomentsIsFoundWithinMoments) {
  Absence absence(kStart);
  EXPECT_LE(absence.pause(false, kStart), 5ms);
  EXPECT_LE(absence.pause(false, kStart + 4s), 5ms);
  // And one that stays away for long costs little, and is found in time all the same.
  EXPECT_EQ(absence.pause(false, kStart + 5s), 20ms);
  EXPECT_EQ(absence.pause(false, kStart + 10h), 20ms);
  absence.begin(kStart + 11h, kStart + 12h);
  EXPECT_LE(absence.pause(false, kStart + 12h), 5ms);
}

TEST(Absence, OneThatTakesNobodyIsAskedSeldomerAndSeldomer) {
  Absence absence(kStart);
  std::vector<int64_t> pauses;
  auto now = kStart;
  for (unsigned i = 0; i < 7; ++i) {
    // A session that is over at once is no better than none.
    if (i % 2 != 0) absence.begin(now, now + 1ms);
    pauses.push_back(absence.pause(true, now).count());
    now += 100ms;
  }
  EXPECT_EQ(pauses, (std::vector<int64_t>{4, 8, 16, 32, 64, 100, 100}));
  absence.begin(now, now + 1s);
  EXPECT_EQ(absence.pause(true, now + 1s), 4ms);
}

TEST(Absence, TheGuestLearnsOfOneThatLasts) {
  Absence absence(kStart);
  EXPECT_FALSE(absence.is_noticed(kStart + 499ms));
  EXPECT_TRUE(absence.is_noticed(kStart + 500ms));
  absence.begin(kStart, kStart + 1h);
  EXPECT_FALSE(absence.is_noticed(kStart + 1h));
}

}  // namespace
}  // namespace bulkhead::net::vhost
