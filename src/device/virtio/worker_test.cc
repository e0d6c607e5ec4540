#include "device/virtio/worker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <semaphore>
#include <thread>

namespace bulkhead::device::virtio {
namespace {

class WorkerThread : public testing::Test {
 protected:
  EventFd event_ = EventFd::create().value();
  std::unique_ptr<ThreadWorker> worker_ = ThreadWorker::create("test").value();
};

TEST_F(WorkerThread, TakesHelpOnlyWhileItStandsStill) {
  std::binary_semaphore begun{0}, may_end{0};
  std::atomic<int> at_work = 0;
  ASSERT_TRUE(worker_->watch(event_, [&] {
    ++at_work;
    begun.release();
    may_end.acquire();
    --at_work;
  }));
  worker_->start();
  bool ran = false;
  const auto help = [&] {
    EXPECT_EQ(at_work, 0);
    ran = true;
  };
  event_.signal();
  begun.acquire();
  EXPECT_FALSE(worker_->try_run(help));
  EXPECT_FALSE(ran);
  may_end.release();
  // Now or soon.
  while (!worker_->try_run(help)) std::this_thread::yield();
  EXPECT_TRUE(ran);
}

TEST_F(WorkerThread, NobodyWaitsLongerThanTheHelpOfAnotherThreadTakes) {
  worker_->start();
  std::binary_semaphore asked{0};
  bool is_true = false, told = false;
  std::jthread waiter([&] {
    worker_->wait_until([&] {
      if (!std::exchange(told, true)) asked.release();
      return is_true;
    });
  });
  asked.acquire();
  while (!worker_->try_run([&] { is_true = true; })) std::this_thread::yield();
}

}  // namespace
}  // namespace bulkhead::device::virtio
