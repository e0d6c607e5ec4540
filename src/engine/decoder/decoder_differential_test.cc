// The decoder against Zydis on random and on counted encodings in every mode. Environment, for the long run that
// docs/measurements.md records: BULKHEAD_DECODER_ENCODINGS (random ones, default 3000000), BULKHEAD_DECODER_SEED (1),
// BULKHEAD_DECODER_SWEEP (any value: the whole sweep as well), BULKHEAD_DECODER_THREADS (1).
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <vector>

#include "engine/decoder/encodings.h"
#include "engine/decoder/tables.h"
#include "engine/decoder/zydis_explanations.h"
#include "support/os/thread.h"

namespace bulkhead::engine::decoder {
namespace {

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 0) : otherwise;
}

struct Tally {
  uint64_t encodings = 0, valid = 0, different = 0;
  std::array<uint64_t, oracle::kExplanationCount> explained{};
  std::set<const OpcodeInfo*> seen;
  std::vector<std::string> examples;

  void take(const oracle::Oracle& oracle, const Encoding& encoding) {
    oracle::Case result;
    oracle.compare(encoding.bytes, encoding.mode, result);
    ++encodings;
    if (result.we_accept()) {
      ++valid;
      seen.insert(result.ours.info);
    }
    oracle::explain(result, explained);
    if (result.differences == 0) return;
    if (++different <= 10) examples.push_back(oracle::describe(result));
  }

  void add(const Tally& other) {
    encodings += other.encodings;
    valid += other.valid;
    different += other.different;
    for (size_t i = 0; i < explained.size(); ++i) explained[i] += other.explained[i];
    seen.insert(other.seen.begin(), other.seen.end());
    examples.insert(examples.end(), other.examples.begin(), other.examples.end());
  }
};

// Thread `index` of `count` takes its share of both.
Tally run_share(uint64_t random_count, uint64_t sweep_count, uint64_t seed, uint64_t index, uint64_t count) {
  Tally tally;
  const oracle::Oracle oracle;
  EncodingGenerator generator(seed * 1000 + index);
  for (uint64_t i = index; i < random_count; i += count) tally.take(oracle, generator.next());
  for (uint64_t i = index; i < sweep_count; i += count) tally.take(oracle, EncodingSweep::at(i, generator));
  return tally;
}

TEST(DecoderDifferential, AgreesWithZydisOnEveryEncoding) {
  const uint64_t random_count = from_environment("BULKHEAD_DECODER_ENCODINGS", 3'000'000);
  const uint64_t seed = from_environment("BULKHEAD_DECODER_SEED", 1);
  const uint64_t thread_count = std::max<uint64_t>(1, from_environment("BULKHEAD_DECODER_THREADS", 1));
  const uint64_t sweep_count = std::getenv("BULKHEAD_DECODER_SWEEP") != nullptr ? EncodingSweep::kCount : 0;

  std::vector<Tally> shares(thread_count);
  std::vector<Thread> threads;
  for (uint64_t i = 0; i < thread_count; ++i)
    threads.emplace_back("differential",
                         [&, i] { shares[i] = run_share(random_count, sweep_count, seed, i, thread_count); });
  threads.clear();
  Tally tally;
  for (const Tally& share : shares) tally.add(share);

  fmt::print("{} encodings, {} valid, {} of {} table rows, {} differences\n", tally.encodings, tally.valid,
             tally.seen.size(), tables::all_entries().size(), tally.different);
  for (size_t i = 0; i < oracle::kExplanationCount; ++i)
    fmt::print("  explained {:>9}  {}: {}\n", tally.explained[i], oracle::kExplanations[i].name,
               oracle::kExplanations[i].reason);
  for (const std::string& example : tally.examples) ADD_FAILURE() << example;
  EXPECT_EQ(tally.different, 0u);

  if (random_count < 3'000'000) return;
  for (size_t i = 0; i < oracle::kExplanationCount; ++i)
    EXPECT_GT(tally.explained[i], 0u) << "never needed: " << oracle::kExplanations[i].name;
}

TEST(DecoderTables, HaveNoRowThatNothingReaches) {
  std::set<const OpcodeInfo*> seen;
  EncodingGenerator generator(1);
  Instruction instruction;
  for (uint64_t i = 0; i < EncodingSweep::kCount; i += 7) {
    const Encoding encoding = EncodingSweep::at(i, generator);
    if (decode(encoding.bytes, encoding.mode, DecodeOptions{}, instruction) == DecodeStatus::kOk)
      seen.insert(instruction.info);
  }
  for (const tables::Entry& entry : tables::all_entries())
    EXPECT_TRUE(seen.contains(entry.info)) << mnemonic_name(entry.info->mnemonic);
}

}  // namespace
}  // namespace bulkhead::engine::decoder
