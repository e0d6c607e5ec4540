// gdb's view of a vCPU's registers: their order, sizes and description (target.xml) for x86-64 and for i386, as the
// vCPU was when the debugger connected. gdb cannot follow a change between the two; it has to connect again.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "cpu/state.h"
#include "support/bytes.h"

namespace bulkhead::vmm::gdb {

enum class Architecture : uint8_t { kI386, kX86_64 };

// By EFER.LMA, whatever the code segment.
Architecture architecture_of(const cpu::State& state);

struct RegisterInfo {
  enum class Source : uint8_t { kGpr, kRip, kFlags, kSegment, kSt, kFpu, kXmm, kMxcsr, kSegmentBase, kControl, kEfer };
  std::string name;
  uint8_t size;  // bytes
  const char* type;
  const char* feature;
  Source source;
  uint8_t index;
};

// In gdb's numbering.
std::span<const RegisterInfo> registers_of(Architecture architecture);
std::string target_xml(Architecture architecture);

std::vector<uint8_t> read_register(const RegisterInfo& info, const cpu::State& state);
// bytes has the register's size.
void write_register(const RegisterInfo& info, ByteSpan bytes, cpu::State& state);

}  // namespace bulkhead::vmm::gdb
