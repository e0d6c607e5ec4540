// selftest [--thread-seconds N] [NAME...]: runs the named groups, or all.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "selftest.h"

namespace selftest {
namespace {

unsigned check_count = 0;
unsigned failure_count = 0;
std::mutex report_mutex;

}  // namespace

void expect(bool holds, const std::string& name, const std::string& seen) {
  const std::lock_guard<std::mutex> guard(report_mutex);
  ++check_count;
  if (holds) return;
  ++failure_count;
  std::printf("FAILED %s%s%s\n", name.c_str(), seen.empty() ? "" : ": ", seen.c_str());
}

}  // namespace selftest

int main(int argument_count, char** arguments) {
  using namespace selftest;
  double thread_seconds = 60;
  std::vector<std::string> wanted;
  for (int i = 1; i < argument_count; ++i) {
    if (std::strcmp(arguments[i], "--thread-seconds") == 0 && i + 1 < argument_count) {
      thread_seconds = std::atof(arguments[++i]);
    } else {
      wanted.emplace_back(arguments[i]);
    }
  }
  struct Group {
    const char* name;
    std::function<void()> run;
  };
  const Group groups[] = {
      {"faults", test_faults},
      {"floating-point", test_floating_point},
      {"vectors", test_vectors},
      {"timers", test_timers},
      {"processes", test_processes},
      {"memory", test_memory},
      {"self-modifying-code", test_self_modifying_code},
      {"threads", [=] { test_threads(thread_seconds); }},
  };
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  for (const Group& group : groups) {
    bool run = wanted.empty();
    for (const std::string& name : wanted) run |= name == group.name;
    if (!run) continue;
    const unsigned failures_before = failure_count;
    group.run();
    std::printf("selftest %s: %s\n", group.name, failure_count == failures_before ? "ok" : "FAILED");
  }
  std::printf("selftest: %u checks, %u failures\n", check_count, failure_count);
  return failure_count == 0 ? 0 : 1;
}
