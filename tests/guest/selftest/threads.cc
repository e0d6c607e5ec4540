// Threads with futexes and atomics: nothing is lost, ordering holds as x86 promises, and every waiter wakes.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>
#include <vector>

#include "selftest.h"

namespace selftest {
namespace {

constexpr unsigned kThreads = 4;
using Clock = std::chrono::steady_clock;

void run_together(const std::function<void(unsigned)>& body) {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back(body, i);
  for (std::thread& thread : threads) thread.join();
}

// LOCK-prefixed instructions of each kind on shared words, one of them across a cache line.
void atomics(Clock::time_point end) {
  struct {
    std::atomic<uint64_t> sum{0}, exchanged{0}, bits{0};
  } shared;
  alignas(64) static uint8_t split[128];
  std::atomic<uint64_t> expected_sum{0};
  std::atomic<uint64_t> rounds_done{0};
  auto* across = reinterpret_cast<uint64_t*>(split + 60);
  *across = 0;
  run_together([&](unsigned index) {
    uint64_t rounds = 0;
    do {
      for (int i = 0; i < 1000; ++i) {
        shared.sum.fetch_add(index + 1);
        uint64_t seen = shared.exchanged.load();
        while (!shared.exchanged.compare_exchange_weak(seen, seen + 1)) {
        }
        if (i % 100 == 0) asm volatile("lock incq %0" : "+m"(*across));
        shared.bits.fetch_xor(1ull << index);
        ++rounds;
      }
    } while (Clock::now() < end);
    expected_sum += rounds * (index + 1);
    rounds_done += rounds;
    if (rounds % 2 != 0) shared.bits.fetch_xor(1ull << index);
  });
  expect(shared.sum == expected_sum, "lock xadd loses nothing");
  expect(shared.exchanged == rounds_done, "lock cmpxchg loses nothing");
  expect(*across == rounds_done / 100, "a locked increment across a cache line loses nothing");
  expect(shared.bits == 0, "lock xor loses nothing");
}

// A 16-byte value that CMPXCHG16B changes as a whole is never seen torn.
void wide_compare_exchange(Clock::time_point end) {
  union Pair {
    volatile uint64_t words[2];
    unsigned __int128 whole;
  };
  alignas(16) static Pair pair{.words = {0, ~0ull}};
  std::atomic<bool> torn{false};
  run_together([&](unsigned) {
    do {
      for (int i = 0; i < 1000; ++i) {
        uint64_t low = pair.words[0], high = ~low, new_low = low + 1, new_high = ~new_low;
        uint8_t done;
        asm volatile("lock cmpxchg16b %1; sete %0"
                     : "=q"(done), "+m"(pair.whole), "+a"(low), "+d"(high)
                     : "b"(new_low), "c"(new_high)
                     : "cc", "memory");
        if (!done && low != ~high) torn = true;
      }
    } while (Clock::now() < end);
  });
  expect(!torn, "cmpxchg16b is never seen torn");
}

// x86 keeps stores in order and loads in order: a flag seen set means that the data before it is seen too.
void ordering(Clock::time_point end) {
  static volatile uint64_t data, flag;
  std::atomic<uint64_t> violations{0};
  data = 0;
  flag = 0;
  std::thread writer([&] {
    for (uint64_t i = 1; Clock::now() < end; ++i) {
      for (int k = 0; k < 200; ++k, ++i) {
        data = i;
        asm volatile("" ::: "memory");
        flag = i;
      }
    }
    flag = ~0ull;
  });
  while (true) {
    const uint64_t seen_flag = flag;
    asm volatile("" ::: "memory");
    const uint64_t seen_data = data;
    if (seen_flag == ~0ull) break;
    if (seen_data < seen_flag) ++violations;
  }
  writer.join();
  expect(violations == 0, "stores are seen in their order", std::to_string(violations));
}

// Futexes through a mutex and condition variables: a token goes round.
void ring(Clock::time_point end) {
  std::mutex mutex;
  std::condition_variable changed;
  unsigned turn = 0;
  uint64_t laps = 0;
  bool over = false;
  run_together([&](unsigned index) {
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return turn == index || over; });
      if (over) return;
      if (index == 0) ++laps;
      if (Clock::now() >= end) {
        over = true;
        changed.notify_all();
        return;
      }
      turn = (turn + 1) % kThreads;
      changed.notify_all();
    }
  });
  expect(laps > 0, "a token goes round through futexes", std::to_string(laps));
}

}  // namespace

void test_threads(double seconds) {
  const auto quarter = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds / 4));
  atomics(Clock::now() + quarter);
  wide_compare_exchange(Clock::now() + quarter);
  ordering(Clock::now() + quarter);
  ring(Clock::now() + quarter);
}

}  // namespace selftest
