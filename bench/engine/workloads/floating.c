// Floating-point workloads in compiled C: SSE2 scalars and what the compiler makes of loops, and the x87. Only
// additions, multiplications, divisions and square roots, which IEEE 754 defines to the last bit. See bench.h for what
// all of them promise.
#include "bench.h"

static double square_root(double x) {
  __asm__("sqrtsd %0, %0" : "+x"(x));
  return x;
}

// e to the x by range reduction to a 1024th and ten squarings.
static double exponential(double x) {
  double r = x / 1024, sum = 1 + r * (1 + r / 2 * (1 + r / 3 * (1 + r / 4 * (1 + r / 5))));
  for (int i = 0; i < 10; i++) sum *= sum;
  return sum;
}

// The natural logarithm of a value between 0.1 and 10 by the series of atanh.
static double logarithm(double x) {
  double y = (x - 1) / (x + 1), power = y, sum = 0;
  for (int k = 1; k < 40; k += 2, power *= y * y) sum += power / k;
  return 2 * sum;
}

static uint64_t n_body(uint64_t count) {
  enum { kBodies = 5 };
  static struct {
    double position[3], velocity[3], mass;
  } bodies[kBodies];
  for (int i = 0; i < kBodies; i++) {
    for (int k = 0; k < 3; k++) {
      bodies[i].position[k] = (i * 7 + k * 3) % 11 * 1.25 + i;
      bodies[i].velocity[k] = ((i * 5 + k) % 7 - 3) * 0.125;
    }
    bodies[i].mass = i == 0 ? 39.5 : 0.01 * i;
  }
  for (uint64_t step = 0; step < count; step++) {
    for (int i = 0; i < kBodies; i++) {
      for (int j = i + 1; j < kBodies; j++) {
        double d[3], square = 0.01;
        for (int k = 0; k < 3; k++) {
          d[k] = bodies[i].position[k] - bodies[j].position[k];
          square += d[k] * d[k];
        }
        double magnitude = 0.001 / (square * square_root(square));
        for (int k = 0; k < 3; k++) {
          bodies[i].velocity[k] -= d[k] * bodies[j].mass * magnitude;
          bodies[j].velocity[k] += d[k] * bodies[i].mass * magnitude;
        }
      }
    }
    for (int i = 0; i < kBodies; i++) {
      for (int k = 0; k < 3; k++) bodies[i].position[k] += 0.001 * bodies[i].velocity[k];
    }
  }
  uint64_t result = 0;
  for (int i = 0; i < kBodies; i++) result = mix_double(result, bodies[i].position[i % 3]);
  return result;
}

static uint64_t mandelbrot(uint64_t count) {
  uint64_t result = 0;
  for (uint64_t row = 0; row < count; row++) {
    double ci = (double)(row % 64) / 32 - 1;
    uint64_t total = 0;
    for (int column = 0; column < 64; column++) {
      double cr = column / 28.0 - 1.6, zr = 0, zi = 0;
      int n = 0;
      while (n < 200 && zr * zr + zi * zi < 4) {
        double t = zr * zr - zi * zi + cr;
        zi = 2 * zr * zi + ci;
        zr = t;
        n++;
      }
      total += (uint64_t)n;
    }
    result = mix(result, total);
  }
  return result;
}

static uint64_t fourier(uint64_t count) {
  enum { kSize = 1024 };
  static double re[kSize], im[kSize], wr[kSize / 2], wi[kSize / 2];
  // Twiddle factors by halving the angle from -1: cos(a/2) = sqrt((1 + cos a) / 2).
  double c = -1, s = 0;
  for (int size = 2; size < kSize; size *= 2) {
    double half = square_root((1 + c) / 2);
    s = size == 2 ? 1 : square_root((1 - c) / 2);
    c = half;
  }
  wr[0] = 1, wi[0] = 0;
  for (int i = 1; i < kSize / 2; i++) {
    wr[i] = wr[i - 1] * c + wi[i - 1] * s;
    wi[i] = wi[i - 1] * c - wr[i - 1] * s;
  }
  for (int i = 0; i < kSize; i++) re[i] = (i * 37) % 101, im[i] = 0;
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    for (int i = 0, j = 0; i < kSize; i++) {
      if (i < j) {
        double t = re[i];
        re[i] = re[j], re[j] = t;
        t = im[i], im[i] = im[j], im[j] = t;
      }
      int bit = kSize / 2;
      for (; j & bit; bit /= 2) j ^= bit;
      j ^= bit;
    }
    for (int size = 2; size <= kSize; size *= 2) {
      for (int start = 0; start < kSize; start += size) {
        for (int k = 0; k < size / 2; k++) {
          int a = start + k, b = a + size / 2, w = k * (kSize / size);
          double tr = re[b] * wr[w] - im[b] * wi[w], ti = re[b] * wi[w] + im[b] * wr[w];
          re[b] = re[a] - tr, im[b] = im[a] - ti;
          re[a] += tr, im[a] += ti;
        }
      }
    }
    for (int i = 0; i < kSize; i++) re[i] *= 1.0 / 32, im[i] *= 1.0 / 32;
  }
  return mix_double(mix_double(0, re[3]), im[77]);
}

static uint64_t matrix_double(uint64_t count) {
  enum { kSize = 96 };
  static double a[kSize][kSize], b[kSize][kSize], c[kSize][kSize];
  uint64_t result = 0;
  for (int i = 0; i < kSize; i++) {
    for (int j = 0; j < kSize; j++) a[i][j] = (i * 13 + j) % 17 - 8, b[i][j] = (i + j * 11) % 19 * 0.0625;
  }
  start_stopwatch();
  for (uint64_t round = 0; round < count; round++) {
    for (int i = 0; i < kSize; i++) {
      for (int j = 0; j < kSize; j++) c[i][j] = 0;
      for (int k = 0; k < kSize; k++) {
        for (int j = 0; j < kSize; j++) c[i][j] += a[i][k] * b[k][j];
      }
    }
    a[round % kSize][1] += 0.5;
    result = mix_double(result, c[round % kSize][9]);
  }
  return result;
}

static uint64_t black_scholes(uint64_t count) {
  uint64_t state = 29, result = 0;
  for (uint64_t i = 0; i < count; i++) {
    double price = 50 + (double)(next_random(&state) % 10000) / 100,
           strike = 50 + (double)(next_random(&state) % 10000) / 100;
    double years = 0.25 + (double)(next_random(&state) % 100) / 50, volatility = 0.2, rate = 0.03;
    double deviation = volatility * square_root(years);
    double d[2], probability[2];
    d[0] = (logarithm(price / strike) + (rate + volatility * volatility / 2) * years) / deviation;
    d[1] = d[0] - deviation;
    for (int k = 0; k < 2; k++) {
      double x = d[k] < 0 ? -d[k] : d[k], t = 1 / (1 + 0.2316419 * x);
      double tail = 0.3989422804 * exponential(-x * x / 2) *
                    (t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))));
      probability[k] = d[k] < 0 ? tail : 1 - tail;
    }
    result = mix_double(result, price * probability[0] - strike * exponential(-rate * years) * probability[1]);
  }
  return result;
}

// Newton's square roots, a continued fraction and a Horner scheme in the x87's 80 bits.
static uint64_t long_double(uint64_t count) {
  long double sum = 0, x = 2;
  for (uint64_t i = 0; i < count; i++) {
    long double guess = x / 2, fraction = 1;
    for (int k = 0; k < 6; k++) guess = (guess + x / guess) / 2;
    for (int k = 8; k > 0; k--) fraction = 1 + 1 / (fraction + (long double)k);
    sum = sum * 0.5L + guess * fraction;
    x += 0.125L;
    if (x > 1000) x = 2;
  }
  uint64_t bits[2] = {0, 0};
  memcpy(bits, &sum, 10);
  return mix(mix(0, bits[0]), bits[1] & 0xffff);
}

const struct Workload kFloatingWorkloads[] = {
    {"n_body", "fp", 60000, n_body},
    {"mandelbrot", "fp", 550, mandelbrot},
    {"fourier", "fp", 350, fourier},
    {"matrix_double", "fp", 8, matrix_double},
    {"black_scholes", "fp", 120000, black_scholes},
    {"long_double", "fp", 90000, long_double},
    {NULL, NULL, 0, NULL},
};
