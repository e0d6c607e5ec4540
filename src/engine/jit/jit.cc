#include "engine/jit/jit.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "engine/interpreter/system/system.h"
#include "engine/jit/deferred_flags.h"
#include "engine/jit/instruction_kinds.h"
#include "engine/jit/simd_state.h"
#include "engine/jit/state_layout.h"
#include "engine/jit/translator.h"
#include "engine/jit/x87_state.h"
#include "engine/mmu/access.h"

namespace bulkhead::engine::jit {
namespace {

constexpr std::array<Host, 6> kSavedByCallee = {kRbx, kRbp, kR12, kR13, kR14, kR15};

// What an instruction of 64-bit code does with its stack before anything else of it can fail.
std::optional<MemoryAccess> stack_access(const decoder::Instruction& instruction) {
  using decoder::Mnemonic;
  if (instruction.operand_size != 8 || instruction.has_memory() || instruction.info == nullptr) return std::nullopt;
  const auto first_is = [&](decoder::OperandKind kind) {
    return instruction.info->operand_count == 1 && instruction.info->operands[0].kind == kind;
  };
  const bool is_register = first_is(decoder::OperandKind::kGprOpcode) || first_is(decoder::OperandKind::kGprRm);
  switch (instruction.mnemonic) {
    case Mnemonic::kPush:
      return is_register ? std::optional(MemoryAccess::kWrite) : std::nullopt;
    case Mnemonic::kPop:
      return is_register ? std::optional(MemoryAccess::kRead) : std::nullopt;
    case Mnemonic::kCall:
      return first_is(decoder::OperandKind::kRelative) ? std::optional(MemoryAccess::kWrite) : std::nullopt;
    case Mnemonic::kRet:
      return MemoryAccess::kRead;
    default:
      return std::nullopt;
  }
}

// An integer instruction whose only access to memory is a page fault: the usual end of a look into the TLB that found
// nothing, and much cheaper to find out than by the handler's exception.
bool is_page_fault(Cpu& cpu, const Op& op) {
  const decoder::Instruction& instruction = *op.instruction;
  if (const auto access = stack_access(instruction)) {
    const uint64_t rsp = cpu.gpr[cpu::kRsp];
    return engine::is_page_fault(cpu, *access == MemoryAccess::kWrite ? rsp - 8 : rsp, 8, *access, cpu.jit_fault);
  }
  if (!instruction.has_memory() || instruction.address_size != 8 || instruction.info == nullptr) return false;
  if (instruction.memory_size == 0 || instruction.memory_size > 8 || instruction.is_vex()) return false;
  if (instruction.info->state != decoder::StateComponent::kGeneral || !is_copied(instruction.mnemonic)) return false;
  const bool far_bit =
      is_bit_test(instruction.mnemonic) && instruction.info->operands[1].kind == decoder::OperandKind::kGprReg;
  if (far_bit || instruction.info->memory_access == decoder::Access::kNone) return false;
  uint64_t linear = memory_offset(cpu, op);
  if (op.segment >= cpu::kFs) linear += cpu.segments[op.segment].base;
  const bool reads_only = instruction.info->memory_access == decoder::Access::kRead;
  return engine::is_page_fault(cpu, linear, instruction.memory_size,
                               reads_only ? MemoryAccess::kRead : MemoryAccess::kReadWrite, cpu.jit_fault);
}

// Called from translated code with every guest register in the Cpu. No exception may cross translated code. Returns 0
// when the block goes on, else an Exit.
uint32_t carry_out(Cpu* cpu_pointer, uint32_t place) noexcept {
  Cpu& cpu = *cpu_pointer;
  Block* const block = &cpu.blocks->numbered(block_at(place));
  cpu.blocks->decode_again(*block);
  const unsigned index = index_at(place), earlier = block->loop_ops != 0 ? index - index % block->loop_ops : 0;
  const Op* op = block->ops + (index - earlier);
  const Op* end = block->ops + block->op_count;
  cpu.instruction_count += earlier;
  cpu.block_begin = block->ops;
  cpu.block_end = end;
  cpu.block_rip = cpu.jit_page + (block->physical & (kPageSize - 1));
  cpu.rip = cpu.block_rip + block->length;
  cpu.op = op;
  cpu.jit->count_call(*block, *op);
  if (is_page_fault(cpu, *op)) return static_cast<uint32_t>(Exit::kFault);
  try {
    op->handler(cpu, *op);
  } catch (const GuestFault& fault) {
    cpu.jit_fault = fault;
    return static_cast<uint32_t>(Exit::kFault);
  }
  if (op + 1 == end || cpu.block_end != end) {
    cpu.instruction_count += static_cast<uint64_t>(cpu.block_end - cpu.block_begin);
    return static_cast<uint32_t>(Exit::kLeft);
  }
  cpu.instruction_count -= earlier;
  return 0;
}

// The manual leaves AF undefined after a logic operation; for the interpreter it is 0, and for translated code what the
// host makes of it.
bool host_clears_adjust_after_logic() {
  uint16_t ax = 0;
  asm("mov $15, %%eax\n\tadd $1, %%al\n\ttest %%eax, %%eax\n\tlahf" : "=&a"(ax) : : "cc");
  return (ax & ArithmeticFlags::kAdjust) == 0;
}

void load_guest(Assembler& code) {
  for (uint8_t guest = 0; guest < 12; ++guest) code.load(host_of(guest), gpr(guest));
}
void store_guest(Assembler& code) {
  for (uint8_t guest = 0; guest < 12; ++guest) code.store(gpr(guest), host_of(guest));
}

}  // namespace

Jit::Jit(Cpu& cpu, std::unique_ptr<CodeCache> cache) : cpu_(cpu), cache_(std::move(cache)) {
  choose_targets();
}

Result<std::unique_ptr<Jit>> Jit::create(Cpu& cpu, size_t capacity_bytes) {
  if (!host_clears_adjust_after_logic()) return fail("this host's AND and TEST leave AF set");
  auto jit = std::unique_ptr<Jit>(new Jit(cpu, TRY(CodeCache::create(capacity_bytes))));
  jit->make_thunks();
  return jit;
}

void Jit::make_thunks() {
  // Into translated code: RDI the Cpu, RSI the code.
  Assembler& code = assembler_;
  const auto jump_to = [&](const uint8_t* place) {
    const size_t jump = code.jump();
    code.set(jump, place - (cache_->end() + code.size()));
  };
  code.clear();
  for (const Host saved : kSavedByCallee) {
    code.rex(false, 0, 0, saved);
    code.byte(static_cast<uint8_t>(0x50 | (saved & 7)));
  }
  code.immediate(5, kRsp, 8);
  code.lea(kCpu, {kRdi, kCpuOffset});
  code.move(kScratch, kRsi);
  load_guest(code);
  code.load(kScratch2, field(cpu_, cpu_.rip));
  code.byte(0x41);  // jmp r13
  code.byte(0xFF);
  code.modrm_register(4, kScratch);
  enter_ = reinterpret_cast<Enter>(reinterpret_cast<uintptr_t>(cache_->add(code.code())));

  // And out of it again; the second place is for when the registers are in the Cpu already.
  const auto make_flags = [&] {
    code.op(0xF6, 0, field(cpu_, cpu_.flags), false);  // test, a byte
    code.byte(DeferredFlags::kMark);
    const size_t made = code.jump_if(kIfZero);
    pass_cpu(code);
    code.move(kRax, reinterpret_cast<uint64_t>(&DeferredFlags::make));
    code.byte(0xFF);  // call rax
    code.modrm_register(2, kRax);
    code.bind_here(made);
  };
  code.clear();
  store_guest(code);
  emit_simd_store(code, cpu_);
  emit_x87_store(code, cpu_);
  make_flags();
  const size_t stored = code.size();
  code.op(0x89, kR14, kRax, false);
  code.immediate(0, kRsp, 8);
  for (size_t i = kSavedByCallee.size(); i-- > 0;) {
    const Host saved = kSavedByCallee[i];
    code.rex(false, 0, 0, saved);
    code.byte(static_cast<uint8_t>(0x58 | (saved & 7)));
  }
  code.byte(0xC3);
  leave_ = cache_->add(code.code());

  code.clear();
  code.move(kScratch2, uint64_t{static_cast<uint32_t>(Exit::kLook)});
  jump_to(leave_);
  leave_look_ = cache_->add(code.code());

  code.clear();
  code.op(0x03, kScratch, field(cpu_, cpu_.jit_page));
  code.store(field(cpu_, cpu_.rip), kScratch);
  jump_to(leave_look_);
  leave_look_at_ = cache_->add(code.code());

  code.clear();
  code.store(field(cpu_, cpu_.jit_edge), kScratch, false);
  code.move(kScratch2, uint64_t{static_cast<uint32_t>(Exit::kEdge)});
  jump_to(leave_);
  leave_edge_ = cache_->add(code.code());

  code.clear();
  code.move(kScratch2, uint64_t{static_cast<uint32_t>(Exit::kIndirect)});
  jump_to(leave_);
  leave_indirect_ = cache_->add(code.code());
  make_target_search();

  // An instruction by its handler. Entered by CALL, so the stack is 8 off what C++ wants.
  code.clear();
  store_guest(code);
  emit_simd_store(code, cpu_);
  emit_x87_store(code, cpu_);
  code.immediate(5, kRsp, 8);
  make_flags();
  pass_cpu(code);
  code.move(kRsi, kScratch);
  code.move(kRax, reinterpret_cast<uint64_t>(&carry_out));
  code.byte(0xFF);  // call rax
  code.modrm_register(2, kRax);
  code.immediate(0, kRsp, 8);
  code.op(0x85, kRax, kRax, false);
  const size_t leaves = code.jump_if(kIfNotZero);
  load_guest(code);
  code.byte(0xC3);
  code.bind_here(leaves);
  code.immediate(0, kRsp, 8);  // the return address
  code.immediate(7, kRax, static_cast<int32_t>(Exit::kLeft), false);
  const size_t left = code.jump_if(kIfZero);
  code.op(0x89, kRax, kR14, false);
  jump_to(leave_ + stored);
  // Its block is done. The next one looks by itself whether it may run.
  code.bind_here(left);
  load_guest(code);
  code.load(kScratch2, field(cpu_, cpu_.rip));
  emit_dispatch(code);
  call_handler_ = cache_->add(code.code());
  make_register_loads();
  for (const bool write : {false, true}) make_slot_fill(write);
  make_crossing_read();
  make_crossing_write();
  for (const bool moves : {false, true}) {
    for (uint8_t size_log2 = 0; size_log2 < 4; ++size_log2) make_repeat(moves, size_log2);
  }
  thunk_bytes_ = cache_->used();
  tell_of_common_code();
}

// Called from a block's code. Only at its beginning MXCSR may turn out to be the interpreter's business.
void Jit::make_register_loads() {
  for (const SimdLive level : {kSimdXmm, kSimdClean, kSimdYmm}) {
    assembler_.clear();
    const size_t unmasked = emit_simd_load(assembler_, cpu_, level);
    assembler_.bind_here(unmasked);
    assembler_.immediate(0, kRsp, 8);  // the return address
    const size_t jump = assembler_.jump();
    assembler_.set(jump, leave_look_ - (cache_->end() + assembler_.size()));
    load_simd_[level - 1] = cache_->add(assembler_.code());
  }
  for (const X87Live level : {kX87Loaded, kX87Computed}) {
    assembler_.clear();
    emit_x87_load(assembler_, cpu_, level);
    load_x87_[level - 1] = cache_->add(assembler_.code());
  }
}

void Jit::translate(Block& block) {
  if (is_full_) return;
  cpu_.blocks->decode_again(block);
  Translator translator(*this, block);
  if (!translator.run()) {
    block.runs = Block::kNotTranslatable;
    return;
  }
  if (translator.defers_wrongly()) {
    block.without_deferred_flags = true;
    return translate(block);
  }
  const uint8_t* code = cache_->add(assembler_.code());
  if (code == nullptr) {
    is_full_ = true;
    return;
  }
  translator.note_sites(static_cast<uint32_t>(code - cache_->begin()));
  block.translation = translator.translation(code);
  block.translation.first_edge = static_cast<uint32_t>(edges_.size());
  const auto at = static_cast<uint32_t>(code - cache_->begin());
  for (const Translator::Edge& edge : translator.edges()) {
    edges_.push_back({.jump_at = static_cast<uint32_t>(at + edge.jump),
                      .unlinked_at = static_cast<uint32_t>(at + edge.unlinked),
                      .distance = static_cast<int32_t>(edge.distance),
                      .flag_registers = edge.flag_registers,
                      .defers_flags = edge.defers_flags});
  }
  ++counters_.translations;
  counters_.guest_bytes += block.loop_ops != 0 ? block.ops[block.loop_ops - 1].end_offset : block.length;
  counters_.native_instructions += translator.native_count();
  counters_.handler_instructions += translator.handler_count();
  tell_of(block, assembler_.code().size());
}

BULKHEAD_CALLS_TRANSLATED_CODE Exit Jit::run(Block& block) {
  ++counters_.entries;
  cpu_.op = nullptr;
  targets_.remember(cpu_.rip, block.translation.code);
  const uint32_t exit = enter_(&cpu_, block.translation.code);
  ++counters_.exits[exit];
  if (static_cast<Exit>(exit) == Exit::kEdge) {
    cpu_.jit_block = &cpu_.blocks->numbered(block_at(cpu_.jit_edge));
    cpu_.jit_edge = index_at(cpu_.jit_edge);
    const Edge& edge = edges_[cpu_.jit_block->translation.first_edge + cpu_.jit_edge];
    cpu_.rip = cpu_.jit_page + (cpu_.jit_block->physical & (kPageSize - 1)) + static_cast<int64_t>(edge.distance);
  }
  return static_cast<Exit>(exit);
}

void Jit::link(Block& from, unsigned number, Block& to) {
  // The page has just been mapped elsewhere, and this vCPU is yet to hear of it.
  if ((from.physical ^ to.physical) >> kPageShift != 0) return;
  const uint32_t index = from.translation.first_edge + number;
  Edge& edge = edges_[index];
  const bool wants_flags = (to.translation.registers_before_flags & (edge.flag_registers | kNeedsFlags)) != 0;
  if (edge.defers_flags && wants_flags) {
    ++counters_.flags_wanted;
    from.without_deferred_flags = true;
    translate_again(from);
    return;
  }
  // When it was translated, the other was not known.
  if (!edge.defers_flags && edge.flag_registers != 0 && !wants_flags && !from.without_deferred_flags &&
      ++from.times_improved < 3) {
    ++counters_.flags_unwanted;
    translate_again(from);
    return;
  }
  const uint8_t* place = cache_->begin() + edge.jump_at;
  // A way that only goes forward within its page comes to its end soon, or to a block that looks at attention. But STI
  // may open no more than one moment for interrupts. The page's version need not be looked at: who changes it asks for
  // attention (or leaves its block, when it is this vCPU), and the first block behind that takes back its links.
  const bool looks = from.translation.opens_interrupts || to.physical <= from.physical;
  const uint8_t* target = looks ? to.translation.checked() : to.translation.body();
  cache_->patch(place, static_cast<int32_t>(target - (place + 4)));
  ++counters_.links;
  if (edge.is_known_to_target) return;
  edge.is_known_to_target = true;
  edge.link_before = std::exchange(to.translation.last_link, index);
}

// Straight, and not by the jump over the old code. Links that have been taken back since, or lead elsewhere, stay.
void Jit::lead_links_on(const Translation& from, Translation& to) {
  to.last_link = from.last_link;
  for (uint32_t index = from.last_link; index != Translation::kNoLink; index = edges_[index].link_before) {
    const uint8_t* place = cache_->begin() + edges_[index].jump_at;
    const uint8_t* target = place + 4 + cache_->value(place);
    if (target == from.checked()) cache_->patch(place, static_cast<int32_t>(to.checked() - (place + 4)));
    if (target == from.body()) cache_->patch(place, static_cast<int32_t>(to.body() - (place + 4)));
  }
}

void Jit::drop_slot(uint32_t number) {
  if (number == kSiteByReturn) number = site_returned_to();
  // The code may be gone already, and its block too.
  if (number >= sites_.size() || flush_count_ != cpu_.blocks->flush_count()) return;
  const Site site = sites_[number];
  const uint64_t bit = uint64_t{1} << site.op;
  Block& block = *site.block;
  uint64_t* without = site.is_group ? &block.crosses_pages : &block.without_slot;
  if (site.is_group && (block.crosses_pages & bit) != 0) without = &block.without_group;
  if ((*without & bit) != 0) return;
  *without |= bit;
  if (translate_again(block)) ++counters_.slots_dropped;
}

bool Jit::translate_again(Block& block) {
  const Translation old = std::exchange(block.translation, {});
  translate(block);
  Translation& now = block.translation;
  // Ways into the old code may defer flags and count on what it does with registers.
  if (now.code == nullptr || (now.registers_before_flags & ~old.registers_before_flags) != 0) {
    block.translation = old;
    return false;
  }
  cache_->patch_jump(old.checked(), now.checked());
  cache_->patch_jump(old.body(), now.body());
  lead_links_on(old, now);
  return true;
}

void Jit::look_at_code_changes(uint64_t count) {
  if (count == code_changes_) return;
  code_changes_ = count;
  targets_.clear();
  ++counters_.targets_cleared;
}

void Jit::made_current(Block& block) {
  for (uint32_t i = 0; i < block.translation.edge_count; ++i) {
    const Edge& edge = edges_[block.translation.first_edge + i];
    cache_->patch(cache_->begin() + edge.jump_at, static_cast<int32_t>(edge.unlinked_at - (edge.jump_at + 4)));
  }
  ++counters_.unlinks;
}

void Jit::reset(uint64_t flush_count) {
  flush_count_ = flush_count;
  cache_->reset(thunk_bytes_);
  targets_.clear();
  edges_.clear();
  sites_.clear();
  linear_of_.clear();
  is_full_ = false;
  ++counters_.resets;
}

}  // namespace bulkhead::engine::jit
