#include "net/link/patch.h"

#include <future>

#include <gtest/gtest.h>

#include "net/link/bell.h"
#include "net/link/frame_queue.h"
#include "support/os/thread.h"

namespace bulkhead::net::link {
namespace {

// An end that a test fills and looks into.
class End final : public Port {
 public:
  Sent send(ByteSpan frame, const frame::Offload& /*offload*/) override {
    const LockGuard lock(mutex_);
    if (room_ == 0) return Sent::kNoRoom;
    --room_;
    sent_.emplace_back(frame.begin(), frame.end());
    news_.notify_all();
    return Sent::kDone;
  }
  size_t receive(MutableByteSpan out, frame::Offload& offload) override {
    const LockGuard lock(mutex_);
    return waiting_.pop(out, offload);
  }
  [[nodiscard]] bool link_up() const override { return up_; }
  void set_listener(std::function<void()> on_ready) override { bell_.set_listener(std::move(on_ready)); }

  void arrive(const std::vector<uint8_t>& frame) {
    {
      const LockGuard lock(mutex_);
      EXPECT_TRUE(waiting_.push(frame));
    }
    bell_.ring();
  }
  void make_room(size_t frames) {
    {
      const LockGuard lock(mutex_);
      room_ += frames;
    }
    bell_.ring();
  }
  void set_up(bool up) {
    up_ = up;
    bell_.ring();
  }
  // Waits for so many frames.
  std::vector<std::vector<uint8_t>> sent(size_t count) {
    mutex_.lock();
    while (sent_.size() < count) news_.wait(mutex_);
    auto all = sent_;
    mutex_.unlock();
    return all;
  }

 private:
  Mutex mutex_;
  ConditionVariable news_;
  Bell bell_;
  std::atomic<bool> up_ = false;
  FrameQueue waiting_ GUARDED_BY(mutex_);
  std::vector<std::vector<uint8_t>> sent_ GUARDED_BY(mutex_);
  size_t room_ GUARDED_BY(mutex_) = 1000;
};

TEST(Patch, CarriesBothWaysAndWaitsForRoomInEachByItself) {
  End one, other;
  one.arrive({1});  // before it is run
  const auto patch = Patch::create(one, other).value();
  Thread carrier("patch", [&] { patch->run([](bool) {}); });
  EXPECT_EQ(other.sent(1), (std::vector<std::vector<uint8_t>>{{1}}));
  End& full = one;
  for (uint8_t i = 0; i < 200; ++i) other.arrive({i});
  EXPECT_EQ(full.sent(200).back(), (std::vector<uint8_t>{199}));
  patch->stop();
  carrier.join();
}

TEST(Patch, KeepsTheFrameThatHadNoRoom) {
  End one, other;
  other.make_room(static_cast<size_t>(2) - 1000);  // two in all
  const auto patch = Patch::create(one, other).value();
  Thread carrier("patch", [&] { patch->run([](bool) {}); });
  for (uint8_t i = 0; i < 5; ++i) one.arrive({i});
  EXPECT_EQ(other.sent(2).size(), 2u);
  // The other direction goes on meanwhile.
  other.arrive({9});
  EXPECT_EQ(one.sent(1)[0], (std::vector<uint8_t>{9}));
  other.make_room(10);
  const auto all = other.sent(5);
  for (uint8_t i = 0; i < 5; ++i) EXPECT_EQ(all[i], (std::vector<uint8_t>{i}));
  patch->stop();
  carrier.join();
}

TEST(Patch, TellsWhenBothEndsAreUpAndWhenOneGoes) {
  End one, other;
  const auto patch = Patch::create(one, other).value();
  std::promise<void> went_up, went_down;
  Thread carrier("patch", [&] { patch->run([&](bool up) { (up ? went_up : went_down).set_value(); }); });
  one.set_up(true);
  other.set_up(true);
  EXPECT_EQ(went_up.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  one.set_up(false);
  EXPECT_EQ(went_down.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  patch->stop();
  carrier.join();
}

}  // namespace
}  // namespace bulkhead::net::link
