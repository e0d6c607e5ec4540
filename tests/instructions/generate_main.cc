// generate_instruction_cases: writes text cases of user-mode instructions whose expected results are what the host's
// own CPU does. It never asks the interpreter. Arguments: DIRECTORY SEED; the committed files were made by tests/cases
// with seed 1.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <Zydis/Zydis.h>
#include <fmt/format.h>

#include "engine/engine.h"
#include "instructions/case_file.h"
#include "instructions/comparison.h"
#include "instructions/environment.h"
#include "instructions/generator.h"
#include "instructions/host_cpu.h"
#include "instructions/register_names.h"

namespace bulkhead::instructions {
namespace {

using engine::decoder::Instruction;
using engine::decoder::Mnemonic;
using engine::decoder::OperandKind;
using engine::decoder::StateComponent;

std::string disassemble(const Sample& sample) {
  ZydisDisassembledInstruction text;
  const auto status = ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, kCodeAddress, sample.bytes.data(),
                                            sample.instruction.length, &text);
  return ZYAN_SUCCESS(status) ? text.text : std::string(engine::decoder::mnemonic_name(sample.instruction.mnemonic));
}

// The registers that the instruction names, by what it reads or writes.
struct Involved {
  uint32_t gprs = 0, xmms = 0;
  bool x87 = false;
};

Involved find_involved(const Instruction& instruction) {
  Involved involved;
  involved.gprs = instruction.info->gpr_read | instruction.info->gpr_written;
  const auto add_gpr = [&](uint8_t number) {
    if (number != engine::decoder::kNoRegister && number != engine::decoder::kRipRelative)
      involved.gprs |= 1u << (number & (number >= 16 ? 3 : 15));
  };
  const bool gather = instruction.info->operands[1].kind == OperandKind::kVsib;
  if (instruction.has_memory()) {
    add_gpr(instruction.base);
    if (!gather) add_gpr(instruction.index);
    if (gather) involved.xmms |= 1u << (instruction.index & 15);
  }
  for (unsigned i = 0; i < instruction.info->operand_count; ++i) {
    const uint8_t number = engine::decoder::operand_register(instruction, i);
    switch (instruction.info->operands[i].kind) {
      case OperandKind::kGprReg:
      case OperandKind::kGprRm:
      case OperandKind::kGprOpcode:
      case OperandKind::kGprVvvv:
      case OperandKind::kAccumulator:
        add_gpr(number);
        break;
      case OperandKind::kCl:
        add_gpr(cpu::kRcx);
        break;
      case OperandKind::kXmmReg:
      case OperandKind::kXmmRm:
      case OperandKind::kXmmVvvv:
      case OperandKind::kXmmIs4:
        if (number < 16) involved.xmms |= 1u << number;
        break;
      case OperandKind::kXmm0:
        involved.xmms |= 1;
        break;
      case OperandKind::kMmxReg:
      case OperandKind::kMmxRm:
      case OperandKind::kSt0:
      case OperandKind::kStRm:
        involved.x87 = true;
        break;
      default:
        break;
    }
  }
  if (instruction.has(engine::decoder::kPrefixRep) || instruction.has(engine::decoder::kPrefixRepne))
    add_gpr(cpu::kRcx);
  const StateComponent state = instruction.info->state;
  if (state == StateComponent::kX87 || state == StateComponent::kMmx) involved.x87 = true;
  return involved;
}

Result<Registers> registers_of(cpu::State state) {
  Registers registers;
  registers.gpr = state.gpr;
  registers.rflags = state.rflags;
  registers.rip = state.rip;
  std::copy_n(state.xsave.begin(), registers.xsave.size(), registers.xsave.begin());
  return registers;
}

cpu::State with_registers(cpu::State state, const Registers& registers) {
  state.gpr = registers.gpr;
  state.rflags = registers.rflags;
  state.rip = registers.rip;
  std::copy(registers.xsave.begin(), registers.xsave.end(), state.xsave.begin());
  return state;
}

// The sample's registers where the instruction uses them, the environment's elsewhere.
Registers narrow(const Registers& defaults, const Sample& sample, const Involved& involved) {
  Registers registers = defaults;
  for (unsigned i = 0; i < 16; ++i) {
    if ((involved.gprs >> i & 1) != 0) registers.gpr[i] = sample.registers.gpr[i];
    if ((involved.xmms >> i & 1) == 0) continue;
    std::copy_n(sample.registers.xsave.begin() + kXmmRegisters + 16 * i, 16,
                registers.xsave.begin() + kXmmRegisters + 16 * i);
    std::copy_n(sample.registers.xsave.begin() + kYmmHighHalves + 16 * i, 16,
                registers.xsave.begin() + kYmmHighHalves + 16 * i);
  }
  if (involved.xmms != 0) registers.set_xsave_field(kMxcsr, sample.registers.xsave_field<uint32_t>(kMxcsr));
  if (involved.x87) {
    std::copy_n(sample.registers.xsave.begin(), kMxcsr, registers.xsave.begin());
    for (unsigned i = 0; i < 8; ++i) {
      std::copy_n(sample.registers.xsave.begin() + kX87Registers + 16 * i, 10,
                  registers.xsave.begin() + kX87Registers + 16 * i);
    }
  }
  registers.rflags = (sample.registers.rflags & 0xCD5) | 2;
  return registers;
}

// Bytes of scratch memory that the instruction may read.
std::vector<std::pair<uint64_t, uint64_t>> memory_ranges(const Instruction& instruction, const Registers& registers) {
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  const auto add = [&](uint64_t address, uint64_t before, uint64_t size) {
    const uint64_t begin = std::max(address - before, kScratchAddress);
    const uint64_t end = std::min(address + size, kScratchAddress + kScratchSize);
    if (address - kScratchAddress < kScratchSize && begin < end) ranges.emplace_back(begin, end);
  };
  const auto& gpr = registers.gpr;
  if (instruction.has_memory()) {
    uint64_t address = static_cast<uint64_t>(instruction.displacement);
    if (instruction.base == engine::decoder::kRipRelative) address += kCodeAddress + instruction.length;
    if (instruction.base < 16) address += gpr[instruction.base];
    const bool gather = instruction.info->operands[1].kind == OperandKind::kVsib;
    if (!gather && instruction.index < 16) address += gpr[instruction.index] << instruction.scale_log2;
    if (instruction.address_size == 4) address = static_cast<uint32_t>(address);
    if (instruction.segment == cpu::kGs) address += Generator::kGsBase;
    add(address, gather ? 64u << instruction.scale_log2 : 0,
        gather ? 72u << instruction.scale_log2 : std::max<uint64_t>(instruction.memory_size, 1));
  }
  using engine::decoder::InstructionClass;
  if (instruction.info->instruction_class == InstructionClass::kString) {
    add(gpr[cpu::kRsi], 32, 32);
    add(gpr[cpu::kRdi], 32, 32);
  }
  if ((instruction.info->gpr_read >> cpu::kRsp & 1) != 0) add(gpr[cpu::kRsp], 0, 16);
  if ((instruction.info->gpr_read >> cpu::kRbp & 1) != 0) add(gpr[cpu::kRbp], 32, 8);
  return ranges;
}

class Writer {
 public:
  Writer(HostCpu& host, const engine::decoder::DecodeOptions& options, uint64_t seed, cpu::State defaults)
      : host_(host), generator_(options, seed), random_(seed), defaults_(std::move(defaults)) {
    generator_.keep_distinct();
  }

  Result<> write_all(const std::string& directory) {
    for (size_t form = 0; form < generator_.form_count(); ++form) {
      TRY(write_one(form));
    }
    for (const auto& [file, text] : files_) {
      const std::string path = fmt::format("{}/{}.case", directory, file);
      std::ofstream out(path, std::ios::binary);
      out << "; Results recorded from a processor by generate_instruction_cases; see README.md.\n" << text;
      if (!out) return fail("write '{}': failed", path);
    }
    fmt::print("{} cases\n", count_);
    return {};
  }

 private:
  Result<> write_one(size_t form) {
    const Registers defaults = TRY(registers_of(defaults_));
    for (unsigned attempt = 0; attempt < 20; ++attempt) {
      Sample sample;
      generator_.next_of(form, sample, host_.scratch());
      const Involved involved = find_involved(sample.instruction);
      const Registers before = narrow(defaults, sample, involved);
      if (is_undefined(sample.instruction, before)) continue;
      // Branch targets and numbers that the generator has put there stay, the rest is zero.
      std::vector<uint8_t> kept(host_.scratch().begin(), host_.scratch().end());
      std::fill(host_.scratch().begin(), host_.scratch().end(), 0);
      const auto ranges = memory_ranges(sample.instruction, before);
      for (const auto& [begin, end] : ranges) {
        for (uint64_t at = begin - kScratchAddress; at < end - kScratchAddress; ++at) {
          host_.scratch()[at] = kept[at] != 0 ? kept[at] : static_cast<uint8_t>(random_.below(256));
        }
      }
      if (sample.instruction.info->instruction_class == engine::decoder::InstructionClass::kControl)
        restore(kept, ranges);
      const std::vector<uint8_t> memory(host_.scratch().begin(), host_.scratch().end());
      Registers after = before;
      const Outcome outcome = host_.run(sample.code(), after);
      // Faults whose details are the processor's choice are no good as cases.
      if (outcome.faulted && (attempt < 10 || outcome.cr2 >> 47 != 0 || involved.x87 || outcome.vector == 19)) continue;
      write(sample, before, after, outcome, memory, ranges);
      return {};
    }
    return {};
  }

  void restore(const std::vector<uint8_t>& kept, const std::vector<std::pair<uint64_t, uint64_t>>& ranges) {
    for (const auto& [begin, end] : ranges) {
      std::copy(kept.begin() + static_cast<ptrdiff_t>(begin - kScratchAddress),
                kept.begin() + static_cast<ptrdiff_t>(end - kScratchAddress),
                host_.scratch().begin() + static_cast<ptrdiff_t>(begin - kScratchAddress));
    }
  }

  void write(const Sample& sample, const Registers& before, const Registers& after, const Outcome& outcome,
             const std::vector<uint8_t>& memory, const std::vector<std::pair<uint64_t, uint64_t>>& ranges) {
    const Instruction& instruction = sample.instruction;
    const std::string mnemonic(engine::decoder::mnemonic_name(instruction.mnemonic));
    std::string& text = files_[file_of(instruction)];
    text += fmt::format("\ncase {}{}_{}\n  mode long64 user\n  code", instruction.is_vex() ? "v" : "", mnemonic,
                        ++numbers_[mnemonic]);
    for (const uint8_t byte : sample.code()) text += fmt::format(" {:02x}", byte);
    text += fmt::format("  ; {}\n", disassemble(sample));

    cpu::State zero = defaults_;
    cpu::State in = with_registers(defaults_, before);
    if (instruction.segment == cpu::kGs) in.segments[cpu::kGs].base = Generator::kGsBase;
    cpu::State unchanged = in;
    if (!outcome.faulted) unchanged.rip += instruction.length;
    cpu::State out = with_registers(in, after);
    // What is undefined keeps its value in the file and is not compared.
    const uint32_t undefined = outcome.faulted ? 0 : undefined_flags(instruction, before);
    constexpr uint64_t kRecorded = 0xCD5;
    out.rflags = (out.rflags & kRecorded & ~undefined) | (in.rflags & (~kRecorded | undefined));
    out.cr2 = outcome.cr2;
    append_registers(text, "in", zero, in);
    append_memory(text, ranges, memory);
    if (outcome.faulted) {
      const bool coded = outcome.vector >= 8 && outcome.vector <= 17 && outcome.vector != 9 && outcome.vector != 16;
      text += fmt::format("  fault {}{}\n", exception_name(outcome.vector),
                          coded ? fmt::format("({:x})", outcome.error_code) : "");
    }
    append_registers(text, "out", unchanged, out);
    append_changes(text, memory);
    append_ignored(text, undefined);
    if (is_approximation(instruction.mnemonic)) append_approximate(text, unchanged, out);
    ++count_;
  }

  static std::string file_of(const Instruction& instruction) {
    switch (instruction.info->state) {
      case StateComponent::kX87:
        return "x87";
      case StateComponent::kMmx:
        return "mmx";
      case StateComponent::kSse:
        return "sse";
      case StateComponent::kAvx:
        return "avx";
      default:
        return instruction.is_vex() ? "bmi" : "integer";
    }
  }

  static void append_registers(std::string& text, std::string_view key, cpu::State& from, cpu::State& to) {
    std::string line;
    for (const std::string& name : compared_registers()) {
      const auto a = find_register(from, name);
      const auto b = find_register(to, name);
      if (!std::equal(a.begin(), a.end(), b.begin())) line += fmt::format(" {}={}", name, to_hex(b));
    }
    if (!line.empty()) text += fmt::format("  {}{}\n", key, line);
  }

  static bool is_approximation(engine::decoder::Mnemonic mnemonic) {
    using enum engine::decoder::Mnemonic;
    return mnemonic == kRcpps || mnemonic == kRcpss || mnemonic == kRsqrtps || mnemonic == kRsqrtss;
  }

  static void append_approximate(std::string& text, cpu::State& from, cpu::State& to) {
    std::string line;
    for (const std::string& name : compared_registers()) {
      const bool is_vector = name.starts_with("xmm") || name.starts_with("ymmh");
      if (is_vector && !std::ranges::equal(find_register(from, name), find_register(to, name))) line += " " + name;
    }
    if (!line.empty()) text += fmt::format("  approximate{}\n", line);
  }

  static void append_bytes(std::string& text, std::string_view key, uint64_t address, std::span<const uint8_t> bytes) {
    text += fmt::format("  {} {:x}:", key, address);
    for (const uint8_t byte : bytes) text += fmt::format(" {:02x}", byte);
    text += "\n";
  }

  static void append_memory(std::string& text, const std::vector<std::pair<uint64_t, uint64_t>>& ranges,
                            const std::vector<uint8_t>& memory) {
    for (const auto& [begin, end] : ranges) {
      append_bytes(text, "mem", begin, std::span(memory).subspan(begin - kScratchAddress, end - begin));
    }
  }

  // Runs of changed bytes, joined where fewer than four lie between them.
  void append_changes(std::string& text, const std::vector<uint8_t>& memory) {
    const auto scratch = host_.scratch();
    for (size_t at = 0; at < kScratchSize;) {
      if (scratch[at] == memory[at]) {
        ++at;
        continue;
      }
      size_t end = at + 1;
      for (size_t i = end; i < std::min<size_t>(kScratchSize, end + 4); ++i) {
        if (scratch[i] != memory[i]) end = i + 1;
      }
      append_bytes(text, "out-mem", kScratchAddress + at, std::span(scratch).subspan(at, end - at));
      at = end;
    }
  }

  static void append_ignored(std::string& text, uint32_t flags) {
    using namespace engine::decoder;
    if (flags == 0) return;
    text += "  ignore";
    for (const auto& [bit, name] : {std::pair{kFlagCf, "cf"},
                                    {kFlagPf, "pf"},
                                    {kFlagAf, "af"},
                                    {kFlagZf, "zf"},
                                    {kFlagSf, "sf"},
                                    {kFlagOf, "of"}}) {
      if ((flags & bit) != 0) text += fmt::format(" rflags.{}", name);
    }
    text += "\n";
  }

  HostCpu& host_;
  Generator generator_;
  SeededRandom random_;
  cpu::State defaults_;
  std::map<std::string, std::string> files_;
  std::map<std::string, unsigned> numbers_;
  size_t count_ = 0;
};

Result<> run(const std::string& directory, uint64_t seed) {
  auto host = TRY(HostCpu::create());
  if (!host->set_gs_base(Generator::kGsBase)) return fail("the host does not let a program set GS's base");
  cpu::State defaults = TRY(environment::initial_state("long64 user"));
  const auto options = engine::decoder::options_for(engine::Engine::available_features());
  return Writer(*host, options, seed, std::move(defaults)).write_all(directory);
}

}  // namespace
}  // namespace bulkhead::instructions

int main(int count, char** arguments) {
  if (count != 3) {
    fmt::print(stderr, "usage: generate_instruction_cases DIRECTORY SEED\n");
    return 2;
  }
  const auto done = bulkhead::instructions::run(arguments[1], std::strtoull(arguments[2], nullptr, 0));
  if (done) return EXIT_SUCCESS;
  fmt::print(stderr, "generate_instruction_cases: {}\n", done.error().message);
  return EXIT_FAILURE;
}
