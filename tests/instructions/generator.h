// Random user-mode instructions for the differential run, all valid, drawn evenly from the decoder's own tables, with
// register and memory contents under which they do something: operands lie in the scratch pages (across their border
// too, and now and then outside), branches go to kTakenAddress.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/decoder/decoder.h"
#include "instructions/host_cpu.h"
#include "instructions/registers.h"
#include "support/random.h"

namespace bulkhead::instructions {

// One instruction with the state it runs in.
struct Sample {
  std::array<uint8_t, 15> bytes{};
  engine::decoder::Instruction instruction;
  Registers registers;

  [[nodiscard]] std::span<const uint8_t> code() const { return {bytes.data(), instruction.length}; }
};

class Generator {
 public:
  // The base that GS has while samples run.
  static constexpr uint64_t kGsBase = 0x1'0000;

  Generator(const engine::decoder::DecodeOptions& options, uint64_t seed);

  // The draws from now on are those of a generator made with this seed.
  void reseed(uint64_t seed) { random_ = SeededRandom(seed); }

  // scratch may be written to: operands of RET, of indirect branches and of floating-point instructions.
  void next(Sample& sample, std::span<uint8_t, kScratchSize> scratch);

  // A sample of one form.
  void next_of(size_t form, Sample& sample, std::span<uint8_t, kScratchSize> scratch);

  [[nodiscard]] size_t form_count() const { return forms_.size(); }
  // Keeps one form of each mnemonic, width and kind of operands: prefixes that change nothing go.
  void keep_distinct();
  // Keeps only the forms of this mnemonic; false when there is none.
  [[nodiscard]] bool keep_only(std::string_view mnemonic);

 private:
  // An opcode with operand size, vector length and register or memory form: what differs in kind, not in numbers.
  struct Form {
    const engine::decoder::OpcodeInfo* info = nullptr;
    engine::decoder::OpcodeMap map = engine::decoder::OpcodeMap::kOneByte;
    uint8_t opcode = 0;
    uint8_t prefix = 0;      // 0, 66, F2 or F3
    bool second_66 = false;  // 66 beside F2 or F3
    bool w = false, vex = false, vex_256 = false;
    std::vector<uint8_t> modrm;  // the bytes behind the opcode that belong to this form
  };

  void collect_forms();
  void collect(Form form);
  unsigned encode(const Form& form, std::array<uint8_t, 15>& bytes);
  unsigned encode_vex(const Form& form, std::array<uint8_t, 15>& bytes, unsigned length);
  bool draw_bytes(const Form& form, Sample& sample);
  bool place_operands(Sample& sample, std::span<uint8_t, kScratchSize> scratch);
  bool place_memory(Sample& sample, uint64_t target);
  void place_gather(Sample& sample);
  bool place_branch(Sample& sample, std::span<uint8_t, kScratchSize> scratch);
  uint64_t choose_target(const engine::decoder::Instruction& instruction);
  void patch(Sample& sample, unsigned offset, unsigned length, uint64_t value);

  uint64_t random_word();
  uint64_t random_double();
  void fill_registers(Registers& registers);
  void fill_vectors(Registers& registers);

  bool chance(unsigned percent) { return random_.below(100) < percent; }
  uint64_t below(uint64_t bound) { return random_.below(bound); }

  engine::decoder::DecodeOptions options_;
  SeededRandom random_;
  std::vector<Form> forms_;
};

// Whether the differential run can compare it: user mode, repeatable, the same on every processor.
bool is_comparable(engine::decoder::Mnemonic mnemonic);

}  // namespace bulkhead::instructions
