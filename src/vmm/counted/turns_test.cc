#include "vmm/counted/turns.h"

#include <functional>
#include <map>
#include <vector>

#include <gtest/gtest.h>

namespace bulkhead::vmm {
namespace {

using cpu::StopReason;

// Retires one instruction after the other; at some counts it does what the test says.
class ScriptedVcpu final : public cpu::CountedVcpu {
 public:
  StopReason run(cpu::CpuIo& io) override {
    ++runs;
    for (;;) {
      if (std::exchange(stop_, false)) return StopReason::kRequested;
      if (count_ >= limit_) return StopReason::kCountReached;
      if (halted && !interrupt_) return StopReason::kHalted;
      halted = interrupt_ = false;
      if (const auto found = script.find(count_); found != script.end()) found->second(io);
      ++count_;
      ran.push_back(total != nullptr ? (*total)++ : 0);
    }
  }
  void request_stop() override { stop_ = true; }
  void set_interrupt_request(bool asserted) override { interrupt_ = asserted; }
  void raise_nmi() override {}
  void raise_init() override {}
  void raise_sipi(uint8_t) override {}
  cpu::State get_state() override { return {}; }
  Result<> set_state(const cpu::State&) override { return {}; }
  Result<> set_debug(const cpu::DebugRequest&) override { return {}; }
  std::optional<GuestAddress> translate(uint64_t) override { return std::nullopt; }
  [[nodiscard]] cpu::Statistics statistics() const override { return {}; }
  [[nodiscard]] std::string error() const override { return {}; }
  [[nodiscard]] uint64_t instruction_count() const override { return count_; }
  void stop_at(uint64_t count) override { limit_ = count; }

  std::map<uint64_t, std::function<void(cpu::CpuIo&)>> script;
  bool halted = false;
  unsigned runs = 0;
  uint64_t* total = nullptr;
  std::vector<uint64_t> ran;  // when, in instructions of all

 private:
  uint64_t count_ = 0, limit_ = 0;
  bool stop_ = false, interrupt_ = false;
};

class NoBoard final : public cpu::CpuIo {
 public:
  void read_memory(GuestAddress, MutableByteSpan) override {}
  void write_memory(GuestAddress, ByteSpan) override {}
  uint32_t read_port(uint16_t, unsigned) override { return 0; }
  void write_port(uint16_t, unsigned, uint32_t) override {}
  std::optional<uint8_t> acknowledge_interrupt() override { return std::nullopt; }
  bool interrupt_pending() override { return false; }
  std::optional<uint64_t> read_apic_msr(uint32_t) override { return 0; }
  bool write_apic_msr(uint32_t, uint64_t) override { return true; }
  uint8_t read_task_priority() override { return 0; }
  void write_task_priority(uint8_t) override {}
};

struct TurnsTest : ::testing::Test {
  void SetUp() override {
    for (auto& vcpu : vcpus) vcpu.total = &total;
  }
  std::array<ScriptedVcpu, 2> vcpus;
  uint64_t total = 0;
  unsigned device_work = 0;
  NoBoard board;
  CountedClock clock;
  Turns turns{{{vcpus[0], board}, {vcpus[1], board}}, clock, [this] { ++device_work; }};
};

TEST_F(TurnsTest, GivesEachItsTurn) {
  EXPECT_EQ(turns.run_until(3 * Turns::kTurnLength), StopReason::kCountReached);
  EXPECT_EQ(vcpus[0].instruction_count(), 2 * Turns::kTurnLength);
  EXPECT_EQ(vcpus[1].instruction_count(), Turns::kTurnLength);
  EXPECT_EQ(vcpus[1].ran.front(), Turns::kTurnLength);
  EXPECT_EQ(clock.now_ns(), 3 * Turns::kTurnLength);
}

TEST_F(TurnsTest, OneThatIsAloneRunsOnToTheNextTimer) {
  Turns alone{{{vcpus[0], board}}, clock, [] {}};
  const auto timer = clock.make_timer("t", [] {});
  timer->arm(2 * Turns::kTurnLength);
  EXPECT_EQ(alone.run_until(3 * Turns::kTurnLength), StopReason::kCountReached);
  EXPECT_EQ(vcpus[0].runs, 2u);
  EXPECT_EQ(vcpus[0].instruction_count(), 3 * Turns::kTurnLength);
}

TEST_F(TurnsTest, IsTheSameWhereverItIsInterrupted) {
  for (uint64_t end = 7; end < 3 * Turns::kTurnLength; end += 4999) {
    turns.request_stop();
    EXPECT_EQ(turns.run_until(end), StopReason::kRequested);
    EXPECT_EQ(turns.run_until(end), StopReason::kCountReached);
  }
  turns.run_until(3 * Turns::kTurnLength);
  EXPECT_EQ(vcpus[0].instruction_count(), 2 * Turns::kTurnLength);
  EXPECT_EQ(vcpus[0].ran[Turns::kTurnLength], 2 * Turns::kTurnLength);
}

TEST_F(TurnsTest, EndsEarlierWhenAskedFromWithinAndGoesOnAsIfItHadNot) {
  vcpus[0].script[100] = [&](cpu::CpuIo&) { turns.end_after(7); };
  EXPECT_EQ(turns.run_until(2 * Turns::kTurnLength), StopReason::kCountReached);
  EXPECT_EQ(clock.now_ns(), 107u);
  EXPECT_EQ(turns.run_until(2 * Turns::kTurnLength), StopReason::kCountReached);
  EXPECT_EQ(vcpus[0].instruction_count(), Turns::kTurnLength);
  EXPECT_EQ(vcpus[1].instruction_count(), Turns::kTurnLength);
}

TEST_F(TurnsTest, FiresATimerAtItsExactCount) {
  std::vector<uint64_t> fired;
  const auto timer = clock.make_timer("t", [&] { fired.push_back(total); });
  vcpus[0].script[100] = [&](cpu::CpuIo&) { timer->arm(clock.now_ns() + 23); };
  turns.run_until(1000);
  EXPECT_EQ(fired, std::vector<uint64_t>{123});
}

TEST_F(TurnsTest, SkipsToTheNextTimerWhenAllWait) {
  vcpus[0].halted = vcpus[1].halted = true;
  const auto timer = clock.make_timer("t", [&] { vcpus[1].set_interrupt_request(true); });
  timer->arm(1'000'000);
  turns.run_until(1'000'010);
  EXPECT_EQ(vcpus[0].instruction_count(), 0u);
  EXPECT_EQ(vcpus[1].instruction_count(), 10u);
}

TEST_F(TurnsTest, RunsNothingMoreOnceFrozen) {
  vcpus[0].script[50] = [&](cpu::CpuIo&) { turns.freeze(); };
  EXPECT_EQ(turns.run_until(1000), StopReason::kRequested);
  EXPECT_TRUE(turns.frozen());
  EXPECT_EQ(total, 51u);
  EXPECT_EQ(turns.run_until(1000), StopReason::kRequested);
  EXPECT_EQ(total, 51u);
  turns.thaw();
  EXPECT_EQ(turns.run_until(1000), StopReason::kCountReached);
  EXPECT_EQ(total, 1000u);
}

TEST_F(TurnsTest, DoesTheDevicesWorkInTheAccessThatAsksForIt) {
  vcpus[0].script[5] = [&](cpu::CpuIo& io) {
    const unsigned before = device_work;
    io.write_memory({0xFEB0'0000}, {});
    EXPECT_EQ(device_work, before + 1);
    io.write_port(0x80, 1, 0);
    EXPECT_EQ(device_work, before + 2);
  };
  turns.run_until(10);
}

}  // namespace
}  // namespace bulkhead::vmm
