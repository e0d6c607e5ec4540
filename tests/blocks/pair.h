// Two worlds, one engine each, that run the same programs side by side.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "blocks/program.h"
#include "blocks/world.h"

namespace bulkhead::blocks {

// A wrong result to be found, put into the first world: the proof that the comparison sees it.
enum class Injection : uint8_t { kNone, kRegister, kFlag, kVector, kMemory, kCount };

struct Case {
  std::string_view mode;
  uint64_t seed = 0;  // of registers, stops and interrupts
  Program program;
};

class Pair {
 public:
  static constexpr std::array<std::string_view, 4> kModes = {"long64", "long64 user", "compat32", "compat32 user"};
  // In the order in which a long run takes them: what is translated has the greater part.
  static constexpr std::array<uint8_t, 8> kOrder = {0, 1, 0, 1, 2, 0, 1, 3};
  static constexpr uint64_t kMaximumInstructions = 600;
  // How often a program runs, so that what an engine keeps of it is used: with other registers each time.
  static constexpr unsigned kRounds = 3;

  // checked runs under the first options, what is right under the second.
  static Result<std::unique_ptr<Pair>> create(engine::EngineOptions checked, engine::EngineOptions reference);

  // Lines that say what differs; empty when nothing does.
  std::vector<std::string> run(const Case& test, Injection injection = Injection::kNone);
  [[nodiscard]] const engine::decoder::DecodeOptions& decode_options() const { return reference_->decode_options(); }
  [[nodiscard]] uint64_t instructions() const { return instructions_; }
  // Rounds that differed after the program had changed a page table: what it then sees depends on what the TLB happens
  // to hold (Intel SDM 3, 4.10.4), so that is no finding.
  [[nodiscard]] uint64_t left_to_tlb() const { return left_to_tlb_; }
  // Blocks that the checked engine has translated.
  [[nodiscard]] uint64_t translated() const { return checked_->translated(); }

 private:
  Pair() = default;
  void use_mode(std::string_view mode);
  void put_back();
  std::vector<std::string> run_round(const Case& test, uint64_t seed, Injection injection);
  std::vector<std::string> compare(cpu::StopReason checked, cpu::StopReason reference);
  std::vector<std::string> compare_memory();
  void inject(Injection injection);
  [[nodiscard]] bool left_to_tlb(const Program& program) const;

  std::unique_ptr<World> checked_, reference_;
  std::string_view mode_;
  std::vector<uint8_t> image_;    // of RAM before a program runs
  std::vector<uint8_t> written_;  // pages written in this round
  uint64_t instructions_ = 0;
  uint64_t runs_ = 0;
  uint64_t left_to_tlb_ = 0;
};

// The program as bytes with mnemonics, the rest of a report.
std::string list(const Case& test, const engine::decoder::DecodeOptions& options);

}  // namespace bulkhead::blocks
