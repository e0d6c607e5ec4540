// x87 and scalar SSE results against answers known bit by bit, rounding modes and status flags.
#include <cfenv>
#include <cmath>
#include <cstdio>

#include "selftest.h"

namespace selftest {
namespace {

void expect_bits(const char* name, uint64_t seen, uint64_t known) {
  char text[64];
  std::snprintf(text, sizeof text, "%#llx, not %#llx", static_cast<unsigned long long>(seen),
                static_cast<unsigned long long>(known));
  expect(seen == known, name, text);
}

double opaque(double value) {
  asm volatile("" : "+x"(value));
  return value;
}

uint32_t mxcsr() {
  uint32_t value;
  asm volatile("stmxcsr %0" : "=m"(value));
  return value;
}
void set_mxcsr(uint32_t value) {
  asm volatile("ldmxcsr %0" ::"m"(value));
}

}  // namespace

void test_floating_point() {
  expect_bits("0.1 + 0.2", bits(opaque(0.1) + opaque(0.2)), 0x3FD3333333333334);
  expect_bits("1 / 3", bits(opaque(1.0) / opaque(3.0)), 0x3FD5555555555555);
  expect_bits("sqrt(2)", bits(std::sqrt(opaque(2.0))), 0x3FF6A09E667F3BCD);
  expect_bits("float 16777216 + 1", bits(static_cast<float>(opaque(16777216.0) + 1.0)), 0x4B800000);
  expect_bits("0 / 0", bits(opaque(0.0) / opaque(0.0)), 0xFFF8000000000000);
  expect_bits("least normal / 2", bits(opaque(2.2250738585072014e-308) / opaque(2.0)), 0x0008000000000000);
  expect_bits("largest x 2", bits(opaque(1.7976931348623157e308) * opaque(2.0)), 0x7FF0000000000000);

  set_mxcsr(0x1F80);
  opaque(opaque(1.0) / opaque(3.0));
  expect_bits("inexact flag", mxcsr() & 0x3F, 0x20);
  set_mxcsr(0x1F80);
  opaque(opaque(1.0) / opaque(0.0));
  expect_bits("division-by-zero flag", mxcsr() & 0x3F, 0x04);
  for (const auto& [mode, known] : {std::pair{0x1F80u, 0x3FD5555555555555ull},
                                    {0x3F80u, 0x3FD5555555555555ull},
                                    {0x5F80u, 0x3FD5555555555556ull},
                                    {0x7F80u, 0x3FD5555555555555ull}}) {
    set_mxcsr(mode);
    const double third = opaque(opaque(1.0) / opaque(3.0));
    set_mxcsr(0x1F80);
    expect_bits("rounding mode of a third", bits(third), known);
  }
  set_mxcsr(0x9FC0);  // flush to zero, denormals are zero
  const double flushed = opaque(opaque(2.2250738585072014e-308) / opaque(2.0));
  set_mxcsr(0x1F80);
  expect_bits("flush to zero", bits(flushed), 0);
  int64_t converted;
  asm volatile("cvtsd2si %1,%0" : "=r"(converted) : "x"(opaque(2.5)));
  expect_bits("2.5 to integer, to even", static_cast<uint64_t>(converted), 2);
  asm volatile("cvttsd2si %1,%0" : "=r"(converted) : "x"(opaque(1e300)));
  expect_bits("1e300 to integer", static_cast<uint64_t>(converted), 0x8000000000000000);

  // x87: 80-bit results, constants, transcendental functions (correct to an ulp: compare as doubles).
  double result;
  asm volatile("fninit; fldpi; fstpl %0" : "=m"(result));
  expect_bits("fldpi", bits(result), 0x400921FB54442D18);
  asm volatile("fninit; fld1; fld1; faddp; fsqrt; fstpl %0" : "=m"(result));
  expect_bits("fsqrt of 2", bits(result), 0x3FF6A09E667F3BCD);
  asm volatile("fninit; fldpi; fsin; fstpl %0" : "=m"(result));
  expect(std::fabs(result) < 1e-15, "fsin of pi");
  asm volatile("fninit; fld1; fldl2e; fyl2x; fstpl %0" : "=m"(result));
  expect(std::fabs(result - 0.5287663729448977) < 1e-15, "fyl2x of log2(e)", std::to_string(result));
  struct __attribute__((packed)) {
    uint64_t mantissa;
    uint16_t exponent;
  } extended;
  asm volatile("fninit; fld1; fldl %1; fdivrp; fstpt %0" : "=m"(extended) : "m"(*new double(3.0)));
  expect_bits("a third in 64 bits of mantissa", extended.mantissa, 0xAAAAAAAAAAAAAAAB);
  expect_bits("exponent of a third", extended.exponent, 0x3FFD);
  uint16_t status;
  asm volatile("fninit; fldz; fldz; fdivp; fnstsw %0" : "=m"(status));
  expect_bits("invalid operation in the status word", status & 0x3F, 1);
  asm volatile("fninit; fnstsw %0" : "=m"(status));
  expect_bits("status after fninit", status, 0);
  uint64_t packed[2] = {};
  asm volatile("fninit; fildl %1; fbstp %0; fwait" : "=m"(packed) : "m"(*new int(-123456)));
  expect_bits("fbstp of -123456", packed[0], 0x123456);
  asm volatile("fninit");
}

}  // namespace selftest
