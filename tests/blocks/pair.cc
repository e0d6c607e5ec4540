#include "blocks/pair.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "engine/interpreter/cpu.h"
#include "instructions/environment.h"
#include "instructions/host_cpu.h"
#include "instructions/registers.h"
#include "support/check.h"

namespace bulkhead::blocks {
namespace {

namespace environment = instructions::environment;
constexpr uint64_t kImagePages = World::kImageSize / kPageSize;

cpu::State first_state(std::string_view mode, uint64_t start, SeededRandom& random) {
  cpu::State state = environment::initial_state(mode).value();
  const auto chance = [&](unsigned percent) { return random.below(100) < percent; };
  for (unsigned i = 0; i < 16; ++i) {
    if (i == cpu::kRsp && !chance(15)) continue;
    const uint64_t kind = random.below(4);
    state.gpr[i] = kind == 0   ? random.below(256)
                   : kind == 1 ? random.next()
                               : instructions::kScratchAddress + random.below(kScratchPages * kPageSize);
  }
  if (mode.starts_with("compat")) {
    for (uint64_t& value : state.gpr) value &= 0xFFFF'FFFF;
  }
  state.rip += start;
  state.rflags |= random.next() & 0xAD5;                              // arithmetic flags and IF
  if (chance(4)) state.rflags |= 1 << 8;                              // TF
  if (chance(8)) state.rflags |= 1 << 10;                             // DF
  if (mode.ends_with("user") && chance(20)) state.rflags |= 3 << 12;  // IOPL
  state.segments[cpu::kGs].base = instructions::Generator::kGsBase;
  state.msr_star = uint64_t{0x0023'0018} << 32;
  state.msr_lstar = World::kSystemCall;
  state.msr_sfmask = chance(50) ? 0 : random.next() & 0x700;
  state.cr4 |= uint64_t{engine::kCr4De};
  if (mode == "long64" && chance(15)) {
    state.cr4 |= uint64_t{engine::kCr4Smap};
    if (chance(60)) state.rflags |= uint64_t{engine::kFlagAlignmentCheck};
  }
  if (chance(4)) {  // a watchpoint, or a breakpoint somewhere in the code
    const uint64_t kind = random.below(2) * 3, number = random.below(4);
    state.dr[number] = kind == 0 ? instructions::kCodeAddress + start + random.below(64)
                                 : instructions::kScratchAddress + random.below(kScratchPages * kPageSize);
    state.dr7 |= uint64_t{1} << (2 * number) | (kind | (kind == 0 ? 0 : random.below(4) << 2)) << (16 + 4 * number);
  }
  auto field = [&](size_t offset, auto value) { std::memcpy(state.xsave.data() + offset, &value, sizeof value); };
  random.fill(MutableByteSpan(state.xsave).subspan(instructions::kXmmRegisters, 256));
  random.fill(MutableByteSpan(state.xsave).subspan(instructions::kYmmHighHalves, 256));
  // Numbers that arithmetic can go on with.
  for (unsigned i = 0; i < 16; i += 2) {
    const double number = static_cast<double>(static_cast<int64_t>(random.next())) / 65536.0;
    field(instructions::kXmmRegisters + 16 * i, number);
    field(instructions::kXmmRegisters + 16 * i + 8, static_cast<float>(number));
  }
  field(instructions::kMxcsr,
        static_cast<uint32_t>(chance(85) ? 0x1F80 | (random.next() & 0xE040) : random.next() & 0xFFFF));
  field(instructions::kControlWord,
        static_cast<uint16_t>(chance(85) ? 0x37F | (random.next() & 0xC00) : 0x40 | (random.next() & 0xF3F)));
  field(instructions::kXstateBv, uint64_t{7});
  return state;
}

}  // namespace

Result<std::unique_ptr<Pair>> Pair::create(engine::EngineOptions checked, engine::EngineOptions reference) {
  std::unique_ptr<Pair> pair(new Pair);
  pair->checked_ = TRY(World::create(std::move(checked)));
  pair->reference_ = TRY(World::create(std::move(reference)));
  pair->written_.resize(memory::GuestMemory::kMinimumSize / kPageSize);
  return pair;
}

void Pair::use_mode(std::string_view mode) {
  if (mode == mode_) return;
  mode_ = mode;
  for (World* world : {checked_.get(), reference_.get()}) {
    const std::vector<uint8_t> zeros(World::kImageSize);
    CHECK(world->memory().write({0}, zeros), "the image lies in RAM");
    world->build(mode);
    (void)world->take_written();
  }
  const uint8_t* from = reference_->memory().host_base();
  image_.assign(from, from + World::kImageSize);
}

// RAM as it was before the program ran, in both worlds.
void Pair::put_back() {
  for (uint64_t page = 0; page < written_.size(); ++page) {
    if (written_[page] == 0) continue;
    written_[page] = 0;
    static constexpr std::array<uint8_t, kPageSize> kZeros{};
    const ByteSpan bytes =
        page < kImagePages ? ByteSpan(image_).subspan(page * kPageSize, kPageSize) : ByteSpan(kZeros);
    for (World* world : {checked_.get(), reference_.get()}) {
      CHECK(world->memory().write({page * kPageSize}, bytes), "a page that was written is RAM");
    }
  }
  for (World* world : {checked_.get(), reference_.get()}) (void)world->take_written();
}

std::vector<std::string> Pair::run(const Case& test, Injection injection) {
  use_mode(test.mode);
  SeededRandom random(test.seed);
  std::vector<std::string> differences;
  for (unsigned round = 0; round < kRounds && differences.empty(); ++round) {
    for (World* world : {checked_.get(), reference_.get()}) world->put(test.program);
    differences = run_round(test, random.next(), round == kRounds - 1 ? injection : Injection::kNone);
    if (!differences.empty()) differences.insert(differences.begin(), fmt::format("in round {}:", round));
    put_back();
  }
  ++runs_;
  return differences;
}

std::vector<std::string> Pair::run_round(const Case& test, uint64_t seed, Injection injection) {
  SeededRandom random(seed);
  const cpu::State state = first_state(test.mode, test.program.start, random);
  for (World* world : {checked_.get(), reference_.get()}) {
    if (const auto begun = world->begin(state, seed); !begun) return {begun.error().message};
  }
  // A round in one piece, in a few, or in pieces of an instruction or two; an interrupt at some of their borders.
  constexpr std::array<uint64_t, 4> kPieces = {kMaximumInstructions, 60, 12, 2};
  const uint64_t piece = kPieces[random.below(kPieces.size())];
  std::vector<std::string> differences;
  uint64_t count = 0;
  while (count < kMaximumInstructions) {
    count = std::min(count + 1 + random.below(piece), kMaximumInstructions);
    const cpu::StopReason checked = checked_->run_to(count);
    const cpu::StopReason reference = reference_->step_to(count);
    if (injection != Injection::kNone) inject(std::exchange(injection, Injection::kNone));
    differences = compare(checked, reference);
    if (!differences.empty()) {
      differences.insert(differences.begin(), fmt::format("  stopped at count {}:", count));
      break;
    }
    if (reference != cpu::StopReason::kCountReached) break;
    if (random.below(100) < 15) {
      checked_->raise_interrupt();
      reference_->raise_interrupt();
    }
  }
  auto in_memory = compare_memory();
  differences.insert(differences.end(), in_memory.begin(), in_memory.end());
  if (!differences.empty() && left_to_tlb(test.program)) {
    ++left_to_tlb_;
    differences.clear();
  }
  return differences;
}

// Page tables have changed otherwise than by the processor, which sets the accessed and dirty bits, and by the program
// where it was made to and drops the TLB's entry.
bool Pair::left_to_tlb(const Program& program) const {
  constexpr uint64_t kAccessedAndDirty = 0x60;
  for (World* world : {checked_.get(), reference_.get()}) {
    const uint8_t* ram = world->memory().host_base();
    for (uint64_t at = environment::kPageTables; at < environment::kPageTablesEnd; at += sizeof(uint64_t)) {
      const auto now = load<uint64_t>(ram + at);
      if (((now ^ load<uint64_t>(image_.data() + at)) & ~kAccessedAndDirty) == 0) continue;
      const bool meant = std::ranges::any_of(program.table_changes, [&](const Program::TableChange& change) {
        return change.address == at && ((now ^ change.value) & ~kAccessedAndDirty) == 0;
      });
      if (!meant) return true;
    }
    // It may have rewritten those instructions.
    for (const Program::TableChange& change : program.table_changes) {
      if (std::memcmp(ram + environment::kHighCodePhysical + program.start + change.offset,
                      program.code.data() + change.offset, change.length) != 0) {
        return true;
      }
    }
  }
  return false;
}

std::vector<std::string> Pair::compare(cpu::StopReason checked, cpu::StopReason reference) {
  const cpu::State expected = reference_->state();
  const cpu::State actual = checked_->state();
  std::vector<std::string> lines;
  if (checked != reference) {
    lines.push_back(fmt::format("stop: expected {}, got {}", static_cast<int>(reference), static_cast<int>(checked)));
  }
  if (!(expected == actual)) lines = compare_states(expected, actual);
  const auto& wanted = reference_->accesses();
  const auto& got = checked_->accesses();
  if (wanted != got) {
    const size_t at = static_cast<size_t>(std::ranges::mismatch(wanted, got).in1 - wanted.begin());
    lines.push_back(fmt::format("access {} of the board: expected {}, got {}", at,
                                at < wanted.size() ? describe(wanted[at]) : "none",
                                at < got.size() ? describe(got[at]) : "none"));
  }
  return lines;
}

// Every page that either has written; all of it now and then, in case a write went unnoticed.
std::vector<std::string> Pair::compare_memory() {
  for (World* world : {checked_.get(), reference_.get()}) {
    for (const uint64_t page : world->take_written()) written_[page] = 1;
  }
  instructions_ += reference_->state().instruction_count;
  const bool whole = runs_ % 4096 == 0;
  std::vector<std::string> lines;
  for (uint64_t page = 0; page < written_.size(); ++page) {
    if (written_[page] == 0 && !whole) continue;
    const uint8_t* expected = reference_->memory().host_base() + page * kPageSize;
    const uint8_t* actual = checked_->memory().host_base() + page * kPageSize;
    if (std::memcmp(expected, actual, kPageSize) == 0) continue;
    written_[page] = 1;
    const size_t at = static_cast<size_t>(std::mismatch(expected, expected + kPageSize, actual).first - expected);
    lines.push_back(
        fmt::format("memory at {:x}: expected {:02x}, got {:02x}", page * kPageSize + at, expected[at], actual[at]));
  }
  return lines;
}

void Pair::inject(Injection injection) {
  cpu::State state = checked_->state();
  switch (injection) {
    case Injection::kNone:
      return;
    case Injection::kRegister:
      state.gpr[cpu::kR13] ^= 1ull << 63;
      break;
    case Injection::kFlag:
      state.rflags ^= 1 << 4;
      break;
    case Injection::kVector:
      state.xsave[512] |= 4;  // XSTATE_BV: the upper halves count
      state.xsave[instructions::kYmmHighHalves + 255] ^= 0x80;
      break;
    case Injection::kCount:
      ++state.instruction_count;
      break;
    case Injection::kMemory: {
      const GuestAddress address{environment::kHighScratchPhysical + kPageSize + 0xFFF};
      const auto byte = checked_->memory().read_object<uint8_t>(address);
      CHECK(byte && checked_->memory().write_object(address, static_cast<uint8_t>(*byte ^ 1)), "scratch is RAM");
      return;
    }
  }
  CHECK(checked_->set_state(state).has_value(), "a state that was taken can be set");
}

std::string list(const Case& test, const engine::decoder::DecodeOptions& options) {
  const auto mode =
      test.mode.starts_with("long") ? engine::decoder::DecodeMode::kLong64 : engine::decoder::DecodeMode::kProtected32;
  std::string text = fmt::format("mode {}, code at {:x}, seed {:#x}\n", test.mode,
                                 instructions::kCodeAddress + test.program.start, test.seed);
  const ByteSpan code(test.program.code);
  for (size_t at = 0; at < code.size();) {
    const auto decoded = engine::decoder::decode(code.subspan(at), mode, options);
    const bool valid = decoded.status == engine::decoder::DecodeStatus::kOk;
    const size_t length = valid ? decoded.instruction.length : 1;
    std::string bytes;
    for (size_t i = 0; i < length; ++i) bytes += fmt::format("{:02x} ", code[at + i]);
    text += fmt::format("  +{:<4x} {:<46}{}\n", at, bytes,
                        valid ? engine::decoder::mnemonic_name(decoded.instruction.mnemonic) : "(invalid)");
    at += length;
  }
  return text;
}

}  // namespace bulkhead::blocks
