#include "cpu/state.h"

#include <fmt/format.h>

namespace bulkhead::cpu {
namespace {

constexpr uint32_t kStateVersion = 1;

void save_segment(StateWriter& writer, std::string_view name, const Segment& segment) {
  StateWriter child = writer.child(name);
  child.put("base", segment.base).put("limit", segment.limit).put("selector", segment.selector);
  child.put("attributes", segment.attributes);
}

Result<Segment> restore_segment(const StateReader& reader, std::string_view name) {
  const StateReader child = TRY(reader.child(name));
  Segment segment;
  segment.base = TRY(child.get("base"));
  segment.limit = static_cast<uint32_t>(TRY(child.get("limit", UINT32_MAX)));
  segment.selector = static_cast<uint16_t>(TRY(child.get("selector", UINT16_MAX)));
  segment.attributes = static_cast<uint32_t>(TRY(child.get("attributes", 0x1FFFF)));
  return segment;
}

constexpr std::string_view kSegmentNames[kSegmentCount] = {"es", "cs", "ss", "ds", "fs", "gs"};

// The scalar registers by name; one list serves both directions. Visit is called with (name, field, highest legal
// value).
template <typename StateLike, typename Visit>
void visit_scalars(StateLike& state, Visit&& visit) {
  constexpr uint64_t kAny = UINT64_MAX;
  visit("rip", state.rip, kAny);
  visit("rflags", state.rflags, 0x3FFFFFull);
  visit("gdtr_base", state.gdtr.base, kAny);
  visit("gdtr_limit", state.gdtr.limit, 0xFFFFull);
  visit("idtr_base", state.idtr.base, kAny);
  visit("idtr_limit", state.idtr.limit, 0xFFFFull);
  visit("cr0", state.cr0, 0xFFFFFFFFull);
  visit("cr2", state.cr2, kAny);
  visit("cr3", state.cr3, (1ull << 52) - 1);
  visit("cr4", state.cr4, 0xFFFFFFFFull);
  visit("cr8", state.cr8, 15ull);
  visit("xcr0", state.xcr0, 0x7ull);
  visit("efer", state.efer, 0xFFFFull);
  visit("dr6", state.dr6, 0xFFFFFFFFull);
  visit("dr7", state.dr7, 0xFFFFFFFFull);
  visit("star", state.msr_star, kAny);
  visit("lstar", state.msr_lstar, kAny);
  visit("cstar", state.msr_cstar, kAny);
  visit("sfmask", state.msr_sfmask, 0xFFFFFFFFull);
  visit("kernel_gs_base", state.msr_kernel_gs_base, kAny);
  visit("tsc_aux", state.msr_tsc_aux, 0xFFFFFFFFull);
  visit("sysenter_cs", state.msr_sysenter_cs, kAny);
  visit("sysenter_esp", state.msr_sysenter_esp, kAny);
  visit("sysenter_eip", state.msr_sysenter_eip, kAny);
  visit("pat", state.msr_pat, kAny);
  visit("misc_enable", state.msr_misc_enable, kAny);
  visit("spec_ctrl", state.msr_spec_ctrl, kAny);
  visit("mtrr_def_type", state.msr_mtrr_def_type, 0xFFFull);
  visit("kvm_wall_clock", state.msr_kvm_wall_clock, kAny);
  visit("kvm_system_time", state.msr_kvm_system_time, kAny);
  visit("tsc_offset", state.tsc_offset, kAny);
  visit("activity", state.activity, static_cast<uint64_t>(Activity::kShutdown));
  visit("interrupt_shadow", state.interrupt_shadow, 1ull);
  visit("nmi_blocked", state.nmi_blocked, 1ull);
  visit("nmi_pending", state.nmi_pending, 1ull);
  visit("event_kind", state.event.kind, static_cast<uint64_t>(PendingEvent::Kind::kSoftwareInterrupt));
  visit("event_vector", state.event.vector, 255ull);
  visit("event_has_error_code", state.event.has_error_code, 1ull);
  visit("event_error_code", state.event.error_code, 0xFFFFFFFFull);
  visit("instruction_count", state.instruction_count, kAny);
}

// Relations between fields that no processor can be in (SDM 3, 2.5 and 27.3.1): each is a reason to refuse a stream.
Result<> validate(const State& state, const std::string& path) {
  constexpr uint64_t kPe = 1, kPg = 1ull << 31, kPae = 1ull << 5, kPcide = 1ull << 17, kLme = 1 << 8, kLma = 1 << 10;
  if ((state.rflags & 2) == 0 || (state.rflags & 0x8028) != 0) {
    return fail("{}: rflags {:#x} has reserved bits wrong", path, state.rflags);
  }
  if ((state.cr0 & kPg) != 0 && (state.cr0 & kPe) == 0)
    return fail("{}: cr0 {:#x} pages without protection", path, state.cr0);
  const bool lma = state.efer & kLma;
  if (lma != ((state.efer & kLme) != 0 && (state.cr0 & kPg) != 0)) {
    return fail("{}: efer {:#x} does not agree with cr0 {:#x}", path, state.efer, state.cr0);
  }
  if (lma && (state.cr4 & kPae) == 0) return fail("{}: long mode with cr4 {:#x} lacks PAE", path, state.cr4);
  if (!lma && (state.cr4 & kPcide) != 0) return fail("{}: cr4 {:#x} has PCIDE outside long mode", path, state.cr4);
  if ((state.xcr0 & 1) == 0 || (state.xcr0 & 6) == 4)
    return fail("{}: xcr0 {:#x} is not a legal set", path, state.xcr0);
  const uint32_t mxcsr = load<uint32_t>(state.xsave.data() + 24);
  if ((mxcsr & 0xFFFF0000) != 0) return fail("{}: mxcsr {:#x} has reserved bits set", path, mxcsr);
  return {};
}

}  // namespace

State reset_state(uint32_t vcpu_index) {
  State state;
  state.rip = 0xFFF0;
  state.cr0 = 0x60000010;
  for (Segment& segment : state.segments)
    segment = Segment{.base = 0, .limit = 0xFFFF, .selector = 0, .attributes = 0x93};
  state.segments[kCs] = Segment{.base = 0xFFFF0000, .limit = 0xFFFF, .selector = 0xF000, .attributes = 0x9B};
  state.ldtr = Segment{.base = 0, .limit = 0xFFFF, .selector = 0, .attributes = 0x82};
  state.tr = Segment{.base = 0, .limit = 0xFFFF, .selector = 0, .attributes = 0x8B};
  store<uint16_t>(state.xsave.data(), 0x037F);       // FCW after FNINIT, as firmware leaves it
  store<uint32_t>(state.xsave.data() + 24, 0x1F80);  // MXCSR
  state.activity = vcpu_index == 0 ? Activity::kRunning : Activity::kWaitForSipi;
  return state;
}

void save(const State& state, StateWriter& writer) {
  writer.put("version", kStateVersion);
  writer.put_object("gpr", state.gpr);
  for (size_t i = 0; i < kSegmentCount; ++i) save_segment(writer, kSegmentNames[i], state.segments[i]);
  save_segment(writer, "ldtr", state.ldtr);
  save_segment(writer, "tr", state.tr);
  writer.put_object("dr", state.dr);
  writer.put_object("mtrr_fixed", state.msr_mtrr_fixed);
  writer.put_object("mtrr_variable", state.msr_mtrr_variable);
  writer.put_object("xsave", state.xsave);
  visit_scalars(state, [&](std::string_view name, const auto& field, uint64_t) { writer.put(name, field); });
}

Result<State> restore(const StateReader& reader) {
  State state;
  TRY(reader.get("version", kStateVersion));
  state.gpr = TRY(reader.get_object<decltype(state.gpr)>("gpr"));
  for (size_t i = 0; i < kSegmentCount; ++i) state.segments[i] = TRY(restore_segment(reader, kSegmentNames[i]));
  state.ldtr = TRY(restore_segment(reader, "ldtr"));
  state.tr = TRY(restore_segment(reader, "tr"));
  state.dr = TRY(reader.get_object<decltype(state.dr)>("dr"));
  state.msr_mtrr_fixed = TRY(reader.get_object<decltype(state.msr_mtrr_fixed)>("mtrr_fixed"));
  state.msr_mtrr_variable = TRY(reader.get_object<decltype(state.msr_mtrr_variable)>("mtrr_variable"));
  state.xsave = TRY(reader.get_object<decltype(state.xsave)>("xsave"));
  Result<> scalars;
  visit_scalars(state, [&](std::string_view name, auto& field, uint64_t maximum) {
    if (!scalars) return;
    const Result<uint64_t> value = reader.get(name, maximum);
    if (!value) {
      scalars = std::unexpected(value.error());
    } else {
      field = static_cast<std::remove_reference_t<decltype(field)>>(*value);
    }
  });
  TRY(std::move(scalars));
  TRY(validate(state, reader.path()));
  return state;
}

}  // namespace bulkhead::cpu
