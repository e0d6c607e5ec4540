#include "instructions/interpreter.h"

#include <algorithm>
#include <cstring>

#include "engine/interpreter/integer/select_handler.h"

namespace bulkhead::instructions {
namespace {

constexpr uint64_t kPageTables = 0x1'0000;
constexpr std::array<uint64_t, 2> kScratchPages = {0x20'0000, 0x30'0000};
constexpr uint64_t kUserPage = 0x67;  // present, writable, user, accessed, dirty

}  // namespace

Result<std::unique_ptr<Interpreter>> Interpreter::create(const cpu::FeatureSet& features, uint64_t gs_base) {
  std::unique_ptr<Interpreter> interpreter(new Interpreter);
  TRY(interpreter->set_up(features, gs_base));
  return interpreter;
}

// One table a level serves all: the addresses lie in the first GiB, 2 MiB regions have their own last level.
void Interpreter::map_page(uint64_t linear, uint64_t physical) {
  auto* tables = reinterpret_cast<uint64_t*>(memory_->host_base() + kPageTables);
  const uint64_t region = linear >> 21 & 511;
  const uint64_t last_level = kPageTables + 0x3000 + (region % 64) * 0x1000;
  tables[0] = (kPageTables + 0x1000) | kUserPage;
  tables[512] = (kPageTables + 0x2000) | kUserPage;
  tables[1024 + region] = last_level | kUserPage;
  reinterpret_cast<uint64_t*>(memory_->host_base() + last_level)[linear >> 12 & 511] = physical | kUserPage;
}

Result<> Interpreter::set_up(const cpu::FeatureSet& features, uint64_t gs_base) {
  memory_ = TRY(memory::GuestMemory::create(memory::GuestMemory::kMinimumSize));
  engine_ =
      TRY(engine::Engine::create(*memory_, clock_, random_, {.vcpu_count = 1, .features = features, .leaves = {{}}}));
  vcpu_ = TRY(engine_->create_vcpu(0));
  map_page(kScratchAddress, kScratchPages[0]);
  map_page(kScratchAddress + kPageSize, kScratchPages[1]);

  cpu::State state = cpu::reset_state(0);
  const auto user_segment = [](uint16_t selector, uint32_t attributes) {
    return cpu::Segment{.base = 0, .limit = 0xFFFF'FFFF, .selector = selector, .attributes = attributes};
  };
  state.segments.fill(user_segment(0x2B, 0xC0F3));
  state.segments[cpu::kCs] = user_segment(0x33, 0xA0FB);
  state.segments[cpu::kGs].base = gs_base;
  state.rip = kCodeAddress;
  state.rflags = 0x202;
  state.cr0 = 0x8005'0033;
  state.cr3 = kPageTables;
  state.cr4 = engine::kCr4Pae | engine::kCr4Osfxsr | engine::kCr4Osxmmexcpt | engine::kCr4Osxsave;
  state.efer = engine::kEferLme | engine::kEferLma | engine::kEferNxe | engine::kEferSce;
  state.xcr0 = 7;
  TRY(vcpu_->set_state(state));
  // A vCPU counts as running while its instructions do: for LOCKed accesses that cross a page.
  engine_->enter(static_cast<engine::SoftVcpu&>(*vcpu_).cpu());
  return {};
}

Interpreter::~Interpreter() {
  if (vcpu_ != nullptr) engine_->leave(static_cast<engine::SoftVcpu&>(*vcpu_).cpu());
}

uint8_t* Interpreter::at(size_t offset) const {
  return memory_->host_base() + kScratchPages[offset / kPageSize] + offset % kPageSize;
}

void Interpreter::write_scratch(size_t offset, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min<size_t>(bytes.size(), kPageSize - offset % kPageSize);
    std::memcpy(at(offset), bytes.data(), count);
    offset += count;
    bytes = bytes.subspan(count);
  }
}

std::optional<size_t> Interpreter::find_difference(size_t offset, std::span<const uint8_t> expected) const {
  while (!expected.empty()) {
    const size_t count = std::min<size_t>(expected.size(), kPageSize - offset % kPageSize);
    if (std::memcmp(at(offset), expected.data(), count) != 0) {
      size_t i = 0;
      while (at(offset)[i] == expected[i]) ++i;
      return offset + i;
    }
    offset += count;
    expected = expected.subspan(count);
  }
  return std::nullopt;
}

uint8_t Interpreter::scratch_byte(size_t offset) const {
  return *at(offset);
}

Outcome Interpreter::run(const engine::decoder::Instruction& instruction, Registers& registers) {
  engine::Cpu& cpu = static_cast<engine::SoftVcpu&>(*vcpu_).cpu();
  constexpr uint64_t kDirection = engine::kFlagDirection;
  cpu.gpr = registers.gpr;
  cpu.flags.from_rflags(registers.rflags);
  cpu.system_flags = static_cast<uint32_t>((cpu.system_flags & ~kDirection) | (registers.rflags & kDirection));
  std::copy(registers.xsave.begin(), registers.xsave.end(), cpu.xsave.begin());

  engine::Op op{.offset = 0, .end_offset = instruction.length};
  engine::prepare(op, instruction, {.code64 = true, .code32 = false});
  cpu.block_rip = kCodeAddress;
  cpu.rip = kCodeAddress + instruction.length;
  cpu.op = cpu.block_begin = &op;
  cpu.block_end = &op + 1;
  Outcome outcome;
  try {
    op.handler(cpu, op);
  } catch (const engine::GuestFault& fault) {
    outcome = {.faulted = true, .vector = fault.vector, .error_code = fault.error_code, .cr2 = fault.cr2};
    cpu.rip = kCodeAddress;
  }
  cpu.op = nullptr;

  registers.gpr = cpu.gpr;
  registers.rflags = cpu.rflags();
  registers.rip = cpu.rip;
  std::copy_n(cpu.xsave.begin(), registers.xsave.size(), registers.xsave.begin());
  return outcome;
}

}  // namespace bulkhead::instructions
