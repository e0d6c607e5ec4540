// fork, exec, pipes and signals between processes; copies on write stay apart.
#include <csignal>
#include <cstdio>
#include <cstring>

#include <sys/wait.h>
#include <unistd.h>

#include "selftest.h"

namespace selftest {

void test_processes() {
  static volatile int shared_before = 1;
  for (int i = 0; i < 50; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      shared_before = 100 + i;
      _exit(shared_before == 100 + i ? i : 255);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != i) {
      expect(false, "a child ends with its status", std::to_string(status));
      return;
    }
  }
  expect(shared_before == 1, "a child's write stays its own");

  for (int i = 0; i < 20; ++i) {
    int ends[2];
    expect(pipe(ends) == 0, "pipe");
    const pid_t child = fork();
    if (child == 0) {
      dup2(ends[1], 1);
      close(ends[0]);
      execl("/bin/busybox", "busybox", "echo", "executed", nullptr);
      _exit(127);
    }
    close(ends[1]);
    char buffer[32] = {};
    size_t size = 0;
    for (ssize_t count; size < sizeof buffer && (count = read(ends[0], buffer + size, sizeof buffer - size)) > 0;) {
      size += static_cast<size_t>(count);
    }
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    expect(std::strcmp(buffer, "executed\n") == 0 && status == 0, "exec of a program", buffer);
  }

  const pid_t victim = fork();
  if (victim == 0) {
    while (true) pause();
  }
  kill(victim, SIGTERM);
  int status = 0;
  waitpid(victim, &status, 0);
  expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "a signal ends a process");
}

}  // namespace selftest
