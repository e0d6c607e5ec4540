// Any bytes as a program, under both engines: byte 0 chooses the mode, bytes 1 to 8 the registers, stops and
// interrupts, two bytes the place; the rest is code. Any difference ends the process.
#include <cstring>

#include <fmt/format.h>

#include "blocks/pair.h"
#include "support/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  constexpr size_t kHeader = 11, kLongestCode = 1024;
  if (size < kHeader + 1 || size > kHeader + kLongestCode) return 0;
  static blocks::Pair* const pair =
      blocks::Pair::create({.translate = true, .translate_after = 1}, {}).value().release();
  blocks::Case test{.mode = blocks::Pair::kModes[data[0] % blocks::Pair::kModes.size()], .program = {}};
  test.seed = load<uint64_t>(data + 1);
  test.program.start = load<uint16_t>(data + 9) % (blocks::kCodePages * kPageSize - kLongestCode);
  test.program.code.assign(data + kHeader, data + size);
  const auto differences = pair->run(test);
  if (differences.empty()) return 0;
  fmt::print(stderr, "{}", list(test, pair->decode_options()));
  for (const std::string& line : differences) fmt::print(stderr, "    {}\n", line);
  CHECK(false, "the engines disagree");
}
