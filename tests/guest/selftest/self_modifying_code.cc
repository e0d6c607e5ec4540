// Code that changes code: in the same page, through another mapping of the same memory, in the very next instruction,
// and from another thread with the serialisation that the manual asks for (SDM 3, 9.1.3).
#include <atomic>
#include <cstring>
#include <thread>

#include <cpuid.h>
#include <sys/mman.h>
#include <unistd.h>

#include "selftest.h"

namespace selftest {
namespace {

using Function = uint32_t (*)();

void emit(uint8_t* at, uint32_t value) {  // mov eax, value; ret
  at[0] = 0xB8;
  std::memcpy(at + 1, &value, 4);
  at[5] = 0xC3;
}

}  // namespace

void test_self_modifying_code() {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  auto* code = static_cast<uint8_t*>(
      mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  bool right = true;
  for (uint32_t i = 0; i < 20000; ++i) {
    emit(code + 64, i);
    right &= reinterpret_cast<Function>(code + 64)() == i;
  }
  expect(right, "rewritten code runs as written");

  // An instruction that rewrites the operand of the next one: mov byte [rip+1], 42; mov eax, 1 -> 42; ret.
  const uint8_t next[] = {0xC6, 0x05, 0x01, 0x00, 0x00, 0x00, 42, 0xB8, 1, 0, 0, 0, 0xC3};
  std::memcpy(code + 256, next, sizeof next);
  for (int i = 0; i < 3; ++i) {
    code[256 + 8] = 1;
    expect(reinterpret_cast<Function>(code + 256)() == 42, "an instruction that changes the next one");
  }
  // The same across the end of a page.
  std::memcpy(code + page - 7, next, sizeof next);
  expect(reinterpret_cast<Function>(code + page - 7)() == 42, "a change across the end of a page");

  const int file = memfd_create("code", 0);
  if (file >= 0 && ftruncate(file, static_cast<off_t>(page)) == 0) {
    auto* writable = static_cast<uint8_t*>(mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    auto* executable = static_cast<uint8_t*>(mmap(nullptr, page, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0));
    right = true;
    for (uint32_t i = 0; i < 5000; ++i) {
      emit(writable, i);
      unsigned a, b, c, d;
      __cpuid(0, a, b, c, d);
      right &= reinterpret_cast<Function>(executable)() == i;
    }
    expect(right, "code changed through another mapping");
    // Written by the kernel on the program's behalf.
    for (uint32_t i = 0; i < 200; ++i) {
      uint8_t bytes[6];
      emit(bytes, i ^ 0x55);
      right &= pwrite(file, bytes, sizeof bytes, 0) == sizeof bytes;
      right &= reinterpret_cast<Function>(executable)() == (i ^ 0x55);
    }
    expect(right, "code changed by write(2)");
    close(file);
  }

  std::atomic<uint32_t> version{0}, seen{0};
  std::atomic<bool> cross_right{true};
  emit(code + 512, 0);
  constexpr uint32_t kVersions = 2000;
  std::thread runner([&] {
    for (uint32_t i = 1; i <= kVersions; ++i) {
      while (version.load(std::memory_order_acquire) != i) sched_yield();
      unsigned a, b, c, d;
      __cpuid(0, a, b, c, d);
      if (reinterpret_cast<Function>(code + 512)() != i) cross_right = false;
      seen.store(i, std::memory_order_release);
    }
  });
  for (uint32_t i = 1; i <= kVersions; ++i) {
    emit(code + 512, i);
    version.store(i, std::memory_order_release);
    while (seen.load(std::memory_order_acquire) != i) sched_yield();
  }
  runner.join();
  expect(cross_right, "code changed by another thread");
  munmap(code, 2 * page);
}

}  // namespace selftest
