#include "kvm/kvm_vcpu.h"

#include <cerrno>
#include <csignal>
#include <thread>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <x86intrin.h>

#include "kvm/flexible.h"
#include "kvm/registers.h"
#include "support/check.h"
#include "support/log.h"

namespace bulkhead::kvm {
namespace {

using cpu::Activity;
using cpu::StopReason;

// The signal that calls a vCPU thread out of the guest. Its handler does nothing: that ioctl returns is all that is
// wanted.
int kick_signal() {
  return SIGRTMIN;
}

void install_kick_handler() {
  static const bool installed = [] {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    return ::sigaction(kick_signal(), &action, nullptr) == 0;
  }();
  CHECK(installed, "the kick signal could not be set up");
}

constexpr uint64_t kInterruptFlag = 1 << 9;  // of RFLAGS
constexpr uint64_t kCr0ExtensionType = 1 << 4, kCr0NotWriteThrough = 1 << 29, kCr0CacheDisable = 1 << 30;
constexpr uint32_t kMsrTscDeadline = 0x6E0;
constexpr uint64_t kResetApicBase = 0xFEE00000;
constexpr uint64_t kApicEnable = 1 << 11;
constexpr uint64_t kApicBootProcessor = 1 << 8;

Result<> set_cpuid(int vcpu_fd, const std::vector<cpu::CpuidLeaf>& leaves) {
  CpuidList cpuid(leaves.size());
  for (const cpu::CpuidLeaf& leaf : leaves) {
    kvm_cpuid_entry2& entry = cpuid[cpuid->nent++];
    entry.function = leaf.leaf;
    entry.index = leaf.subleaf;
    entry.flags = leaf.has_subleaves ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    entry.eax = leaf.eax;
    entry.ebx = leaf.ebx;
    entry.ecx = leaf.ecx;
    entry.edx = leaf.edx;
  }
  TRY(control(vcpu_fd, kSetCpuid2, "KVM_SET_CPUID2", cpuid.header()));
  return {};
}

}  // namespace

Result<std::unique_ptr<KvmVcpu>> KvmVcpu::create(VirtualMachine& machine, uint32_t index,
                                                 const std::vector<cpu::CpuidLeaf>& leaves) {
  install_kick_handler();
  Fd fd(TRY(control(machine.fd(), KVM_CREATE_VCPU, "KVM_CREATE_VCPU", static_cast<unsigned long>(index))));
  auto vcpu = std::unique_ptr<KvmVcpu>(new KvmVcpu(machine, index, std::move(fd)));
  void* area =
      ::mmap(nullptr, machine.system().run_area_size(), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd_.get(), 0);
  if (area == MAP_FAILED) return fail_errno(errno, "kvm: map the run area");
  vcpu->run_area_ = Mapping(area, machine.system().run_area_size());
  vcpu->run_ = static_cast<kvm_run*>(area);
  TRY(set_cpuid(vcpu->fd_.get(), leaves));
  constexpr uint32_t kArchCapabilitiesBit = 1u << 29;
  if ((cpu::look_up(leaves, 7, 0).edx & kArchCapabilitiesBit) != 0) {
    const uint64_t capabilities = machine.system().arch_capabilities() & cpu::kArchCapabilities;
    if (!set_msr(vcpu->fd_.get(), 0x10A, capabilities)) return fail_errno(errno, "kvm: set IA32_ARCH_CAPABILITIES");
  }
  TRY(vcpu->set_state(cpu::reset_state(index)));
  return vcpu;
}

// --- calls from other threads ---

void KvmVcpu::post(uint32_t request) {
  requests_.fetch_or(request);
  const LockGuard guard(thread_mutex_);
  // Seen by the kernel before it enters the guest, so a request that comes between our look and the entry is not lost.
  __atomic_store_n(&run_->immediate_exit, uint8_t{1}, __ATOMIC_SEQ_CST);
  if (running_ && !pthread_equal(thread_, pthread_self())) pthread_kill(thread_, kick_signal());
  wake_.notify_all();
}

void KvmVcpu::request_stop() {
  post(kStop);
}

void KvmVcpu::set_interrupt_request(bool asserted) {
  if (interrupt_request_.exchange(asserted) != asserted && asserted) post(kInterrupt);
}
void KvmVcpu::raise_nmi() {
  post(kNmi);
}
void KvmVcpu::raise_init() {
  post(kInit);
}
void KvmVcpu::raise_sipi(uint8_t vector) {
  sipi_vector_ = vector;
  post(kSipi);
}

// --- the life of the vCPU ---

StopReason KvmVcpu::run(cpu::CpuIo& io) {
  {
    const LockGuard guard(thread_mutex_);
    thread_ = pthread_self();
    running_ = true;
  }
  Outcome outcome;
  if (Result<> followed = follow_clock(); !followed) outcome = fail_with(followed.error().message);
  while (!outcome) {
    outcome = take_requests(io);
    if (!outcome) outcome = activity_ == Activity::kRunning ? enter_guest(io) : wait_while_halted(io);
  }
  if (Outcome late = complete_exit(io)) outcome = late;
  const LockGuard guard(thread_mutex_);
  running_ = false;
  return *outcome;
}

KvmVcpu::Outcome KvmVcpu::take_requests(cpu::CpuIo& io) {
  __atomic_store_n(&run_->immediate_exit, uint8_t{0}, __ATOMIC_SEQ_CST);
  const uint32_t requests = requests_.exchange(0);
  if ((requests & (kInit | kSipi)) != 0) {
    if (Outcome outcome = complete_exit(io)) return outcome;
  }
  if ((requests & kInit) != 0) {
    cpu::State state = cpu::reset_state(index_);
    state.activity = index_ == 0 ? Activity::kRunning : Activity::kWaitForSipi;
    // INIT keeps the x87, SSE and AVX state, the MSRs and the caches' control bits (SDM 3, table 10-1).
    const cpu::State before = get_state();
    state.cr0 = (before.cr0 & (kCr0CacheDisable | kCr0NotWriteThrough)) | kCr0ExtensionType;
    state.xsave = before.xsave;
    state.xcr0 = before.xcr0;
    state.tsc_offset = before.tsc_offset;
    state.instruction_count = before.instruction_count;
    state.msr_kvm_wall_clock = before.msr_kvm_wall_clock;
    state.msr_kvm_system_time = before.msr_kvm_system_time;
    state.msr_pat = before.msr_pat;
    state.msr_mtrr_def_type = before.msr_mtrr_def_type;
    state.msr_mtrr_fixed = before.msr_mtrr_fixed;
    state.msr_mtrr_variable = before.msr_mtrr_variable;
    become(state);
  }
  if ((requests & kSipi) != 0 && activity_ == Activity::kWaitForSipi) {
    cpu::State state = get_state();
    const uint8_t vector = sipi_vector_;
    state.segments[cpu::kCs].selector = static_cast<uint16_t>(vector << 8);
    state.segments[cpu::kCs].base = static_cast<uint64_t>(vector) << 12;
    state.rip = 0;
    state.activity = Activity::kRunning;
    become(state);
  }
  if ((requests & kNmi) != 0) {
    if (::ioctl(fd_.get(), KVM_NMI, 0) == 0 && activity_ == Activity::kHalted) activity_ = Activity::kRunning;
  }
  if ((requests & kStop) != 0) return StopReason::kRequested;
  if (activity_ == Activity::kHalted && interrupt_wakes(io)) activity_ = Activity::kRunning;
  return std::nullopt;
}

KvmVcpu::Outcome KvmVcpu::wait_while_halted(cpu::CpuIo&) {
  if (run_->if_flag != 0 && interrupt_request_) {
    // The local APIC had nothing although INTR is asserted: another thread is about to drive the line. If the next
    // interrupt comes first, the line just stays as it is and nobody calls, so this is no time to sleep.
    std::this_thread::yield();
    return std::nullopt;
  }
  const LockGuard guard(thread_mutex_);
  // post() sets the request before it takes this lock, so the look and the wait cannot miss one.
  while (requests_.load() == 0) wake_.wait(thread_mutex_);
  return std::nullopt;
}

bool KvmVcpu::interrupt_wakes(cpu::CpuIo& io) const {
  return run_->if_flag != 0 && interrupt_request_ && io.interrupt_pending();
}

// While INTR is asserted the vCPU never enters the guest without a way to come back for the vector: only its rising
// edge calls a vCPU out.
void KvmVcpu::offer_interrupt(cpu::CpuIo& io) {
  run_->request_interrupt_window = 0;
  if (!interrupt_request_) return;
  // An instruction that waits for its device must end before an interrupt can be offered behind it.
  if (exit_unfinished_ || run_->ready_for_interrupt_injection == 0) {
    run_->request_interrupt_window = 1;
    return;
  }
  if (const std::optional<uint8_t> vector = io.acknowledge_interrupt()) {
    kvm_interrupt interrupt{.irq = *vector};
    if (::ioctl(fd_.get(), KVM_INTERRUPT, &interrupt) != 0)
      log::error("kvm: vCPU {} took no interrupt {}", index_, *vector);
    run_->ready_for_interrupt_injection = 0;
  }
  if (interrupt_request_) run_->request_interrupt_window = 1;
}

KvmVcpu::Outcome KvmVcpu::enter_guest(cpu::CpuIo& io) {
  offer_interrupt(io);
  const bool board_apic = machine_.local_apics() == LocalApics::kBoard;
  if (board_apic) run_->cr8 = task_priority_ = io.read_task_priority();
  counters_.entries.fetch_add(1, std::memory_order_relaxed);
  const int result = ::ioctl(fd_.get(), KVM_RUN, 0);
  const int error = errno;
  exit_unfinished_ = false;
  if (board_apic && run_->cr8 != task_priority_) io.write_task_priority(static_cast<uint8_t>(run_->cr8 & 15));
  if (result == 0) return handle_exit(io);
  if (error == EINTR || error == EAGAIN) {
    counters_.signal.fetch_add(1, std::memory_order_relaxed);
    return std::nullopt;
  }
  return fail_with(fmt::format("KVM_RUN: {}", std::generic_category().message(error)));
}

KvmVcpu::Outcome KvmVcpu::fail_with(std::string message) {
  error_ = fmt::format("kvm: vCPU {}: {}", index_, message);
  return StopReason::kInternalError;
}

KvmVcpu::Outcome KvmVcpu::handle_exit(cpu::CpuIo& io) {
  switch (run_->exit_reason) {
    case KVM_EXIT_IO:
      handle_port(io);
      return std::nullopt;
    case KVM_EXIT_MMIO:
      handle_mmio(io);
      return std::nullopt;
    case KVM_EXIT_X86_RDMSR:
      handle_msr_read(io);
      return std::nullopt;
    case KVM_EXIT_X86_WRMSR:
      handle_msr_write(io);
      return std::nullopt;
    case KVM_EXIT_HLT:
      counters_.halt.fetch_add(1, std::memory_order_relaxed);
      if (!interrupt_wakes(io)) activity_ = Activity::kHalted;
      return std::nullopt;
    case KVM_EXIT_IOAPIC_EOI:
      if (machine_.end_of_interrupt()) machine_.end_of_interrupt()(run_->eoi.vector);
      return std::nullopt;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      counters_.interrupt_window.fetch_add(1, std::memory_order_relaxed);
      return std::nullopt;
    // The task priority has fallen, which may let an interrupt through; enter_guest() has told the board.
    case KVM_EXIT_SET_TPR:
      return std::nullopt;
    case KVM_EXIT_INTR:
      counters_.signal.fetch_add(1, std::memory_order_relaxed);
      return std::nullopt;
    case KVM_EXIT_SHUTDOWN:
      activity_ = Activity::kShutdown;
      return StopReason::kShutdown;
    case KVM_EXIT_DEBUG:
      counters_.debug.fetch_add(1, std::memory_order_relaxed);
      return StopReason::kDebug;
    case KVM_EXIT_INTERNAL_ERROR:
      if (run_->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) return handle_emulation_failure(io);
      return fail_with(fmt::format("internal error {} of the host kernel", run_->internal.suberror));
    case KVM_EXIT_FAIL_ENTRY:
      return fail_with(fmt::format("the processor refused to enter the guest, reason {:#x}",
                                   static_cast<uint64_t>(run_->fail_entry.hardware_entry_failure_reason)));
    default:
      return fail_with(fmt::format("unknown exit {}", run_->exit_reason));
  }
}

void KvmVcpu::handle_port(cpu::CpuIo& io) {
  counters_.port.fetch_add(1, std::memory_order_relaxed);
  uint8_t* data = reinterpret_cast<uint8_t*>(run_) + run_->io.data_offset;
  for (uint32_t i = 0; i < run_->io.count; ++i, data += run_->io.size) {
    if (run_->io.direction == KVM_EXIT_IO_OUT) {
      uint32_t value = 0;
      std::memcpy(&value, data, run_->io.size);
      io.write_port(run_->io.port, run_->io.size, value);
    } else {
      const uint32_t value = io.read_port(run_->io.port, run_->io.size);
      std::memcpy(data, &value, run_->io.size);
    }
  }
  exit_unfinished_ = true;
}

void KvmVcpu::handle_mmio(cpu::CpuIo& io) {
  counters_.mmio.fetch_add(1, std::memory_order_relaxed);
  const GuestAddress address{run_->mmio.phys_addr};
  const size_t size = std::min<size_t>(run_->mmio.len, sizeof run_->mmio.data);
  if (run_->mmio.is_write != 0) {
    io.write_memory(address, ByteSpan(run_->mmio.data, size));
  } else {
    io.read_memory(address, MutableByteSpan(run_->mmio.data, size));
  }
  exit_unfinished_ = true;
}

void KvmVcpu::handle_msr_read(cpu::CpuIo& io) {
  counters_.msr.fetch_add(1, std::memory_order_relaxed);
  const std::optional<uint64_t> value = io.read_apic_msr(run_->msr.index);
  run_->msr.error = !value;
  run_->msr.data = value.value_or(0);
  exit_unfinished_ = true;
}

void KvmVcpu::handle_msr_write(cpu::CpuIo& io) {
  counters_.msr.fetch_add(1, std::memory_order_relaxed);
  run_->msr.error = !io.write_apic_msr(run_->msr.index, run_->msr.data);
  exit_unfinished_ = true;
}

KvmVcpu::Outcome KvmVcpu::handle_emulation_failure(cpu::CpuIo& io) {
  counters_.emulation_failure.fetch_add(1, std::memory_order_relaxed);
  if (!machine_.fallback())
    return fail_with("the host kernel could not emulate an instruction and there is no fallback");
  cpu::State state = get_state();
  if (Result<> done = machine_.fallback()(index_, state, io); !done) return fail_with(done.error().message);
  if (Result<> set = set_state(state); !set) return fail_with(set.error().message);
  if (state.activity == Activity::kShutdown) return StopReason::kShutdown;
  return std::nullopt;
}

KvmVcpu::Outcome KvmVcpu::complete_exit(cpu::CpuIo& io) {
  Outcome outcome;
  while (exit_unfinished_ && !outcome) {
    __atomic_store_n(&run_->immediate_exit, uint8_t{1}, __ATOMIC_SEQ_CST);
    exit_unfinished_ = false;
    // Success means that the instruction has another access to make.
    if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) outcome = handle_exit(io);
  }
  // As post() orders it the other way round, no request is left without the mark.
  __atomic_store_n(&run_->immediate_exit, uint8_t{0}, __ATOMIC_SEQ_CST);
  if (requests_.load() != 0) __atomic_store_n(&run_->immediate_exit, uint8_t{1}, __ATOMIC_SEQ_CST);
  return outcome;
}

void KvmVcpu::become(const cpu::State& state) {
  if (Result<> set = set_state(state); !set) log::error("{}", set.error().message);
}

// --- time ---

uint64_t KvmVcpu::present_tsc_offset() const {
  const std::optional<uint64_t> kernel_offset = read_kernel_tsc_offset(fd_.get());
  return clock_base_ && kernel_offset ? *kernel_offset - *clock_base_ : tsc_offset_;
}

Result<> KvmVcpu::follow_clock() {
  const uint64_t base = machine_.clock().host_tsc_offset().value_or(machine_.clock().tsc() - __rdtsc());
  if (clock_base_ == base) return {};
  tsc_offset_ = present_tsc_offset();
  TRY(write_kernel_tsc_offset(fd_.get(), base + tsc_offset_));
  clock_base_ = base;
  if (index_ == 0) TRY(machine_.set_kernel_clock());
  return {};
}

// --- the kernel's local APIC ---

Result<LocalApicRegisters> KvmVcpu::get_local_apic() {
  LocalApicRegisters registers;
  kvm_sregs sregs{};
  TRY(control(fd_.get(), KVM_GET_SREGS, "KVM_GET_SREGS", &sregs));
  registers.base = sregs.apic_base;
  kvm_lapic_state page{};
  TRY(control(fd_.get(), KVM_GET_LAPIC, "KVM_GET_LAPIC", &page));
  std::memcpy(registers.page.data(), page.regs, sizeof page.regs);
  get_msr(fd_.get(), kMsrTscDeadline, registers.tsc_deadline);
  return registers;
}

Result<> KvmVcpu::set_local_apic(const LocalApicRegisters& registers) {
  kvm_sregs sregs{};
  TRY(control(fd_.get(), KVM_GET_SREGS, "KVM_GET_SREGS", &sregs));
  sregs.apic_base = registers.base;
  TRY(control(fd_.get(), KVM_SET_SREGS, "KVM_SET_SREGS", &sregs));
  kvm_lapic_state page{};
  std::memcpy(page.regs, registers.page.data(), sizeof page.regs);
  TRY(control(fd_.get(), KVM_SET_LAPIC, "KVM_SET_LAPIC", &page));
  // Zero disarms; a deadline written in another timer mode is lost, as the manual says.
  set_msr(fd_.get(), kMsrTscDeadline, registers.tsc_deadline);
  return {};
}

// --- state ---

Activity KvmVcpu::kernel_activity() const {
  kvm_mp_state mp_state{};
  if (activity_ == Activity::kShutdown || ::ioctl(fd_.get(), KVM_GET_MP_STATE, &mp_state) != 0) return activity_;
  switch (mp_state.mp_state) {
    case KVM_MP_STATE_HALTED:
      return Activity::kHalted;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
      return Activity::kWaitForSipi;
    default:
      return Activity::kRunning;
  }
}

cpu::State KvmVcpu::get_state() {
  Result<cpu::State> state = read_state(machine_.system(), fd_.get());
  CHECK(state.has_value(), "the host kernel gives no state of a vCPU that it made");
  state->activity = machine_.local_apics() == LocalApics::kBoard ? activity_ : kernel_activity();
  state->instruction_count = instruction_count_;
  state->tsc_offset = present_tsc_offset();
  return *state;
}

Result<> KvmVcpu::set_state(const cpu::State& state) {
  uint64_t apic_base = kResetApicBase | kApicEnable | (index_ == 0 ? kApicBootProcessor : 0);
  if (machine_.local_apics() == LocalApics::kKernel) {
    kvm_sregs sregs{};
    TRY(control(fd_.get(), KVM_GET_SREGS, "KVM_GET_SREGS", &sregs));
    apic_base = sregs.apic_base;
  }
  TRY_IN(fmt::format("vCPU {}", index_), write_state(machine_.system(), fd_.get(), state, apic_base));
  activity_ = state.activity;
  if (machine_.local_apics() == LocalApics::kKernel) {
    // Halting and waiting for SIPI happen in the kernel.
    kvm_mp_state mp_state{};
    mp_state.mp_state = state.activity == Activity::kHalted        ? KVM_MP_STATE_HALTED
                        : state.activity == Activity::kWaitForSipi ? KVM_MP_STATE_UNINITIALIZED
                                                                   : KVM_MP_STATE_RUNNABLE;
    TRY(control(fd_.get(), KVM_SET_MP_STATE, "KVM_SET_MP_STATE", &mp_state));
    if (state.activity != Activity::kShutdown) activity_ = Activity::kRunning;
  }
  instruction_count_ = state.instruction_count;
  exit_unfinished_ = false;
  if (state.tsc_offset != present_tsc_offset()) {
    tsc_offset_ = state.tsc_offset;
    if (clock_base_) TRY(write_kernel_tsc_offset(fd_.get(), *clock_base_ + tsc_offset_));
  }
  // A copy of the kernel's view from before would lead offer_interrupt() astray.
  run_->ready_for_interrupt_injection = 0;
  run_->if_flag = (state.rflags & kInterruptFlag) != 0;
  return {};
}

Result<> KvmVcpu::set_debug(const cpu::DebugRequest& request) {
  constexpr size_t kHardwarePoints = 4;
  kvm_guest_debug debug{};
  if (request.single_step) debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  if (request.points.size() > kHardwarePoints) {
    return fail("{} breakpoints and watchpoints asked for, KVM has {}", request.points.size(), kHardwarePoints);
  }
  debug.arch.debugreg[7] = 0x400;
  for (size_t i = 0; i < request.points.size(); ++i) {
    using Kind = cpu::DebugRequest::Point::Kind;
    const auto& point = request.points[i];
    const uint64_t type = point.kind == Kind::kExecute ? 0 : point.kind == Kind::kWrite ? 1 : 3;
    const uint64_t length = point.kind == Kind::kExecute ? 0 : point.size == 8 ? 2 : point.size - 1u;
    debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    debug.arch.debugreg[i] = point.address;
    debug.arch.debugreg[7] |= 2ull << (2 * i) | (type | length << 2) << (16 + 4 * i);
  }
  TRY(control(fd_.get(), KVM_SET_GUEST_DEBUG, "KVM_SET_GUEST_DEBUG", &debug));
  return {};
}

std::optional<GuestAddress> KvmVcpu::translate(uint64_t linear_address) {
  kvm_translation translation{};
  translation.linear_address = linear_address;
  if (::ioctl(fd_.get(), KVM_TRANSLATE, &translation) != 0 || translation.valid == 0) return std::nullopt;
  return GuestAddress{translation.physical_address};
}

cpu::Statistics KvmVcpu::statistics() const {
  const auto count = [](const std::atomic<uint64_t>& counter) { return counter.load(std::memory_order_relaxed); };
  return {{"entries", count(counters_.entries)},
          {"exits.port", count(counters_.port)},
          {"exits.mmio", count(counters_.mmio)},
          {"exits.halt", count(counters_.halt)},
          {"exits.msr", count(counters_.msr)},
          {"exits.interrupt-window", count(counters_.interrupt_window)},
          {"exits.signal", count(counters_.signal)},
          {"exits.debug", count(counters_.debug)},
          {"exits.emulation-failure", count(counters_.emulation_failure)}};
}

}  // namespace bulkhead::kvm
