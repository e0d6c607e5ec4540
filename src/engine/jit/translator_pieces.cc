// What translated instructions are put together from: addresses, the look into the TLB, the ways out of a block.
#include <cstddef>

#include "engine/jit/translator.h"

namespace bulkhead::engine::jit {
namespace {

constexpr int32_t kTagRead = offsetof(mmu::TlbEntry, tag_read), kTagWrite = offsetof(mmu::TlbEntry, tag_write),
                  kHostPage = offsetof(mmu::TlbEntry, host);

}  // namespace

bool Translator::can_address(const Op& op) const {
  const auto from_page = static_cast<int64_t>(op.displacement) + page_offset();
  return op.instruction->base != decoder::kRipRelative || from_page == static_cast<int32_t>(from_page);
}

// R13 = the address, without a segment's base; leaves the host's flags alone.
void Translator::address(const Op& op) {
  const Instruction& instruction = *op.instruction;
  const auto displacement = static_cast<int32_t>(instruction.displacement);
  if (instruction.base == decoder::kRipRelative) {
    code_.load(kScratch, field(cpu_, cpu_.jit_page));
    code_.lea(kScratch, {kScratch, static_cast<int32_t>(op.displacement + page_offset())});
    return;
  }
  const auto in_host = [&](uint8_t guest, Host scratch) {
    const Host host = host_of(guest);
    if (host != kNoHost) return host;
    code_.load(scratch, gpr(guest));
    return scratch;
  };
  const bool has_base = instruction.base != decoder::kNoRegister, has_index = instruction.index != decoder::kNoRegister;
  const Host base = has_base ? in_host(instruction.base, kScratch) : kNoHost;
  const Host index = has_index ? in_host(instruction.index, kScratch2) : kNoHost;
  if (has_base && has_index)
    code_.lea(kScratch, base, index, instruction.scale_log2, displacement);
  else if (has_base)
    code_.lea(kScratch, {base, displacement});
  else if (has_index)
    code_.lea_scaled(kScratch, index, instruction.scale_log2, displacement);
  else
    code_.move(kScratch, static_cast<uint64_t>(instruction.displacement));
}

// R13 = the host address of the linear address in R13. The result is the jump that is taken when the TLB does not know.
size_t Translator::look_up(unsigned size, bool write) {
  constexpr uint8_t kEntryShift = 5;
  static_assert(sizeof(mmu::TlbEntry) == 1 << kEntryShift);
  const int32_t tag = write ? kTagWrite : kTagRead;
  if (__builtin_cpu_supports("bmi2")) {
    code_.rotate_right(kScratch2, kScratch, kPageShift - kEntryShift);
  } else {
    code_.move(kScratch2, kScratch);
    code_.shift_right(kScratch2, kPageShift - kEntryShift);
  }
  code_.immediate(4, kScratch2, static_cast<int32_t>((mmu::Tlb::kEntries - 1) << kEntryShift), false);
  code_.op(0x03, kScratch2, field(cpu_, cpu_.tlb.current()));
  code_.op(0x2B, kScratch, Memory{kScratch2, tag});
  code_.immediate(7, kScratch, static_cast<int32_t>(kPageSize - size));
  const size_t miss = code_.jump_if(kIfAbove);
  code_.op(0x03, kScratch, Memory{kScratch2, kHostPage});
  return miss;
}

void Translator::count_up_to(const Op& last) {
  code_.immediate(0, field(cpu_, cpu_.instruction_count), static_cast<int32_t>(&last + 1 - block_.ops));
}

void Translator::jump_to(const uint8_t* place) {
  const size_t jump = code_.jump();
  code_.set(jump, place - (jit_.cache_->end() + jump + 4));
}

// RIP = the block's beginning + distance, from any edge of the page.
void Translator::set_rip(int64_t distance) {
  code_.load(kScratch, field(cpu_, cpu_.jit_page));
  code_.lea(kScratch, {kScratch, static_cast<int32_t>(page_offset() + distance)});
  code_.store(field(cpu_, cpu_.rip), kScratch);
}

// The end of the block by a way whose target is `distance` from its beginning. Within the page it may be linked: where
// the page is mapped, its other code is too.
void Translator::edge(int64_t distance, const Op& last) {
  const int64_t offset = page_offset() + distance;
  if (offset >= 0 && offset < static_cast<int64_t>(kPageSize)) {
    count_up_to(last);
    edges_.push_back({.jump = code_.jump(), .unlinked = 0, .distance = distance});
    return;
  }
  code_.load(kScratch2, field(cpu_, cpu_.jit_page));
  code_.lea(kScratch2, {kScratch2, static_cast<int32_t>(offset)});
  finish_indirect(last);
}

void Translator::finish_indirect(const Op& last) {
  count_up_to(last);
  code_.store(field(cpu_, cpu_.rip), kScratch2);
  jit_.emit_dispatch(code_, cpu_, jit_.leave_indirect_);
}

}  // namespace bulkhead::engine::jit
