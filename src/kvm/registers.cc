// Field by field, after Documentation/virt/kvm/api.rst: KVM_SET_REGS, KVM_SET_SREGS, KVM_SET_XSAVE, KVM_SET_XCRS,
// KVM_SET_DEBUGREGS, KVM_SET_VCPU_EVENTS, KVM_SET_MSRS.
#include "kvm/registers.h"

#include <algorithm>
#include <array>

#include <sys/ioctl.h>

#include "kvm/flexible.h"

namespace bulkhead::kvm {
namespace {

using cpu::State;

kvm_segment to_kvm(const cpu::Segment& segment) {
  kvm_segment out{};
  out.base = segment.base;
  out.limit = segment.limit;
  out.selector = segment.selector;
  out.type = segment.attributes & 15;
  out.s = segment.attributes >> 4 & 1;
  out.dpl = segment.attributes >> 5 & 3;
  out.present = segment.attributes >> 7 & 1;
  out.avl = segment.attributes >> 12 & 1;
  out.l = segment.attributes >> 13 & 1;
  out.db = segment.attributes >> 14 & 1;
  out.g = segment.attributes >> 15 & 1;
  out.unusable = segment.attributes >> 16 & 1;
  return out;
}

cpu::Segment from_kvm(const kvm_segment& segment) {
  cpu::Segment out;
  out.base = segment.base;
  out.limit = segment.limit;
  out.selector = segment.selector;
  out.attributes = segment.type | segment.s << 4 | segment.dpl << 5 | segment.present << 7 | segment.avl << 12 |
                   segment.l << 13 | segment.db << 14 | segment.g << 15 |
                   (segment.unusable ? cpu::Segment::kUnusable : 0u);
  return out;
}

// The order of kvm_regs is that of AT&T tradition, not of the encoding.
template <typename Regs, typename Visit>
void visit_gprs(Regs& regs, Visit&& visit) {
  decltype(&regs.rax) in_encoding_order[16] = {&regs.rax, &regs.rcx, &regs.rdx, &regs.rbx, &regs.rsp, &regs.rbp,
                                               &regs.rsi, &regs.rdi, &regs.r8,  &regs.r9,  &regs.r10, &regs.r11,
                                               &regs.r12, &regs.r13, &regs.r14, &regs.r15};
  for (size_t i = 0; i < 16; ++i) visit(i, *in_encoding_order[i]);
}

constexpr uint32_t kMsrKvmWallClock = 0x4B564D00;
constexpr uint32_t kMsrKvmSystemTime = 0x4B564D01;

// Calls visit(index, value&) for every MSR of the state but the TSC.
template <typename StateLike, typename Visit>
void visit_msrs(StateLike& state, Visit&& visit) {
  visit(0xC0000081u, state.msr_star);
  visit(0xC0000082u, state.msr_lstar);
  visit(0xC0000083u, state.msr_cstar);
  visit(0xC0000084u, state.msr_sfmask);
  visit(0xC0000102u, state.msr_kernel_gs_base);
  visit(0xC0000103u, state.msr_tsc_aux);
  visit(0x174u, state.msr_sysenter_cs);
  visit(0x175u, state.msr_sysenter_esp);
  visit(0x176u, state.msr_sysenter_eip);
  visit(0x277u, state.msr_pat);
  visit(0x1A0u, state.msr_misc_enable);
  visit(0x48u, state.msr_spec_ctrl);
  visit(0x2FFu, state.msr_mtrr_def_type);
  constexpr uint32_t kFixed[11] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26A, 0x26B, 0x26C, 0x26D, 0x26E, 0x26F};
  for (size_t i = 0; i < 11; ++i) visit(kFixed[i], state.msr_mtrr_fixed[i]);
  for (uint32_t i = 0; i < 16; ++i) visit(0x200u + i, state.msr_mtrr_variable[i]);
  visit(kMsrKvmWallClock, state.msr_kvm_wall_clock);
  visit(kMsrKvmSystemTime, state.msr_kvm_system_time);
}

bool known_msr(const System& system, uint32_t index) {
  // The MTRRs are kept by every host kernel but not all list them.
  if ((index >= 0x200 && index <= 0x20F) || (index >= 0x250 && index <= 0x26F) || index == 0x2FF || index == 0x277)
    return true;
  const auto& indices = system.msr_indices();
  return std::find(indices.begin(), indices.end(), index) != indices.end();
}

void events_from_kvm(const kvm_vcpu_events& events, State& state) {
  using Kind = cpu::PendingEvent::Kind;
  state.interrupt_shadow = events.interrupt.shadow != 0;
  state.nmi_blocked = events.nmi.masked != 0;
  state.nmi_pending = events.nmi.pending != 0;
  if (events.exception.injected != 0 || events.exception.pending != 0) {
    state.event = {.kind = Kind::kException,
                   .vector = events.exception.nr,
                   .has_error_code = events.exception.has_error_code != 0,
                   .error_code = events.exception.error_code};
  } else if (events.nmi.injected != 0) {
    state.event = {.kind = Kind::kNmi, .vector = 2};
  } else if (events.interrupt.injected != 0) {
    state.event = {.kind = events.interrupt.soft != 0 ? Kind::kSoftwareInterrupt : Kind::kExternalInterrupt,
                   .vector = events.interrupt.nr};
  }
}

kvm_vcpu_events events_to_kvm(const State& state) {
  using Kind = cpu::PendingEvent::Kind;
  kvm_vcpu_events events{};
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  events.interrupt.shadow = state.interrupt_shadow ? KVM_X86_SHADOW_INT_STI | KVM_X86_SHADOW_INT_MOV_SS : 0;
  events.nmi.masked = state.nmi_blocked;
  events.nmi.pending = state.nmi_pending;
  switch (state.event.kind) {
    case Kind::kNone:
      break;
    case Kind::kException:
      events.exception.injected = 1;
      events.exception.nr = state.event.vector;
      events.exception.has_error_code = state.event.has_error_code;
      events.exception.error_code = state.event.error_code;
      break;
    case Kind::kNmi:
      events.nmi.injected = 1;
      break;
    case Kind::kExternalInterrupt:
    case Kind::kSoftwareInterrupt:
      events.interrupt.injected = 1;
      events.interrupt.nr = state.event.vector;
      events.interrupt.soft = state.event.kind == Kind::kSoftwareInterrupt;
      break;
  }
  return events;
}

}  // namespace

Result<State> read_state(const System& system, int vcpu_fd) {
  State state;
  kvm_regs regs{};
  TRY(control(vcpu_fd, KVM_GET_REGS, "KVM_GET_REGS", &regs));
  visit_gprs(regs, [&](size_t i, auto& value) { state.gpr[i] = value; });
  state.rip = regs.rip;
  state.rflags = regs.rflags;

  kvm_sregs sregs{};
  TRY(control(vcpu_fd, KVM_GET_SREGS, "KVM_GET_SREGS", &sregs));
  state.segments = {from_kvm(sregs.es), from_kvm(sregs.cs), from_kvm(sregs.ss),
                    from_kvm(sregs.ds), from_kvm(sregs.fs), from_kvm(sregs.gs)};
  state.ldtr = from_kvm(sregs.ldt);
  state.tr = from_kvm(sregs.tr);
  state.gdtr = {.base = sregs.gdt.base, .limit = sregs.gdt.limit};
  state.idtr = {.base = sregs.idt.base, .limit = sregs.idt.limit};
  state.cr0 = sregs.cr0;
  state.cr2 = sregs.cr2;
  state.cr3 = sregs.cr3;
  state.cr4 = sregs.cr4;
  state.cr8 = sregs.cr8;
  state.efer = sregs.efer;

  kvm_xcrs xcrs{};
  TRY(control(vcpu_fd, KVM_GET_XCRS, "KVM_GET_XCRS", &xcrs));
  if (xcrs.nr_xcrs > 0) state.xcr0 = xcrs.xcrs[0].value;
  XsaveArea xsave{};
  TRY(control(vcpu_fd, kGetXsave, "KVM_GET_XSAVE", &xsave));
  static_assert(sizeof xsave == cpu::kXsaveAreaSize);
  std::memcpy(state.xsave.data(), xsave.data(), sizeof xsave);
  // The kernel keeps its own marks in the bytes that the format leaves to software.
  std::fill(state.xsave.begin() + 464, state.xsave.begin() + 512, uint8_t{0});

  kvm_debugregs debug{};
  TRY(control(vcpu_fd, KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS", &debug));
  for (size_t i = 0; i < 4; ++i) state.dr[i] = debug.db[i];
  state.dr6 = debug.dr6;
  state.dr7 = debug.dr7;

  visit_msrs(state, [&](uint32_t index, uint64_t& value) {
    if (known_msr(system, index)) get_msr(vcpu_fd, index, value);
  });

  kvm_vcpu_events events{};
  TRY(control(vcpu_fd, KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS", &events));
  events_from_kvm(events, state);
  return state;
}

Result<> write_state(const System& system, int vcpu_fd, const State& state, uint64_t apic_base) {
  kvm_sregs sregs{};
  sregs.es = to_kvm(state.segments[cpu::kEs]);
  sregs.cs = to_kvm(state.segments[cpu::kCs]);
  sregs.ss = to_kvm(state.segments[cpu::kSs]);
  sregs.ds = to_kvm(state.segments[cpu::kDs]);
  sregs.fs = to_kvm(state.segments[cpu::kFs]);
  sregs.gs = to_kvm(state.segments[cpu::kGs]);
  sregs.ldt = to_kvm(state.ldtr);
  sregs.tr = to_kvm(state.tr);
  sregs.gdt = {.base = state.gdtr.base, .limit = state.gdtr.limit, .padding = {}};
  sregs.idt = {.base = state.idtr.base, .limit = state.idtr.limit, .padding = {}};
  sregs.cr0 = state.cr0;
  sregs.cr2 = state.cr2;
  sregs.cr3 = state.cr3;
  sregs.cr4 = state.cr4;
  sregs.cr8 = state.cr8;
  sregs.efer = state.efer;
  sregs.apic_base = apic_base;
  TRY(control(vcpu_fd, KVM_SET_SREGS, "KVM_SET_SREGS", &sregs));

  kvm_xcrs xcrs{};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = state.xcr0;
  TRY(control(vcpu_fd, KVM_SET_XCRS, "KVM_SET_XCRS", &xcrs));
  XsaveArea xsave{};
  std::memcpy(xsave.data(), state.xsave.data(), sizeof xsave);
  // All components are in the area, whichever the guest has marked as in their initial state.
  TRY(control(vcpu_fd, kSetXsave, "KVM_SET_XSAVE", &xsave));

  kvm_debugregs debug{};
  for (size_t i = 0; i < 4; ++i) debug.db[i] = state.dr[i];
  debug.dr6 = state.dr6;
  debug.dr7 = state.dr7;
  TRY(control(vcpu_fd, KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS", &debug));

  Result<> msrs;
  visit_msrs(state, [&](uint32_t index, uint64_t value) {
    if (!msrs || (value == 0 && !known_msr(system, index))) return;
    if (!known_msr(system, index) || !set_msr(vcpu_fd, index, value)) {
      msrs = fail("kvm: the host kernel does not take {:#x} for MSR {:#x}", value, index);
    }
  });
  TRY(std::move(msrs));

  kvm_regs regs{};
  visit_gprs(regs, [&](size_t i, auto& value) { value = state.gpr[i]; });
  regs.rip = state.rip;
  regs.rflags = state.rflags;
  TRY(control(vcpu_fd, KVM_SET_REGS, "KVM_SET_REGS", &regs));

  kvm_vcpu_events events = events_to_kvm(state);
  TRY(control(vcpu_fd, KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", &events));
  return {};
}

// Documentation/virt/kvm/devices/vcpu.rst, KVM_VCPU_TSC_OFFSET: exact, where writing the TSC itself would drift by the
// time that the call takes.
std::optional<uint64_t> read_kernel_tsc_offset(int vcpu_fd) {
  uint64_t offset = 0;
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uint64_t>(&offset);
  if (::ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attribute) != 0) return std::nullopt;
  return offset;
}

Result<> write_kernel_tsc_offset(int vcpu_fd, uint64_t offset) {
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uint64_t>(&offset);
  TRY(control(vcpu_fd, KVM_SET_DEVICE_ATTR, "KVM_VCPU_TSC_OFFSET", &attribute));
  return {};
}

}  // namespace bulkhead::kvm
