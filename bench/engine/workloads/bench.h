// What every workload of the engine's benchmark shares: its entry in the list, its stopwatch, and pseudo-random
// numbers. A workload does a fixed amount of work and answers with a checksum of everything it computed, so that all
// sides can be seen to have done the same. It must not use the mathematical library or anything else whose result may
// depend on the CPU.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct Workload {
  const char* name;
  const char* group;
  uint64_t count;  // chosen so that QEMU's TCG needs 0.3 to 1 s
  uint64_t (*run)(uint64_t count);
};

// Lists end with an entry without a name.
extern const struct Workload kIntegerWorkloads[];
extern const struct Workload kProgramWorkloads[];
extern const struct Workload kFloatingWorkloads[];
extern const struct Workload kVectorWorkloads[];
extern const struct Workload kSystemWorkloads[];
extern const struct Workload kScalingWorkloads[];

// Starts the stopwatch anew: called by a workload that had something to prepare. It has been started before the
// workload in any case.
void start_stopwatch(void);

// Ends the program with a message: a workload that cannot do its work gives no figure.
_Noreturn void fail(const char* what);

// A folder on tmpfs.
const char* scratch_folder(void);

static inline uint64_t mix(uint64_t hash, uint64_t value) {
  hash ^= value + 0x9e3779b97f4a7c15u + (hash << 6) + (hash >> 2);
  return hash * 0xff51afd7ed558ccdu;
}

static inline uint64_t mix_double(uint64_t hash, double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return mix(hash, bits);
}

static inline uint64_t next_random(uint64_t* state) {
  uint64_t x = *state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return *state = x;
}

// Keeps the compiler from seeing what a value is, and so from computing it beforehand or leaving work out.
#define OPAQUE(variable) __asm__ volatile("" : "+r"(variable))
