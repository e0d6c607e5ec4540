#include "vmm/state_driver.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include <gtest/gtest.h>

#include "vmm/fake_vcpu.h"

namespace bulkhead::vmm {
namespace {

using Holder = StateDriver::Holder;
using Kind = Outcome::Kind;

class FakeBoard final : public Board {
 public:
  explicit FakeBoard(std::vector<std::unique_ptr<FakeVcpu>>& vcpus) : vcpus_(vcpus) {}
  Result<> reset() override {
    expect_parked();
    ++resets;
    if (reset_fails) return fail("open 'vmlinuz': No such file or directory");
    return {};
  }
  void pause() override {
    expect_parked();
    EXPECT_FALSE(paused.exchange(true));
  }
  void resume() override {
    expect_parked();
    EXPECT_TRUE(paused.exchange(false));
  }
  void press_power_button() override { ++presses; }
  std::optional<std::string> panic_message() override { return panic; }

  std::atomic<int> resets = 0;
  std::atomic<int> presses = 0;
  std::atomic<bool> paused = true;
  bool reset_fails = false;
  std::optional<std::string> panic;

 private:
  void expect_parked() {
    for (auto& vcpu : vcpus_) EXPECT_FALSE(vcpu->is_running());
  }
  std::vector<std::unique_ptr<FakeVcpu>>& vcpus_;
};

class StateDriverTest : public testing::Test {
 protected:
  void make(StateDriver::Policy policy = {}, int count = 2) {
    std::vector<VcpuSlot> slots;
    for (int i = 0; i < count; ++i) {
      vcpus_.push_back(std::make_unique<FakeVcpu>());
      slots.push_back({*vcpus_.back(), io_});
    }
    driver_ = std::make_unique<StateDriver>(board_, slots, policy);
  }
  void start() {
    driver_->start();
    for (auto& vcpu : vcpus_) ASSERT_TRUE(vcpu->wait_until_running());
  }

  // The driver does what it is asked in its own time.
  static bool becomes_true(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  }

  NullCpuIo io_;
  std::vector<std::unique_ptr<FakeVcpu>> vcpus_;
  FakeBoard board_{vcpus_};
  std::unique_ptr<StateDriver> driver_;
};

TEST_F(StateDriverTest, RunsNothingBeforeItIsStarted) {
  make();
  EXPECT_TRUE(driver_->call_at_rest([&] { EXPECT_EQ(vcpus_[0]->run_count(), 0); }));
  start();
  EXPECT_FALSE(board_.paused);
}

TEST_F(StateDriverTest, GuestPowerOffEndsTheVmWithZero) {
  make();
  start();
  vcpus_[1]->execute([&](cpu::CpuIo&) { driver_->request_power_off(); });
  const Outcome outcome = driver_->wait();
  EXPECT_EQ(outcome.kind, Kind::kPowerOff);
  EXPECT_EQ(outcome.exit_status(), 0);
  EXPECT_TRUE(board_.paused);
  EXPECT_FALSE(driver_->call_at_rest([] { FAIL() << "the VM has ended"; }));
}

TEST_F(StateDriverTest, AFullDiskHoldsUntilTheUserResumes) {
  make();
  start();
  driver_->pause_for_disk();
  ASSERT_TRUE(becomes_true([&] { return driver_->held_by(Holder::kDisk) && board_.paused; }));
  driver_->pause();
  ASSERT_TRUE(becomes_true([&] { return driver_->held_by(Holder::kUser); }));
  EXPECT_FALSE(vcpus_[0]->is_running());
  driver_->resume();
  ASSERT_TRUE(becomes_true([&] { return !driver_->held_by(Holder::kDisk) && !driver_->held_by(Holder::kUser); }));
  ASSERT_TRUE(becomes_true([&] { return !board_.paused; }));
  for (auto& vcpu : vcpus_) ASSERT_TRUE(vcpu->wait_until_running());
}

TEST_F(StateDriverTest, AMachineThatWaitsForADiskCanBeResetAndEnded) {
  make();
  start();
  driver_->pause_for_disk();
  ASSERT_TRUE(becomes_true([&] { return driver_->held_by(Holder::kDisk) && board_.paused; }));
  driver_->reset();
  ASSERT_TRUE(becomes_true([&] { return board_.resets == 1 && !board_.paused; }));
  for (auto& vcpu : vcpus_) ASSERT_TRUE(vcpu->wait_until_running());
  driver_->pause_for_disk();
  ASSERT_TRUE(becomes_true([&] { return driver_->held_by(Holder::kDisk) && board_.paused; }));
  driver_->quit();
  EXPECT_EQ(driver_->wait().kind, Kind::kQuit);
}

TEST_F(StateDriverTest, ParksAllVcpusWhileAnyoneHolds) {
  make();
  start();
  driver_->hold(Holder::kUser);
  driver_->hold(Holder::kDebugger);
  EXPECT_FALSE(vcpus_[0]->is_running());
  EXPECT_TRUE(board_.paused);
  driver_->release(Holder::kUser);
  EXPECT_TRUE(board_.paused);
  driver_->release(Holder::kDebugger);
  EXPECT_TRUE(vcpus_[0]->wait_until_running());
  EXPECT_FALSE(board_.paused);
}

TEST_F(StateDriverTest, AGuestResetReloadsAndRunsOn) {
  make();
  start();
  vcpus_[0]->execute([&](cpu::CpuIo&) { driver_->request_reset(); });
  while (board_.resets == 0) std::this_thread::yield();
  EXPECT_TRUE(driver_->call_at_rest([] {}));
  EXPECT_TRUE(vcpus_[0]->wait_until_running());
  EXPECT_EQ(board_.resets, 1);
}

TEST_F(StateDriverTest, AGuestResetEndsTheVmWhenItMayNotReboot) {
  make({.reboot = false});
  start();
  driver_->request_reset();
  const Outcome outcome = driver_->wait();
  EXPECT_EQ(outcome.kind, Kind::kReset);
  EXPECT_EQ(outcome.exit_status(), 10);
  EXPECT_EQ(board_.resets, 0);
}

TEST_F(StateDriverTest, AResetAfterAPanicIsAPanic) {
  make({.reboot = false});
  board_.panic = "Attempted to kill init!";
  start();
  driver_->request_reset();
  EXPECT_EQ(driver_->wait().line(), "the guest panicked: Attempted to kill init!");
  EXPECT_EQ(driver_->wait().exit_status(), 14);
}

TEST_F(StateDriverTest, AFailedResetEndsTheVmAndSaysWhy) {
  make();
  board_.reset_fails = true;
  start();
  driver_->reset();
  EXPECT_EQ(driver_->wait().line(), "the host cannot go on: open 'vmlinuz': No such file or directory");
}

TEST_F(StateDriverTest, ATripleFaultEndsTheVmWithItsPlace) {
  make();
  vcpus_[1]->state.rip = 0x1234;
  start();
  vcpus_[1]->stop_with(cpu::StopReason::kShutdown);
  const Outcome outcome = driver_->wait();
  EXPECT_EQ(outcome.exit_status(), 12);
  EXPECT_EQ(outcome.line(), "triple fault: vCPU 1 at cs:rip 0000:0x1234, cr0 0x0, cr2 0x0, cr3 0x0");
}

TEST_F(StateDriverTest, AnEngineErrorEndsTheVmWithItsWords) {
  make();
  start();
  vcpus_[0]->stop_with(cpu::StopReason::kInternalError);
  EXPECT_EQ(driver_->wait().line(), "the engine cannot go on: vCPU 0: told to fail");
}

TEST_F(StateDriverTest, DebugExitGivesTheFirstStatusAskedFor) {
  make();
  start();
  vcpus_[0]->execute([&](cpu::CpuIo&) {
    driver_->request_exit(33);
    driver_->request_exit(35);
    driver_->request_power_off();
  });
  EXPECT_EQ(driver_->wait().exit_status(), 33);
}

TEST_F(StateDriverTest, DebugExitKeepsTheFirstStatusWhileTheVmIsBeingEnded) {
  make();
  start();
  driver_->request_exit(33);
  while (!driver_->ended()) driver_->request_exit(35);
  EXPECT_EQ(driver_->wait().exit_status(), 33);
}

TEST_F(StateDriverTest, ShutDownPressesTheButtonAndThenStops) {
  make();
  start();
  driver_->shut_down();
  EXPECT_TRUE(driver_->call_at_rest([] {}));
  EXPECT_EQ(board_.presses, 1);
  driver_->shut_down();
  EXPECT_EQ(driver_->wait().kind, Kind::kStopped);
}

TEST_F(StateDriverTest, ADebugStopHoldsAllAndTellsWhichVcpu) {
  make();
  std::atomic<int> stopped = -1;
  driver_->set_debug_listener([&](uint32_t index) {
    EXPECT_TRUE(board_.paused);
    stopped = static_cast<int>(index);
  });
  start();
  vcpus_[1]->stop_with(cpu::StopReason::kDebug);
  while (stopped < 0) std::this_thread::yield();
  EXPECT_EQ(stopped, 1);
  EXPECT_FALSE(vcpus_[0]->is_running());
  const int runs = vcpus_[0]->run_count();
  driver_->release_one(1);
  EXPECT_TRUE(vcpus_[1]->wait_until_running());
  driver_->hold(Holder::kDebugger);
  EXPECT_EQ(vcpus_[0]->run_count(), runs);
  driver_->release(Holder::kDebugger);
  EXPECT_TRUE(vcpus_[0]->wait_until_running());
}

TEST_F(StateDriverTest, EndsCleanlyInWhateverStateItIsDestroyed) {
  make();
  driver_.reset();
  vcpus_.clear();
  make();
  start();
  driver_.reset();
  for (auto& vcpu : vcpus_) EXPECT_FALSE(vcpu->is_running());
}

TEST_F(StateDriverTest, RequestsFromManyThreadsAtOnceLeaveAConsistentState) {
  make({}, 4);
  start();
  {
    std::vector<Thread> threads;
    threads.emplace_back("user", [&] {
      for (int i = 0; i < 200; ++i) {
        driver_->hold(Holder::kUser);
        EXPECT_TRUE(board_.paused);
        driver_->release(Holder::kUser);
      }
    });
    threads.emplace_back("debugger", [&] {
      for (int i = 0; i < 200; ++i) {
        driver_->hold(Holder::kDebugger);
        driver_->release_one(static_cast<uint32_t>(i % 4));
        driver_->release(Holder::kDebugger);
      }
    });
    threads.emplace_back("guest", [&] {
      for (int i = 0; i < 200; ++i) {
        driver_->request_reset();
        driver_->press_power_button();
      }
    });
    threads.emplace_back("caller", [&] {
      for (int i = 0; i < 200; ++i) {
        EXPECT_TRUE(driver_->call_at_rest([&] {
          for (auto& vcpu : vcpus_) EXPECT_FALSE(vcpu->is_running());
        }));
      }
    });
  }
  for (auto& vcpu : vcpus_) EXPECT_TRUE(vcpu->wait_until_running());
  driver_->request_power_off();
  EXPECT_EQ(driver_->wait().kind, Kind::kPowerOff);
}

}  // namespace
}  // namespace bulkhead::vmm
