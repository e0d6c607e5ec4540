// Workloads of the operating system: what they cost is the engine's way into and out of the kernel, page faults,
// changes of address space and interrupts. All run on one CPU. See bench.h for what all of them promise.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static uint64_t system_call(uint64_t count) {
  long parent = getppid();
  uint64_t same = 0;
  for (uint64_t i = 0; i < count; i++) same += syscall(SYS_getppid) == parent;
  return same;
}

static void wait_for(pid_t child) {
  int status;
  if (child < 0 || waitpid(child, &status, 0) != child) fail("fork or wait");
  if (status != 0) fail("a child failed");
}

static uint64_t fork_exit(uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    pid_t child = fork();
    if (child == 0) _exit(0);
    wait_for(child);
  }
  return count;
}

static uint64_t fork_exec(uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    pid_t child = fork();
    if (child == 0) {
      execl("/proc/self/exe", "bench", "nothing", (char*)NULL);
      _exit(127);
    }
    wait_for(child);
  }
  return count;
}

static uint64_t page_fault(uint64_t count) {
  enum { kPages = 256 };
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; i++) {
    unsigned char* area = mmap(NULL, kPages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED || madvise(area, kPages * 4096, MADV_NOHUGEPAGE) != 0) fail("mmap");
    for (int page = 0; page < kPages; page++) area[page * 4096] = (unsigned char)(page + (int)i);
    sum += area[(i % kPages) * 4096];
    if (munmap(area, kPages * 4096) != 0) fail("munmap");
  }
  return sum;
}

static uint64_t map_unmap(uint64_t count) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; i++) {
    unsigned char* area = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) fail("mmap");
    area[4096] = (unsigned char)i;
    if (mprotect(area, 4096, PROT_READ) != 0) fail("mprotect");
    sum += area[4096];
    if (munmap(area, 65536) != 0) fail("munmap");
  }
  return sum;
}

static void exchange(int in, int out, uint64_t count, int first) {
  char byte = 'x';
  for (uint64_t i = 0; i < count; i++) {
    if (first && write(out, &byte, 1) != 1) fail("write");
    if (read(in, &byte, 1) != 1) fail("read");
    if (!first && write(out, &byte, 1) != 1) fail("write");
  }
}

static uint64_t pipe_ping_pong(uint64_t count) {
  int there[2], back[2];
  if (pipe(there) != 0 || pipe(back) != 0) fail("pipe");
  pid_t child = fork();
  if (child == 0) {
    exchange(there[0], back[1], count, 0);
    _exit(0);
  }
  exchange(back[0], there[1], count, 1);
  wait_for(child);
  return count;
}

static volatile uint64_t signals;
static void count_signal(int number) {
  (void)number;
  signals++;
}

static uint64_t signal_self(uint64_t count) {
  struct sigaction action = {.sa_handler = count_signal};
  if (sigaction(SIGUSR1, &action, NULL) != 0) fail("sigaction");
  pid_t self = getpid();
  for (uint64_t i = 0; i < count; i++) kill(self, SIGUSR1);
  return signals;
}

// Faults that the program handles itself: a write to a protected page, made writable in the handler.
static unsigned char* protected_page;
static void unprotect(int number) {
  (void)number;
  signals++;
  mprotect(protected_page, 4096, PROT_READ | PROT_WRITE);
}

static uint64_t signal_fault(uint64_t count) {
  struct sigaction action = {.sa_handler = unprotect};
  protected_page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (protected_page == MAP_FAILED || sigaction(SIGSEGV, &action, NULL) != 0) fail("signal_fault");
  for (uint64_t i = 0; i < count; i++) {
    *(volatile unsigned char*)protected_page = (unsigned char)i;
    if (mprotect(protected_page, 4096, PROT_READ) != 0) fail("mprotect");
  }
  return signals;
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t turn, turns;

static void* take_turns(void* argument) {
  uint64_t me = (uint64_t)(uintptr_t)argument;
  pthread_mutex_lock(&mutex);
  for (uint64_t i = 0; i < turns; i++) {
    while (turn % 2 != me) pthread_cond_wait(&changed, &mutex);
    turn++;
    pthread_cond_signal(&changed);
  }
  pthread_mutex_unlock(&mutex);
  return NULL;
}

static uint64_t thread_switch(uint64_t count) {
  pthread_t other;
  turns = count;
  if (pthread_create(&other, NULL, take_turns, (void*)1) != 0) fail("pthread_create");
  take_turns((void*)0);
  pthread_join(other, NULL);
  return turn;
}

static uint64_t file_tmpfs(uint64_t count) {
  static char data[16384], back[16384];
  char path[256];
  uint64_t sum = 0;
  snprintf(path, sizeof path, "%s/bench.%ld", scratch_folder(), (long)getpid());
  for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 31);
  start_stopwatch();
  for (uint64_t i = 0; i < count; i++) {
    struct stat status;
    int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    data[i % sizeof data]++;
    if (file < 0 || write(file, data, sizeof data) != (ssize_t)sizeof data || lseek(file, 0, SEEK_SET) != 0) fail(path);
    if (read(file, back, sizeof back) != (ssize_t)sizeof back || fstat(file, &status) != 0) fail(path);
    if (close(file) != 0 || unlink(path) != 0) fail(path);
    sum = mix(sum, (uint64_t)status.st_size + (unsigned char)back[(i * 7) % sizeof back]);
  }
  return sum;
}

static uint64_t poll_pipes(uint64_t count) {
  enum { kPipes = 16 };
  struct pollfd polled[kPipes];
  int out[kPipes];
  uint64_t sum = 0;
  for (int i = 0; i < kPipes; i++) {
    int ends[2];
    if (pipe(ends) != 0) fail("pipe");
    polled[i] = (struct pollfd){.fd = ends[0], .events = POLLIN};
    out[i] = ends[1];
  }
  for (uint64_t i = 0; i < count; i++) {
    char byte = (char)i;
    int chosen = (int)(i * 5 % kPipes);
    if (write(out[chosen], &byte, 1) != 1 || poll(polled, kPipes, -1) != 1) fail("poll");
    for (int k = 0; k < kPipes; k++) sum += polled[k].revents & POLLIN ? (uint64_t)k : 0;
    if (read(polled[chosen].fd, &byte, 1) != 1) fail("read");
  }
  return sum;
}

const struct Workload kSystemWorkloads[] = {
    {"system_call", "system", 200000, system_call},   {"fork_exit", "system", 100, fork_exit},
    {"fork_exec", "system", 50, fork_exec},           {"page_fault", "system", 40, page_fault},
    {"map_unmap", "system", 1500, map_unmap},         {"pipe_ping_pong", "system", 3000, pipe_ping_pong},
    {"signal_self", "system", 8000, signal_self},     {"signal_fault", "system", 5000, signal_fault},
    {"thread_switch", "system", 5000, thread_switch}, {"file_tmpfs", "system", 800, file_tmpfs},
    {"poll_pipes", "system", 12000, poll_pipes},      {NULL, NULL, 0, NULL},
};
