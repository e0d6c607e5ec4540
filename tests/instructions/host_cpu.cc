#include "instructions/host_cpu.h"

#include <asm/prctl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>

#include <algorithm>
#include <array>

extern "C" {
void host_cpu_enter(bulkhead::instructions::Registers* registers, const void* code);
void host_cpu_exit_next();
void host_cpu_exit_taken();
void host_cpu_exit_fault();
}

namespace bulkhead::instructions {
namespace {

constexpr std::array kSignals = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};

// Between entry and exit of the instruction.
bool running = false;
Outcome outcome;
std::array<struct sigaction, kSignals.size()> previous_actions;
std::array<uint8_t, 64 * 1024> signal_stack;

void on_fault(int signal_number, siginfo_t*, void* context) {
  if (!running) {
    // Not the instruction's: a bug of ours takes its usual course.
    ::signal(signal_number, SIG_DFL);
    return;
  }
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  outcome.faulted = true;
  outcome.vector = static_cast<uint8_t>(registers[REG_TRAPNO]);
  outcome.error_code = static_cast<uint32_t>(registers[REG_ERR]);
  outcome.cr2 = outcome.vector == 14 ? static_cast<uint64_t>(registers[REG_CR2]) : 0;
  registers[REG_RIP] = reinterpret_cast<greg_t>(&host_cpu_exit_fault);
}

Result<> map_fixed(uint64_t address, size_t size, int protection) {
  void* at = ::mmap(reinterpret_cast<void*>(address), size, protection,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (at == reinterpret_cast<void*>(address)) return {};
  return fail_errno(errno, "map memory at {:#x} for native instructions", address);
}

// jmp *0(%rip); .quad target
void write_jump(uint8_t* at, void (*target)()) {
  constexpr std::array<uint8_t, 6> kJump = {0xFF, 0x25, 0, 0, 0, 0};
  std::copy(kJump.begin(), kJump.end(), at);
  ::memcpy(at + kJump.size(), &target, sizeof target);
}

}  // namespace

Result<std::unique_ptr<HostCpu>> HostCpu::create() {
  TRY(map_fixed(kCodeAddress, 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
  TRY(map_fixed(kScratchAddress, kScratchSize, PROT_READ | PROT_WRITE));
  const stack_t stack{.ss_sp = signal_stack.data(), .ss_flags = 0, .ss_size = signal_stack.size()};
  if (::sigaltstack(&stack, nullptr) != 0) return fail_errno(errno, "sigaltstack");
  struct sigaction action{};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &action, &previous_actions[i]);
  write_jump(reinterpret_cast<uint8_t*>(kTakenAddress), host_cpu_exit_taken);
  return std::unique_ptr<HostCpu>(new HostCpu);
}

HostCpu::~HostCpu() {
  for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &previous_actions[i], nullptr);
  ::munmap(reinterpret_cast<void*>(kCodeAddress), 4096);
  ::munmap(reinterpret_cast<void*>(kScratchAddress), kScratchSize);
}

std::span<uint8_t, kScratchSize> HostCpu::scratch() {
  return std::span<uint8_t, kScratchSize>(reinterpret_cast<uint8_t*>(kScratchAddress), kScratchSize);
}

Outcome HostCpu::run(std::span<const uint8_t> instruction, Registers& registers) {
  auto* code = reinterpret_cast<uint8_t*>(kCodeAddress);
  std::copy(instruction.begin(), instruction.end(), code);
  write_jump(code + instruction.size(), host_cpu_exit_next);
  outcome = {};
  running = true;
  host_cpu_enter(&registers, code);
  running = false;
  switch (static_cast<Exit>(registers.rip)) {
    case Exit::kNext:
      registers.rip = kCodeAddress + instruction.size();
      break;
    case Exit::kTaken:
      registers.rip = kTakenAddress;
      break;
    case Exit::kFault:
      registers.rip = kCodeAddress;
      break;
  }
  return outcome;
}

bool HostCpu::set_gs_base(uint64_t base) {
  return ::syscall(SYS_arch_prctl, ARCH_SET_GS, base) == 0;
}

}  // namespace bulkhead::instructions
