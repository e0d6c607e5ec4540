// The guest's clocks agree with each other, and sleeps last as long as asked within one percent.
#include <cmath>
#include <csignal>
#include <cstdio>
#include <ctime>

#include <sys/time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "selftest.h"

namespace selftest {
namespace {

double now(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

volatile sig_atomic_t alarms;

}  // namespace

void test_timers() {
  const double realtime = now(CLOCK_REALTIME), raw = now(CLOCK_MONOTONIC_RAW);
  const double start = now(CLOCK_MONOTONIC);
  const uint64_t tsc_start = __rdtsc();
  timespec two_seconds{.tv_sec = 2, .tv_nsec = 0};
  clock_nanosleep(CLOCK_MONOTONIC, 0, &two_seconds, nullptr);
  const uint64_t tsc = __rdtsc() - tsc_start;
  const double elapsed = now(CLOCK_MONOTONIC) - start;
  const auto text = [](double value) { return std::to_string(value); };
  expect(elapsed >= 2.0 && elapsed < 2.02, "a sleep of 2 s lasts 2 s within 1 %", text(elapsed));
  expect(std::fabs(now(CLOCK_REALTIME) - realtime - elapsed) < 0.02, "real time agrees with monotonic time");
  expect(std::fabs(now(CLOCK_MONOTONIC_RAW) - raw - elapsed) < 0.02, "raw time agrees with monotonic time");
  expect(tsc > 0, "the TSC moves on");

  // A periodic timer: 100 ticks of 10 ms.
  signal(SIGALRM, [](int) { alarms = alarms + 1; });
  itimerval period{.it_interval = {0, 10000}, .it_value = {0, 10000}};
  const double before = now(CLOCK_MONOTONIC);
  setitimer(ITIMER_REAL, &period, nullptr);
  while (alarms < 100) pause();
  const double ticks = now(CLOCK_MONOTONIC) - before;
  period = {};
  setitimer(ITIMER_REAL, &period, nullptr);
  expect(std::fabs(ticks - 1.0) < 0.011, "100 ticks of 10 ms last 1 s within 1 %", text(ticks));

  // Time never goes back, read as fast as can be.
  double last = now(CLOCK_MONOTONIC);
  bool monotonic = true;
  for (int i = 0; i < 20000; ++i) {
    const double next = now(CLOCK_MONOTONIC);
    monotonic &= next >= last;
    last = next;
  }
  expect(monotonic, "monotonic time never goes back");
}

}  // namespace selftest
