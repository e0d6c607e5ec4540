// One vCPU as the interpreter works on it: registers, the block being run, and its wires. Instruction handlers are free
// functions on this struct, so everything they need is public. Nothing here knows host threads or devices; those are
// behind cpu::Vcpu (engine/soft_vcpu.h) and cpu::CpuIo.
//
// Faults: whatever can fault throws GuestFault *before* the instruction has changed anything (memory operands are
// probed for writing before a read-modify-write; multi-part accesses check every part first). The run loop catches it,
// sets RIP to the faulting instruction and delivers the exception. These exceptions never leave engine/.
//
// Memory is reached through engine/mmu/access.h, system operations through engine/interpreter/system/system.h.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cpu/cpu_io.h"
#include "cpu/state.h"
#include "engine/mmu/tlb.h"
#include "memory/guest_memory.h"

namespace bulkhead::engine {

struct Op;
struct Block;
namespace jit {
class Jit;
}
class Engine;
class BlockCache;
class SoftVcpu;

enum Vector : uint8_t {
  kDivideError = 0,
  kDebug = 1,
  kNmi = 2,
  kBreakpoint = 3,
  kOverflow = 4,
  kBoundRange = 5,
  kInvalidOpcode = 6,
  kDeviceNotAvailable = 7,
  kDoubleFault = 8,
  kInvalidTss = 10,
  kSegmentNotPresent = 11,
  kStackFault = 12,
  kGeneralProtection = 13,
  kPageFault = 14,
  kX87Error = 16,
  kAlignmentCheck = 17,
  kMachineCheck = 18,
  kSimdError = 19,
};

struct GuestFault {
  uint8_t vector;
  bool has_error_code = false;
  uint32_t error_code = 0;
  uint64_t cr2 = 0;  // page faults only
};

[[noreturn]] void raise(Vector vector);                       // without an error code: #UD, #DE, #NM, #MF, #XM, ...
[[noreturn]] void raise(Vector vector, uint32_t error_code);  // #GP, #SS, #NP, #TS, #AC, #DF
[[noreturn]] void raise_page_fault(uint64_t linear, uint32_t error_code);

// Arithmetic flags as LAHF and SETO leave them in AX: bits 15:8 = SF ZF 0 AF 0 PF 1 CF, bit 0 = OF. One 16-bit store an
// instruction, no laziness: the host's ALU has computed them anyway.
struct ArithmeticFlags {
  static constexpr uint16_t kCarry = 0x0100, kParity = 0x0400, kAdjust = 0x1000, kZero = 0x4000, kSign = 0x8000,
                            kOverflow = 1;
  uint16_t ax = 0x0200;
  [[nodiscard]] bool carry() const { return ax & kCarry; }
  [[nodiscard]] bool parity() const { return ax & kParity; }
  [[nodiscard]] bool adjust() const { return ax & kAdjust; }
  [[nodiscard]] bool zero() const { return ax & kZero; }
  [[nodiscard]] bool sign() const { return ax & kSign; }
  [[nodiscard]] bool overflow() const { return ax & kOverflow; }
  // The six flags at their RFLAGS places, and back.
  [[nodiscard]] uint32_t to_rflags() const { return ((ax >> 8) & 0xD5u) | ((ax & 1u) << 11); }
  void from_rflags(uint64_t rflags) { ax = static_cast<uint16_t>(((rflags & 0xD5) | 2) << 8 | ((rflags >> 11) & 1)); }
};

// RFLAGS bits other than the arithmetic six.
enum RflagsBit : uint32_t {
  kFlagTrap = 1 << 8,
  kFlagInterrupt = 1 << 9,
  kFlagDirection = 1 << 10,
  kFlagIopl = 3 << 12,
  kFlagNestedTask = 1 << 14,
  kFlagResume = 1 << 16,
  kFlagVirtual8086 = 1 << 17,
  kFlagAlignmentCheck = 1 << 18,
  kFlagVirtualInterrupt = 1 << 19,
  kFlagVirtualInterruptPending = 1 << 20,
  kFlagId = 1 << 21,
};

enum Cr0Bit : uint64_t {
  kCr0Pe = 1,
  kCr0Mp = 2,
  kCr0Em = 4,
  kCr0Ts = 8,
  kCr0Et = 16,
  kCr0Ne = 32,
  kCr0Wp = 1 << 16,
  kCr0Am = 1 << 18,
  kCr0Nw = 1 << 29,
  kCr0Cd = 1 << 30,
  kCr0Pg = 1ull << 31,
};
enum Cr4Bit : uint64_t {
  kCr4Vme = 1,
  kCr4Pvi = 2,
  kCr4Tsd = 4,
  kCr4De = 8,
  kCr4Pse = 16,
  kCr4Pae = 32,
  kCr4Mce = 64,
  kCr4Pge = 128,
  kCr4Pce = 256,
  kCr4Osfxsr = 1 << 9,
  kCr4Osxmmexcpt = 1 << 10,
  kCr4Umip = 1 << 11,
  kCr4Fsgsbase = 1 << 16,
  kCr4Pcide = 1 << 17,
  kCr4Osxsave = 1 << 18,
  kCr4Smep = 1 << 20,
  kCr4Smap = 1 << 21,
};
enum EferBit : uint64_t { kEferSce = 1, kEferLme = 1 << 8, kEferLma = 1 << 10, kEferNxe = 1 << 11 };

// Everything that decides how bytes decode and which handlers run; blocks are keyed by (physical address, mode).
struct ModeBits {
  enum : uint32_t {
    kCode16 = 0,
    kCode32 = 1,
    kCode64 = 2,
    kCodeMask = 3,
    kStack32 = 1 << 2,    // SS.B outside 64-bit mode
    kProtected = 1 << 3,  // CR0.PE and not virtual-8086
    kVirtual8086 = 1 << 4,
    kLongMode = 1 << 5,  // EFER.LMA
    kCplShift = 6,
    kCplMask = 3 << 6,
    kFlat = 1 << 8,  // outside 64-bit mode: CS, SS, DS and ES have base 0, limit 4 GiB - 1 and may be read and written
    kX87Off = 1 << 9,         // CR0.EM or CR0.TS: x87 raises #NM
    kTaskSwitched = 1 << 10,  // CR0.TS: SSE and AVX raise #NM
    kEmulation = 1 << 11,     // CR0.EM: MMX and SSE raise #UD
    kSse = 1 << 12,           // CR4.OSFXSR and not CR0.EM
    kAvx = 1 << 13,           // CR4.OSXSAVE and XCR0 has SSE and AVX
    kWaitTraps = 1 << 14,     // CR0.MP and CR0.TS: WAIT raises #NM
    kXsave = 1 << 15,         // CR4.OSXSAVE
  };
  uint32_t value = 0;
  [[nodiscard]] bool has(uint32_t bits) const { return (value & bits) != 0; }
  [[nodiscard]] bool code64() const { return (value & kCodeMask) == kCode64; }
  [[nodiscard]] bool code32() const { return (value & kCodeMask) == kCode32; }
  [[nodiscard]] bool stack64() const { return code64(); }
  [[nodiscard]] bool stack32() const { return has(kStack32); }
  [[nodiscard]] bool protected_mode() const { return has(kProtected); }
  friend bool operator==(ModeBits, ModeBits) = default;
};

// Looked at between blocks. The first six are set by any thread, the others by the vCPU itself.
enum Attention : uint32_t {
  kAttentionInterrupt = 1,  // the level of the INTR pin; counts only while Cpu::attention_mask has it
  kAttentionNmi = 2,
  kAttentionInit = 4,
  kAttentionSipi = 8,
  kAttentionStop = 16,
  kAttentionFlush = 32,   // another thread asks for TLB entries to be dropped, or for a pause
  kAttentionCount = 128,  // count_limit is there
  kAttentionSite = 256,   // Cpu::jit_site is to go without its slot
  kAttentionTrap = 64,  // single step, breakpoints armed, pending debug exception, or an interrupt shadow to count down
};

struct alignas(64) Cpu {
  // --- registers; the first two rows are addressed by byte offset from gpr (see op.h), so they stay first and in order
  // ---
  std::array<uint64_t, 16> gpr{};
  uint64_t zero = 0;       // always 0: the base or index that an address does not have
  uint64_t block_rip = 0;  // RIP of the first instruction of the block under way (offset within CS)
  uint64_t rip =
      0;  // between blocks: the next instruction. Inside a block: what follows the block, until a transfer sets it.
  ArithmeticFlags flags;
  uint16_t flags_note = 0;      // while translated code runs: see jit::DeferredFlags
  int32_t flags_immediate = 0;  // and this one, too
  uint8_t cpl = 0;
  uint32_t system_flags = 0;  // RFLAGS without the arithmetic six and bit 1; change through set_system_flags()

  // --- what translated code looks at all the time: from gpr[12] to here, all of it within reach of an 8-bit
  // displacement from its register for the Cpu (jit/state_layout.h) ---
  std::atomic<uint32_t> attention{0};
  uint32_t attention_mask = ~0u;  // without kAttentionInterrupt while interrupts are held off
  uint64_t run_context = 0;       // changes with the mode and with what code linear addresses reach; guards block links
  // Instructions retired and faults delivered; correct between blocks, see current_instruction_count().
  uint64_t instruction_count = 0;
  uint64_t jit_page = 0;  // linear address of the page whose translated code runs; RIP is behind the times meanwhile
  const void* jit_targets = nullptr;      // jit::Targets, the table in use
  uint64_t jit_target_mask = 0;           // of offsets in there
  std::array<uint64_t, 16> jit_groups{};  // mmu::TlbEntry::delta for the groups of accesses of the block under way
  mmu::Tlb tlb;                           // Tlb::current() comes first

  // --- the block under way ---
  const Op* op = nullptr;         // the instruction being executed, for faults
  const Op* block_end = nullptr;  // one past the last operation to run; moved forward by leave_block()
  const Op* block_begin = nullptr;
  uint64_t code_base = 0;  // segments[kCs].base, 0 in 64-bit mode

  // --- segments, tables, control ---
  std::array<cpu::Segment, cpu::kSegmentCount> segments{};
  cpu::Segment ldtr{}, tr{};
  cpu::DescriptorTable gdtr{}, idtr{};
  uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, xcr0 = 1, efer = 0;
  std::array<uint64_t, 4> pdptes{};  // PAE paging's four registers, loaded by MOV CR3
  std::array<uint64_t, 4> dr{};
  uint64_t dr6 = 0xFFFF0FF0, dr7 = 0x400;
  ModeBits mode{};  // recomputed by update_mode() after any change of CR0, CR4, EFER, XCR0, CS, SS, CPL, RFLAGS.VM/AC
  bool nmi_blocked = false;
  cpu::Activity activity = cpu::Activity::kRunning;
  mmu::Rights rights = mmu::Rights::kSupervisor;         // of accesses at the present CPL
  mmu::Rights system_rights = mmu::Rights::kSupervisor;  // of the processor's own accesses
  bool checks_every_access = false;                      // alignment checking or data breakpoints: no TLB hit counts
  bool stepping = false;                      // TF, code breakpoints or a debugger: one instruction at a time
  uint64_t pending_debug = 0;                 // DR6 bits of data and I/O breakpoints hit by the instruction under way
  uint64_t physical_mask = (1ull << 40) - 1;  // MAXPHYADDR ones
  uint32_t index = 0;
  uint64_t write_epoch = 0;   // the engine's, when write entries were last dropped
  bool step_trap = false;     // the instruction under way ends in a single-step trap; event delivery calls that off
  bool debugger_hit = false;  // a data point of the debugger was hit by the instruction under way
  uint64_t debugger_skips_at_count = ~0ull;  // the debugger goes on from its breakpoint at this instruction count

  // What of the CPU model decides which bits of CR4, EFER and XCR0 can be set.
  struct Features {
    bool pcid, smep, smap, umip, fsgsbase, xsave, avx, nx, syscall, long_mode, spec_ctrl, arch_capabilities;
  } features{};

  // MSRs, model, cold state: see cpu::State for names. Its copies of what stands above are stale while the vCPU runs.
  cpu::State cold{};

  // x87, MMX, SSE and AVX live in XSAVE standard format, so that FXSAVE and XSAVE are copies and the host's own
  // instructions can load them. XMM i at xsave + 160 + 16 i, high halves of YMM i at xsave + 576 + 16 i, MXCSR at xsave
  // + 24.
  alignas(64) std::array<uint8_t, 1024> xsave{};

  uint32_t pause_count = 0;  // PAUSEs ever: how long a spinning vCPU has kept its host core
  // run() ends when instruction_count is there, exactly. See README.md, "Counting".
  uint64_t count_limit = ~0ull;
  bool counted = false;  // EngineOptions::counted
  // Values of instruction_count at which the shadow of STI or MOV SS, and RFLAGS.RF, still hold: both last one
  // instruction, so nobody has to clear them.
  uint64_t shadow_at_count = ~0ull, stack_shadow_at_count = ~0ull, resume_at_count = ~0ull;

  struct Counters {
    uint64_t mmio_exits = 0, port_exits = 0, exceptions = 0, interrupts = 0, halts = 0, msr_accesses = 0;
    uint64_t interpreted = 0;  // instructions that no translation has run
    uint64_t blocks_built = 0, block_lookups = 0, blocks_stale = 0, code_writes = 0;
  } counters;

  // --- wires ---
  Engine* engine = nullptr;
  SoftVcpu* vcpu = nullptr;
  cpu::CpuIo* io = nullptr;
  memory::GuestMemory* memory = nullptr;
  BlockCache* blocks = nullptr;

  // --- translated code (engine/jit) ---
  jit::Jit* jit = nullptr;     // nullptr: the interpreter runs everything
  Block* jit_block = nullptr;  // the block that translated code left last by an edge
  uint32_t jit_edge = 0;       // and which one
  uint32_t jit_site = 0;  // jit::Jit::Site whose slot changes too often, or whose group is too seldom within a page
  uint32_t jit_site_return = 0;            // the lower half of where the place's code is, when jit_site does not say
  uint32_t keeps_slots = 0;                // not 0: no slot may be filled with what these rights reach
  uint64_t jit_target = 0;                 // scratch of an indirect call
  std::array<uint64_t, 8> jit_crossing{};  // what a vector instruction reads from or writes to two pages
  uint64_t jit_span = 0;                   // where the group begins whose first access a handler carries out
  const uint8_t* jit_target_chunks = nullptr;  // what of jit_targets has been filled
  uint32_t x87_live = 0;                       // jit::X87Live, the same
  uint32_t simd_live = 0;                      // jit::SimdLive: 0 whenever C++ runs
  GuestFault jit_fault{};                      // what a handler called from translated code has thrown

  // Of the instruction under way, and behind it.
  [[nodiscard]] uint64_t instruction_rip() const;
  [[nodiscard]] uint64_t next_rip() const;
  [[nodiscard]] uint64_t current_instruction_count() const;
  [[nodiscard]] bool long_mode() const { return (efer & kEferLma) != 0; }
  [[nodiscard]] bool code64() const { return mode.code64(); }
  [[nodiscard]] bool protected_mode() const { return mode.protected_mode(); }
  [[nodiscard]] bool virtual8086() const { return (system_flags & kFlagVirtual8086) != 0; }
  [[nodiscard]] unsigned iopl() const { return system_flags >> 12 & 3; }
  [[nodiscard]] uint64_t rflags() const { return system_flags | flags.to_rflags() | 2; }
  // Masks that the stack pointer is used with: 64, 32 or 16 bits.
  [[nodiscard]] uint64_t stack_mask() const {
    return mode.stack64() ? ~0ull : mode.stack32() ? 0xFFFF'FFFFull : 0xFFFFull;
  }
};

// Byte offsets from Cpu::gpr, as Op wants them. Cpu is not of standard layout, but both compilers lay it out as
// written.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
static_assert(offsetof(Cpu, gpr) == 0);
inline constexpr uint8_t kZeroOffset = offsetof(Cpu, zero);
inline constexpr uint8_t kBlockRipOffset = offsetof(Cpu, block_rip);
inline constexpr uint16_t kSegmentsOffset = offsetof(Cpu, segments);
#pragma GCC diagnostic pop
[[nodiscard]] constexpr uint16_t segment_base_offset(cpu::SegmentRegister segment) {
  return static_cast<uint16_t>(kSegmentsOffset + segment * sizeof(cpu::Segment));  // base is its first member
}

// After any change of what ModeBits is made of: recomputes it, the memory context and what holds interrupts off.
void update_mode(Cpu& cpu);
// After a change of translations alone.
void translations_changed(Cpu& cpu);
// All of RFLAGS but bit 1 and the arithmetic six; keeps mode and attention_mask in step.
void set_system_flags(Cpu& cpu, uint32_t flags);
// All of RFLAGS at once. Bits that cannot be set are dropped; who may change what is the caller's business.
void set_rflags(Cpu& cpu, uint64_t rflags);
// The block must not go on behind the instruction under way: its code, or what it was made for, has changed.
void leave_block(Cpu& cpu);
// With every call of CpuIo by an instruction that does not end its block anyway: a counted run looks at attention
// behind an instruction that reached a device, so that it does so at the same count whatever its blocks are.
inline void leave_block_after_io(Cpu& cpu) {
  if (cpu.counted) leave_block(cpu);
}

}  // namespace bulkhead::engine
