// Every kind of fault that an instruction can raise in user space, and the signal, code, address and registers that the
// kernel makes of it. A handler steps over the instruction, so each check also proves that execution goes on.
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstring>

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "selftest.h"

namespace selftest {
namespace {

struct Caught {
  int signal = 0;
  int code = 0;
  uint64_t address = 0;
  uint64_t rip = 0;
  uint64_t trap = 0;
  uint64_t error = 0;
};
volatile sig_atomic_t caught_signal;
Caught caught;
sigjmp_buf resume_point;

void on_signal(int number, siginfo_t* info, void* context) {
  const auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  caught.signal = number;
  caught.code = info->si_code;
  caught.address = reinterpret_cast<uint64_t>(info->si_addr);
  caught.rip = static_cast<uint64_t>(registers[REG_RIP]);
  caught.trap = static_cast<uint64_t>(registers[REG_TRAPNO]);
  caught.error = static_cast<uint64_t>(registers[REG_ERR]);
  caught_signal = number;
  siglongjmp(resume_point, 1);
}

template <typename Body>
Caught catch_fault(Body&& body) {
  caught = Caught{};
  caught_signal = 0;
  if (sigsetjmp(resume_point, 1) == 0) body();
  return caught;
}

void expect_fault(const char* name, const Caught& seen, int signal, uint64_t trap, int code) {
  char text[128];
  std::snprintf(text, sizeof text, "signal %d trap %llu code %d error %#llx", seen.signal,
                static_cast<unsigned long long>(seen.trap), seen.code, static_cast<unsigned long long>(seen.error));
  expect(seen.signal == signal && seen.trap == trap && seen.code == code, name, text);
}

}  // namespace

void test_faults() {
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  static uint8_t alternate_stack[65536];
  const stack_t stack{.ss_sp = alternate_stack, .ss_flags = 0, .ss_size = sizeof alternate_stack};
  sigaltstack(&stack, nullptr);
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) sigaction(number, &action, nullptr);
  const long page = sysconf(_SC_PAGESIZE);
  auto* memory =
      static_cast<uint8_t*>(mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  for (int i = 0; i < 4; ++i) memory[i * page] = 0;
  mprotect(memory + page, page, PROT_READ);
  mprotect(memory + 2 * page, page, PROT_NONE);

  expect_fault(
      "divide by zero", catch_fault([] {
        asm volatile("xor %%edx,%%edx; mov $1,%%eax; xor %%ecx,%%ecx; div %%ecx" ::: "rax", "rcx", "rdx", "cc");
      }),
      SIGFPE, 0, FPE_INTDIV);
  expect_fault("quotient overflow", catch_fault([] {
                 asm volatile("mov $-1,%%edx; mov $0,%%eax; mov $1,%%ecx; div %%ecx" ::: "rax", "rcx", "rdx", "cc");
               }),
               SIGFPE, 0, FPE_INTDIV);
  expect_fault("undefined instruction", catch_fault([] { asm volatile("ud2"); }), SIGILL, 6, ILL_ILLOPN);
  expect_fault("breakpoint", catch_fault([] { asm volatile("int3"); }), SIGTRAP, 3, SI_KERNEL);
  expect_fault("privileged instruction", catch_fault([] { asm volatile("hlt"); }), SIGSEGV, 13, SI_KERNEL);
  expect_fault("port without permission", catch_fault([] {
                 asm volatile("outb %%al,$0x80" ::: "memory");
               }),
               SIGSEGV, 13, SI_KERNEL);
  expect_fault("write to a control register", catch_fault([] {
                 asm volatile("mov %%rax,%%cr3" ::: "memory");
               }),
               SIGSEGV, 13, SI_KERNEL);
  expect_fault("non-canonical address", catch_fault([] {
                 asm volatile("mov (%0),%%rax" ::"r"(0x8000000000000000ull) : "rax");
               }),
               SIGSEGV, 13, SI_KERNEL);
  expect_fault("misaligned MOVAPS", catch_fault([&] { asm volatile("movaps (%0),%%xmm0" ::"r"(memory + 1)
                                                                   : "xmm0"); }),
               SIGSEGV, 13, SI_KERNEL);
  expect_fault("interrupt gate of the kernel", catch_fault([] { asm volatile("int $0x20"); }), SIGSEGV, 13, SI_KERNEL);

  Caught seen = catch_fault([&] { *static_cast<volatile uint8_t*>(memory + page) = 1; });
  expect_fault("write to a read-only page", seen, SIGSEGV, 14, SEGV_ACCERR);
  expect(seen.error == 7, "error code of a write to a read-only page", std::to_string(seen.error));
  expect(seen.address == reinterpret_cast<uint64_t>(memory + page), "address of a write to a read-only page");
  seen = catch_fault([&] { asm volatile("mov (%0),%%rax" ::"r"(memory + 2 * page - 3) : "rax"); });
  expect_fault("read that crosses into a page without access", seen, SIGSEGV, 14, SEGV_ACCERR);
  expect(seen.address == reinterpret_cast<uint64_t>(memory + 2 * page),
         "address of the second page of a crossing read");
  seen = catch_fault([] { asm volatile("movl $1,(%0)" ::"r"(uint64_t{16}) : "memory"); });
  expect_fault("write to an unmapped page", seen, SIGSEGV, 14, SEGV_MAPERR);
  expect(seen.error == 6, "error code of a write to an unmapped page", std::to_string(seen.error));
  memory[0] = 0xC3;
  seen = catch_fault([&] { reinterpret_cast<void (*)()>(memory)(); });
  expect_fault("execution of a page without permission", seen, SIGSEGV, 14, SEGV_ACCERR);
  expect(seen.error == 0x15, "error code of execution without permission", std::to_string(seen.error));
  seen = catch_fault([&] { asm volatile("mov %0,%%rsp; push %%rax" ::"r"(0x7FFFFFFFFFFF0008ull) : "memory"); });
  expect(seen.signal == SIGSEGV || seen.signal == SIGBUS, "push below a non-canonical stack",
         std::to_string(seen.signal));

  // Single step by the trap flag: the signal comes after exactly one instruction.
  seen = catch_fault([] { asm volatile("pushf; orq $0x100,(%%rsp); popf; nop; nop; nop" ::: "cc", "memory"); });
  expect_fault("single step", seen, SIGTRAP, 1, TRAP_TRACE);

  // An unmasked SSE division by zero, and an unmasked x87 one that is seen at the next waiting instruction.
  seen = catch_fault([] {
    const uint32_t unmasked = 0x1F80 & ~(1u << 9), standard = 0x1F80;
    asm volatile("ldmxcsr %0" ::"m"(unmasked));
    asm volatile("xorps %%xmm1,%%xmm1; mov $0x3f800000,%%eax; movd %%eax,%%xmm0; divss %%xmm1,%%xmm0" ::
                     : "xmm0", "xmm1", "rax");
    asm volatile("ldmxcsr %0" ::"m"(standard));
  });
  expect_fault("unmasked SSE division by zero", seen, SIGFPE, 19, FPE_FLTDIV);
  const uint32_t standard = 0x1F80;
  asm volatile("ldmxcsr %0" ::"m"(standard));
  seen = catch_fault([] {
    const uint16_t unmasked = 0x037F & ~4u;
    asm volatile("fninit; fldcw %0; fldz; fld1; fdivp; fwait" ::"m"(unmasked));
  });
  asm volatile("fninit");
  expect_fault("unmasked x87 division by zero", seen, SIGFPE, 16, FPE_FLTDIV);

  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) signal(number, SIG_DFL);
  munmap(memory, 4 * page);
}

}  // namespace selftest
