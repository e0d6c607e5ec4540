// Random x87, MMX, SSE and AVX instructions with random operands and control words, run by the interpreter and by the
// host's own CPU: registers, memory, flags, MXCSR and the kind of fault must agree. The host's faults come back as
// signals.
#include <sys/mman.h>
#include <ucontext.h>

#include <array>
#include <csignal>
#include <map>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "cpu/model.h"
#include "engine/interpreter/simd/float_control.h"
#include "engine/interpreter/simd/guest_fixture.h"
#include "engine/interpreter/x87/image.h"

// All of a program's registers. Offsets are known to the assembly below.
struct NativeState {
  alignas(64) uint8_t xsave[1024];
  uint64_t gpr[16];
  uint64_t rflags;
  uint64_t code;
};

extern "C" {
NativeState* bulkhead_native_state;
uint64_t bulkhead_native_stack;
void bulkhead_native_run();
void bulkhead_native_faulted();
}

asm(R"(
        .text
        .globl  bulkhead_native_run
        .type   bulkhead_native_run, @function
bulkhead_native_run:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, bulkhead_native_stack(%rip)
        mov     bulkhead_native_state(%rip), %r15
        mov     $7, %eax
        xor     %edx, %edx
        xrstor64 (%r15)
        push    1152(%r15)
        popf
        mov     1024(%r15), %rax
        mov     1032(%r15), %rcx
        mov     1040(%r15), %rdx
        mov     1048(%r15), %rbx
        mov     1064(%r15), %rbp
        mov     1072(%r15), %rsi
        mov     1080(%r15), %rdi
        mov     1088(%r15), %r8
        mov     1096(%r15), %r9
        mov     1104(%r15), %r10
        mov     1112(%r15), %r11
        mov     1120(%r15), %r12
        mov     1128(%r15), %r13
        mov     1136(%r15), %r14
        push    1160(%r15)
        mov     1144(%r15), %r15
        call    *(%rsp)
        .globl  bulkhead_native_faulted
bulkhead_native_faulted:
        mov     bulkhead_native_stack(%rip), %rsp
        pushf
        push    %r15
        mov     bulkhead_native_state(%rip), %r15
        mov     %rax, 1024(%r15)
        mov     %rcx, 1032(%r15)
        mov     %rdx, 1040(%r15)
        mov     %rbx, 1048(%r15)
        mov     %rbp, 1064(%r15)
        mov     %rsi, 1072(%r15)
        mov     %rdi, 1080(%r15)
        mov     %r8, 1088(%r15)
        mov     %r9, 1096(%r15)
        mov     %r10, 1104(%r15)
        mov     %r11, 1112(%r15)
        mov     %r12, 1120(%r15)
        mov     %r13, 1128(%r15)
        mov     %r14, 1136(%r15)
        pop     1144(%r15)
        pop     1152(%r15)
        mov     $7, %eax
        xor     %edx, %edx
        xsave64 (%r15)
        fninit
        movl    $0x1f80, -8(%rsp)
        ldmxcsr -8(%rsp)
        vzeroupper
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
)");

namespace bulkhead::engine::simd {
namespace {

using decoder::Mnemonic;

int fault_signal;

void on_fault(int signal, siginfo_t*, void* context) {
  fault_signal = signal;
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(&bulkhead_native_faulted);
}

// An instruction on the host. Faults give their signal, 0 for none.
class Native {
 public:
  Native() {
    code_ = static_cast<uint8_t*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    // Signals need a stack of their own: the code under test may have any RSP.
    struct sigaction action{};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    for (const int signal : kSignals) sigaction(signal, &action, &old_[static_cast<size_t>(signal)]);
  }
  ~Native() {
    for (const int signal : kSignals) sigaction(signal, &old_[static_cast<size_t>(signal)], nullptr);
    munmap(code_, 4096);
  }
  Native(const Native&) = delete;
  Native& operator=(const Native&) = delete;

  int run(NativeState& state, std::span<const uint8_t> bytes) {
    std::memcpy(code_, bytes.data(), bytes.size());
    code_[bytes.size()] = 0xC3;
    state.code = reinterpret_cast<uint64_t>(code_);
    fault_signal = 0;
    bulkhead_native_state = &state;
    bulkhead_native_run();
    return fault_signal;
  }

 private:
  static constexpr int kSignals[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS};
  uint8_t* code_;
  std::array<struct sigaction, 32> old_{};
};

class Differential {
 public:
  explicit Differential(uint64_t seed) : random_(seed) {}

  // Random bytes of one of the families; memory operands are [rbx + displacement].
  std::vector<uint8_t> random_bytes(bool x87) {
    std::vector<uint8_t> bytes;
    const auto byte = [this] { return static_cast<uint8_t>(random_()); };
    const uint8_t modrm_register = static_cast<uint8_t>(0xC0 | byte());
    const uint8_t modrm = one_in(3) ? static_cast<uint8_t>(0x40 | (byte() & 0x38) | 3) : modrm_register;
    if (x87) {
      bytes = {static_cast<uint8_t>(0xD8 | (byte() & 7)), modrm};
    } else if (one_in(2)) {
      constexpr uint8_t kMandatory[] = {0, 0x66, 0xF3, 0xF2};
      if (const uint8_t prefix = kMandatory[random_() & 3]; prefix != 0) bytes.push_back(prefix);
      if (one_in(2)) bytes.push_back(static_cast<uint8_t>(0x40 | (byte() & 0xE)));
      bytes.push_back(0x0F);
      if (one_in(2)) bytes.push_back(one_in(2) ? 0x38 : 0x3A);
      bytes.insert(bytes.end(), {byte(), modrm});
    } else {
      bytes = {0xC4, static_cast<uint8_t>(0x60 | (byte() & 0x80) | (random_() % 3 + 1)), byte(), byte(), modrm};
    }
    if (modrm < 0xC0) bytes.push_back(static_cast<uint8_t>(one_in(4) ? random_() & 63 : random_() & 32));
    bytes.push_back(byte());  // the immediate, when there is one
    return bytes;
  }

  uint64_t random_value() {
    const auto single = [this] {
      auto value = static_cast<uint32_t>(random_());
      switch (random_() % 9) {
        case 0:
          return value & 0x80000000;
        case 1:
          return value & 0x807FFFFF;
        case 2:
          return (value & 0x807FFFFF) | 0x7F000000;
        case 3:
          return (value & 0x80FFFFFF) | 0x00800000;
        case 4:
          return 0x3F800000 | (value & 0x807) << 12;
        case 5:
          return (value & 0x807FFFFF) | 0x7F800000;
        case 6:
          return (value & 0x83FFFFFF) | 0x3C000000;
        case 7:
          return 0xFF800000 & value;
        default:
          return value;
      }
    };
    const uint64_t value = random_();
    switch (random_() % 12) {
      case 0:
        return value & 0x8000000000000000;
      case 1:
        return value & 0x800FFFFFFFFFFFFF;
      case 2:
        return (value & 0x800FFFFFFFFFFFFF) | 0x7FE0000000000000;
      case 3:
        return (value & 0x801FFFFFFFFFFFFF) | 0x0010000000000000;
      case 4:
        return 0x3FF0000000000000 | (value & 7) << 49;
      case 5:
        return (value & 0x800FFFFFFFFFFFFF) | 0x7FF0000000000000;
      case 6:
        return (value & 0x80FFFFFFFFFFFFFF) | 0x3F00000000000000;
      case 7:
        return value & 0x8080808080808080;
      default:
        return uint64_t{single()} << 32 | single();
    }
  }

  void randomise(NativeState& state, bool x87) {
    state = {};
    for (uint64_t& value : state.gpr) value = one_in(3) ? random_() & 0x1F : random_value();
    state.rflags = 0x202 | (random_() & 0x8D5);
    for (size_t at = kXmmOffset; at < kXmmOffset + 256; at += 8) put(state, at, random_value());
    for (size_t at = kYmmHighOffset; at < kYmmHighOffset + 256; at += 8) put(state, at, random_value());
    uint32_t mxcsr = static_cast<uint32_t>(random_() & 0xFFFF) | kMxcsrMasks;
    if (one_in(4)) mxcsr &= ~(static_cast<uint32_t>(random_()) & kMxcsrMasks);
    if (one_in(2)) mxcsr &= ~uint32_t{kMxcsrFlags};
    put(state, kMxcsrOffset, mxcsr);
    uint16_t control = static_cast<uint16_t>(0x7F | (random_() & 0xF00)), status = 0;
    if (x87) {
      if (one_in(3)) control = static_cast<uint16_t>(control & ~(random_() & 0x3F));
      status = static_cast<uint16_t>(random_() & 0x7F7F & ~(~control & 0x3F));
    }
    put(state, 0, control);
    put(state, 2, status);
    state.xsave[4] = one_in(3) ? 0xFF : static_cast<uint8_t>(random_());
    for (unsigned number = 0; number < 8; ++number) {
      uint64_t significand = random_value();
      auto exponent = static_cast<uint16_t>(random_());
      switch (random_() % 8) {
        case 0:
          exponent &= 0x8000, significand = 0;
          break;
        case 1:
          exponent &= 0x8000;
          break;
        case 2:
          exponent |= 0x7FFF;
          break;
        case 3:
          break;  // unnormal
        default:
          exponent = static_cast<uint16_t>((exponent & 0x8000) | (0x3FFF + random_() % 128 - 64));
          significand |= uint64_t{1} << 63;
          break;
      }
      put(state, 32 + 16 * number, significand);
      put(state, 40 + 16 * number, exponent);
    }
    put<uint64_t>(state, 512, 7);
  }

  bool one_in(unsigned count) { return random_() % count == 0; }
  uint64_t bits() { return random_(); }

  template <typename T>
  static void put(NativeState& state, size_t offset, T value) {
    std::memcpy(state.xsave + offset, &value, sizeof value);
  }

 private:
  std::mt19937_64 random_;
};

uint32_t mxcsr_of(const uint8_t* image) {
  uint32_t value;
  std::memcpy(&value, image + kMxcsrOffset, sizeof value);
  return value;
}

// Rules that the differential run does not follow; each has tests of its own.
bool is_left_out(const decoder::Instruction& instruction) {
  switch (instruction.mnemonic) {
    case Mnemonic::kMaskmovq:
    case Mnemonic::kMaskmovdqu:
      return true;  // memory at RDI
    default:
      return instruction.info->operands[1].kind == decoder::OperandKind::kVsib;
  }
}

// Unmasked exceptions of these are found in several steps inside the instruction.
bool has_inner_steps(Mnemonic mnemonic) {
  return mnemonic == Mnemonic::kDpps || mnemonic == Mnemonic::kDppd || mnemonic == Mnemonic::kVcvtps2ph;
}

// AMD's processors do not look at the alignment of their operand, though the manual has it faulting.
bool reads_unaligned_on_host(const decoder::Instruction& instruction) {
  switch (instruction.mnemonic) {
    case Mnemonic::kSha1rnds4:
    case Mnemonic::kSha1nexte:
    case Mnemonic::kSha1msg1:
    case Mnemonic::kSha1msg2:
    case Mnemonic::kSha256rnds2:
    case Mnemonic::kSha256msg1:
    case Mnemonic::kSha256msg2:
      return __builtin_cpu_is("amd");
    default:
      return false;
  }
}

int signal_of(const std::optional<GuestFault>& fault) {
  if (!fault) return 0;
  switch (fault->vector) {
    case kInvalidOpcode:
      return SIGILL;
    case kX87Error:
    case kSimdError:
      return SIGFPE;
    default:
      return SIGSEGV;
  }
}

// What differs, in words; empty: nothing.
std::string difference(const decoder::Instruction& instruction, Guest& guest, const std::optional<GuestFault>& fault,
                       const NativeState& native, int signal, std::span<const uint8_t> native_memory) {
  if (fault && fault->vector == kGeneralProtection && signal == 0 && reads_unaligned_on_host(instruction)) return {};
  if (signal_of(fault) != signal) return fmt::format("fault {} against signal {}", fault ? fault->vector : 0, signal);
  Cpu& cpu = guest.cpu();
  for (unsigned number = 0; number < 16; ++number) {
    if (number == cpu::kRsp || number == cpu::kRbx) continue;
    if (cpu.gpr[number] != native.gpr[number]) {
      return fmt::format("gpr {}: {:#x} against {:#x}", number, cpu.gpr[number], native.gpr[number]);
    }
  }
  const uint64_t flag_mask = decoder::kArithmeticFlags & ~instruction.info->flags_undefined;
  if (((cpu.rflags() ^ native.rflags) & flag_mask) != 0) {
    return fmt::format("flags {:#x} against {:#x}", cpu.rflags() & flag_mask, native.rflags & flag_mask);
  }
  uint32_t ignored = 0;
  const uint32_t host_mxcsr = mxcsr_of(native.xsave);
  if (fault && fault->vector == kSimdError) {
    const uint32_t unmasked = host_mxcsr & ~(host_mxcsr >> kMxcsrMaskShift) & kMxcsrFlags;
    if ((unmasked & (kMxcsrOverflow | kMxcsrUnderflow)) != 0) ignored = kMxcsrPrecision;
  }
  if (((mxcsr(cpu) ^ host_mxcsr) & ~ignored) != 0)
    return fmt::format("mxcsr {:#x} against {:#x}", mxcsr(cpu), host_mxcsr);
  for (size_t at = 0; at < 6; at += 2) {
    if (std::memcmp(cpu.xsave.data() + at, native.xsave + at, at == 4 ? 1 : 2) != 0) {
      return fmt::format("x87 word {}: {:#x} against {:#x}", at, x87::word_at(cpu, at),
                         native.xsave[at] | native.xsave[at + 1] << 8);
    }
  }
  for (unsigned number = 0; number < 8; ++number) {
    if (std::memcmp(x87::stack_register(cpu, number), native.xsave + 32 + 16 * number, 10) != 0)
      return fmt::format("st {}", number);
  }
  for (unsigned number = 0; number < 16; ++number) {
    if (std::memcmp(xmm(cpu, number), native.xsave + kXmmOffset + 16 * number, 16) != 0)
      return fmt::format("xmm {}", number);
    if (std::memcmp(ymm_high(cpu, number), native.xsave + kYmmHighOffset + 16 * number, 16) != 0) {
      return fmt::format("upper half of ymm {}", number);
    }
  }
  if (std::memcmp(guest.host(Guest::kData), native_memory.data(), native_memory.size()) != 0) return "memory";
  return {};
}

decoder::DecodeOptions host_options() {
  using decoder::Feature;
  constexpr std::pair<Feature, std::string_view> kVectorFeatures[] = {
      {Feature::kSse3, "pni"},     {Feature::kSsse3, "ssse3"}, {Feature::kSse41, "sse4_1"},
      {Feature::kSse42, "sse4_2"}, {Feature::kAes, "aes"},     {Feature::kPclmulqdq, "pclmulqdq"},
      {Feature::kShaNi, "sha_ni"}, {Feature::kAvx, "avx"},     {Feature::kAvx2, "avx2"},
      {Feature::kFma, "fma"},      {Feature::kF16c, "f16c"}};
  decoder::DecodeOptions options;
  const cpu::FeatureSet host = cpu::host_features();
  for (const auto& [feature, name] : kVectorFeatures) options.set(feature, host.has(name));
  return options;
}

struct Tally {
  uint64_t run = 0, different = 0;
  std::map<std::string, uint64_t> mnemonics;
};

// x87: only what lies on the opcodes D8 to DF; else everything else with vector state.
Tally compare(uint64_t seed, unsigned attempts, bool x87) {
  Differential source(seed);
  Guest guest;
  Native native;
  const decoder::DecodeOptions options = host_options();
  alignas(64) static std::array<uint8_t, 192> host_memory;
  Tally tally;
  for (unsigned attempt = 0; attempt < attempts; ++attempt) {
    const std::vector<uint8_t> bytes = source.random_bytes(x87);
    decoder::Instruction instruction;
    if (decoder::decode(bytes, decoder::DecodeMode::kLong64, options, instruction) != decoder::DecodeStatus::kOk)
      continue;
    const auto state_used = instruction.info->state;
    const bool is_x87 = (bytes[0] & 0xF8) == 0xD8;
    if ((state_used == decoder::StateComponent::kGeneral && !is_x87) || is_left_out(instruction)) continue;
    // Random bytes may have become another address than the one meant.
    if (instruction.has_memory() && (instruction.base != cpu::kRbx || instruction.index != decoder::kNoRegister))
      continue;

    NativeState state;
    source.randomise(state, x87);
    if (has_inner_steps(instruction.mnemonic))
      Differential::put(state, kMxcsrOffset, mxcsr_of(state.xsave) | kMxcsrMasks);
    for (size_t at = 0; at < host_memory.size(); at += 8) {
      const uint64_t value = source.random_value();
      std::memcpy(host_memory.data() + at, &value, sizeof value);
    }
    Cpu& cpu = guest.cpu();
    std::memcpy(cpu.xsave.data(), state.xsave, sizeof state.xsave);
    std::memset(cpu.xsave.data() + 512, 0, 64);
    for (unsigned number = 0; number < 16; ++number) cpu.gpr[number] = state.gpr[number];
    cpu.flags.from_rflags(state.rflags);
    cpu.gpr[cpu::kRbx] = Guest::kData;
    state.gpr[cpu::kRbx] = reinterpret_cast<uint64_t>(host_memory.data());
    std::memcpy(guest.host(Guest::kData), host_memory.data(), host_memory.size());
    // The stack pointer and what points to data mean nothing to the other side.
    if (!instruction.has_memory() && (instruction.rm == cpu::kRbx || instruction.reg == cpu::kRbx ||
                                      instruction.rm == cpu::kRsp || instruction.reg == cpu::kRsp)) {
      bool general = false;
      for (const auto& operand : instruction.info->operands) {
        general |= operand.kind == decoder::OperandKind::kGprRm || operand.kind == decoder::OperandKind::kGprReg;
      }
      if (general) continue;
    }
    if (instruction.has_memory() && instruction.info->operands[0].kind == decoder::OperandKind::kGprReg &&
        (instruction.reg == cpu::kRsp || instruction.reg == cpu::kRbx)) {
      continue;
    }
    const std::span<const uint8_t> code(bytes.data(), instruction.length);
    const auto fault = guest.run(instruction);
    const int signal = native.run(state, code);
    ++tally.run;
    const std::string name(decoder::mnemonic_name(instruction.mnemonic));
    ++tally.mnemonics[name];
    const std::string what = difference(instruction, guest, fault, state, signal, host_memory);
    if (!what.empty()) {
      std::string hex;
      for (const uint8_t byte : code) hex += fmt::format("{:02x} ", byte);
      if (++tally.different <= 20) ADD_FAILURE() << name << " " << hex << ": " << what;
    }
  }
  return tally;
}

TEST(VectorDifferential, SseAvxAndMmxAgreeWithTheHostCpu) {
  if (!cpu::host_features().has("avx2")) GTEST_SKIP() << "the host has no AVX2";
  const Tally tally = compare(1, 2'000'000, false);
  EXPECT_EQ(tally.different, 0u) << "of " << tally.run;
  EXPECT_GT(tally.mnemonics.size(), 340u);
}

TEST(VectorDifferential, X87AgreesWithTheHostCpu) {
  if (!cpu::host_features().has("avx")) GTEST_SKIP() << "the host has no AVX";
  const Tally tally = compare(2, 150'000, true);
  EXPECT_EQ(tally.different, 0u) << "of " << tally.run;
  EXPECT_GT(tally.mnemonics.size(), 85u);
}

}  // namespace
}  // namespace bulkhead::engine::simd
