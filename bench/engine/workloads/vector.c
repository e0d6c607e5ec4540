// Vector workloads by intrinsics: SSE2, SSSE3, AVX2 with FMA (which every side's CPU must have: x86-64-v3). See bench.h
// for what all of them promise.
#include <immintrin.h>

#include "bench.h"

static uint64_t daxpy_dot(uint64_t count) {
  enum { kSize = 2048 };
  static double x[kSize], y[kSize] __attribute__((aligned(64)));
  uint64_t result = 0;
  for (int i = 0; i < kSize; i++) x[i] = i % 13 * 0.5, y[i] = i % 7;
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    __m128d a = _mm_set1_pd(round % 2 ? -0.25 : 0.25), sum = _mm_setzero_pd();
    for (int i = 0; i < kSize; i += 2) {
      __m128d v = _mm_add_pd(_mm_mul_pd(a, _mm_loadu_pd(x + i)), _mm_loadu_pd(y + i));
      _mm_storeu_pd(y + i, v);
      sum = _mm_add_pd(sum, _mm_mul_pd(v, v));
    }
    result = mix_double(result, _mm_cvtsd_f64(_mm_add_sd(sum, _mm_unpackhi_pd(sum, sum))));
  }
  return result;
}

// Sums of absolute differences and saturated averages of bytes, as in a video encoder.
static uint64_t sse2_bytes(uint64_t count) {
  enum { kSize = 8192 };
  static unsigned char a[kSize], b[kSize];
  uint64_t state = 31, result = 0;
  for (int i = 0; i < kSize; i++) a[i] = (unsigned char)next_random(&state), b[i] = (unsigned char)next_random(&state);
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    __m128i sum = _mm_setzero_si128();
    for (int i = 0; i < kSize; i += 16) {
      __m128i va = _mm_loadu_si128((const __m128i*)(a + i)), vb = _mm_loadu_si128((const __m128i*)(b + i));
      sum = _mm_add_epi64(sum, _mm_sad_epu8(va, vb));
      vb = _mm_avg_epu8(_mm_subs_epu8(vb, _mm_set1_epi8(1)), _mm_adds_epu8(va, _mm_set1_epi8(3)));
      _mm_storeu_si128((__m128i*)(b + i), vb);
    }
    a[round % kSize] ^= 0x55;
    result = mix(result, (uint64_t)_mm_cvtsi128_si64(sum) + (uint64_t)_mm_cvtsi128_si64(_mm_unpackhi_epi64(sum, sum)));
  }
  return result;
}

// Bytes to hexadecimal digits by PSHUFB, and a multiply-add of the digits.
__attribute__((target("ssse3"))) static uint64_t ssse3_shuffle(uint64_t count) {
  enum { kSize = 4096 };
  static unsigned char in[kSize], out[2 * kSize];
  uint64_t state = 37, result = 0;
  for (int i = 0; i < kSize; i++) in[i] = (unsigned char)next_random(&state);
  const __m128i digits = _mm_setr_epi8('0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f');
  const __m128i low = _mm_set1_epi8(15);
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    __m128i sum = _mm_setzero_si128();
    for (int i = 0; i < kSize; i += 16) {
      __m128i v = _mm_loadu_si128((const __m128i*)(in + i));
      __m128i high = _mm_shuffle_epi8(digits, _mm_and_si128(_mm_srli_epi16(v, 4), low));
      v = _mm_shuffle_epi8(digits, _mm_and_si128(v, low));
      _mm_storeu_si128((__m128i*)(out + 2 * i), _mm_unpacklo_epi8(high, v));
      _mm_storeu_si128((__m128i*)(out + 2 * i + 16), _mm_unpackhi_epi8(high, v));
      sum = _mm_add_epi16(sum, _mm_maddubs_epi16(high, v));
    }
    in[round % kSize] = out[(round * 3) % (2 * kSize)];
    result = mix(result, (uint64_t)_mm_cvtsi128_si64(_mm_hadd_epi16(sum, sum)));
  }
  return result;
}

__attribute__((target("avx2,fma"))) static uint64_t avx2_fma(uint64_t count) {
  enum { kSize = 2048 };
  static float x[kSize], y[kSize];
  uint64_t result = 0;
  for (int i = 0; i < kSize; i++) x[i] = (float)(i % 23) * 0.125f, y[i] = (float)(i % 5);
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    __m256 sum = _mm256_setzero_ps(), scale = _mm256_set1_ps(round % 2 ? -0.5f : 0.5f);
    __m256i bits = _mm256_setzero_si256();
    for (int i = 0; i < kSize; i += 8) {
      __m256 v = _mm256_fmadd_ps(scale, _mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i));
      _mm256_storeu_ps(y + i, v);
      sum = _mm256_fmadd_ps(v, v, sum);
      bits = _mm256_xor_si256(_mm256_add_epi32(bits, _mm256_castps_si256(v)), _mm256_slli_epi32(bits, 3));
    }
    float lanes[8];
    uint32_t words[8];
    _mm256_storeu_ps(lanes, sum);
    _mm256_storeu_si256((__m256i*)words, bits);
    for (int i = 0; i < 8; i++) result = mix(mix_double(result, lanes[i]), words[i]);
  }
  return result;
}

const struct Workload kVectorWorkloads[] = {
    {"daxpy_dot", "fp", 1600, daxpy_dot},
    {"sse2_bytes", "fp", 5000, sse2_bytes},
    {"ssse3_shuffle", "fp", 6500, ssse3_shuffle},
    {"avx2_fma", "fp", 1200, avx2_fma},
    {NULL, NULL, 0, NULL},
};
