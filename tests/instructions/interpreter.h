// The software engine's interpreter as the counterpart of HostCpu: one instruction in 64-bit user mode, its scratch
// pages at the same linear addresses, no run loop and no devices.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "cpu/cpu_io.h"
#include "engine/engine.h"
#include "engine/soft_vcpu.h"
#include "instructions/host_cpu.h"
#include "instructions/registers.h"
#include "memory/guest_memory.h"
#include "support/random.h"
#include "support/result.h"
#include "support/time/fake_clock.h"

namespace bulkhead::instructions {

class Interpreter {
 public:
  // features: of the CPU model. gs_base as in user mode.
  static Result<std::unique_ptr<Interpreter>> create(const cpu::FeatureSet& features, uint64_t gs_base);
  ~Interpreter();

  // The two scratch pages: apart in guest-physical memory, side by side in linear memory.
  void write_scratch(size_t offset, std::span<const uint8_t> bytes);
  // Offset of the first byte of [offset, offset + expected.size()) that differs, or none.
  [[nodiscard]] std::optional<size_t> find_difference(size_t offset, std::span<const uint8_t> expected) const;
  [[nodiscard]] uint8_t scratch_byte(size_t offset) const;

  // As HostCpu::run(), for an instruction that is decoded already.
  Outcome run(const engine::decoder::Instruction& instruction, Registers& registers);

  [[nodiscard]] const engine::decoder::DecodeOptions& decode_options() const { return engine_->decode_options(); }

 private:
  Interpreter() = default;
  Result<> set_up(const cpu::FeatureSet& features, uint64_t gs_base);
  void map_page(uint64_t linear, uint64_t physical);
  [[nodiscard]] uint8_t* at(size_t offset) const;

  FakeClock clock_;
  SeededRandom random_{1};
  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<cpu::Vcpu> vcpu_;
};

}  // namespace bulkhead::instructions
