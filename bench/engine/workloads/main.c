// The program that holds every workload: lists them, or runs one and prints "bench: NAME CHECKSUM NANOSECONDS". It also
// times a program of the system in the same manner. Time is CLOCK_MONOTONIC of where it runs.
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

static struct timespec started;
static uint64_t cpu_started_ns;

static uint64_t cpu_time_ns(void) {
  uint64_t sum_us = 0;
  static const int kWhose[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
  for (int i = 0; i < 2; i++) {
    struct rusage used;
    if (getrusage(kWhose[i], &used) != 0) fail("getrusage");
    sum_us += (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000u +
              (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
  }
  return sum_us * 1000u;
}

void start_stopwatch(void) {
  cpu_started_ns = cpu_time_ns();
  clock_gettime(CLOCK_MONOTONIC, &started);
}

static uint64_t stopwatch_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)(now.tv_sec - started.tv_sec) * 1000000000u + (uint64_t)now.tv_nsec - (uint64_t)started.tv_nsec;
}

void fail(const char* what) {
  fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
  exit(1);
}

const char* scratch_folder(void) {
  const char* folder = getenv("BENCH_SCRATCH");
  return folder ? folder : "/tmp";
}

static const struct Workload* const kLists[] = {kIntegerWorkloads, kProgramWorkloads, kFloatingWorkloads,
                                                kVectorWorkloads,  kSystemWorkloads,  kScalingWorkloads};

static void report(const char* name, uint64_t checksum, uint64_t time_ns, uint64_t cpu_ns) {
  printf("bench: %s %016llx %llu %llu\n", name, (unsigned long long)checksum, (unsigned long long)time_ns,
         (unsigned long long)cpu_ns);
  fflush(stdout);
}

static void run_workload(const struct Workload* workload, uint64_t count) {
  printf("begin: %s\n", workload->name);
  fflush(stdout);
  start_stopwatch();
  uint64_t checksum = workload->run(count);
  uint64_t time_ns = stopwatch_ns();
  report(workload->name, checksum, time_ns, cpu_time_ns() - cpu_started_ns);
}

static uint64_t checksum_of_file(const char* path) {
  static unsigned char buffer[65536];
  uint64_t hash = 0xcbf29ce484222325u;
  int file = open(path, O_RDONLY);
  if (file < 0) fail(path);
  ssize_t size;
  while ((size = read(file, buffer, sizeof buffer)) > 0) {
    for (ssize_t i = 0; i < size; i++) hash = (hash ^ buffer[i]) * 0x100000001b3u;
  }
  close(file);
  return hash;
}

// program NAME OUTPUT COMMAND [ARGUMENT...]: runs the command, its standard output into OUTPUT, whose content is the
// checksum.
static int run_program(const char* name, const char* output, char** command) {
  printf("begin: %s\n", name);
  fflush(stdout);
  start_stopwatch();
  pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    int file = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || dup2(file, 1) < 0) _exit(126);
    execv(command[0], command);
    _exit(127);
  }
  int status;
  if (waitpid(child, &status, 0) != child) fail("waitpid");
  uint64_t time_ns = stopwatch_ns(), cpu_ns = cpu_time_ns() - cpu_started_ns;
  if (status != 0) {
    fprintf(stderr, "bench: %s: %s ended with wait status %d\n", name, command[0], status);
    return 1;
  }
  report(name, checksum_of_file(output), time_ns, cpu_ns);
  return 0;
}

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "nothing") == 0) return 0;  // what fork_exec starts
  if (argc == 2 && strcmp(argv[1], "list") == 0) {
    for (size_t list = 0; list < sizeof kLists / sizeof *kLists; list++) {
      for (const struct Workload* w = kLists[list]; w->name; w++)
        printf("%s %s %llu\n", w->group, w->name, (unsigned long long)w->count);
    }
    return 0;
  }
  if (argc >= 5 && strcmp(argv[1], "program") == 0) return run_program(argv[2], argv[3], argv + 4);
  if (argc == 3 || argc == 4) {
    for (size_t list = 0; strcmp(argv[1], "run") == 0 && list < sizeof kLists / sizeof *kLists; list++) {
      for (const struct Workload* w = kLists[list]; w->name; w++) {
        if (strcmp(w->name, argv[2]) != 0) continue;
        uint64_t divisor = argc == 4 ? strtoull(argv[3], NULL, 10) : 1;
        uint64_t count = divisor ? w->count / divisor : 0;
        run_workload(w, count ? count : 1);
        return 0;
      }
    }
  }
  fprintf(stderr, "usage: bench list | run NAME [DIVISOR OF ITS COUNT] | program NAME OUTPUT COMMAND [ARGUMENT...]\n");
  return 2;
}
