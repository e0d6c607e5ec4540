// What translated code calls for accesses that lie on two pages or more and that the TLB knows all the same: vector
// instructions, by way of a buffer in the Cpu, and REP MOVS and REP STOS, page by page. What it does not know is left
// to the handler, with nothing done but whole elements of a string.
#include <cstddef>

#include "engine/jit/jit.h"
#include "engine/jit/state_layout.h"

namespace bulkhead::engine::jit {
namespace {

constexpr uint8_t kPush = 0x50, kPop = 0x58, kRepeat = 0xF3, kMoveBytes = 0xA4;
constexpr int32_t kDelta = offsetof(mmu::TlbEntry, delta), kWidest = mmu::Slots::kWidest;

int32_t tag_of(bool write) {
  return write ? offsetof(mmu::TlbEntry, tag_write) : offsetof(mmu::TlbEntry, tag_read);
}

void push(Assembler& code, Host host) {
  code.rex(false, 0, 0, host);
  code.byte(static_cast<uint8_t>(kPush | (host & 7)));
}
void pop(Assembler& code, Host host) {
  code.rex(false, 0, 0, host);
  code.byte(static_cast<uint8_t>(kPop | (host & 7)));
}

// R14 = the TLB's entry for the linear address; temporary is lost. The jump is taken when there is none.
size_t find_entry(Assembler& code, const Cpu& cpu, Host linear, Host temporary, bool write) {
  constexpr uint8_t kEntryShift = 5;
  static_assert(sizeof(mmu::TlbEntry) == 1 << kEntryShift);
  code.move(kScratch2, linear);
  code.shift_right(kScratch2, kPageShift - kEntryShift);
  code.immediate(4, kScratch2, static_cast<int32_t>((mmu::Tlb::kEntries - 1) << kEntryShift), false);
  code.op(0x03, kScratch2, field(cpu, cpu.tlb.current()));
  code.move(temporary, linear);
  code.op(0x2B, temporary, Memory{kScratch2, tag_of(write)});
  code.immediate(7, temporary, kPageSize - 1);
  return code.jump_if(kIfAbove);
}

// To the first byte behind the page that it points into.
void to_next_page(Assembler& code, Host pointer) {
  code.immediate(1, pointer, kPageSize - 1);
  code.immediate(0, pointer, 1);
}

}  // namespace

// R13 is the linear address of at most kWidest bytes. R13 becomes where they are side by side; R14 is 0 when it could
// not be done.
void Jit::make_crossing_read() {
  Assembler& code = assembler_;
  code.clear();
  push(code, kRax);
  push(code, kRcx);
  code.move(kRax, kScratch);
  code.op(0x89, kRax, kRcx, false);
  code.immediate(4, kRcx, kPageSize - 1, false);
  code.immediate(7, kRcx, static_cast<int32_t>(kPageSize) - kWidest, false);
  const size_t not_at_the_end = code.jump_if(kIfCarry);

  // The last bytes of one page and the first of the next go into the buffer, side by side.
  const auto copy = [&](Host from, int32_t displacement, size_t to) {
    for (int32_t i = 0; i < kWidest / 8; ++i) {
      code.load(kScratch2, {from, displacement + i * 8});
      code.store(field(cpu_, cpu_.jit_crossing[to + static_cast<size_t>(i)]), kScratch2);
    }
  };
  const size_t no_first = find_entry(code, cpu_, kRax, kRcx, false);
  code.load(kRcx, {kScratch2, kDelta});
  code.op(0x03, kRcx, kRax);
  to_next_page(code, kRcx);
  copy(kRcx, -kWidest, 0);
  to_next_page(code, kScratch);
  const size_t no_second = find_entry(code, cpu_, kScratch, kRcx, false);
  code.load(kRcx, {kScratch2, kDelta});
  code.op(0x03, kRcx, kScratch);
  copy(kRcx, 0, kWidest / 8);
  code.op(0x8D, kScratch, field(cpu_, cpu_.jit_crossing[kWidest / 8]));
  code.immediate(1, kRax, -static_cast<int32_t>(kPageSize));
  code.op(0x03, kScratch, kRax);
  code.move(kScratch2, uint64_t{1});
  const size_t done = code.jump();
  for (const size_t miss : {not_at_the_end, no_first, no_second}) code.bind_here(miss);
  code.move(kScratch2, uint64_t{0});
  code.bind_here(done);
  pop(code, kRcx);
  pop(code, kRax);
  code.byte(0xC3);
  read_across_ = cache_->add(code.code());
}

// R13 is the linear address, R14 how many bytes of the buffer go there. R14 becomes 0 when it could not be done.
void Jit::make_crossing_write() {
  Assembler& code = assembler_;
  code.clear();
  for (const Host saved : {kRax, kRcx, kRsi, kRdi, kScratch2}) push(code, saved);
  code.move(kRax, kScratch);
  code.op(0x89, kRax, kRcx, false);
  code.immediate(4, kRcx, kPageSize - 1, false);
  code.op(0x03, kRcx, kScratch2);
  code.immediate(7, kRcx, static_cast<int32_t>(kPageSize), false);
  const size_t on_one_page = code.jump_if(kIfNotAbove);

  const size_t no_first = find_entry(code, cpu_, kRax, kRcx, true);
  code.load(kRdi, {kScratch2, kDelta});
  code.op(0x03, kRdi, kRax);
  to_next_page(code, kScratch);
  const size_t no_second = find_entry(code, cpu_, kScratch, kRcx, true);
  code.op(0x03, kScratch, Memory{kScratch2, kDelta});
  code.op(0x8D, kRsi, field(cpu_, cpu_.jit_crossing[0]));
  code.move(kRcx, kRax);
  code.immediate(1, kRcx, -static_cast<int32_t>(kPageSize));
  code.op(0xF7, 3, kRcx);                // neg: the bytes up to the page's end
  code.op(0x29, kRcx, Memory{kRsp, 0});  // the others stay to be done
  code.byte(kRepeat);
  code.byte(kMoveBytes);
  code.load(kRcx, {kRsp, 0});
  code.move(kRdi, kScratch);
  code.byte(kRepeat);
  code.byte(kMoveBytes);
  const size_t done = code.jump();
  for (const size_t miss : {on_one_page, no_first, no_second}) code.bind_here(miss);
  code.op(0xC7, 0, Memory{kRsp, 0});
  code.value(int32_t{0});
  code.bind_here(done);
  for (const Host saved : {kScratch2, kRdi, kRsi, kRcx, kRax}) pop(code, saved);
  code.byte(0xC3);
  write_across_ = cache_->add(code.code());
}

// Upwards, until RCX is 0, the TLB does not know a page, an element lies on two, or the run loop asks for attention.
void Jit::make_repeat(bool moves, uint8_t size_log2) {
  Assembler& code = assembler_;
  code.clear();
  std::vector<size_t> ends;
  const size_t again = code.size();
  code.load(kScratch, field(cpu_, cpu_.attention), false);
  code.op(0x85, kScratch, field(cpu_, cpu_.attention_mask), false);
  ends.push_back(code.jump_if(kIfNotZero));
  const auto to_page_end = [&](Host bytes, Host pointer) {
    code.move(bytes, pointer);
    code.immediate(1, bytes, -static_cast<int32_t>(kPageSize));
    code.op(0xF7, 3, bytes);  // neg
  };
  const auto at_most = [&](Host to, Host other) {
    code.rex(true, to, 0, other);
    code.byte(0x0F);
    code.byte(0x47);  // cmova, behind a comparison
    code.modrm_register(to, other);
  };
  to_page_end(kScratch, kRdi);
  if (moves) {
    to_page_end(kScratch2, kRsi);
    code.op(0x3B, kScratch, kScratch2);
    at_most(kScratch, kScratch2);
  }
  if (size_log2 != 0) code.shift_right(kScratch, size_log2);
  code.op(0x85, kScratch, kScratch);
  ends.push_back(code.jump_if(kIfZero));
  code.op(0x3B, kScratch, kRcx);
  at_most(kScratch, kRcx);
  push(code, kRcx);
  code.op(0x29, kScratch, Memory{kRsp, 0});
  code.move(kRcx, kScratch);

  std::vector<size_t> misses;
  if (moves) {
    misses.push_back(find_entry(code, cpu_, kRsi, kScratch, false));
    code.load(kScratch, {kScratch2, kDelta});
    code.store(field(cpu_, cpu_.jit_target), kScratch);
  }
  misses.push_back(find_entry(code, cpu_, kRdi, kScratch, true));
  code.load(kScratch, {kScratch2, kDelta});
  if (moves) {
    code.load(kScratch2, field(cpu_, cpu_.jit_target));
    code.op(0x01, kScratch2, kRsi);
  }
  code.op(0x01, kScratch, kRdi);
  if (size_log2 == 1) code.byte(0x66);
  code.byte(kRepeat);
  if (size_log2 == 3) code.byte(0x48);
  code.byte(static_cast<uint8_t>((moves ? 0xA4 : 0xAA) | (size_log2 != 0 ? 1 : 0)));
  code.op(0x29, kScratch, kRdi);
  if (moves) code.op(0x29, kScratch2, kRsi);
  pop(code, kRcx);
  code.op(0x85, kRcx, kRcx);
  code.bind(code.jump_if(kIfNotZero), again);
  for (const size_t end : ends) code.bind_here(end);
  code.byte(0xC3);
  for (const size_t miss : misses) code.bind_here(miss);
  pop(code, kScratch);
  code.op(0x03, kRcx, kScratch);
  code.byte(0xC3);
  repeat_[moves ? 1 : 0][size_log2] = cache_->add(code.code());
}

}  // namespace bulkhead::engine::jit
