// For tests: a vCPU in 64-bit mode with 16 MiB of identity-mapped RAM and every vector unit switched on, that runs one
// instruction at a time without a run loop.
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/decoder/decoder.h"
#include "engine/interpreter/integer/select_handler.h"
#include "engine/interpreter/simd/registers.h"
#include "engine/interpreter/simd/state.h"
#include "memory/guest_memory.h"
#include "support/check.h"

namespace bulkhead::engine::simd {

class Guest {
 public:
  static constexpr uint64_t kData = 0x10000;  // a page to read and write; the next page, kAbsent, is not mapped
  static constexpr uint64_t kAbsent = kData + 0x1000;

  Guest()
      : memory_(std::move(memory::GuestMemory::create(memory::GuestMemory::kMinimumSize)).value()),
        cpu_(std::make_unique<Cpu>()) {
    constexpr uint64_t kTables[] = {0x1000, 0x2000, 0x3000, 0x4000};
    put(kTables[0], kTables[1] | 7);
    put(kTables[1], kTables[2] | 7);
    put(kTables[2], kTables[3] | 7);
    for (uint64_t page = 0; page < 512; ++page)
      put(kTables[3] + 8 * page, page << 12 | (page << 12 == kAbsent ? 0 : 7));
    Cpu& cpu = *cpu_;
    cpu.memory = memory_.get();
    cpu.cr0 = kCr0Pe | kCr0Pg | kCr0Ne | kCr0Wp | kCr0Mp;
    cpu.cr3 = kTables[0];
    cpu.cr4 = kCr4Pae | kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Osxsave;
    cpu.efer = kEferLme | kEferLma;
    cpu.xcr0 = 7;
    cpu.segments[cpu::kCs].attributes = 0x209B;
    for (const auto segment : {cpu::kSs, cpu::kDs, cpu::kEs}) cpu.segments[segment].attributes = 0xC093;
    initialise_components(cpu, kStateAll);
    update_mode(cpu);
  }

  Cpu& cpu() { return *cpu_; }
  uint8_t* host(uint64_t address) { return memory_->host_base() + address; }
  template <typename T>
  void put(uint64_t address, T value) {
    std::memcpy(host(address), &value, sizeof value);
  }
  template <typename T>
  T get(uint64_t address) {
    T value;
    std::memcpy(&value, host(address), sizeof value);
    return value;
  }

  // The fault it raised, if any. An encoding that does not decode is #UD.
  std::optional<GuestFault> run(std::span<const uint8_t> bytes) {
    decoder::Instruction instruction;
    if (decoder::decode(bytes, mode_, decoder::DecodeOptions{}, instruction) != decoder::DecodeStatus::kOk) {
      return GuestFault{.vector = kInvalidOpcode};
    }
    return run(instruction);
  }
  // From now on real mode, flat from 0 (unreal segment limits), 16-bit code.
  void enter_real_mode() {
    Cpu& cpu = *cpu_;
    cpu.cr0 = kCr0Ne | kCr0Et;
    cpu.efer = 0;
    for (cpu::Segment& segment : cpu.segments)
      segment = {.base = 0, .limit = 0xFFFFFFFF, .selector = 0, .attributes = 0x93};
    mode_ = decoder::DecodeMode::kReal16;
    cpu.tlb.flush_all();
    update_mode(cpu);
  }
  // From now on 32-bit protected mode, flat, without paging.
  void enter_protected_mode() {
    enter_real_mode();
    Cpu& cpu = *cpu_;
    cpu.cr0 |= kCr0Pe;
    for (cpu::Segment& segment : cpu.segments) segment.attributes = 0xC093;
    cpu.segments[cpu::kCs].attributes = 0xC09B;
    mode_ = decoder::DecodeMode::kProtected32;
    update_mode(cpu);
  }

  std::optional<GuestFault> run(std::initializer_list<uint8_t> bytes) {
    return run(std::span(bytes.begin(), bytes.size()));
  }

  std::optional<GuestFault> run(const decoder::Instruction& instruction) {
    Op op;
    op.end_offset = instruction.length;
    prepare(op, instruction, {.code64 = cpu_->code64()});
    try {
      op.handler(*cpu_, op);
    } catch (const GuestFault& fault) {
      return fault;
    }
    return std::nullopt;
  }

 private:
  decoder::DecodeMode mode_ = decoder::DecodeMode::kLong64;
  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<Cpu> cpu_;
};

}  // namespace bulkhead::engine::simd
