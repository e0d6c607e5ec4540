#include "support/loop/event_loop.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/os/thread.h"

namespace bulkhead {
namespace {

struct Pair {
  Fd near, far;
};
Pair make_pair_of_sockets() {
  int fds[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
  return {Fd(fds[0]), Fd(fds[1])};
}

TEST(EventLoop, RunsPostedWorkInOrderOnItsThread) {
  const auto loop = EventLoop::create().value();
  std::vector<int> order;
  Thread poster("poster", [&] {
    for (int i = 0; i < 1000; ++i) EXPECT_TRUE(loop->post([&order, i] { order.push_back(i); }));
    EXPECT_TRUE(loop->post([&] { loop->stop(); }));
  });
  loop->run();
  ASSERT_EQ(order.size(), 1000u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(EventLoop, RefusesMoreWorkThanItsBound) {
  const auto loop = EventLoop::create().value();
  for (size_t i = 0; i < EventLoop::kMaximumPosted; ++i) ASSERT_TRUE(loop->post([] {}));
  EXPECT_FALSE(loop->post([] {}));
}

TEST(EventLoop, ReportsReadableDescriptorsAndStopsAfterUnwatch) {
  const auto loop = EventLoop::create().value();
  Pair sockets = make_pair_of_sockets();
  int calls = 0;
  ASSERT_TRUE(loop->watch(sockets.near.get(), EPOLLIN, [&](uint32_t events) {
    EXPECT_TRUE(events & EPOLLIN);
    ++calls;
    loop->unwatch(sockets.near.get());
    loop->call_after(std::chrono::milliseconds(1), [&] { loop->stop(); });
  }));
  ASSERT_EQ(::write(sockets.far.get(), "x", 1), 1);
  loop->run();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, ACallbackMayUnwatchAnotherReadyDescriptor) {
  const auto loop = EventLoop::create().value();
  Pair a = make_pair_of_sockets(), b = make_pair_of_sockets();
  int calls = 0;
  const auto on_ready = [&](uint32_t) {
    ++calls;
    loop->unwatch(a.near.get());
    loop->unwatch(b.near.get());
    loop->stop();
  };
  ASSERT_TRUE(loop->watch(a.near.get(), EPOLLIN, on_ready));
  ASSERT_TRUE(loop->watch(b.near.get(), EPOLLIN, on_ready));
  ASSERT_EQ(::write(a.far.get(), "x", 1), 1);
  ASSERT_EQ(::write(b.far.get(), "x", 1), 1);
  loop->run();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, RunsTimersInOrderOfTimeAndNotCancelledOnes) {
  const auto loop = EventLoop::create().value();
  std::vector<int> order;
  loop->call_after(std::chrono::milliseconds(4), [&] {
    order.push_back(2);
    loop->stop();
  });
  loop->call_after(std::chrono::milliseconds(1), [&] { order.push_back(1); });
  const auto cancelled = loop->call_after(std::chrono::milliseconds(2), [&] { order.push_back(9); });
  loop->cancel(cancelled);
  loop->run();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(EventLoop, RunsWorkPostedBeforeStop) {
  const auto loop = EventLoop::create().value();
  bool ran = false;
  ASSERT_TRUE(loop->post([&] { loop->stop(); }));
  ASSERT_TRUE(loop->post([&] { ran = true; }));
  loop->run();
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace bulkhead
