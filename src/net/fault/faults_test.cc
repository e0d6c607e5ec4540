#include "net/fault/faults.h"

#include <bit>

#include <gtest/gtest.h>

namespace bulkhead::net::fault {
namespace {

constexpr uint64_t kMillisecond = 1'000'000;
constexpr unsigned kCount = 10'000;

std::vector<uint8_t> numbered(uint32_t number) {
  std::vector<uint8_t> frame(100);
  store(frame.data(), number);
  return frame;
}

struct Arrival {
  uint64_t when_ns;
  std::vector<uint8_t> frame;
  friend bool operator==(const Arrival&, const Arrival&) = default;
};
// A frame a millisecond; all that arrive, in their order.
std::vector<Arrival> run(Faults& faults, unsigned count = kCount) {
  std::vector<Arrival> arrivals;
  const auto receive_until = [&](uint64_t end_ns) {
    while (faults.next_ns() <= end_ns) {
      const uint64_t when_ns = faults.next_ns();
      arrivals.push_back({when_ns, faults.receive(when_ns)});
    }
  };
  for (uint32_t i = 0; i < count; ++i) {
    receive_until(i * kMillisecond);
    faults.send(numbered(i), i * kMillisecond);
  }
  receive_until(UINT64_MAX - 1);
  return arrivals;
}

TEST(Faults, WithoutAnyEverythingPassesAtOnce) {
  Faults faults({}, 1);
  const auto arrivals = run(faults);
  ASSERT_EQ(arrivals.size(), kCount);
  for (uint32_t i = 0; i < kCount; ++i) EXPECT_EQ(arrivals[i], (Arrival{i * kMillisecond, numbered(i)}));
}

TEST(Faults, AreTheSameFromTheSameSeed) {
  const FaultConfig config{.delay_ns = 5 * kMillisecond,
                           .jitter_ns = 3 * kMillisecond,
                           .lost = 50'000,
                           .duplicated = 30'000,
                           .reordered = 20'000,
                           .corrupted = 10'000,
                           .rate_bytes_a_second = 1'000'000};
  Faults one(config, 42), same(config, 42), other(config, 43);
  const auto arrivals = run(one);
  EXPECT_EQ(run(same), arrivals);
  EXPECT_NE(run(other), arrivals);
}

TEST(Faults, LoseDuplicateAndCorruptAsOftenAsAsked) {
  Faults faults({.lost = 100'000, .duplicated = 50'000, .corrupted = 20'000}, 7);
  const auto arrivals = run(faults);
  EXPECT_NEAR(static_cast<double>(faults.counters().lost), 1000, 120);
  EXPECT_NEAR(static_cast<double>(faults.counters().duplicated), 450, 90);
  EXPECT_NEAR(static_cast<double>(faults.counters().corrupted), 180, 60);
  EXPECT_EQ(arrivals.size(), kCount - faults.counters().lost + faults.counters().duplicated);
  unsigned wrong_bits = 0;
  for (const Arrival& arrival : arrivals) {
    const auto sent = numbered(static_cast<uint32_t>(arrival.when_ns / kMillisecond));
    for (size_t i = 0; i < sent.size(); ++i) {
      wrong_bits += static_cast<unsigned>(std::popcount(static_cast<uint8_t>(sent[i] ^ arrival.frame[i])));
    }
  }
  // A frame that is corrupted and duplicated arrives wrong twice.
  EXPECT_GE(wrong_bits, faults.counters().corrupted);
  EXPECT_LE(wrong_bits, 2 * faults.counters().corrupted);
}

TEST(Faults, DelayWithJitterAndKeepTheOrder) {
  Faults faults({.delay_ns = 20 * kMillisecond, .jitter_ns = 10 * kMillisecond}, 7);
  const auto arrivals = run(faults);
  ASSERT_EQ(arrivals.size(), kCount);
  uint64_t least = UINT64_MAX, most = 0;
  for (uint32_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(arrivals[i].frame, numbered(i));
    const uint64_t delay = arrivals[i].when_ns - i * kMillisecond;
    least = std::min(least, delay);
    most = std::max(most, delay);
  }
  EXPECT_GE(least, 20 * kMillisecond);
  EXPECT_LE(most, 30 * kMillisecond);
  EXPECT_GT(most - least, 5 * kMillisecond);
}

TEST(Faults, ReorderSoManyAndNoMore) {
  Faults faults({.delay_ns = 20 * kMillisecond, .reordered = 50'000}, 7);
  const auto arrivals = run(faults);
  unsigned overtaken = 0;
  for (size_t i = 1; i < arrivals.size(); ++i) {
    if (load<uint32_t>(arrivals[i].frame.data()) < load<uint32_t>(arrivals[i - 1].frame.data())) ++overtaken;
  }
  EXPECT_NEAR(static_cast<double>(faults.counters().reordered), 500, 90);
  EXPECT_GT(overtaken, 300u);
  EXPECT_LE(overtaken, faults.counters().reordered);
}

TEST(Faults, KeepToTheRate) {
  // Sent at 100 kB/s, carried at 50 kB/s: twice the time, in bounded memory.
  Faults faults({.rate_bytes_a_second = 50'000}, 7);
  const auto arrivals = run(faults, 2000);
  ASSERT_EQ(arrivals.size(), 2000u);
  EXPECT_EQ(arrivals.back().when_ns, 2000 * 2 * kMillisecond);
}

TEST(Faults, AreBoundedInMemory) {
  Faults faults({.delay_ns = FaultConfig::kMostDelay_ns}, 7);
  for (uint32_t i = 0; i < kCount; ++i) faults.send(numbered(i), 0);
  EXPECT_EQ(faults.under_way(), Faults::kMaximumFrames);
  EXPECT_EQ(faults.counters().overflowed, kCount - Faults::kMaximumFrames);
}

TEST(Faults, TurnAwayWithoutHoldingTheLine) {
  Faults faults({.rate_bytes_a_second = 100'000}, 7);
  for (uint32_t i = 0; i < kCount; ++i) faults.send(numbered(i), 0);
  EXPECT_EQ(faults.under_way(), Faults::kMaximumFrames);
  // A second carries a thousand of them: the line is free again after four.
  const uint64_t later = 5000 * kMillisecond;
  while (!faults.receive(later).empty()) {
  }
  faults.send(numbered(1), later);
  EXPECT_EQ(faults.next_ns(), later + kMillisecond);
}

TEST(Faults, CutAndHealWhileRunning) {
  Faults faults({}, 7);
  faults.send(numbered(1), 0);
  faults.set_config({.is_cut = true});
  faults.send(numbered(2), 0);
  faults.set_config({});
  faults.send(numbered(3), 0);
  EXPECT_EQ(faults.receive(0), numbered(1));
  EXPECT_EQ(faults.receive(0), numbered(3));
  EXPECT_TRUE(faults.receive(0).empty());
}

TEST(Faults, HealWhenDelayOrRateAreTakenAway) {
  Faults slow({.delay_ns = 30'000 * kMillisecond}, 7);
  slow.send(numbered(1), 0);
  slow.set_config({});
  slow.send(numbered(2), 0);
  EXPECT_EQ(slow.receive(0), numbered(2));
  EXPECT_EQ(slow.next_ns(), 30'000 * kMillisecond);
  Faults narrow({.rate_bytes_a_second = 10}, 7);
  narrow.send(numbered(1), 0);
  narrow.set_config({.rate_bytes_a_second = 1'000'000'000});
  narrow.send(numbered(2), 0);
  EXPECT_LE(narrow.next_ns(), kMillisecond);
  // Another fault changes nothing of the order.
  Faults other({.delay_ns = 10 * kMillisecond}, 7);
  other.send(numbered(1), 0);
  other.set_config({.delay_ns = 10 * kMillisecond, .duplicated = FaultConfig::kAlways});
  other.send(numbered(2), 0);
  EXPECT_EQ(other.receive(10 * kMillisecond), numbered(1));
}

TEST(Faults, RefuseWhatIsNoShareOrTooLong) {
  EXPECT_TRUE(check_faults({.lost = FaultConfig::kAlways}));
  EXPECT_FALSE(check_faults({.lost = FaultConfig::kAlways + 1}));
  EXPECT_FALSE(check_faults({.delay_ns = FaultConfig::kMostDelay_ns + 1}));
}

}  // namespace
}  // namespace bulkhead::net::fault
