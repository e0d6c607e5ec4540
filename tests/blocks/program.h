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
// RAM from 2 MiB on, where the scratch pages are, and RAM from 0 on, where the code is, each once more by a page of
// 2 MiB.
inline constexpr uint64_t kLargeAddress = 0x3000'0000, kLargeCodeAddress = 0x3020'0000;
inline constexpr uint64_t kLargePageSize = 2ull << 20;
// The page tables that programs rewrite, at their linear addresses: of the scratch pages, and the directory.
inline constexpr uint64_t kScratchTable = 0xD000, kDirectory = 0xA000;
// What a user program calls by INT to have the TLB flushed by a new CR3 (RAX is lost), or of the first scratch page.
inline constexpr uint8_t kFlushVector = 0x82, kFlushPageVector = 0x84;

enum class Ring : uint8_t { kKernel, kUser };

struct Program {
  std::vector<uint8_t> code;
  uint64_t start = 0;                // offset of the code within its pages
  std::vector<uint16_t> boundaries;  // offsets of the instructions in `code`
  // Where `code` writes a page table entry and drops what the TLB knows of it.
  struct TableChange {
    uint64_t address, value;
    uint16_t offset, length;  // of the instructions that do so
  };
  std::vector<TableChange> table_changes;
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
  void add_to_loop();
  void add_structure();
  void add_far_displacements();
  void add_self_modification();
  void add_system(Ring ring);
  void add_table_change(Ring ring);
  void add_table_change_of(Ring ring, uint64_t page);
  void add_table_loop(Ring ring);
  void add_access();
  void add_debug_registers();
  void add_ring_change(Ring ring);
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
  bool crosses_ = false;  // memory operands of vector instructions lie on two pages, mostly
  bool code64_ = true;
  Program program_;
  std::vector<Branch> branches_;
  std::vector<size_t> immediates_;  // offsets of 32-bit immediates that code may rewrite
};

}  // namespace bulkhead::blocks
