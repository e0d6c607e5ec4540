#include "engine/jit/jit.h"

#include <algorithm>
#include <cstddef>

#include "engine/jit/simd_state.h"
#include "engine/jit/state_layout.h"
#include "engine/jit/translator.h"
#include "engine/jit/x87_state.h"

namespace bulkhead::engine::jit {
namespace {

constexpr std::array<Host, 6> kSavedByCallee = {kRbx, kRbp, kR12, kR13, kR14, kR15};

// Called from translated code with every guest register in the Cpu. No exception may cross translated code. Returns 0
// when the block goes on, else an Exit.
uint32_t carry_out(Cpu* cpu_pointer, const Op* op, const Block* block) noexcept {
  Cpu& cpu = *cpu_pointer;
  const Op* end = block->ops + block->op_count;
  cpu.block_begin = block->ops;
  cpu.block_end = end;
  cpu.block_rip = cpu.jit_page + (block->physical & (kPageSize - 1));
  cpu.rip = cpu.block_rip + block->length;
  cpu.op = op;
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

Jit::Jit(Cpu& cpu, std::unique_ptr<CodeCache> cache) : cpu_(cpu), cache_(std::move(cache)), targets_(kTargets) {
  static_assert(sizeof(Target) == 32, "slots are found by a shift");
  cpu_.jit_targets = targets_.data();
}

Result<std::unique_ptr<Jit>> Jit::create(Cpu& cpu, size_t capacity_bytes) {
  if (!host_clears_adjust_after_logic()) return fail("this host's AND and TEST leave AF set");
  auto jit = std::unique_ptr<Jit>(new Jit(cpu, TRY(CodeCache::create(capacity_bytes))));
  jit->make_thunks();
  return jit;
}

// On to R14, which is RIP: straight, when targets_ knows code for it under the present run_context, else to `miss`.
void Jit::emit_dispatch(Assembler& code, const Cpu& cpu, const uint8_t* miss) const {
  static_assert(kTargets == kPageSize, "the mask is of the lowest 12 bits");
  constexpr int32_t kLinear = offsetof(Target, linear), kContext = offsetof(Target, run_context),
                    kCode = offsetof(Target, code);
  code.move(kScratch, kScratch2);
  code.shift_right(kScratch, kPageShift);
  code.op(0x33, kScratch, kScratch2, false);
  code.immediate(4, kScratch, kTargets - 1, false);
  code.shift_left(kScratch, 5);
  code.op(0x03, kScratch, field(cpu, cpu.jit_targets));
  const auto miss_if_not_zero = [&] {
    const size_t place = code.jump_if(kIfNotZero);
    code.set(place, miss - (cache_->end() + place + 4));
  };
  code.op(0x3B, kScratch2, Memory{kScratch, kLinear});
  miss_if_not_zero();
  code.load(kScratch2, field(cpu, cpu.run_context));
  code.op(0x3B, kScratch2, Memory{kScratch, kContext});
  miss_if_not_zero();
  code.op(0xFF, 4, Memory{kScratch, kCode}, false);  // jmp [r13 + kCode]
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
  code.move(kCpu, kRdi);
  code.move(kScratch, kRsi);
  load_guest(code);
  code.byte(0x41);  // jmp r13
  code.byte(0xFF);
  code.modrm_register(4, kScratch);
  enter_ = reinterpret_cast<Enter>(reinterpret_cast<uintptr_t>(cache_->add(code.code())));

  // And out of it again; the second place is for when the registers are in the Cpu already.
  code.clear();
  store_guest(code);
  emit_simd_store(code, cpu_);
  emit_x87_store(code, cpu_);
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
  code.move(kScratch2, uint64_t{static_cast<uint32_t>(Exit::kIndirect)});
  jump_to(leave_);
  leave_indirect_ = cache_->add(code.code());

  // An instruction by its handler. Entered by CALL, so the stack is 8 off what C++ wants.
  code.clear();
  store_guest(code);
  emit_simd_store(code, cpu_);
  emit_x87_store(code, cpu_);
  code.move(kRdi, kCpu);
  code.move(kRsi, kScratch);
  code.move(kRdx, kScratch2);
  code.immediate(5, kRsp, 8);
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
  emit_dispatch(code, cpu_, leave_indirect_);
  call_handler_ = cache_->add(code.code());
  make_register_loads();
  thunk_bytes_ = cache_->used();
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
  Translator translator(*this, block);
  if (!translator.run()) return;
  const uint8_t* place = cache_->add(assembler_.code());
  if (place == nullptr) {
    is_full_ = true;
    return;
  }
  const std::span<const Translator::Edge> edges = translator.edges();
  edges_.push_back(std::make_unique<Translation::Edge[]>(edges.size()));
  block.translation = translator.translation(place);
  block.translation.edges = {edges_.back().get(), edges.size()};
  for (size_t i = 0; i < edges.size(); ++i)
    block.translation.edges[i] = {place + edges[i].jump, place + edges[i].unlinked};
  ++counters_.translations;
  counters_.guest_bytes += block.length;
  counters_.native_instructions += translator.native_count();
  counters_.handler_instructions += block.op_count - translator.native_count();
}

BULKHEAD_CALLS_TRANSLATED_CODE Exit Jit::run(Block& block) {
  ++counters_.entries;
  cpu_.op = nullptr;
  targets_[slot_of(cpu_.rip)] = {.linear = cpu_.rip, .run_context = cpu_.run_context, .code = block.translation.code};
  return static_cast<Exit>(enter_(&cpu_, block.translation.code));
}

void Jit::link(Block& from, unsigned edge, const Block& to) {
  const uint8_t* place = from.translation.edges[edge].distance;
  // A way that only goes forward within its page comes to its end soon, or to a block that looks.
  const bool looks = cpu_.counted || to.physical <= from.physical;
  const uint8_t* target = looks ? to.translation.checked : to.translation.body;
  cache_->patch(place, static_cast<int32_t>(target - (place + 4)));
  ++counters_.links;
}

void Jit::unlink(Block& block) {
  for (const Translation::Edge& edge : block.translation.edges)
    cache_->patch(edge.distance, static_cast<int32_t>(edge.unlinked - (edge.distance + 4)));
}

void Jit::reset(uint64_t flush_count) {
  flush_count_ = flush_count;
  cache_->reset(thunk_bytes_);
  std::fill(targets_.begin(), targets_.end(), Target{});
  edges_.clear();
  is_full_ = false;
  ++counters_.resets;
}

}  // namespace bulkhead::engine::jit
