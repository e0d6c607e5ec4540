// The guest self-test: what a user-space program can expect of a PC, checked inside the guest against answers known
// beforehand. Each check reports by name; the program's exit status is 0 only when all held.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace selftest {

// Counts a check; prints the name and what was seen when it does not hold.
void expect(bool holds, const std::string& name, const std::string& seen = "");

// Bits of a double or float, for exact comparisons.
inline uint64_t bits(double value) {
  return __builtin_bit_cast(uint64_t, value);
}
inline uint32_t bits(float value) {
  return __builtin_bit_cast(uint32_t, value);
}

void test_faults();
void test_floating_point();
void test_vectors();
void test_threads(double seconds);
void test_timers();
void test_processes();
void test_memory();
void test_self_modifying_code();

}  // namespace selftest
