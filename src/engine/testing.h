// A small machine for the engine's tests: RAM, one or more vCPUs, a board that records what the guest does, and states
// to start from. Guests are bytes; port kExitPort stops the vCPU that writes to it.
#pragma once

#include <cstring>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "cpu/model.h"
#include "engine/engine.h"
#include "memory/guest_memory.h"
#include "support/check.h"
#include "support/random.h"
#include "support/time/fake_clock.h"

namespace bulkhead::engine::testing {

inline constexpr uint16_t kExitPort = 0xF4;

class FakeBoard final : public cpu::CpuIo {
 public:
  void read_memory(GuestAddress address, MutableByteSpan out) override {
    reads.push_back(address.value);
    std::memset(out.data(), 0xA5, out.size());
  }
  void write_memory(GuestAddress address, ByteSpan in) override { writes.emplace_back(address.value, load_little(in)); }
  uint32_t read_port(uint16_t port, unsigned) override { return port_values.contains(port) ? port_values[port] : ~0u; }
  void write_port(uint16_t port, unsigned, uint32_t value) override {
    if (port == kExitPort) {
      exit_value = value;
      vcpu->request_stop();
    } else {
      port_writes.emplace_back(port, value);
      if (on_port_write) on_port_write(port, value);
    }
  }
  std::optional<uint8_t> acknowledge_interrupt() override {
    if (!interrupt) return std::nullopt;
    vcpu->set_interrupt_request(false);
    return std::exchange(interrupt, std::nullopt);
  }
  bool interrupt_pending() override { return interrupt.has_value(); }
  std::optional<uint64_t> read_apic_msr(uint32_t) override { return 0; }
  bool write_apic_msr(uint32_t, uint64_t) override { return true; }
  uint8_t read_task_priority() override { return task_priority; }
  void write_task_priority(uint8_t priority) override { task_priority = priority; }

  cpu::Vcpu* vcpu = nullptr;
  std::optional<uint32_t> exit_value;
  std::optional<uint8_t> interrupt;
  uint8_t task_priority = 0;
  std::vector<uint64_t> reads;
  std::vector<std::pair<uint64_t, uint64_t>> writes;
  std::vector<std::pair<uint16_t, uint32_t>> port_writes;
  std::map<uint16_t, uint32_t> port_values;
  std::function<void(uint16_t, uint32_t)> on_port_write;
};

// Where the tables of the ready-made states are. Code goes to kCode, the stack grows down from kStack.
inline constexpr uint64_t kGdt = 0x1000, kIdt = 0x2000, kTss = 0x3000, kPageTables = 0x10000, kCode = 0x8000,
                          kStack = 0x7000, kUserStack = 0x6000, kHandlers = 0x9000;
inline constexpr uint16_t kCode64 = 0x08, kData = 0x10, kUserData = 0x20, kUserCode64 = 0x28, kCode32 = 0x30,
                          kTssSelector = 0x40;

class Machine {
 public:
  // options: what is not said by the other arguments and the model.
  explicit Machine(uint32_t vcpu_count = 1, EngineOptions options = {}) {
    options.vcpu_count = vcpu_count;
    options.features = Engine::available_features();
    const auto model = cpu::CpuModel::create("x86-64-v2", options.features);
    if (model) {
      for (uint32_t i = 0; i < vcpu_count; ++i)
        options.leaves.push_back(model->leaves(i, {vcpu_count}, clock.tsc_hz()));
    }
    memory = memory::GuestMemory::create(16ull << 20).value();
    engine = Engine::create(*memory, clock, random, std::move(options)).value();
    for (uint32_t i = 0; i < vcpu_count; ++i) {
      vcpus.push_back(engine->create_vcpu(i).value());
      boards.push_back(std::make_unique<FakeBoard>());
      boards.back()->vcpu = vcpus.back().get();
    }
  }

  void put(uint64_t address, std::initializer_list<int> bytes) {
    for (const int byte : bytes) put_object<uint8_t>(address++, static_cast<uint8_t>(byte));
  }
  template <typename T>
  void put_object(uint64_t address, const T& object) {
    CHECK(memory->write_object({address}, object), "a test writes to RAM only");
  }
  template <typename T>
  [[nodiscard]] T get(uint64_t address) const {
    return memory->read_object<T>({address}).value();
  }
  cpu::StopReason run(uint32_t index = 0) { return vcpus[index]->run(*boards[index]); }
  [[nodiscard]] cpu::State state(uint32_t index = 0) { return vcpus[index]->get_state(); }
  void set(const cpu::State& state, uint32_t index = 0) {
    CHECK(vcpus[index]->set_state(state).has_value(), "a test sets a state that a processor can hold");
  }
  FakeBoard& board(uint32_t index = 0) { return *boards[index]; }

  // Identity map of the first 16 MiB by 4 KiB pages for everybody, a GDT, a TSS, an IDT whose entries all lead to
  // kHandlers + 16 n.
  cpu::State long_mode() {
    const uint64_t pml4 = kPageTables, pdpt = pml4 + 0x1000, directory = pdpt + 0x1000, tables = directory + 0x1000;
    put_object<uint64_t>(pml4, pdpt | 7);
    put_object<uint64_t>(pdpt, directory | 7);
    for (uint64_t i = 0; i < 8; ++i) put_object<uint64_t>(directory + i * 8, (tables + i * 0x1000) | 7);
    for (uint64_t i = 0; i < 4096; ++i) put_object<uint64_t>(tables + i * 8, i << 12 | 7);
    put_tables();
    for (uint64_t i = 0; i < 256; ++i) {
      put_object<uint64_t>(kIdt + i * 16, gate(kCode64, kHandlers + i * 16, 14, 3));
      put_object<uint64_t>(kIdt + i * 16 + 8, uint64_t{0});
    }
    put_object<uint64_t>(kTss + 4, kStack);  // RSP0
    cpu::State state = cpu::reset_state(0);
    state.cr0 = 0x80010033;
    state.cr3 = pml4;
    state.cr4 = 0x6A0;  // PAE, PGE, OSFXSR, OSXMMEXCPT
    state.efer = 0xD01;
    state.gdtr = {kGdt, 0xFF};
    state.idtr = {kIdt, 0xFFF};
    state.tr = {.base = kTss, .limit = 0x67, .selector = kTssSelector, .attributes = 0x8B};
    state.ldtr = {.base = 0, .limit = 0, .selector = 0, .attributes = cpu::Segment::kUnusable};
    for (auto& segment : state.segments) segment = {.base = 0, .limit = ~0u, .selector = kData, .attributes = 0xC093};
    state.segments[cpu::kCs] = {.base = 0, .limit = ~0u, .selector = kCode64, .attributes = 0xA09B};
    state.rip = kCode;
    state.gpr[cpu::kRsp] = kStack;
    return state;
  }
  // The same, to start at CPL 3.
  cpu::State user_mode() {
    cpu::State state = long_mode();
    for (auto& segment : state.segments)
      segment = {.base = 0, .limit = ~0u, .selector = kUserData | 3, .attributes = 0xC0F3};
    state.segments[cpu::kCs] = {.base = 0, .limit = ~0u, .selector = kUserCode64 | 3, .attributes = 0xA0FB};
    state.gpr[cpu::kRsp] = kUserStack;
    return state;
  }
  cpu::State protected_mode() {
    put_tables();
    for (uint64_t i = 0; i < 256; ++i) put_object<uint64_t>(kIdt + i * 8, gate(kCode32, kHandlers + i * 16, 14, 3));
    put_object<uint32_t>(kTss + 4, uint32_t{kStack});
    put_object<uint16_t>(kTss + 8, kData);
    cpu::State state = cpu::reset_state(0);
    state.cr0 = 0x33;
    state.gdtr = {kGdt, 0xFF};
    state.idtr = {kIdt, 0x7FF};
    state.tr = {.base = kTss, .limit = 0x67, .selector = kTssSelector, .attributes = 0x8B};
    for (auto& segment : state.segments) segment = {.base = 0, .limit = ~0u, .selector = kData, .attributes = 0xC093};
    state.segments[cpu::kCs] = {.base = 0, .limit = ~0u, .selector = kCode32, .attributes = 0xC09B};
    state.rip = kCode;
    state.gpr[cpu::kRsp] = kStack;
    return state;
  }
  cpu::State real_mode() {
    cpu::State state = cpu::reset_state(0);
    state.segments[cpu::kCs].base = 0;
    state.segments[cpu::kCs].selector = 0;
    state.rip = kCode;
    state.gpr[cpu::kRsp] = kStack;
    return state;
  }
  // Page-table entry of a 4 KiB page of the identity map.
  static uint64_t pte_address(uint64_t page) { return kPageTables + 0x3000 + (page >> 12) * 8; }
  static uint64_t gate(uint16_t selector, uint64_t offset, unsigned type, unsigned dpl) {
    return (offset & 0xFFFF) | uint64_t{selector} << 16 | uint64_t{0x80 | dpl << 5 | type} << 40 |
           (offset >> 16 & 0xFFFF) << 48;
  }
  static uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags) {
    return (limit & 0xFFFF) | uint64_t{base & 0xFFFFFF} << 16 | uint64_t{access} << 40 |
           uint64_t{limit >> 16 & 15} << 48 | uint64_t{flags} << 52 | uint64_t{base >> 24} << 56;
  }

  FakeClock clock;
  SeededRandom random{1};
  std::unique_ptr<memory::GuestMemory> memory;
  std::unique_ptr<Engine> engine;
  std::vector<std::unique_ptr<FakeBoard>> boards;
  std::vector<std::unique_ptr<cpu::CountedVcpu>> vcpus;

 private:
  void put_tables() {
    put_object<uint64_t>(kGdt + kCode64, descriptor(0, 0xFFFFF, 0x9B, 0xA));
    put_object<uint64_t>(kGdt + kData, descriptor(0, 0xFFFFF, 0x93, 0xC));
    put_object<uint64_t>(kGdt + 0x18, descriptor(0, 0xFFFFF, 0xFB, 0xC));
    put_object<uint64_t>(kGdt + kUserData, descriptor(0, 0xFFFFF, 0xF3, 0xC));
    put_object<uint64_t>(kGdt + kUserCode64, descriptor(0, 0xFFFFF, 0xFB, 0xA));
    put_object<uint64_t>(kGdt + kCode32, descriptor(0, 0xFFFFF, 0x9B, 0xC));
    put_object<uint64_t>(kGdt + kTssSelector, descriptor(kTss, 0x67, 0x8B, 0));
  }
};

}  // namespace bulkhead::engine::testing
