// Handlers of the system family, by file.
#pragma once

#include "engine/interpreter/cpu.h"
#include "engine/interpreter/op.h"

namespace bulkhead::engine::system {

// segments.cc
void move_to_segment(Cpu& cpu, const Op& op);
void move_from_segment(Cpu& cpu, const Op& op);
void load_far_pointer(Cpu& cpu, const Op& op);  // LDS, LES, LSS, LFS, LGS
void load_ldt(Cpu& cpu, const Op& op);
void load_task_register(Cpu& cpu, const Op& op);
void store_ldt(Cpu& cpu, const Op& op);
void store_task_register(Cpu& cpu, const Op& op);
void load_gdt(Cpu& cpu, const Op& op);
void load_idt(Cpu& cpu, const Op& op);
void store_gdt(Cpu& cpu, const Op& op);
void store_idt(Cpu& cpu, const Op& op);
void verify_read(Cpu& cpu, const Op& op);
void verify_write(Cpu& cpu, const Op& op);
void load_access_rights(Cpu& cpu, const Op& op);
void load_segment_limit(Cpu& cpu, const Op& op);
void adjust_rpl(Cpu& cpu, const Op& op);
void swap_gs(Cpu& cpu, const Op& op);
void read_base(Cpu& cpu, const Op& op);  // RDFSBASE, RDGSBASE
void write_base(Cpu& cpu, const Op& op);

// far_transfer.cc
void jump_far(Cpu& cpu, const Op& op);
void call_far(Cpu& cpu, const Op& op);
void return_far(Cpu& cpu, const Op& op);

// interrupts.cc
void interrupt(Cpu& cpu, const Op& op);  // INT n, INT1, INT3, INTO
void bound(Cpu& cpu, const Op& op);
void interrupt_return(Cpu& cpu, const Op& op);
void clear_interrupt_flag(Cpu& cpu, const Op& op);
void set_interrupt_flag(Cpu& cpu, const Op& op);
void push_flags(Cpu& cpu, const Op& op);
void pop_flags(Cpu& cpu, const Op& op);
void halt(Cpu& cpu, const Op& op);
void clear_access_check(Cpu& cpu, const Op& op);  // CLAC
void set_access_check(Cpu& cpu, const Op& op);    // STAC

// fast_calls.cc
void syscall(Cpu& cpu, const Op& op);
void sysret(Cpu& cpu, const Op& op);
void sysenter(Cpu& cpu, const Op& op);
void sysexit(Cpu& cpu, const Op& op);

// control_registers.cc
void move_to_control(Cpu& cpu, const Op& op);
void move_from_control(Cpu& cpu, const Op& op);
void move_to_debug(Cpu& cpu, const Op& op);
void move_from_debug(Cpu& cpu, const Op& op);
void load_machine_status(Cpu& cpu, const Op& op);
void store_machine_status(Cpu& cpu, const Op& op);
void clear_task_switched(Cpu& cpu, const Op& op);
void read_extended_control(Cpu& cpu, const Op& op);
void write_extended_control(Cpu& cpu, const Op& op);
void invalidate_page(Cpu& cpu, const Op& op);
void invalidate_pcid(Cpu& cpu, const Op& op);
void flush_caches(Cpu& cpu, const Op& op);  // INVD, WBINVD

// msr.cc
void read_msr(Cpu& cpu, const Op& op);
void write_msr(Cpu& cpu, const Op& op);
void read_tsc(Cpu& cpu, const Op& op);
void read_tsc_and_id(Cpu& cpu, const Op& op);
void read_performance_counter(Cpu& cpu, const Op& op);
void identify(Cpu& cpu, const Op& op);  // CPUID
void hypercall(Cpu& cpu, const Op& op);

// ports.cc
void in(Cpu& cpu, const Op& op);
void out(Cpu& cpu, const Op& op);

}  // namespace bulkhead::engine::system
