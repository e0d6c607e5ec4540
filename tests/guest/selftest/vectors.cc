// SSE to AVX2, AES, CRC32, BMI: against answers known beforehand, each only when CPUID shows it; and that what CPUID
// does not show is refused. Registers must survive switches between processes and threads.
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include <cpuid.h>
#include <immintrin.h>
#include <sched.h>

#include "selftest.h"

namespace selftest {
namespace {

template <typename Vector>
void expect_vector(const char* name, const Vector& seen, std::initializer_list<uint64_t> known) {
  uint64_t words[sizeof(Vector) / 8];
  std::memcpy(words, &seen, sizeof words);
  bool equal = true;
  std::string text;
  size_t i = 0;
  for (const uint64_t word : known) {
    equal &= words[i] == word;
    char part[32];
    std::snprintf(part, sizeof part, "%016llx ", static_cast<unsigned long long>(words[i++]));
    text += part;
  }
  expect(equal, name, text);
}

void sse() {
  const __m128i a = _mm_set_epi32(0x7FFFFFFF, -1, 100, 5), b = _mm_set_epi32(1, 1, 200, 7);
  expect_vector("paddd", _mm_add_epi32(a, b), {0x0000012C0000000C, 0x8000000000000000});
  expect_vector("pmuludq", _mm_mul_epu32(a, b), {35, 0xFFFFFFFF});
  expect_vector("packssdw", _mm_packs_epi32(a, b), {0x7FFFFFFF00640005, 0x0001000100C80007});
  expect_vector("psadbw", _mm_sad_epu8(a, b), {102, 1910});
  expect(_mm_movemask_epi8(a) == 0x7F00, "pmovmskb", std::to_string(_mm_movemask_epi8(a)));
}

__attribute__((target("sse4.2"))) void sse4() {
  const __m128i text = _mm_loadu_si128(reinterpret_cast<const __m128i*>("the quick brown fox"));
  const __m128i needle = _mm_loadu_si128(reinterpret_cast<const __m128i*>("quick\0..........."));
  expect(_mm_cmpistri(needle, text, _SIDD_CMP_EQUAL_ORDERED) == 4, "pcmpistri finds a word");
  uint32_t crc = 0xFFFFFFFF;
  for (const char c : {'1', '2', '3', '4', '5', '6', '7', '8', '9'}) crc = _mm_crc32_u8(crc, static_cast<uint8_t>(c));
  expect(~crc == 0xE3069283, "crc32c of 123456789");
  expect(__builtin_popcountll(0xF0F0F0F0F0F0F0F1) == 33, "popcnt");
  expect_vector("pmulld", _mm_mullo_epi32(_mm_set1_epi32(70000), _mm_set1_epi32(70000)),
                {0x2410110024101100, 0x2410110024101100});
}

__attribute__((target("aes"))) void aes() {
  // FIPS 197, appendix B: the first round of the example cipher.
  uint8_t start[16] = {0x19, 0x3D, 0xE3, 0xBE, 0xA0, 0xF4, 0xE2, 0x2B, 0x9A, 0xC6, 0x8D, 0x2A, 0xE9, 0xF8, 0x48, 0x08};
  uint8_t key[16] = {0xA0, 0xFA, 0xFE, 0x17, 0x88, 0x54, 0x2C, 0xB1, 0x23, 0xA3, 0x39, 0x39, 0x2A, 0x6C, 0x76, 0x05};
  uint8_t known[16] = {0xA4, 0x9C, 0x7F, 0xF2, 0x68, 0x9F, 0x35, 0x2B, 0x6B, 0x5B, 0xEA, 0x43, 0x02, 0x6A, 0x50, 0x49};
  const __m128i seen = _mm_aesenc_si128(_mm_loadu_si128(reinterpret_cast<__m128i*>(start)),
                                        _mm_loadu_si128(reinterpret_cast<__m128i*>(key)));
  expect(std::memcmp(&seen, known, 16) == 0, "aesenc of FIPS 197's example");
}

__attribute__((target("avx2,fma,bmi,bmi2"))) void avx2() {
  const __m256i a = _mm256_set_epi64x(4, 3, 2, 1), b = _mm256_set1_epi64x(10);
  expect_vector("vpaddq", _mm256_add_epi64(a, b), {11, 12, 13, 14});
  expect_vector("vpermq", _mm256_permute4x64_epi64(a, 0x1B), {4, 3, 2, 1});
  const uint64_t table[] = {100, 200, 300, 400, 500};
  expect_vector("vpgatherqq", _mm256_i64gather_epi64(reinterpret_cast<const long long*>(table), a, 8),
                {200, 300, 400, 500});
  volatile double x = 1.0 + 0x1p-52;
  const double fused = _mm_cvtsd_f64(_mm_fmsub_sd(_mm_set_sd(x), _mm_set_sd(x), _mm_set_sd(1.0 + 0x1p-51)));
  expect(bits(fused) == bits(0x1p-104), "vfmsub keeps the exact product", std::to_string(bits(fused)));
  volatile uint64_t value = 0x123456789ABCDEF0, mask = 0xF0F0F0F0F0F0F0F0;
  expect(_pext_u64(value, mask) == 0x13579BDF, "pext");
  expect(_pdep_u64(0x13579BDF, mask) == (value & mask), "pdep");
  unsigned long long high = 0;
  const uint64_t low = _mulx_u64(value, value, &high);
  expect(low == 0xa5e20890f2a52100 && high == 0x14b66dc33f6acdc, "mulx", std::to_string(high));
}

// YMM registers hold while other threads with other values run on the same processor.
__attribute__((target("avx"), noinline)) bool ymm_survives(uint64_t seed, unsigned rounds) {
  bool kept = true;
  for (unsigned i = 0; i < rounds && kept; ++i) {
    const uint64_t in[4] = {seed, seed ^ i, ~seed, seed + i};
    uint64_t out[4];
    asm volatile("vmovdqu %1,%%ymm9; mov $24,%%eax; syscall; vmovdqu %%ymm9,%0"  // sched_yield
                 : "=m"(out)
                 : "m"(in)
                 : "xmm9", "rax", "rcx", "r11", "memory");
    kept = std::memcmp(in, out, sizeof in) == 0;
  }
  return kept;
}

}  // namespace

void test_vectors() {
  sse();
  if (__builtin_cpu_supports("sse4.2")) sse4();
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_AES)) aes();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) avx2();
  if (__builtin_cpu_supports("avx")) {
    std::vector<std::thread> threads;
    for (uint64_t i = 1; i <= 4; ++i) {
      threads.emplace_back([i] { expect(ymm_survives(i * 0x0101010101010101, 500), "YMM registers across threads"); });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

}  // namespace selftest
