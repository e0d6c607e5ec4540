// Random programs of a few blocks: integer, SSE, AVX, x87, stack, string and bit instructions from the decoder's
// tables, with branches, calls and loops between them, stores into their own code, and what only a kernel may do.
// Operands mostly lie in pages that are there; now and then in one that is absent, read-only, a device, or the code
// itself.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "cpu/state.h"
#include "instructions/generator.h"
#include "support/random.h"

namespace bulkhead::blocks {

// Linear pages from kScratchAddress on, as world.cc maps them.
enum ScratchPage : uint64_t {
  kPlain = 0,  // two of them
  kAbsent = 2,
  kDevice = 3,
  kReadOnly = 4,
  kCodeAlias = 5,  // the first page of code, at another address
  kSupervisor = 6,
  kFresh = 7,  // neither accessed nor dirty yet
  kScratchPages = 8,
};
// Two pages: a program may cross the border.
inline constexpr uint64_t kCodePages = 2;
inline constexpr uint16_t kInterruptPort = 0x81;  // a write raises an interrupt

enum class Ring : uint8_t { kKernel, kUser };

struct Program {
  std::vector<uint8_t> code;
  uint64_t start = 0;                // offset of the code within its pages
  std::vector<uint16_t> boundaries;  // offsets of the instructions in `code`
};

class ProgramGenerator {
 public:
  ProgramGenerator(const engine::decoder::DecodeOptions& options, uint64_t seed)
      : options_(options), samples_(options, seed), random_(seed) {}

  // What comes next depends on this seed alone.
  void reseed(uint64_t seed) {
    random_ = SeededRandom(seed);
    samples_.reseed(random_.next());
  }

  // For 64-bit code.
  Program next(Ring ring);
  // For 32-bit code, made from the 64-bit forms that decode there too.
  Program next_32(Ring ring);

 private:
  void begin();
  void add_instruction(Ring ring);
  void add_sample();
  void add_simple();
  void add_vector(Ring ring);
  void add_vector_operation();
  void add_x87_operation();
  void add_vector_control(Ring ring);
  void add_branch();
  void add_call();
  void add_loop();
  void add_self_modification();
  void add_system(Ring ring);
  void load(unsigned reg, uint64_t value);
  void emit(std::initializer_list<unsigned> bytes);
  void emit_value(uint64_t value, unsigned size);
  void mark();
  void resolve_branches();
  [[nodiscard]] uint64_t here() const;
  bool chance(unsigned percent) { return random_.below(100) < percent; }
  uint64_t below(uint64_t bound) { return random_.below(bound); }
  uint64_t pointer();

  struct Branch {
    size_t at;  // of the 32-bit displacement
  };

  engine::decoder::DecodeOptions options_;
  instructions::Generator samples_;
  SeededRandom random_;
  std::array<uint8_t, instructions::kScratchSize> unused_scratch_{};
  bool code64_ = true;
  Program program_;
  std::vector<Branch> branches_;
  std::vector<size_t> immediates_;  // offsets of 32-bit immediates that code may rewrite
};

}  // namespace bulkhead::blocks
