// Fuzzes the decoder: first byte the mode, then the instruction. Whatever the bytes, the outcome agrees with Zydis, and
// no byte beyond the instruction matters.
#include "engine/decoder/zydis_explanations.h"
#include "support/check.h"

namespace {

using namespace bulkhead::engine::decoder;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto mode = static_cast<DecodeMode>(data[0] & 3);
  const std::span<const uint8_t> bytes(data + 1, std::min<size_t>(size - 1, kMaxInstructionLength));
  const DecodeResult alone = decode(bytes, mode, DecodeOptions{});
  CHECK(alone.status != DecodeStatus::kTooLong || bytes.size() == kMaxInstructionLength,
        "too long although bytes are missing");

  std::array<uint8_t, kMaxInstructionLength> padded{};
  std::copy(bytes.begin(), bytes.end(), padded.begin());
  static const oracle::Oracle oracle;
  oracle::Case result;
  oracle.compare(padded, mode, result);
  if (alone.status == DecodeStatus::kOk)
    CHECK(result.we_accept() && result.ours.length == alone.instruction.length &&
              result.ours.info == alone.instruction.info,
          "bytes after the instruction matter");
  std::array<uint64_t, oracle::kExplanationCount> counts{};
  oracle::explain(result, counts);
  if (result.differences != 0) fmt::print(stderr, "{}\n", oracle::describe(result));
  CHECK(result.differences == 0, "decoder and Zydis differ");
  return 0;
}
