#include "blocks/world.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "cpu/model.h"
#include "instructions/environment.h"
#include "instructions/host_cpu.h"
#include "support/check.h"

namespace bulkhead::blocks {
namespace {

using namespace instructions::environment;

constexpr uint64_t kLowTable = 0xB000, kCodeTable = 0xC000;  // environment.cc
constexpr uint64_t kLarge = 0x80;
constexpr uint64_t kDevicePhysical = 0xFEB0'0000, kOtherPhysical = 0x30'0000;
constexpr uint64_t kPresent = 1, kWritable = 2, kUser = 4, kAccessed = 0x20, kDirty = 0x40;
constexpr uint64_t kAll = kPresent | kWritable | kUser | kAccessed | kDirty;
constexpr uint16_t kExitPort = 0xF4;
constexpr uint64_t kPagesOfTheKernel = 0x40;
constexpr size_t kMaximumAccesses = 4096;

}  // namespace

Result<std::unique_ptr<World>> World::create(engine::EngineOptions options) {
  std::unique_ptr<World> world(new World);
  world->memory_ = TRY(memory::GuestMemory::create(memory::GuestMemory::kMinimumSize));
  options.vcpu_count = 1;
  options.features = engine::Engine::available_features();
  const auto model = TRY(cpu::CpuModel::create("x86-64-v3", options.features));
  options.leaves = {model.leaves(0, {1}, world->clock_.tsc_hz())};
  options.counted = true;
  world->engine_ = TRY(engine::Engine::create(*world->memory_, world->clock_, world->random_, std::move(options)));
  world->vcpu_ = TRY(world->engine_->create_vcpu(0));
  return world;
}

World::~World() = default;

void World::build(std::string_view mode) {
  instructions::environment::build(*memory_, mode);
  const auto put = [this](uint64_t address, auto value) {
    CHECK(memory_->write_object({address}, value), "the world lies in RAM");
  };
  put(kCodeTable + 8, uint64_t{(kHighCodePhysical + kPageSize) | kAll});
  const auto map = [&](uint64_t page, uint64_t entry) { put(kScratchTable + 8 * page, entry); };
  map(kAbsent, 0);
  map(kDevice, kDevicePhysical | kAll);
  map(kReadOnly, kOtherPhysical | (kAll & ~kWritable));
  map(kCodeAlias, kHighCodePhysical | kAll);
  map(kSupervisor, (kOtherPhysical + kPageSize) | (kAll & ~kUser));
  map(kFresh, (kOtherPhysical + 2 * kPageSize) | kPresent | kWritable | kUser);
  put(kDirectory + 8 * (kLargeAddress >> 21), uint64_t{kHighScratchPhysical} | kAll | kLarge);
  put(kDirectory + 8 * (kLargeCodeAddress >> 21), uint64_t{kAll | kLarge});
  // So that SMAP lets the kernel have its stack and tables.
  for (uint64_t page = 0; page < kPagesOfTheKernel && mode == "long64"; ++page) {
    put(kLowTable + 8 * page, page << kPageShift | (kAll & ~kUser));
  }
  // Interrupts, debug exceptions and the system calls come back; all other vectors end the program.
  for (const uint64_t vector : {uint64_t{1}, uint64_t{kInterruptVector}, uint64_t{0x80}}) {
    put(kHandlers + vector * kHandlerSize, uint16_t{0xCF48});  // iretq
  }
  put(kSystemCall, uint32_t{0xF407'0F48});  // sysretq
  for (const uint8_t vector : {kFlushVector, kFlushPageVector}) put(kIdt + 16 * vector + 5, uint8_t{0xEE});
  put(kHandlers + kFlushVector * kHandlerSize, uint64_t{0xCF48'D822'0FD8'200F});  // mov rax, cr3; mov cr3, rax; iretq
  put(kHandlers + kFlushPageVector * kHandlerSize, uint32_t{0x253C'010F});        // invlpg [kScratchAddress]; iretq
  put(kHandlers + kFlushPageVector * kHandlerSize + 4, static_cast<uint32_t>(instructions::kScratchAddress));
  put(kHandlers + kFlushPageVector * kHandlerSize + 8, uint16_t{0xCF48});
}

void World::put(const Program& program) {
  CHECK(memory_->write({kHighCodePhysical + program.start}, program.code), "programs fit their pages");
}

Result<> World::begin(const cpu::State& state, uint64_t seed) {
  accesses_.clear();
  interrupt_ = false;
  vcpu_->set_interrupt_request(false);
  random_ = SeededRandom(seed);
  return vcpu_->set_state(state);
}

cpu::StopReason World::run_to(uint64_t count) {
  vcpu_->stop_at(count);
  return vcpu_->run(*this);
}

cpu::StopReason World::step_to(uint64_t count) {
  cpu::StopReason reason = cpu::StopReason::kCountReached;
  for (uint64_t at = vcpu_->instruction_count(); at < count && reason == cpu::StopReason::kCountReached;) {
    reason = run_to(++at);
  }
  return reason;
}

void World::raise_interrupt() {
  interrupt_ = true;
  vcpu_->set_interrupt_request(true);
}

uint64_t World::translated() const {
  for (const auto& [name, value] : vcpu_->statistics()) {
    if (name == "jit.blocks") return value;
  }
  return 0;
}

std::vector<uint64_t> World::take_written() {
  std::vector<uint64_t> pages;
  memory_->take_dirty([&](uint64_t page) { pages.push_back(page); });
  engine_->restart_dirty_log();
  return pages;
}

void World::note(BoardAccess::Kind kind, uint64_t address, uint32_t size, uint64_t value) {
  if (accesses_.size() < kMaximumAccesses) {
    accesses_.push_back({kind, address, value, vcpu_->instruction_count(), size});
  }
}

// Another value each time, so that an access too many is seen.
void World::read_memory(GuestAddress address, MutableByteSpan out) {
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<uint8_t>((address.value + i) * 7 + accesses_.size() * 31);
  }
  note(BoardAccess::Kind::kReadMemory, address.value, static_cast<uint32_t>(out.size()), 0);
}

void World::write_memory(GuestAddress address, ByteSpan in) {
  const uint64_t value = load_little(in);
  note(BoardAccess::Kind::kWriteMemory, address.value, static_cast<uint32_t>(in.size()), value);
  if (value % 8 == 0) raise_interrupt();
}

uint32_t World::read_port(uint16_t port, unsigned size) {
  note(BoardAccess::Kind::kReadPort, port, size, 0);
  return static_cast<uint32_t>(port * 0x01010101u + accesses_.size());
}

void World::write_port(uint16_t port, unsigned size, uint32_t value) {
  note(BoardAccess::Kind::kWritePort, port, size, value);
  if (port == kExitPort) vcpu_->request_stop();
  if (port == kInterruptPort) raise_interrupt();
}

std::optional<uint8_t> World::acknowledge_interrupt() {
  note(BoardAccess::Kind::kInterrupt, 0, 0, interrupt_ ? 1 : 0);
  vcpu_->set_interrupt_request(false);
  return std::exchange(interrupt_, false) ? std::optional(kInterruptVector) : std::nullopt;
}

std::vector<std::string> compare_states(const cpu::State& expected, const cpu::State& actual) {
  std::vector<std::string> lines;
  const auto check = [&lines](std::string_view name, uint64_t a, uint64_t b) {
    if (a != b) lines.push_back(fmt::format("{}: expected {:x}, got {:x}", name, a, b));
  };
  static constexpr std::array<const char*, 16> kNames = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                                         "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
  for (size_t i = 0; i < 16; ++i) check(kNames[i], expected.gpr[i], actual.gpr[i]);
  check("rip", expected.rip, actual.rip);
  check("rflags", expected.rflags, actual.rflags);
  check("cr0", expected.cr0, actual.cr0);
  check("cr2", expected.cr2, actual.cr2);
  check("cr3", expected.cr3, actual.cr3);
  check("cr4", expected.cr4, actual.cr4);
  check("dr6", expected.dr6, actual.dr6);
  check("dr7", expected.dr7, actual.dr7);
  check("instruction count", expected.instruction_count, actual.instruction_count);
  check("activity", static_cast<uint64_t>(expected.activity), static_cast<uint64_t>(actual.activity));
  check("interrupt shadow", expected.interrupt_shadow, actual.interrupt_shadow);
  for (size_t i = 0; i < expected.segments.size(); ++i) {
    check(fmt::format("segment {} selector", i), expected.segments[i].selector, actual.segments[i].selector);
    check(fmt::format("segment {} base", i), expected.segments[i].base, actual.segments[i].base);
  }
  for (size_t i = 0; i < expected.xsave.size(); i += 8) {
    check(fmt::format("xsave+{}", i), load<uint64_t>(&expected.xsave[i]), load<uint64_t>(&actual.xsave[i]));
  }
  if (lines.empty() && !(expected == actual)) lines.emplace_back("a system register");
  return lines;
}

std::string describe(const BoardAccess& access) {
  static constexpr std::array<const char*, 5> kKinds = {"read memory", "write memory", "read port", "write port",
                                                        "acknowledge interrupt"};
  return fmt::format("{} {:x}, {} bytes, value {:x}, at instruction {}", kKinds[static_cast<size_t>(access.kind)],
                     access.address, access.size, access.value, access.count);
}

}  // namespace bulkhead::blocks
