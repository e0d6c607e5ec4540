// How instruction handlers reach guest memory. Every function checks what the architecture checks (segment, canonical
// address, alignment, paging) and throws GuestFault before anything has been read, written or told to a device.
// An access within one page of RAM is one host instruction; others are split, all parts checked first.
//
// T is an unsigned integer of 1, 2, 4 or 8 bytes, or a trivially copyable struct of up to 64 bytes (read and written in
// pieces of 8 or less; no order is promised between them).
//
//   read<T>, write<T>        by segment and offset, any mode; offsets are already truncated to the address size
//   read_linear, write_...   by linear address (64-bit mode: offset + FS/GS base); the segment only chooses #SS or #GP
//   update<T>                read-modify-write on a host pointer, not atomic between vCPUs
//   update_locked<T>         the same with a pointer that the host's LOCK works on, atomic between vCPUs and devices
//   read_system, write_...   the processor's own accesses to descriptor tables, TSSs and stacks, with supervisor rights
#pragma once

#include <bit>
#include <cstring>
#include <type_traits>

#include "engine/interpreter/cpu.h"
#include "engine/mmu/guest_word.h"
#include "support/bytes.h"

namespace bulkhead::engine {

enum class MemoryAccess : uint8_t { kRead, kWrite, kReadWrite, kExecute };

// Linear address of an access of `size` bytes; #GP or #SS when the segment does not allow it. In 64-bit mode only adds
// the FS or GS base and leaves canonical addresses to the access itself.
uint64_t linear_address_checked(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, unsigned size,
                                MemoryAccess access);

template <MemoryAccess kAccess>
[[nodiscard, gnu::always_inline]] inline uint64_t linear_address(Cpu& cpu, cpu::SegmentRegister segment,
                                                                 uint64_t offset, unsigned size) {
  if (cpu.mode.code64()) [[likely]] {
    return segment < cpu::kFs ? offset : offset + cpu.segments[segment].base;
  }
  if (cpu.mode.has(ModeBits::kFlat) && segment < cpu::kFs && (segment != cpu::kCs || kAccess == MemoryAccess::kRead) &&
      offset + size <= 0x1'0000'0000) {
    return offset;
  }
  return linear_address_checked(cpu, segment, offset, size, kAccess);
}

// A checked access, in at most two pieces. host is nullptr where the piece is not RAM.
struct AccessPiece {
  uint8_t* host = nullptr;
  uint64_t physical = 0;
  unsigned size = 0;
  bool holds_code = false;  // after a write: code_written()
};
struct CheckedAccess {
  AccessPiece pieces[2];
  unsigned count = 0;
};
// Checks everything and fills the TLB; throws, or the access cannot fail any more. rights: normally cpu's own.
CheckedAccess check_access(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear, unsigned size, MemoryAccess access);
CheckedAccess check_system_access(Cpu& cpu, uint64_t linear, unsigned size, MemoryAccess access);
// In 64-bit mode: whether an access that is about to be made is a page fault, found without throwing. If it is not, the
// access may fail in other ways, but what check_access() does to the TLB and the page tables may be done already.
[[nodiscard]] bool is_page_fault(Cpu& cpu, uint64_t linear, unsigned size, MemoryAccess access, GuestFault& fault);
// With the rights of another CPL, and no check but paging: for stack switches.
CheckedAccess check_access_with(Cpu& cpu, mmu::Rights rights, uint64_t linear, unsigned size, MemoryAccess access);
void perform_read(Cpu& cpu, const CheckedAccess& access, void* out);
void perform_write(Cpu& cpu, const CheckedAccess& access, const void* in);
void code_written(Cpu& cpu, uint64_t physical, unsigned size);

void read_slow(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear, void* out, unsigned size);
void write_slow(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear, const void* in, unsigned size);

// Never null: spares the callers the question that they have just asked the tag.
[[nodiscard, gnu::always_inline, gnu::returns_nonnull]] inline uint8_t* host_of(uint64_t linear,
                                                                                const mmu::TlbEntry& entry) {
  auto* host = reinterpret_cast<uint8_t*>(linear + entry.delta);
  if (host == nullptr) __builtin_unreachable();
  return host;
}
// Host address of [linear, linear + size) by the TLB alone, nullptr when it does not know.
[[nodiscard, gnu::always_inline]] inline uint8_t* find_readable(const Cpu& cpu, uint64_t linear, unsigned size) {
  const mmu::TlbEntry& entry = cpu.tlb.entry(linear);
  if (linear - entry.tag_read <= kPageSize - size) [[likely]]
    return host_of(linear, entry);
  return nullptr;
}
[[nodiscard, gnu::always_inline]] inline uint8_t* find_writable(const Cpu& cpu, uint64_t linear, unsigned size) {
  const mmu::TlbEntry& entry = cpu.tlb.entry(linear);
  if (linear - entry.tag_write <= kPageSize - size) [[likely]]
    return host_of(linear, entry);
  return nullptr;
}

// The slow ways out of line, so that the callers keep nothing in memory of their own.
template <typename T>
[[nodiscard, gnu::noinline, gnu::cold]] T read_word_slow(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear) {
  T value;
  read_slow(cpu, segment, linear, &value, sizeof value);
  return value;
}
template <typename T>
[[gnu::noinline, gnu::cold]] void write_word_slow(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear, T value) {
  write_slow(cpu, segment, linear, &value, sizeof value);
}

template <typename T>
[[nodiscard, gnu::always_inline]] inline T read_linear(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear) {
  if (const uint8_t* host = find_readable(cpu, linear, sizeof(T))) [[likely]]
    return load_word<T>(host);
  return read_word_slow<T>(cpu, segment, linear);
}

template <typename T>
[[gnu::always_inline]] inline void write_linear(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear,
                                                const std::type_identity_t<T>& value) {
  if (uint8_t* host = find_writable(cpu, linear, sizeof(T))) [[likely]] {
    store_word<T>(host, value);
    return;
  }
  write_word_slow<T>(cpu, segment, linear, value);
}

template <typename T>
[[nodiscard]] inline T read(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset) {
  return read_linear<T>(cpu, segment, linear_address<MemoryAccess::kRead>(cpu, segment, offset, sizeof(T)));
}
template <typename T>
inline void write(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, const std::type_identity_t<T>& value) {
  write_linear<T>(cpu, segment, linear_address<MemoryAccess::kWrite>(cpu, segment, offset, sizeof(T)), value);
}

// Throws what a later write would throw; then that write cannot fail.
inline void probe_write_linear(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear, unsigned size) {
  if (find_writable(cpu, linear, size) != nullptr) [[likely]]
    return;
  (void)check_access(cpu, segment, linear, size, MemoryAccess::kWrite);
}
inline void probe_write(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, unsigned size) {
  probe_write_linear(cpu, segment, linear_address<MemoryAccess::kWrite>(cpu, segment, offset, size), size);
}
inline void probe_read_linear(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear, unsigned size) {
  if (find_readable(cpu, linear, size) != nullptr) [[likely]]
    return;
  (void)check_access(cpu, segment, linear, size, MemoryAccess::kRead);
}

// operate(T* host) reads and writes *host with single host instructions. Where the operand is not within one page of
// RAM it gets a copy, written back afterwards. It must not throw after it has changed the vCPU's registers.
template <typename T, typename Operate>
[[gnu::noinline]] void update_slow(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear, Operate&& operate) {
  const CheckedAccess access = check_access(cpu, segment, linear, sizeof(T), MemoryAccess::kReadWrite);
  if (access.count == 1 && access.pieces[0].host != nullptr) {
    operate(reinterpret_cast<T*>(access.pieces[0].host));
    if (access.pieces[0].holds_code) code_written(cpu, access.pieces[0].physical, sizeof(T));
    return;
  }
  T copy;
  perform_read(cpu, access, &copy);
  operate(&copy);
  perform_write(cpu, access, &copy);
}
template <typename T, typename Operate>
[[gnu::always_inline]] inline void update_linear(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear,
                                                 Operate&& operate) {
  if (uint8_t* host = find_writable(cpu, linear, sizeof(T))) [[likely]] {
    operate(reinterpret_cast<T*>(host));
    return;
  }
  update_slow<T>(cpu, segment, linear, operate);
}
template <typename T, typename Operate>
inline void update(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, Operate&& operate) {
  update_linear<T>(cpu, segment, linear_address<MemoryAccess::kReadWrite>(cpu, segment, offset, sizeof(T)), operate);
}

// Every other vCPU stands still while this lives: for LOCK across two cache lines. The host could do it within a page,
// but by locking its bus, which slows down all that runs on it.
class ExclusiveSection {
 public:
  explicit ExclusiveSection(Cpu& cpu);
  ~ExclusiveSection();
  ExclusiveSection(const ExclusiveSection&) = delete;
  ExclusiveSection& operator=(const ExclusiveSection&) = delete;

 private:
  Engine& engine_;
};

template <typename T>
[[nodiscard]] inline bool crosses_cache_line(const void* host) {
  constexpr uintptr_t kLine = 64;
  return (reinterpret_cast<uintptr_t>(host) & (kLine - 1)) > kLine - sizeof(T);
}

// As update_linear(), but operate() must use a LOCKed instruction (or XCHG), which makes it atomic everywhere.
template <typename T, typename Operate>
[[gnu::noinline]] void update_locked_slow(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear, Operate&& operate) {
  const CheckedAccess access = check_access(cpu, segment, linear, sizeof(T), MemoryAccess::kReadWrite);
  if (access.count == 1 && access.pieces[0].host != nullptr && !crosses_cache_line<T>(access.pieces[0].host)) {
    operate(reinterpret_cast<T*>(access.pieces[0].host));
    if (access.pieces[0].holds_code) code_written(cpu, access.pieces[0].physical, sizeof(T));
    return;
  }
  const ExclusiveSection section(cpu);
  alignas(sizeof(T)) T copy;
  perform_read(cpu, access, &copy);
  operate(&copy);
  perform_write(cpu, access, &copy);
}
template <typename T, typename Operate>
[[gnu::always_inline]] inline void update_locked_linear(Cpu& cpu, cpu::SegmentRegister segment, uint64_t linear,
                                                        Operate&& operate) {
  uint8_t* host = find_writable(cpu, linear, sizeof(T));
  if (host != nullptr && !crosses_cache_line<T>(host)) [[likely]] {
    operate(reinterpret_cast<T*>(host));
    return;
  }
  update_locked_slow<T>(cpu, segment, linear, operate);
}
template <typename T, typename Operate>
inline void update_locked(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, Operate&& operate) {
  update_locked_linear<T>(cpu, segment, linear_address<MemoryAccess::kReadWrite>(cpu, segment, offset, sizeof(T)),
                          operate);
}

// Bytes of any length up to 4096 (FXSAVE, XSAVE, environment images). All checked before the first is touched.
void read_bytes(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, void* out, unsigned size);
void write_bytes(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, const void* in, unsigned size);
void probe_bytes(Cpu& cpu, cpu::SegmentRegister segment, uint64_t offset, unsigned size, MemoryAccess access);

void read_system_bytes(Cpu& cpu, uint64_t linear, void* out, unsigned size);
void write_system_bytes(Cpu& cpu, uint64_t linear, const void* in, unsigned size);
template <typename T>
[[nodiscard]] inline T read_system(Cpu& cpu, uint64_t linear) {
  const mmu::TlbEntry& entry = cpu.tlb.entry(linear, cpu.system_rights);
  if (linear - entry.tag_read <= kPageSize - sizeof(T) && !cpu.checks_every_access) [[likely]] {
    return load_word<T>(reinterpret_cast<const uint8_t*>(linear + entry.delta));
  }
  T value;
  read_system_bytes(cpu, linear, &value, sizeof value);
  return value;
}
template <typename T>
inline void write_system(Cpu& cpu, uint64_t linear, const std::type_identity_t<T>& value) {
  write_system_bytes(cpu, linear, &value, sizeof value);
}

// --- the stack of the present CPL; T is the operand size ---
// RSP with the part that the stack-address size covers replaced.
inline void set_stack_pointer(Cpu& cpu, uint64_t value) {
  uint64_t& rsp = cpu.gpr[cpu::kRsp];
  if (cpu.mode.stack64()) [[likely]]
    rsp = value;
  else if (cpu.mode.stack32())
    rsp = static_cast<uint32_t>(value);
  else
    rsp = (rsp & ~0xFFFFull) | (value & 0xFFFF);
}
template <typename T>
inline void push(Cpu& cpu, std::type_identity_t<T> value) {
  const uint64_t top = (cpu.gpr[cpu::kRsp] - sizeof(T)) & cpu.stack_mask();
  write<T>(cpu, cpu::kSs, top, value);
  set_stack_pointer(cpu, top);
}
// What POP would give at `displacement` bytes above the top, without moving RSP: for instructions that can still fault.
template <typename T>
[[nodiscard]] inline T peek(Cpu& cpu, uint64_t displacement = 0) {
  return read<T>(cpu, cpu::kSs, (cpu.gpr[cpu::kRsp] + displacement) & cpu.stack_mask());
}
template <typename T>
[[nodiscard]] inline T pop(Cpu& cpu) {
  const T value = peek<T>(cpu);
  set_stack_pointer(cpu, cpu.gpr[cpu::kRsp] + sizeof(T));
  return value;
}

}  // namespace bulkhead::engine
