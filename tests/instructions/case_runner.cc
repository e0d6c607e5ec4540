#include "instructions/case_runner.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include <fmt/format.h>

#include "engine/interpreter/cpu.h"
#include "instructions/environment.h"
#include "instructions/register_names.h"

namespace bulkhead::instructions {

using cpu::StopReason;

namespace {

// As lanes of 32-bit floating-point numbers. Each may be off by 1.5 * 2^-12 of itself (SDM 2, RCPPS and RSQRTPS).
bool are_near(std::span<const uint8_t> want, std::span<const uint8_t> got) {
  constexpr float kApart = 3.0F / (1 << 12);
  for (size_t at = 0; at < want.size(); at += sizeof(float)) {
    float one = 0, other = 0;
    std::memcpy(&one, want.data() + at, sizeof one);
    std::memcpy(&other, got.data() + at, sizeof other);
    const bool is_same = std::memcmp(&one, &other, sizeof one) == 0;
    if (!is_same && !(std::fabs(one - other) <= kApart * std::fabs(one))) return false;
  }
  return true;
}

}  // namespace

// A board with one port: F4 stops the vCPU.
class CaseRunner::Board final : public cpu::CpuIo {
 public:
  explicit Board(cpu::Vcpu& vcpu) : vcpu_(vcpu) {}

  void read_memory(GuestAddress, MutableByteSpan out) override { std::fill(out.begin(), out.end(), 0xFF); }
  void write_memory(GuestAddress, ByteSpan) override {}
  uint32_t read_port(uint16_t, unsigned) override { return ~0u; }
  void write_port(uint16_t port, unsigned, uint32_t) override {
    if (port != 0xF4) return;
    reported_ = true;
    vcpu_.request_stop();
  }
  std::optional<uint8_t> acknowledge_interrupt() override { return std::nullopt; }
  bool interrupt_pending() override { return false; }
  std::optional<uint64_t> read_apic_msr(uint32_t) override { return std::nullopt; }
  bool write_apic_msr(uint32_t, uint64_t) override { return false; }
  uint8_t read_task_priority() override { return task_priority_; }
  void write_task_priority(uint8_t priority) override { task_priority_ = priority; }

  [[nodiscard]] bool take_report() { return std::exchange(reported_, false); }

 private:
  cpu::Vcpu& vcpu_;
  bool reported_ = false;
  uint8_t task_priority_ = 0;
};

// Stops a vCPU that has lost its way.
class CaseRunner::Watchdog {
 public:
  explicit Watchdog(cpu::Vcpu& vcpu) : vcpu_(vcpu), thread_([this] { watch(); }) {}
  ~Watchdog() {
    {
      std::lock_guard lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void begin() { started_.fetch_add(1); }
  void end() { finished_.store(started_.load()); }

 private:
  // A run that goes on through two whole periods is stopped.
  void watch() {
    uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    while (!ends_) {
      changed_.wait_for(lock, std::chrono::seconds(2));
      const uint64_t started = started_.load();
      if (started != finished_.load() && started == seen) vcpu_.request_stop();
      seen = started;
    }
  }

  cpu::Vcpu& vcpu_;
  std::atomic<uint64_t> started_{0}, finished_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ends_ = false;
  std::thread thread_;
};

CaseRunner::CaseRunner(memory::GuestMemory& memory, cpu::Vcpu& vcpu, bool tss_not_busy)
    : memory_(memory),
      vcpu_(vcpu),
      tss_not_busy_(tss_not_busy),
      board_(std::make_unique<Board>(vcpu)),
      watchdog_(std::make_unique<Watchdog>(vcpu)) {}
CaseRunner::~CaseRunner() = default;

namespace {

using environment::kHandlers;
using environment::kHandlerSize;

constexpr uint64_t kReportLength = 2;  // out 0xf4, al

uint64_t linear_rip(const cpu::State& state) {
  return state.segments[cpu::kCs].base + state.rip;
}

Result<> set_register(cpu::State& state, const std::string& name, const std::string& value) {
  const auto bytes = find_register(state, name);
  if (bytes.empty()) return fail("'{}': no such register", name);
  if (!from_hex(value, bytes)) return fail("{}={}: not a number in hexadecimal of {} bytes", name, value, bytes.size());
  return {};
}

// What the handler found on its stack.
struct Frame {
  std::optional<uint32_t> error_code;
  uint64_t rip = 0, rflags = 0, rsp = 0;
  uint16_t cs = 0, ss = 0;
};

class StackReader {
 public:
  StackReader(const memory::GuestMemory& memory, uint64_t address, unsigned size)
      : memory_(memory), address_(address), size_(size) {}
  uint64_t next() {
    std::array<uint8_t, 8> bytes{};
    (void)memory_.read({environment::physical_of(address_)}, MutableByteSpan(bytes).first(size_));
    address_ += size_;
    uint64_t value = 0;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  [[nodiscard]] uint64_t address() const { return address_; }

 private:
  const memory::GuestMemory& memory_;
  uint64_t address_;
  unsigned size_;
};

bool pushes_error_code(uint8_t vector) {
  return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

Frame read_frame(const memory::GuestMemory& memory, const cpu::State& state, uint8_t vector, bool software) {
  const bool long_mode = (state.efer & engine::kEferLma) != 0;
  const bool real = (state.cr0 & engine::kCr0Pe) == 0;
  const unsigned size = long_mode ? 8 : real ? 2 : 4;
  const uint64_t rsp = real ? state.gpr[cpu::kRsp] & 0xFFFF : state.gpr[cpu::kRsp];
  StackReader stack(memory, (long_mode ? 0 : state.segments[cpu::kSs].base) + rsp, size);
  const uint64_t begin = stack.address();
  Frame frame;
  if (!real && !software && pushes_error_code(vector)) frame.error_code = static_cast<uint32_t>(stack.next());
  frame.rip = stack.next();
  frame.cs = static_cast<uint16_t>(stack.next());
  frame.rflags = stack.next();
  const bool from_v86 = !long_mode && !real && (frame.rflags & engine::kFlagVirtual8086) != 0;
  const bool changes_stack =
      long_mode || from_v86 || (!real && (frame.cs & 3) > (state.segments[cpu::kCs].selector & 3));
  if (changes_stack) {
    frame.rsp = stack.next();
    frame.ss = static_cast<uint16_t>(stack.next());
  } else {
    frame.rsp = state.gpr[cpu::kRsp] + (stack.address() - begin);
    frame.ss = state.segments[cpu::kSs].selector;
  }
  return frame;
}

}  // namespace

// Memory and registers of the case.
Result<cpu::State> CaseRunner::prepare(const Case& test) {
  cpu::State state = TRY(environment::initial_state(test.mode));
  environment::build(memory_, test.mode);
  for (const auto& [name, value] : test.in) TRY(set_register(state, name, value));
  const uint64_t code = linear_rip(state);
  const auto put = [&](uint64_t linear, ByteSpan bytes) -> Result<> {
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (!memory_.write({environment::physical_of(linear + i)}, bytes.subspan(i, 1)))
        return fail("{:x}: not RAM", linear + i);
    }
    return {};
  };
  constexpr std::array<uint8_t, 3> kReport = {0xE6, 0xF4, 0xF4};
  TRY(put(code, test.code));
  TRY(put(code + test.code.size(), kReport));
  TRY(put(code + 0x80, kReport));
  for (const MemoryBytes& memory : test.memory_in) TRY(put(memory.address, memory.bytes));
  return state;
}

Result<cpu::State> CaseRunner::expected_state(const Case& test, const cpu::State& before) const {
  cpu::State expected = before;
  if (!test.fault) expected.rip += test.code.size();
  for (const auto& [name, value] : test.out) TRY(set_register(expected, name, value));
  return expected;
}

void CaseRunner::compare_memory(const Case& test, std::vector<std::string>& differences) {
  for (const MemoryBytes& memory : test.memory_out) {
    for (size_t i = 0; i < memory.bytes.size(); ++i) {
      uint8_t byte = 0;
      (void)memory_.read({environment::physical_of(memory.address + i)}, MutableByteSpan(&byte, 1));
      if (byte == memory.bytes[i]) continue;
      differences.push_back(
          fmt::format("memory at {:x}: expected {:02x}, got {:02x}", memory.address + i, memory.bytes[i], byte));
      break;
    }
  }
}

Result<std::vector<std::string>> CaseRunner::run(const Case& test) {
  cpu::State before = TRY_IN(test.where, prepare(test));
  cpu::State expected = TRY_IN(test.where, expected_state(test, before));
  if (constexpr uint16_t kBusy = 2; tss_not_busy_) before.tr.attributes &= static_cast<uint16_t>(~kBusy);
  TRY_IN(test.where, vcpu_.set_state(before));
  watchdog_->begin();
  const StopReason reason = vcpu_.run(*board_);
  watchdog_->end();
  const bool reported = board_->take_report();

  std::vector<std::string> differences;
  if (reason == StopReason::kShutdown && test.shuts_down) return differences;
  if (!reported || test.shuts_down) {
    differences.push_back(reason == StopReason::kShutdown ? "shut down"
                          : test.shuts_down               ? "did not shut down"
                                                          : "never came to its end");
    return differences;
  }
  cpu::State after = vcpu_.get_state();
  after.rip -= kReportLength;

  const uint64_t stopped_at = linear_rip(after);
  const bool in_handler = stopped_at >= kHandlers && stopped_at < kHandlers + 256 * kHandlerSize;
  const auto vector = static_cast<uint8_t>((stopped_at - kHandlers) / kHandlerSize);
  if (in_handler) {
    const bool software = test.fault && !test.fault->error_code;
    const Frame frame = read_frame(memory_, after, vector, software);
    const std::string error = frame.error_code ? fmt::format("({:x})", *frame.error_code) : "";
    if (!test.fault) {
      differences.push_back(fmt::format("{} vector {:x}{} at {:x}", exception_name(vector), vector, error, frame.rip));
      return differences;
    }
    if (vector != test.fault->vector || frame.error_code != test.fault->error_code) {
      differences.push_back(fmt::format("expected {} vector {:x}, got {} vector {:x}{}",
                                        exception_name(test.fault->vector), test.fault->vector, exception_name(vector),
                                        vector, error));
    }
    // The interrupted state, as far as the frame holds it.
    after.rip = frame.rip;
    after.rflags = frame.rflags;
    after.gpr[cpu::kRsp] = frame.rsp;
    after.segments[cpu::kCs] = expected.segments[cpu::kCs];
    after.segments[cpu::kSs] = expected.segments[cpu::kSs];
    after.segments[cpu::kCs].selector = frame.cs;
    after.segments[cpu::kSs].selector = frame.ss;
    if ((frame.rflags & engine::kFlagVirtual8086) != 0) {
      for (const auto segment : {cpu::kEs, cpu::kDs, cpu::kFs, cpu::kGs})
        after.segments[segment] = expected.segments[segment];
    }
  } else if (test.fault) {
    differences.push_back(fmt::format("expected {} vector {:x}, but no exception came",
                                      exception_name(test.fault->vector), test.fault->vector));
  }

  // RF in a frame is told by cases that care.
  const bool names_rflags =
      std::any_of(test.out.begin(), test.out.end(), [](const auto& value) { return value.first == "rflags"; });
  uint64_t ignored_flags = test.ignored_flags;
  if (!names_rflags) ignored_flags |= engine::kFlagResume;
  expected.rflags &= ~ignored_flags;
  after.rflags &= ~ignored_flags;
  std::vector<std::string> names = compared_registers();
  for (const auto& [name, value] : test.out) {
    if (name.ends_with(".attr")) names.push_back(name);
  }
  for (const std::string& name : names) {
    if (std::find(test.ignored.begin(), test.ignored.end(), name) != test.ignored.end()) continue;
    const auto want = find_register(expected, name);
    const auto got = find_register(after, name);
    const bool is_approximate = std::ranges::find(test.approximate, name) != test.approximate.end();
    if (!(is_approximate ? are_near(want, got) : std::ranges::equal(want, got))) {
      differences.push_back(fmt::format("{}: expected {}, got {}", name, to_hex(want), to_hex(got)));
    }
  }
  compare_memory(test, differences);
  return differences;
}

}  // namespace bulkhead::instructions
