// Integer workloads: small kernels, each with one thing that an engine may do badly. See bench.h for what all of them
// promise.
#include "bench.h"

static uint64_t crc32(uint64_t count) {
  static uint32_t table[256];
  static unsigned char data[16384];
  uint64_t state = 1;
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; bit++) c = (c >> 1) ^ (c & 1 ? 0xedb88320u : 0);
    table[i] = c;
  }
  for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)next_random(&state);
  start_stopwatch();
  uint32_t crc = ~0u;
  for (uint64_t round = 0; round < count; round++) {
    for (size_t i = 0; i < sizeof data; i++) crc = table[(crc ^ data[i]) & 255] ^ (crc >> 8);
  }
  return crc;
}

static inline uint32_t rotate_right(uint32_t x, int n) {
  return (x >> n) | (x << (32 - n));
}

static uint32_t sha256_constants[64];

// The constants are the fractions of the cube roots of the first primes, found by bisection in integers.
static void make_sha256_constants(void) {
  int found = 0;
  for (uint32_t candidate = 2; found < 64; candidate++) {
    int prime = 1;
    for (uint32_t d = 2; d * d <= candidate; d++) {
      if (candidate % d == 0) prime = 0;
    }
    if (!prime) continue;
    unsigned __int128 target = (unsigned __int128)candidate << 96;
    uint64_t low = 0, high = (uint64_t)1 << 36;
    while (high - low > 1) {
      uint64_t middle = (low + high) / 2;
      if ((unsigned __int128)middle * middle * middle <= target)
        low = middle;
      else
        high = middle;
    }
    sha256_constants[found++] = (uint32_t)low;
  }
}

static void sha256_block(uint32_t* hash, const unsigned char* block) {
  uint32_t w[64];
  for (int i = 0; i < 16; i++) {
    w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
           block[4 * i + 3];
  }
  for (int i = 16; i < 64; i++) {
    uint32_t s0 = rotate_right(w[i - 15], 7) ^ rotate_right(w[i - 15], 18) ^ (w[i - 15] >> 3);
    uint32_t s1 = rotate_right(w[i - 2], 17) ^ rotate_right(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  uint32_t a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4], f = hash[5], g = hash[6], h = hash[7];
  for (int i = 0; i < 64; i++) {
    uint32_t s1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
    uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + sha256_constants[i] + w[i];
    uint32_t s0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
    uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  hash[0] += a, hash[1] += b, hash[2] += c, hash[3] += d, hash[4] += e, hash[5] += f, hash[6] += g, hash[7] += h;
}

static uint64_t sha256(uint64_t count) {
  static unsigned char data[8192];
  uint32_t hash[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  make_sha256_constants();
  for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 7);
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    for (size_t i = 0; i < sizeof data; i += 64) sha256_block(hash, data + i);
  }
  return (uint64_t)hash[0] << 32 | hash[7];
}

static uint64_t sieve(uint64_t count) {
  enum { kLimit = 1 << 20 };
  static unsigned char composite[kLimit];
  uint64_t result = 0;
  for (uint64_t round = 0; round < count; round++) {
    memset(composite, 0, sizeof composite);
    for (uint32_t i = 2; i * i < kLimit; i++) {
      if (composite[i]) continue;
      for (uint32_t j = i * i; j < kLimit; j += i) composite[j] = 1;
    }
    uint64_t primes = 0;
    for (uint32_t i = 2; i < kLimit; i++) primes += !composite[i];
    result = mix(result, primes);
  }
  return result;
}

static uint64_t matrix_integer(uint64_t count) {
  enum { kSize = 96 };
  static int32_t a[kSize][kSize], b[kSize][kSize], c[kSize][kSize];
  uint64_t state = 3, result = 0;
  for (int i = 0; i < kSize; i++) {
    for (int j = 0; j < kSize; j++) a[i][j] = (int32_t)next_random(&state), b[i][j] = (int32_t)next_random(&state);
  }
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    for (int i = 0; i < kSize; i++) {
      for (int j = 0; j < kSize; j++) {
        uint32_t sum = 0;
        for (int k = 0; k < kSize; k++) sum += (uint32_t)a[i][k] * (uint32_t)b[k][j];
        c[i][j] = (int32_t)sum;
      }
    }
    a[round % kSize][3] ^= c[5][round % kSize];
    result = mix(result, (uint32_t)c[round % kSize][7]);
  }
  return result;
}

// A linked list in random order: nothing but the latency of a load. Its 512 KiB fit into the second-level cache.
static uint64_t pointer_chase(uint64_t count) {
  enum { kNodes = 8192 };
  struct Node {
    struct Node* next;
    uint64_t value[7];
  };
  static struct Node nodes[kNodes];
  static uint32_t order[kNodes];
  uint64_t state = 5;
  for (uint32_t i = 0; i < kNodes; i++) order[i] = i;
  for (uint32_t i = kNodes - 1; i > 0; i--) {
    uint32_t j = (uint32_t)(next_random(&state) % (i + 1)), t = order[i];
    order[i] = order[j], order[j] = t;
  }
  for (uint32_t i = 0; i < kNodes; i++) {
    nodes[order[i]].next = &nodes[order[(i + 1) % kNodes]];
    nodes[order[i]].value[0] = i;
  }
  start_stopwatch();
  const struct Node* node = nodes;
  for (uint64_t i = 0; i < count; i++) node = node->next;
  return node->value[0];
}

// 320-bit by 320-bit products in schoolbook manner, with 128-bit partial sums: mul, add, adc.
static uint64_t bignum_multiply(uint64_t count) {
  enum { kWords = 32 };
  static uint64_t a[kWords], b[kWords], product[2 * kWords];
  uint64_t state = 7;
  for (int i = 0; i < kWords; i++) a[i] = next_random(&state), b[i] = next_random(&state);
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    memset(product, 0, sizeof product);
    for (int i = 0; i < kWords; i++) {
      uint64_t carry = 0;
      for (int j = 0; j < kWords; j++) {
        unsigned __int128 t = (unsigned __int128)a[i] * b[j] + product[i + j] + carry;
        product[i + j] = (uint64_t)t;
        carry = (uint64_t)(t >> 64);
      }
      product[i + kWords] = carry;
    }
    a[round % kWords] ^= product[kWords + 1];
  }
  return mix(product[kWords - 1], product[2 * kWords - 1]);
}

// A chain of additions with carry, written so that the carry stays in the flag register over loads and stores.
static uint64_t add_with_carry(uint64_t count) {
  enum { kWords = 64 };
  static uint64_t a[kWords], b[kWords];
  uint64_t state = 9;
  for (int i = 0; i < kWords; i++) a[i] = next_random(&state), b[i] = next_random(&state);
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    uint64_t left = kWords / 4, *to = a;
    const uint64_t* from = b;
    uint64_t t;
    __asm__ volatile(
        "clc\n"
        "1: mov (%[from]), %[t]\n adc %[t], (%[to])\n"
        "mov 8(%[from]), %[t]\n adc %[t], 8(%[to])\n"
        "mov 16(%[from]), %[t]\n adc %[t], 16(%[to])\n"
        "mov 24(%[from]), %[t]\n adc %[t], 24(%[to])\n"
        "lea 32(%[from]), %[from]\n lea 32(%[to]), %[to]\n"
        "dec %[left]\n jnz 1b\n"
        : [to] "+r"(to), [from] "+r"(from), [left] "+r"(left), [t] "=&r"(t)
        :
        : "cc", "memory");
  }
  uint64_t result = 0;
  for (int i = 0; i < kWords; i++) result = mix(result, a[i]);
  return result;
}

static __attribute__((noinline)) uint64_t fibonacci_of(uint64_t n) {
  OPAQUE(n);
  return n < 2 ? n : fibonacci_of(n - 1) + fibonacci_of(n - 2);
}

static uint64_t fibonacci(uint64_t count) {
  uint64_t result = 0;
  for (uint64_t round = 0; round < count; round++) result = mix(result, fibonacci_of(22));
  return result;
}

static uint64_t place_queens(uint32_t all, uint32_t columns, uint32_t left, uint32_t right) {
  if (columns == all) return 1;
  uint64_t solutions = 0;
  uint32_t free_places = all & ~(columns | left | right);
  while (free_places) {
    uint32_t place = free_places & -free_places;
    free_places ^= place;
    solutions += place_queens(all, columns | place, (left | place) << 1, (right | place) >> 1);
  }
  return solutions;
}

static uint64_t queens(uint64_t count) {
  uint64_t result = 0;
  for (uint64_t round = 0; round < count; round++) result = mix(result, place_queens((1u << 9) - 1, 0, 0, 0));
  return result;
}

// The C library's own memcpy, memset and memcmp, in blocks of 16 bytes to 16 KiB.
static uint64_t memory_copy(uint64_t count) {
  static unsigned char a[32768], b[32768];
  uint64_t state = 11, result = 0;
  for (size_t i = 0; i < sizeof a; i++) a[i] = (unsigned char)next_random(&state);
  memcpy(b, a, sizeof b);
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    for (size_t size = 16; size <= 16384; size *= 2) {
      size_t from = (round * 24 + size) & 1023;
      memcpy(b + from, a + 7, size);
      memset(a + size, (int)round, size / 2);
      result += (uint64_t)(memcmp(a, b, size) != 0) + b[from + size / 2];
    }
  }
  return result;
}

const struct Workload kIntegerWorkloads[] = {
    {"crc32", "integer", 3500, crc32},
    {"sha256", "integer", 2400, sha256},
    {"sieve", "integer", 40, sieve},
    {"matrix_integer", "integer", 80, matrix_integer},
    {"pointer_chase", "integer", 30000000, pointer_chase},
    {"bignum_multiply", "integer", 45000, bignum_multiply},
    {"add_with_carry", "integer", 400000, add_with_carry},
    {"fibonacci", "integer", 500, fibonacci},
    {"queens", "integer", 1000, queens},
    {"memory_copy", "integer", 4000, memory_copy},
    {NULL, NULL, 0, NULL},
};
