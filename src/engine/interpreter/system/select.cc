// Which handler of the system family carries an instruction out, and which of them end a block.
#include "engine/interpreter/integer/select_handler.h"
#include "engine/interpreter/system/handlers.h"
#include "engine/interpreter/system/system.h"

namespace bulkhead::engine {

using decoder::Mnemonic;

Handler system_handler(const decoder::Instruction& instruction) {
  switch (instruction.mnemonic) {
    case Mnemonic::kMovToSegment:
      return system::move_to_segment;
    case Mnemonic::kMovFromSegment:
      return system::move_from_segment;
    case Mnemonic::kLds:
    case Mnemonic::kLes:
    case Mnemonic::kLss:
    case Mnemonic::kLfs:
    case Mnemonic::kLgs:
      return system::load_far_pointer;
    case Mnemonic::kLldt:
      return system::load_ldt;
    case Mnemonic::kLtr:
      return system::load_task_register;
    case Mnemonic::kSldt:
      return system::store_ldt;
    case Mnemonic::kStr:
      return system::store_task_register;
    case Mnemonic::kLgdt:
      return system::load_gdt;
    case Mnemonic::kLidt:
      return system::load_idt;
    case Mnemonic::kSgdt:
      return system::store_gdt;
    case Mnemonic::kSidt:
      return system::store_idt;
    case Mnemonic::kVerr:
      return system::verify_read;
    case Mnemonic::kVerw:
      return system::verify_write;
    case Mnemonic::kLar:
      return system::load_access_rights;
    case Mnemonic::kLsl:
      return system::load_segment_limit;
    case Mnemonic::kArpl:
      return system::adjust_rpl;
    case Mnemonic::kSwapgs:
      return system::swap_gs;
    case Mnemonic::kRdfsbase:
    case Mnemonic::kRdgsbase:
      return system::read_base;
    case Mnemonic::kWrfsbase:
    case Mnemonic::kWrgsbase:
      return system::write_base;

    case Mnemonic::kJmpFar:
      return system::jump_far;
    case Mnemonic::kCallFar:
      return system::call_far;
    case Mnemonic::kRetFar:
      return system::return_far;
    case Mnemonic::kInt:
    case Mnemonic::kInt1:
    case Mnemonic::kInt3:
    case Mnemonic::kInto:
      return system::interrupt;
    case Mnemonic::kBound:
      return system::bound;
    case Mnemonic::kIret:
      return system::interrupt_return;
    case Mnemonic::kCli:
      return system::clear_interrupt_flag;
    case Mnemonic::kSti:
      return system::set_interrupt_flag;
    case Mnemonic::kPushf:
      return system::push_flags;
    case Mnemonic::kPopf:
      return system::pop_flags;
    case Mnemonic::kHlt:
      return system::halt;
    case Mnemonic::kClac:
      return system::clear_access_check;
    case Mnemonic::kStac:
      return system::set_access_check;
    case Mnemonic::kSyscall:
      return system::syscall;
    case Mnemonic::kSysret:
      return system::sysret;
    case Mnemonic::kSysenter:
      return system::sysenter;
    case Mnemonic::kSysexit:
      return system::sysexit;

    case Mnemonic::kMovToControl:
      return system::move_to_control;
    case Mnemonic::kMovFromControl:
      return system::move_from_control;
    case Mnemonic::kMovToDebug:
      return system::move_to_debug;
    case Mnemonic::kMovFromDebug:
      return system::move_from_debug;
    case Mnemonic::kLmsw:
      return system::load_machine_status;
    case Mnemonic::kSmsw:
      return system::store_machine_status;
    case Mnemonic::kClts:
      return system::clear_task_switched;
    case Mnemonic::kXgetbv:
      return system::read_extended_control;
    case Mnemonic::kXsetbv:
      return system::write_extended_control;
    case Mnemonic::kInvlpg:
      return system::invalidate_page;
    case Mnemonic::kInvpcid:
      return system::invalidate_pcid;
    case Mnemonic::kInvd:
    case Mnemonic::kWbinvd:
      return system::flush_caches;

    case Mnemonic::kRdmsr:
      return system::read_msr;
    case Mnemonic::kWrmsr:
      return system::write_msr;
    case Mnemonic::kRdtsc:
      return system::read_tsc;
    case Mnemonic::kRdtscp:
      return system::read_tsc_and_id;
    case Mnemonic::kRdpmc:
      return system::read_performance_counter;
    case Mnemonic::kCpuid:
      return system::identify;
    case Mnemonic::kVmcall:
    case Mnemonic::kVmmcall:
      return system::hypercall;
    case Mnemonic::kIn:
      return system::in;
    case Mnemonic::kOut:
      return system::out;
    default:
      return nullptr;
  }
}

bool system_ends_block(const decoder::Instruction& instruction) {
  switch (instruction.mnemonic) {
    case Mnemonic::kJmpFar:
    case Mnemonic::kCallFar:
    case Mnemonic::kRetFar:
    case Mnemonic::kInt:
    case Mnemonic::kInt1:
    case Mnemonic::kInt3:
    case Mnemonic::kInto:
    case Mnemonic::kIret:
    case Mnemonic::kSti:
    case Mnemonic::kPopf:
    case Mnemonic::kHlt:
    case Mnemonic::kSyscall:
    case Mnemonic::kSysret:
    case Mnemonic::kSysenter:
    case Mnemonic::kSysexit:
    case Mnemonic::kMovToControl:
    case Mnemonic::kMovToDebug:
    case Mnemonic::kLmsw:
    case Mnemonic::kClts:
    case Mnemonic::kXsetbv:
    case Mnemonic::kInvlpg:
    case Mnemonic::kInvpcid:
    case Mnemonic::kWrmsr:
    case Mnemonic::kOut:
    case Mnemonic::kIn:
    case Mnemonic::kCpuid:
      return true;
    default:
      return false;
  }
}

}  // namespace bulkhead::engine
