// Saved state of a local APIC. The id, the role and the guest's TSC offset belong to the board and the vCPU.
#include <algorithm>

#include <fmt/format.h>

#include "device/interrupt/local_apic.h"
#include "device/interrupt/local_apic_registers.h"

namespace bulkhead::device::interrupt {
namespace {

std::string numbered(std::string_view field, unsigned number) {
  return fmt::format("{}{}", field, number);
}

}  // namespace

void LocalApic::save_state(StateWriter& writer) const {
  LockGuard lock(mutex_);
  const Registers& r = registers_;
  writer.put("base", r.base);
  writer.put_object("requested", r.requested);
  writer.put_object("in_service", r.in_service);
  writer.put_object("level_triggered", r.level_triggered);
  writer.put("task_priority", r.task_priority);
  writer.put("error_status", r.error_status).put("error_collected", r.error_collected);
  writer.put("spurious", r.spurious).put("logical_id", r.logical_id).put("destination_format", r.destination_format);
  writer.put("interrupt_command", r.interrupt_command);
  for (unsigned i = 0; i < kLocalVectorCount; ++i) writer.put(numbered("local_vector", i), r.local_vectors[i]);
  writer.put("timer_initial_count", r.timer_initial_count).put("timer_divide", r.timer_divide);
  writer.put("timer_deadline_ns", r.timer_deadline_ns).put("tsc_deadline", r.tsc_deadline);
  for (unsigned i = 0; i < 2; ++i) {
    writer.put(numbered("lint_asserted", i), r.lint_asserted[i]);
    writer.put(numbered("lint_remote_irr", i), r.lint_remote_irr[i]);
  }
}

Result<> LocalApic::restore_state(const StateReader& reader) {
  Registers r;
  r.base = TRY(reader.get("base", (uint64_t{1} << kPhysicalAddressBits) - 1));
  if ((r.base & (kBaseEnable | kBaseX2Apic)) == kBaseX2Apic) {
    return fail("{}: x2APIC mode without the enable bit", reader.path());
  }
  r.requested = TRY(reader.get_object<VectorSet>("requested"));
  r.in_service = TRY(reader.get_object<VectorSet>("in_service"));
  r.level_triggered = TRY(reader.get_object<VectorSet>("level_triggered"));
  if (r.requested.has_reserved() || r.in_service.has_reserved()) {
    return fail("{}: an interrupt vector below {} is pending", reader.path(), kFirstLegalVector);
  }
  r.task_priority = static_cast<uint8_t>(TRY(reader.get("task_priority", 0xFF)));
  r.error_status = static_cast<uint8_t>(TRY(reader.get("error_status", 0xFF)));
  r.error_collected = static_cast<uint8_t>(TRY(reader.get("error_collected", 0xFF)));
  r.spurious = static_cast<uint32_t>(TRY(reader.get("spurious", kSpuriousWritable)));
  r.logical_id = static_cast<uint8_t>(TRY(reader.get("logical_id", 0xFF)));
  r.destination_format = static_cast<uint8_t>(TRY(reader.get("destination_format", 0xF)));
  r.interrupt_command = TRY(reader.get("interrupt_command"));
  for (unsigned i = 0; i < kLocalVectorCount; ++i) {
    r.local_vectors[i] = static_cast<uint32_t>(TRY(reader.get(numbered("local_vector", i), 0x7FFFF)));
    if ((r.local_vectors[i] & ~kLvtWritable[i]) != 0)
      return fail("{}: reserved bits in local vector {}", reader.path(), i);
  }
  r.timer_initial_count = static_cast<uint32_t>(TRY(reader.get("timer_initial_count", UINT32_MAX)));
  r.timer_divide = static_cast<uint8_t>(TRY(reader.get("timer_divide", kDivideWritable)));
  r.timer_deadline_ns = TRY(reader.get("timer_deadline_ns"));
  r.tsc_deadline = TRY(reader.get("tsc_deadline"));
  for (unsigned i = 0; i < 2; ++i) {
    r.lint_asserted[i] = TRY(reader.get_flag(numbered("lint_asserted", i)));
    r.lint_remote_irr[i] = TRY(reader.get_flag(numbered("lint_remote_irr", i)));
  }
  const bool deadline_mode = (r.local_vectors[kTimer] >> kLvtTimerModeShift & 2) != 0;
  if (r.timer_deadline_ns != kNoDeadline && (deadline_mode ? r.tsc_deadline : r.timer_initial_count) == 0) {
    return fail("{}: the timer runs towards nothing", reader.path());
  }

  Action action;
  {
    LockGuard lock(mutex_);
    registers_ = r;
    if (r.timer_deadline_ns == kNoDeadline) {
      timer_->disarm();
    } else {
      timer_->arm(r.timer_deadline_ns);
    }
    publish();
    update(action);
  }
  perform(action);
  return {};
}

}  // namespace bulkhead::device::interrupt
