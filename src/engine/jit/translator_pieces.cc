// What translated instructions are put together from: addresses, the look into the TLB, the ways out of a block.
#include <cstddef>

#include "engine/jit/instruction_kinds.h"
#include "engine/jit/translator.h"

namespace bulkhead::engine::jit {
using decoder::Instruction;
using decoder::Mnemonic;

namespace {

constexpr int32_t kTagRead = offsetof(mmu::TlbEntry, tag_read), kTagWrite = offsetof(mmu::TlbEntry, tag_write),
                  kDelta = offsetof(mmu::TlbEntry, delta);

static_assert(AccessGroups::kSpan == mmu::Slots::kSpan);

}  // namespace

bool Translator::can_address(const Op& op) const {
  const bool is_relative = op.instruction->base == decoder::kRipRelative;
  return AccessGroups::is_near(is_relative ? static_cast<int64_t>(op.displacement) + page_offset()
                                           : static_cast<int64_t>(op.instruction->displacement));
}

// Leaves the host's flags alone; changes R13 and R14.
Linear Translator::address(const Op& op) {
  const Instruction& instruction = *op.instruction;
  const auto displacement = static_cast<int32_t>(instruction.displacement);
  const auto in_host = [&](uint8_t guest, Host scratch) {
    const Host host = host_of(guest);
    if (host != kNoHost) return host;
    code_.load(scratch, gpr(guest));
    return scratch;
  };
  const bool is_relative = instruction.base == decoder::kRipRelative;
  const bool has_base = instruction.base < 16, has_index = instruction.index != decoder::kNoRegister;
  const bool has_segment = op.segment >= cpu::kFs && instruction.mnemonic != Mnemonic::kLea;
  const Host base = has_base ? in_host(instruction.base, kScratch) : kNoHost;
  const Host index = has_index ? in_host(instruction.index, kScratch2) : kNoHost;
  if (is_relative && !has_segment) {
    code_.load(kScratch, field(cpu_, cpu_.jit_page));
    return {.base = kScratch, .displacement = static_cast<int32_t>(op.displacement + page_offset())};
  }
  if (has_base && !has_index && !has_segment) return {.base = base, .displacement = displacement};
  if (is_relative) {
    code_.load(kScratch, field(cpu_, cpu_.jit_page));
    code_.lea(kScratch, {kScratch, static_cast<int32_t>(op.displacement + page_offset())});
  } else if (has_base && has_index) {
    code_.lea(kScratch, base, index, instruction.scale_log2, displacement);
  } else if (has_base) {
    code_.lea(kScratch, {base, displacement});
  } else if (has_index) {
    code_.lea_scaled(kScratch, index, instruction.scale_log2, displacement);
  } else {
    code_.move(kScratch, static_cast<uint64_t>(instruction.displacement));
  }
  if (has_segment) {
    code_.load(kScratch2, field(cpu_, cpu_.segments[op.segment].base));
    code_.lea(kScratch, {.base = kScratch, .index = kScratch2});
  }
  return {};
}

Translator::Slow Translator::access(const Op& op, bool scratch2_is_free, bool tests_address) {
  const Instruction& instruction = *op.instruction;
  const Look look{.size = instruction.memory_size,
                  .write = instruction.info->memory_access != decoder::Access::kRead,
                  .stack = instruction.base == cpu::kRsp,
                  .scratch2_is_free = scratch2_is_free};
  if (joins_group() && !tests_address) return slow_for(op, look_up(address(op), look));
  before_look_up(op, !tests_address && should_keep_flags(op, look));
  return access_to(op, address(op), look);
}

Translator::Slow Translator::stack_access(const Op& op, Linear linear, Look look) {
  if (joins_group()) return slow_for(op, look_up(linear, look));
  before_look_up(op, should_keep_flags(op, look));
  return access_to(op, linear, look);
}

// Behind before_look_up().
Translator::Slow Translator::access_to(const Op& op, Linear linear, Look look) {
  const Slow slow = slow_for(op, keeps_flags_ ? look_up_keeping_flags(op, linear, look) : look_up(linear, look));
  after_look_up();
  return slow;
}

// flags_ is what holds here, and the way by the handler has to bring it about too.
void Translator::come_back(Slow slow, bool restores_flags) {
  if (slow.from == kNoMiss) return;
  const bool kept = flags_ == Flags::kBoth || (flags_ == Flags::kHost && flags_changed(*slow.op->instruction) == 0);
  slow.back = code_.size();
  slow.flags_to_host = restores_flags || kept;
  slow_.push_back(slow);
}

mmu::Slots::Bank Translator::bank(bool write) const {
  using mmu::Slots;
  return static_cast<Slots::Bank>((is_user() ? Slots::kUserRead : Slots::kSupervisorRead) + (write ? 1 : 0));
}

// A kernel has more places than slots, each run seldom, and flushes the TLB often: only its stack is worth one.
bool Translator::has_slot(bool stack) const {
  // What changes too often at a CALL or PUSH with an operand in memory is that operand's.
  if (stack && current_->instruction->has_memory() && current_->instruction->base != cpu::kRsp) return true;
  return (is_user() || stack) && (block_.without_slot >> index_in_block(*current_) & 1) == 0;
}

bool Translator::joins_group() const {
  const auto number = index_of(*current_);
  return groups_.has_group(number) && group_is_live_[groups_.group(number)];
}

std::optional<AccessGroups::Span> Translator::group_span() const {
  const auto number = index_of(*current_);
  const bool is_one = groups_.has_group(number) && groups_.group(number) != group_without_look_;
  return is_one ? groups_.span(number) : std::nullopt;
}

// Behind an instruction of a group that has kept what place_ was made from: by all ways, the one by the handler of the
// first of the group too.
void Translator::note_delta_in_scratch(const Slow& slow) {
  if (place_.index != kScratch || (slow.lead && (last_simd_ != nullptr || has_x87_))) return;
  if (slow.from != kNoMiss && !slow.lead) return;
  group_in_scratch_ = slow.lead ? slow.lead->group : groups_.group(index_of(*slow.op));
  group_in_scratch_at_ = code_.size();
}

bool Translator::is_known_to_be_aligned(unsigned bytes) const {
  const auto number = index_of(*current_);
  if (!groups_.has_group(number)) return false;
  const Aligned& known = aligned_[groups_.group(number)];
  return known.bytes >= bytes && (groups_.offset(number) - known.offset) % bytes == 0;
}

void Translator::note_alignment(unsigned bytes) {
  const auto number = index_of(*current_);
  if (groups_.has_group(number)) aligned_[groups_.group(number)] = {groups_.offset(number), bytes};
}

// The bits of the guest's address that `mask` has are tested; place_ is still good then.
void Translator::test_address(uint8_t mask) {
  Host low = place_.base;  // its low bits, and those of the displacement: a page's address adds nothing to them
  if (place_.displacement != 0) {
    low = kScratch2;
    code_.lea(low, {place_.base, place_.displacement});
  }
  code_.rex(false, 0, 0, low, true);
  code_.byte(0xF6);
  code_.modrm_register(0, low);
  code_.byte(mask);
}

// place_ = the memory at the linear address. The result is the jump that is taken when the TLB does not know.
size_t Translator::look_up(Linear linear, Look look) {
  using mmu::Slots;
  lead_.reset();
  if (joins_group()) {
    const auto group = groups_.group(index_of(*current_));
    const bool is_there = !linear.in_scratch() && group_in_scratch_ == group && group_in_scratch_at_ == code_.size();
    if (!is_there) code_.load(linear.in_scratch() ? kScratch2 : kScratch, field(cpu_, cpu_.jit_groups[group]));
    set_place(linear, look);
    return kNoMiss;
  }
  lead_ = group_span();
  const Span span = lead_ ? Span{.begin = lead_->begin, .size = lead_->size, .writes = lead_->writes}
                          : Span{.begin = 0, .size = look.size, .writes = look.write};
  size_t miss = 0;
  if (has_slot(look.stack)) {
    const size_t number =
        Slots::index(bank(span.writes), look.stack ? 0 : 1 + jit_.next_slot_++ % (Slots::kPerBank - 1));
    const mmu::Slot& slot = cpu_.tlb.slots().slot(number);
    code_.lea(kScratch2, {linear.base, linear.displacement + span.begin});
    code_.op(0x2B, kScratch2, field(cpu_, slot.base));
    code_.op(0x3B, kScratch2, field(cpu_, span.size > Slots::kWidest ? slot.span_limit : slot.limit));
    const size_t other = code_.jump_if(kIfNotCarry);
    code_.load(linear.in_scratch() ? kScratch2 : kScratch, field(cpu_, slot.delta));
    sites_.push_back(
        {.op = current_, .linear = linear, .span = span, .slot = number, .jump = other, .back = code_.size()});
    miss = kFirstSite + sites_.size() - 1;
  } else {
    look_into_tlb(linear, span);
    miss = code_.jump_if(kIfAbove);
    delta_from_entry(linear, span);
  }
  if (lead_) {
    code_.store(field(cpu_, cpu_.jit_groups[lead_->group]), linear.in_scratch() ? kScratch2 : kScratch);
    group_is_live_[lead_->group] = true;
  }
  set_place(linear, look);
  return miss;
}

// With the difference to the host's address in R13, or in R14 where R13 has the address's base. Leaves the flags alone.
void Translator::set_place(Linear linear, Look look) {
  if (!linear.in_scratch()) {
    place_ = {.base = linear.base, .displacement = linear.displacement, .index = kScratch};
  } else if (look.scratch2_is_free) {
    place_ = {.base = kScratch, .displacement = linear.displacement, .index = kScratch2};
  } else {
    code_.lea(kScratch, {.base = kScratch, .index = kScratch2});
    place_ = {.base = kScratch, .displacement = linear.displacement};
  }
}

// R14 = the TLB's entry for the span, R13 = the offset from the entry's page.
void Translator::look_into_tlb(Linear linear, Span span) {
  constexpr uint8_t kEntryShift = 5;
  static_assert(sizeof(mmu::TlbEntry) == 1 << kEntryShift);
  const int32_t displacement = linear.displacement + span.begin;
  if (!linear.in_scratch() || displacement != 0) code_.lea(kScratch, {linear.base, displacement});
  // One step less to wait for where the address is a register's.
  const Host from = displacement == 0 ? linear.base : kScratch;
  if (__builtin_cpu_supports("bmi2")) {
    code_.rotate_right(kScratch2, from, kPageShift - kEntryShift);
  } else {
    code_.move(kScratch2, from);
    code_.shift_right(kScratch2, kPageShift - kEntryShift);
  }
  code_.immediate(4, kScratch2, static_cast<int32_t>((mmu::Tlb::kEntries - 1) << kEntryShift), false);
  code_.op(0x03, kScratch2, field(cpu_, cpu_.tlb.current()));
  code_.op(0x2B, kScratch, Memory{kScratch2, span.writes ? kTagWrite : kTagRead});
  code_.immediate(7, kScratch, static_cast<int32_t>(kPageSize - span.size));
}

// Behind look_into_tlb(): what set_place() wants.
void Translator::delta_from_entry(Linear linear, Span span) {
  if (!linear.in_scratch()) {
    code_.load(kScratch, {kScratch2, kDelta});
    return;
  }
  code_.op(0x03, kScratch, Memory{kScratch2, span.writes ? kTagWrite : kTagRead});
  code_.load(kScratch2, {kScratch2, kDelta});
  const int32_t displacement = linear.displacement + span.begin;
  if (displacement != 0) code_.lea(kScratch, {kScratch, -displacement});
}

// What a place does whose slot has another page: it looks into the TLB, and puts what it finds there into the slot.
void Translator::emit_sites() {
  constexpr uint8_t kPush = 0x50, kPop = 0x58;
  for (size_t i = 0; i < sites_.size(); ++i) {
    Site& site = sites_[i];
    code_.bind_here(site.jump);
    if (site.is_packed) {
      emit_packed_site(site, i);
      continue;
    }
    const mmu::Slot& slot = cpu_.tlb.slots().slot(site.slot);
    const int32_t displacement = site.linear.displacement + site.span.begin;
    if (!site.linear.in_scratch() || displacement != 0) code_.lea(kScratch, {site.linear.base, displacement});
    code_.byte(kPush | kRax);  // the host's stack
    code_.move(kRax, static_cast<uint64_t>(field(cpu_, slot).displacement));
    const size_t call = code_.call();
    site.fill_return = code_.size();
    code_.set(call, jit_.fill_slot_[site.span.writes ? 1 : 0] - (jit_.cache_->end() + site.fill_return));
    code_.byte(kPop | kRax);
    code_.immediate(7, kScratch, static_cast<int32_t>(kPageSize - site.span.size));
    site.miss = code_.jump_if(kIfAbove);
    delta_from_entry(site.linear, site.span);
    code_.bind(code_.jump(), site.back);
  }
}

void Translator::report_place(size_t number) {
  code_.op(0xC7, 0, field(cpu_, cpu_.jit_site), false);
  code_.value(static_cast<uint32_t>(jit_.sites_.size() + number));
  code_.byte(0xF0);
  code_.immediate(1, field(cpu_, cpu_.attention), kAttentionSite, false);
}

void Translator::note_sites(uint32_t code_at) const {
  uint32_t return_at = code_at;
  for (const Site& site : sites_) {
    if (site.fill_return != 0) return_at = code_at + static_cast<uint32_t>(site.fill_return);
    jit_.sites_.push_back({.block = &block_,
                           .op = static_cast<uint16_t>(index_in_block(*site.op)),
                           .is_group = false,
                           .return_at = return_at});
  }
  for (const Op* op : leads_) {
    jit_.sites_.push_back(
        {.block = &block_, .op = static_cast<uint16_t>(index_in_block(*op)), .is_group = true, .return_at = return_at});
  }
}

void Translator::count_up_to(const Op& last) {
  code_.immediate(0, field(cpu_, cpu_.instruction_count), static_cast<int32_t>(index_of(last) + 1));
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
void Translator::edge(int64_t distance, const Op& last, Left flags) {
  const int64_t offset = page_offset() + distance;
  if (offset >= 0 && offset < static_cast<int64_t>(kPageSize)) {
    count_up_to(last);
    edges_.push_back({.jump = code_.jump(),
                      .unlinked = 0,
                      .distance = distance,
                      .flag_registers = flags.registers,
                      .defers_flags = flags.deferred});
    return;
  }
  code_.load(kScratch2, field(cpu_, cpu_.jit_page));
  code_.lea(kScratch2, {kScratch2, static_cast<int32_t>(offset)});
  finish_indirect(last);
}

void Translator::finish_indirect(const Op& last) {
  count_up_to(last);
  jit_.emit_dispatch(code_);
}

// The same with RSP changed, and where R14 may be no canonical address: none that is known is one.
void Translator::finish_checked(const Op& last, int32_t popped, std::vector<size_t>& misses) {
  const auto finish = [&] {
    if (popped != 0) code_.lea(kR12, {kR12, popped});
    count_up_to(last);
  };
  const size_t unknown = jit_.emit_target_look_up(code_);
  finish();
  jit_.emit_target_jump(code_);
  code_.bind_here(unknown);
  checked_target(misses);
  finish();
  jump_to(jit_.search_target_);
}

}  // namespace bulkhead::engine::jit
