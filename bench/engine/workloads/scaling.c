// The same work done by one thread and by two, for the gain of a second CPU: computing alone, memory of one's own, and
// a counter that both change. See bench.h for what all workloads promise.
#include <pthread.h>

#include "bench.h"

struct Part {
  uint64_t first, last, sum;
};

static void* compute(void* argument) {
  struct Part* part = argument;
  for (uint64_t i = part->first; i < part->last; i++) {
    uint64_t state = i + 1;
    for (int k = 0; k < 1000; k++) next_random(&state);
    part->sum += state;
  }
  return NULL;
}

static void* use_memory(void* argument) {
  struct Part* part = argument;
  enum { kSize = 32768 };
  uint32_t* values = malloc(kSize * sizeof *values);
  if (!values) fail("malloc");
  for (uint64_t i = part->first; i < part->last; i++) {
    uint64_t state = i + 1;
    for (int k = 0; k < kSize; k++) values[k] = (uint32_t)next_random(&state);
    for (int k = 0; k < kSize; k++) part->sum += values[values[k] % kSize];
  }
  free(values);
  return NULL;
}

static uint64_t counter, passes;
static pthread_mutex_t counter_mutex = PTHREAD_MUTEX_INITIALIZER;

// Mostly work of one's own, and every now and then the lock.
static void* use_lock(void* argument) {
  struct Part* part = argument;
  for (uint64_t i = part->first; i < part->last; i++) {
    uint64_t state = i + 1;
    for (int k = 0; k < 1000; k++) next_random(&state);
    pthread_mutex_lock(&counter_mutex);
    counter += state;
    pthread_mutex_unlock(&counter_mutex);
    __atomic_fetch_add(&passes, 1, __ATOMIC_SEQ_CST);
  }
  return NULL;
}

static uint64_t divide(void* (*work)(void*), uint64_t count, int threads) {
  struct Part parts[2] = {{0, threads == 2 ? count / 2 : count, 0}, {count / 2, count, 0}};
  pthread_t other;
  if (threads == 2 && pthread_create(&other, NULL, work, &parts[1]) != 0) fail("pthread_create");
  work(&parts[0]);
  if (threads == 2) pthread_join(other, NULL);
  return parts[0].sum + (threads == 2 ? parts[1].sum : 0);
}

static uint64_t compute_by_1(uint64_t count) {
  return divide(compute, count, 1);
}
static uint64_t compute_by_2(uint64_t count) {
  return divide(compute, count, 2);
}
static uint64_t memory_by_1(uint64_t count) {
  return divide(use_memory, count, 1);
}
static uint64_t memory_by_2(uint64_t count) {
  return divide(use_memory, count, 2);
}
static uint64_t lock_by_1(uint64_t count) {
  return divide(use_lock, count, 1) ^ mix(counter, passes);
}
static uint64_t lock_by_2(uint64_t count) {
  return divide(use_lock, count, 2) ^ mix(counter, passes);
}

const struct Workload kScalingWorkloads[] = {
    {"compute_by_1", "scaling", 200000, compute_by_1},
    {"compute_by_2", "scaling", 200000, compute_by_2},
    {"memory_by_1", "scaling", 600, memory_by_1},
    {"memory_by_2", "scaling", 600, memory_by_2},
    {"lock_by_1", "scaling", 200000, lock_by_1},
    {"lock_by_2", "scaling", 200000, lock_by_2},
    {NULL, NULL, 0, NULL},
};
