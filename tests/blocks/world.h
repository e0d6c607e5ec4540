// One small machine on which a program of blocks runs under one engine, and the comparison of two of them: every
// register, all that was asked of the board and when, and every page that either has written.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "blocks/program.h"
#include "cpu/vcpu.h"
#include "engine/engine.h"
#include "instructions/environment.h"
#include "memory/guest_memory.h"
#include "support/random.h"
#include "support/time/fake_clock.h"

namespace bulkhead::blocks {

// What the program asked of the board, with the instruction count at which it did.
struct BoardAccess {
  enum class Kind : uint8_t { kReadMemory, kWriteMemory, kReadPort, kWritePort, kInterrupt } kind;
  uint64_t address = 0, value = 0, count = 0;
  uint32_t size = 0;
  friend bool operator==(const BoardAccess&, const BoardAccess&) = default;
};

class World final : private cpu::CpuIo {
 public:
  static constexpr uint64_t kImageSize = 4ull << 20;  // all that a program can reach without trying
  static constexpr uint8_t kInterruptVector = 0x21;
  // Where SYSCALL leads: a SYSRET, in the place of a vector that nobody uses.
  static constexpr uint64_t kSystemCall =
      instructions::environment::kHandlers + 0x30 * instructions::environment::kHandlerSize;

  static Result<std::unique_ptr<World>> create(engine::EngineOptions options);
  ~World() override;

  // Tables, handlers and the pages of program.h.
  void build(std::string_view mode);
  void put(const Program& program);
  Result<> begin(const cpu::State& state, uint64_t seed);
  // Runs to this instruction count or until the program ends.
  cpu::StopReason run_to(uint64_t count);
  // The same, stopped at every instruction: no block runs as a whole.
  cpu::StopReason step_to(uint64_t count);
  void raise_interrupt();

  [[nodiscard]] cpu::State state() { return vcpu_->get_state(); }
  // Blocks that the engine has translated.
  [[nodiscard]] uint64_t translated() const;
  Result<> set_state(const cpu::State& state) { return vcpu_->set_state(state); }
  [[nodiscard]] memory::GuestMemory& memory() { return *memory_; }
  [[nodiscard]] const std::vector<BoardAccess>& accesses() const { return accesses_; }
  [[nodiscard]] const engine::decoder::DecodeOptions& decode_options() const { return engine_->decode_options(); }
  // Numbers of the pages written since the last time.
  [[nodiscard]] std::vector<uint64_t> take_written();

 private:
  World() = default;
  void note(BoardAccess::Kind kind, uint64_t address, uint32_t size, uint64_t value);

  void read_memory(GuestAddress address, MutableByteSpan out) override;
  void write_memory(GuestAddress address, ByteSpan in) override;
  uint32_t read_port(uint16_t port, unsigned size) override;
  void write_port(uint16_t port, unsigned size, uint32_t value) override;
  std::optional<uint8_t> acknowledge_interrupt() override;
  bool interrupt_pending() override { return interrupt_; }
  std::optional<uint64_t> read_apic_msr(uint32_t) override { return 0; }
  bool write_apic_msr(uint32_t, uint64_t) override { return true; }
  uint8_t read_task_priority() override { return 0; }
  void write_task_priority(uint8_t) override {}

  FakeClock clock_;
  SeededRandom random_{1};
  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<cpu::CountedVcpu> vcpu_;
  std::vector<BoardAccess> accesses_;
  bool interrupt_ = false;
};

// One line a difference of two states.
std::vector<std::string> compare_states(const cpu::State& expected, const cpu::State& actual);
std::string describe(const BoardAccess& access);

}  // namespace bulkhead::blocks
