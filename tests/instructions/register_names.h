// Every register of cpu::State by the name that text cases use, as the little-endian bytes that hold it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cpu/state.h"

namespace bulkhead::instructions {

// rax .. r15, rip, rflags, es .. gs (selectors), es.base, es.limit, es.attr, ldtr and tr the same, gdtr.base,
// gdtr.limit, idtr.*, cr0 .. cr4, xcr0, efer, dr0 .. dr7, star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs,
// sysenter_esp, sysenter_eip, tsc_aux, fcw, fsw, ftw, mxcsr, st0 .. st7 (80 bits), xmm0 .. xmm15, ymmh0 .. ymmh15
// (upper halves), shadow (interrupts held off by STI or MOV SS). Empty: no such register.
std::span<uint8_t> find_register(cpu::State& state, std::string_view name);

// All names, in the order in which differences are told. Attributes of segments are not among them: only cases that
// name them have them compared.
const std::vector<std::string>& compared_registers();

// A number in hexadecimal from a register's bytes, without leading zeros; and back, false when it does not fit.
std::string to_hex(std::span<const uint8_t> bytes);
[[nodiscard]] bool from_hex(std::string_view text, std::span<uint8_t> bytes);

}  // namespace bulkhead::instructions
