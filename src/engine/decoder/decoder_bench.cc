// Decoding speed against Zydis in the same run: nanoseconds for one instruction, on code as compilers make it (this
// program's own text) and on random valid encodings. Goal: under 40 ns at -O2.
#include <Zydis/Zydis.h>
#include <benchmark/benchmark.h>

#include <vector>

#include "engine/decoder/encodings.h"

namespace bulkhead::engine::decoder {
namespace {

using Bytes = std::array<uint8_t, 16>;

std::vector<Bytes> random_encodings() {
  std::vector<Bytes> all;
  EncodingGenerator generator(7);
  while (all.size() < 4096) {
    const Encoding encoding = generator.next();
    if (encoding.mode == DecodeMode::kLong64 &&
        decode(encoding.bytes, DecodeMode::kLong64, {}).status == DecodeStatus::kOk)
      all.push_back(encoding.bytes);
  }
  return all;
}

// Instructions of a function that the compiler made, again and again.
std::vector<Bytes> compiled_code() {
  std::vector<Bytes> all;
  const auto* code = reinterpret_cast<const uint8_t*>(&ZydisDecoderDecodeFull);
  size_t at = 0;
  while (all.size() < 256) {
    Bytes bytes{};
    std::copy(code + at, code + at + kMaxInstructionLength, bytes.begin());
    const DecodeResult result = decode(bytes, DecodeMode::kLong64, {});
    if (result.status != DecodeStatus::kOk) break;
    all.push_back(bytes);
    at += result.instruction.length;
  }
  return all;
}

void run_ours(benchmark::State& state, const std::vector<Bytes>& encodings) {
  const DecodeOptions options;
  Instruction instruction;
  size_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(decode(encodings[i], DecodeMode::kLong64, options, instruction));
    benchmark::DoNotOptimize(instruction);
    if (++i == encodings.size()) i = 0;
  }
}

void run_zydis(benchmark::State& state, const std::vector<Bytes>& encodings) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisDecodedInstruction instruction;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
  size_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        ZydisDecoderDecodeFull(&decoder, encodings[i].data(), kMaxInstructionLength, &instruction, operands.data()));
    benchmark::DoNotOptimize(operands);
    if (++i == encodings.size()) i = 0;
  }
}

void BM_DecodeCompiledCode(benchmark::State& state) {
  run_ours(state, compiled_code());
}
void BM_DecodeCompiledCodeZydis(benchmark::State& state) {
  run_zydis(state, compiled_code());
}
void BM_DecodeRandom(benchmark::State& state) {
  run_ours(state, random_encodings());
}
void BM_DecodeRandomZydis(benchmark::State& state) {
  run_zydis(state, random_encodings());
}
BENCHMARK(BM_DecodeCompiledCode);
BENCHMARK(BM_DecodeCompiledCodeZydis);
BENCHMARK(BM_DecodeRandom);
BENCHMARK(BM_DecodeRandomZydis);

}  // namespace
}  // namespace bulkhead::engine::decoder
