// A guest that rewrites itself at random for as long as it runs: its code while it runs, page tables and descriptor tables while they
// are in use, from several processors at once and at both privileges. Every exception and interrupt leads back to the loop, on a
// known stack and with tables made anew; what cannot come back ends in a triple fault, and the board starts the guest again.
// Whatever it breaks must be its own.
#include <stdint.h>

enum { kCpus = 4 };
extern uint32_t boot_info;
extern char vector_entries[], ap_start[], ap_end[];
extern uint64_t core_pml4[], core_pdpt[], core_pds[];
void leave_nmi(void);
void run_at(const uint64_t registers[16], uint64_t code, uint64_t flags, uint64_t selectors);
void on_vector(uint32_t vector, uint32_t cpu);
void guest_main(uint32_t cpu);

// The field: RAM that may hold anything, from 4 MiB to 8 MiB; its first 16 pages are the page tables of the field's own linear
// addresses, which begin at kField and change all the time.
#define kRam 0x400000ull
#define kRamSize 0x400000u
#define kTables 16u
#define kField 0x8000000000ull
#define kFieldPages 2048u
// RAM of the machine, in all: addresses beyond are nobody's.
#define kAllRam 0x2000000u

struct processor {
  uint64_t gdt[16];
  struct {
    uint64_t low, high;
  } idt[256];
  uint32_t tss[26];
  uint64_t state;  // of random numbers
  uint64_t rounds, exceptions, interrupts, failures;
  uint64_t next_report;
} __attribute__((aligned(4096)));
static struct processor processors[kCpus];
static uint64_t interrupt_stacks[kCpus][512] __attribute__((aligned(16)));
static volatile uint32_t started;

static void out8(uint16_t port, uint8_t value) { __asm__ volatile("outb %0,%1" ::"a"(value), "Nd"(port)); }
static void out32(uint16_t port, uint32_t value) { __asm__ volatile("outl %0,%1" ::"a"(value), "Nd"(port)); }
static uint8_t in8(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1,%0" : "=a"(value) : "Nd"(port));
  return value;
}
static uint64_t tsc(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}
static void write_msr(uint32_t index, uint64_t value) {
  __asm__ volatile("wrmsr" ::"a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(index));
}

static void print(const char* text) {
  for (; *text; ++text) {
    for (int patience = 0; patience < 10000 && (in8(0x3FD) & 0x20) == 0; ++patience) {
    }
    out8(0x3F8, (uint8_t)*text);
  }
}
static void print_number(uint64_t value) {
  char text[21], *at = text + 20;
  *at = 0;
  do *--at = (char)('0' + value % 10);
  while ((value /= 10) != 0);
  print(at);
}

static uint64_t next(struct processor* me) {  // xorshift64*
  me->state ^= me->state >> 12;
  me->state ^= me->state << 25;
  me->state ^= me->state >> 27;
  return me->state * 0x2545F4914F6CDD1Dull;
}
static uint32_t below(struct processor* me, uint32_t bound) { return (uint32_t)(next(me) >> 32) % bound; }
static uint64_t value(struct processor* me) {
  switch (below(me, 6)) {
    case 0: return below(me, 16);
    case 1: return 1ull << below(me, 64);
    case 2: return ~0ull << below(me, 64);
    case 3: return kField + below(me, kFieldPages << 12);
    case 4: return kRam + below(me, kRamSize);
    default: return next(me);
  }
}

// --- what every return to the loop makes anew ---

static void make_tables(struct processor* me, uint32_t cpu) {
  static const uint64_t kDescriptors[6] = {0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF, 0x00CF9A000000FFFF, 0x00CFF2000000FFFF,
                                           0x00AFFA000000FFFF};
  for (uint32_t i = 0; i < 6; ++i) me->gdt[i] = kDescriptors[i];
  const uint64_t tss = (uint64_t)me->tss;
  me->gdt[6] = 103 | (tss & 0xFFFFFF) << 16 | 0x89ull << 40 | (tss >> 24 & 0xFF) << 56;
  me->gdt[7] = tss >> 32;
  for (uint32_t i = 0; i < 26; ++i) me->tss[i] = 0;
  const uint64_t stack = (uint64_t)&interrupt_stacks[cpu][512];
  me->tss[1] = (uint32_t)stack;
  me->tss[9] = (uint32_t)stack;  // IST 1
  me->tss[25] = 104 << 16;
  for (uint32_t i = 0; i < 256; ++i) {
    const uint64_t entry = (uint64_t)vector_entries + 16 * i;
    // Some programs may raise any vector.
    me->idt[i].low = (entry & 0xFFFF) | 8 << 16 | 1ull << 32 | 0xEE00ull << 32 | (entry >> 16 & 0xFFFF) << 48;
    me->idt[i].high = entry >> 32;
  }
  struct {
    uint16_t limit;
    uint64_t base;
  } __attribute__((packed)) pointer = {sizeof me->gdt - 1, (uint64_t)me->gdt};
  __asm__ volatile("lgdt %0" ::"m"(pointer));
  pointer.limit = sizeof me->idt - 1;
  pointer.base = (uint64_t)me->idt;
  __asm__ volatile("lidt %0" ::"m"(pointer));
  __asm__ volatile("ltr %w0" ::"r"(0x30));
}

static void make_core(void) {
  core_pml4[0] = (uint64_t)core_pdpt + 7;
  core_pml4[1] = kRam + 7;
  for (uint32_t i = 0; i < 4; ++i) core_pdpt[i] = (uint64_t)core_pds + 0x1000 * i + 7;
  for (uint64_t i = 0; i < 2048; ++i) core_pds[i] = i << 21 | 0x83;
}

static void make_controls(void) {
  __asm__ volatile("mov %0,%%cr0" ::"r"(0x80010033ull));
  __asm__ volatile("mov %0,%%cr4" ::"r"(0x40620ull));
  __asm__ volatile("mov %0,%%cr3" ::"r"((uint64_t)core_pml4) : "memory");
  __asm__ volatile("mov %0,%%dr7" ::"r"(0x400ull));
  __asm__ volatile("xsetbv" ::"a"(7), "d"(0), "c"(0));
  write_msr(0xC0000080, 0xD01);  // EFER: SCE, LME, LMA, NXE
  __asm__ volatile("fninit");
  const uint32_t mxcsr = 0x1F80;
  __asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
}

static volatile uint32_t* const kApic = (volatile uint32_t*)0xFEE00000;

// An interrupt at vector 64 after so many of the APIC timer's ticks, so that no program runs for ever.
static void make_timer(uint32_t ticks) {
  write_msr(0x1B, 0xFEE00000 | 0x800);
  kApic[0xF0 / 4] = 0x1FF;
  kApic[0x80 / 4] = 0;
  kApic[0x3E0 / 4] = 0xB;
  kApic[0x320 / 4] = 64;
  kApic[0x380 / 4] = ticks;
}

// --- what is rewritten ---

// A page table entry: RAM, what is no RAM, devices, the tables themselves; any rights; now and then a large page or reserved bits.
static uint64_t table_entry(struct processor* me) {
  uint64_t page;
  switch (below(me, 16)) {
    case 0: page = kRam + (below(me, kTables) << 12); break;
    case 1: page = 0xFEE00000; break;
    case 2: page = 0xFEC00000 + (below(me, 2) ? 0x100000 : 0); break;
    case 3: page = 0xC0000000 + (below(me, 0x3EC00) << 12); break;
    case 4: page = (uint64_t)(next(me) >> 24) << 12; break;
    case 5: page = kAllRam - 0x2000 + (below(me, 4) << 12); break;
    default: page = kRam + (kTables << 12) + (below(me, (kRamSize >> 12) - kTables) << 12); break;
  }
  uint64_t flags = below(me, 8) ? 7 : below(me, 8);
  if (below(me, 4) == 0) flags |= below(me, 512);
  if (below(me, 32) == 0) flags |= 0x80;
  if (below(me, 16) == 0) flags |= 1ull << 63;
  if (below(me, 256) == 0) flags |= next(me) & 0x7FF0000000000000;
  return page | flags;
}

// The field's tables: PDPT at kRam, page directories, then page tables. Mostly the shape that works.
static void change_tables(struct processor* me, uint32_t count) {
  volatile uint64_t* tables = (volatile uint64_t*)kRam;
  for (; count != 0; --count) {
    switch (below(me, 12)) {
      case 0: tables[below(me, 4)] = below(me, 8) ? (kRam + 0x1000 * (1 + below(me, 3))) | 7 : table_entry(me); break;
      case 1:
        tables[512 * (1 + below(me, 3)) + below(me, 12)] =
            below(me, 8) ? (kRam + 0x1000 * (4 + below(me, kTables - 4))) | 7
                         : below(me, 2) ? (kRam & ~0x1FFFFFull) | (below(me, 2) ? 0x200000 : 0) | 0x87 : table_entry(me);
        break;
      default: tables[512 * (4 + below(me, kTables - 4)) + below(me, 512)] = table_entry(me); break;
    }
  }
  switch (below(me, 6)) {
    case 0: __asm__ volatile("mov %%cr3,%%rax; mov %%rax,%%cr3" ::: "rax", "memory"); break;
    case 1:
    case 2: __asm__ volatile("invlpg (%0)" ::"r"(kField + below(me, kFieldPages << 12)) : "memory"); break;
    default: break;  // stale entries are the guest's own business
  }
}

static void change_descriptors(struct processor* me) {
  for (uint32_t i = 1 + below(me, 4); i != 0; --i) {
    switch (below(me, 5)) {
      case 0: me->gdt[below(me, 64) ? 8 + below(me, 8) : below(me, 16)] = value(me); break;
      case 1: me->gdt[8 + below(me, 8)] = (next(me) & 0xFFFF0FFFFFFFFFFF) | 0x0000800000000000; break;
      case 2: me->idt[32 + below(me, 224)].low ^= 1ull << below(me, 64); break;
      case 3: me->idt[below(me, 32)].low ^= below(me, 32) ? 1ull << 40 : 1ull << below(me, 64); break;
      default: me->tss[below(me, 32) ? 11 + below(me, 15) : below(me, 26)] = (uint32_t)value(me); break;
    }
  }
  const uint32_t selector = below(me, 128);
  switch (below(me, 10)) {
    case 0: __asm__ volatile("mov %0,%%fs" ::"r"(selector)); break;
    case 1: __asm__ volatile("mov %0,%%es" ::"r"(selector)); break;
    case 2: __asm__ volatile("mov %0,%%ds" ::"r"(selector)); break;
    case 3: __asm__ volatile("lldt %w0" ::"r"(selector)); break;
    case 4: __asm__ volatile("ltr %w0" ::"r"(selector)); break;
    case 5: __asm__ volatile("verw %w0; lar %w0,%%eax; lsl %w0,%%eax" ::"r"(selector) : "rax", "cc"); break;
    case 6: __asm__ volatile("pushq %0; pushq $0; lretq" ::"r"((uint64_t)selector)); break;
    case 7: write_msr(0xC0000100 + below(me, 3), value(me) & 0x7FFFFFFFFFFF); break;
    case 8: {
      struct {
        uint16_t limit;
        uint64_t base;
      } __attribute__((packed)) pointer = {(uint16_t)value(me), below(me, 2) ? (uint64_t)me->gdt : value(me)};
      // Most limits leave what the next exception needs.
      if (below(me, 64)) pointer.base = (uint64_t)me->gdt, pointer.limit |= 0x7F;
      __asm__ volatile("lgdt %0" ::"m"(pointer));
      pointer.base = (uint64_t)me->idt;
      pointer.limit = (uint16_t)(below(me, 64) ? next(me) | 0x7FF : value(me));
      __asm__ volatile("lidt %0" ::"m"(pointer));
      break;
    }
    default: write_msr(0xC0000081 + below(me, 4), value(me)); break;
  }
}

// --- programs ---

static uint8_t* emit(uint8_t* at, uint64_t bytes, uint32_t count) {
  for (; count != 0; --count, bytes >>= 8) *at++ = (uint8_t)bytes;
  return at;
}

// One instruction, more or less: what programs consist of, what kernels do, and noise.
static uint8_t* add_instruction(struct processor* me, uint8_t* at) {
  static const uint8_t kCommon[] = {0x01, 0x03, 0x09, 0x0B, 0x11, 0x13, 0x19, 0x21, 0x23, 0x29, 0x2B, 0x31, 0x33, 0x39, 0x3B, 0x85,
                                    0x87, 0x88, 0x89, 0x8A, 0x8B, 0x8D, 0x63, 0xD1, 0xD3, 0xF7, 0xFF};
  static const uint8_t kExtended[] = {0xAF, 0xB0, 0xB1, 0xB6, 0xB7, 0xBE, 0xC0, 0xC1, 0xC7, 0xA3, 0xAB, 0xB3, 0xBB, 0xBC, 0xBD, 0xA5,
                                      0x10, 0x11, 0x28, 0x29, 0x58, 0x59, 0x5C, 0x5E, 0x6F, 0x7F, 0xD6, 0xEF, 0xFE, 0xAE, 0x2A, 0x2D};
  static const uint16_t kSystem[] = {0xA20F, 0x310F, 0x050F, 0x070F, 0xF4, 0xFA, 0xFB, 0x9C, 0x9D, 0xCF48, 0xCB48, 0xC3, 0xC9,
                                     0xCC, 0x80CD, 0x40CD, 0x020F, 0x030F, 0x300F, 0x320F, 0x060F, 0x0B0F, 0xEC, 0xEE, 0xED, 0xEF,
                                     0x90F3, 0xD7, 0x9E, 0x9F, 0xFC, 0xFD};
  // [register + disp32] or a register; sometimes near RIP, so that the code under way is hit.
  const uint32_t reg = below(me, 8), rm = below(me, 8);
  const uint32_t rip_relative = below(me, 8) == 0;
  const uint8_t modrm = (uint8_t)(rip_relative ? 0x05 | reg << 3 : (below(me, 2) ? 0xC0 : 0x80) | reg << 3 | (rm == 4 ? 3 : rm));
  const uint32_t displacement = rip_relative ? below(me, 128) - 64 : below(me, 4096) - 512;
  const uint32_t has_displacement = modrm < 0xC0;
  switch (below(me, 20)) {
    default:
      if (has_displacement && below(me, 6) == 0) at = emit(at, 0xF0, 1);
      at = emit(at, 0x40 | below(me, 16), 1);
      at = emit(at, kCommon[below(me, sizeof kCommon)] | (uint32_t)modrm << 8, 2);
      return has_displacement ? emit(at, displacement, 4) : at;
    case 0:
    case 1:
    case 2:
      if (below(me, 2)) at = emit(at, "\x66\xF2\xF3\xF0"[below(me, 4)], 1);
      at = emit(at, 0x0F | (uint32_t)kExtended[below(me, sizeof kExtended)] << 8 | (uint32_t)modrm << 16, 3);
      return has_displacement ? emit(at, displacement, 4) : at;
    case 3:
    case 4: return emit(at, 0x70 | below(me, 16) | below(me, 256) << 8, 2);  // jcc
    case 5: return emit(at, (below(me, 2) ? 0xE8 : 0xE9) | (uint64_t)(below(me, 512) - 256) << 8, 5);
    case 6: return emit(at, 0x50 + below(me, 16), 1);
    case 7: {  // string instructions, small counts mostly
      at = emit(at, 0xB9 | (uint64_t)below(me, below(me, 16) ? 64 : 0x10000) << 8, 5);
      return emit(at, 0xF3 | (0xA4 + below(me, 12)) << 8, 2);
    }
    case 8: return emit(at, 0x48 | (0xB8 + (rm == 4 ? 3 : rm)) << 8 | value(me) << 16, 8), emit(at + 8, value(me) >> 48, 2);
    case 9: {  // store into this page of code, now or a little later
      at = emit(at, 0x05C7, 2);
      return emit(at, below(me, 256) - 128, 4), emit(at + 4, next(me), 4);
    }
    case 10: {
      const uint16_t system = kSystem[below(me, sizeof kSystem / sizeof *kSystem)];
      return emit(at, system, system > 0xFF ? 2 : 1);
    }
    case 11: return emit(at, 0x380F01 | below(me, 8) << 16, 3);          // invlpg [rax...]
    case 12: {  // mov with a control register; seldom to CR3, which nobody survives
      const uint32_t control = below(me, 32) ? below(me, 2) * 4 : below(me, 16);
      const uint32_t to = below(me, control == 3 ? 32 : 4) == 0;
      return emit(at, 0x40, 1), emit(at + 1, 0xC0200F | to << 9 | (uint64_t)(control & 7) << 19 | (uint64_t)below(me, 8) << 16, 3);
    }
    case 13: return emit(at, 0xC0210F | (uint64_t)below(me, 0x3F) << 16 | below(me, 2) << 9, 3);  // mov with a debug register
    case 14: return emit(at, 0xD8 + below(me, 8), 1), emit(at + 1, modrm, 1), has_displacement ? emit(at + 2, displacement, 4) : at + 2;
    case 15:  // VEX
      at = emit(at, 0xC5 | below(me, 256) << 8 | (uint32_t)kExtended[below(me, sizeof kExtended)] << 16 | (uint32_t)modrm << 24, 4);
      return has_displacement ? emit(at, displacement, 4) : at;
    case 16: return emit(at, next(me), 1 + below(me, 8));
  }
}

// A program somewhere in the field's RAM; a third of the time only a piece of one that is there already.
static void write_program(struct processor* me, uint8_t* at, uint8_t* end) {
  uint32_t count = 4 + below(me, 60);
  while (count-- != 0 && at + 32 < end) at = add_instruction(me, at);
  if (at + 2 < end) emit(at, 0x80CD, 2);
}

static void run_program(struct processor* me) {
  uint64_t registers[16];
  const uint64_t page = kTables + below(me, (kRamSize >> 12) - kTables), offset = below(me, 4) ? below(me, 3000) : 4096 - below(me, 64);
  uint8_t* physical = (uint8_t*)(kRam + (page << 12) + offset);
  if (below(me, 3)) write_program(me, physical, (uint8_t*)(kRam + kRamSize));
  // At its physical address, or through the field's tables, which may lead anywhere.
  uint64_t code = (uint64_t)physical;
  if (below(me, 3)) {
    code = kField + (below(me, kFieldPages) << 12) + offset;
    volatile uint64_t* tables = (volatile uint64_t*)kRam;
    if (below(me, 4)) {  // to the program
      const uint64_t number = code >> 12 & 511, table = 4 + below(me, kTables - 4);
      tables[0] = (kRam + 0x1000) | 7;
      tables[512 + (code >> 21 & 511)] = (kRam + 0x1000 * table) | 7;
      tables[512 * table + number] = (kRam + (page << 12)) | 7;
      __asm__ volatile("invlpg (%0)" ::"r"(code) : "memory");
    }
  }
  for (uint32_t i = 0; i < 16; ++i) registers[i] = value(me);
  for (uint32_t i = 0; i < 16; i += 1 + below(me, 4)) registers[i] = kField + below(me, kFieldPages << 12);
  registers[4] = below(me, 4) ? kRam + (kTables << 12) + (below(me, kRamSize - (kTables << 12)) & ~7u) : registers[4];
  registers[3] = below(me, 2) ? (uint64_t)physical & ~0xFFFull : registers[3];
  const uint64_t flags = 2 | (below(me, 16) ? 0x200 : 0) | (next(me) & 0xCD5) | (below(me, 16) ? 0 : 0x100) | (next(me) & 0x3000);
  const uint64_t user = below(me, 2);
  make_timer(1 + below(me, 3000));
  run_at(registers, code, flags & ~(below(me, 8) ? 0x100ull : 0), user ? 0x2B | 0x23 << 16 : 0x08 | 0x10 << 16);
}

static void disturb(struct processor* me) {
  switch (below(me, 5)) {
    case 0: kApic[0x310 / 4] = below(me, 4) << 24; kApic[0x300 / 4] = 0x4000 | 32 | below(me, 224); break;  // an interrupt
    case 1: kApic[0x300 / 4] = 0xC4400; break;                                                            // NMI to all others
    case 2: {  // start-up of one that has lost its way
      kApic[0x310 / 4] = (1 + below(me, 3)) << 24;
      kApic[0x300 / 4] = 0x4500;
      kApic[0x300 / 4] = 0x4608;
      break;
    }
    case 3: {  // the control registers
      const uint64_t bit = 1ull << below(me, 24);
      switch (below(me, 3)) {
        case 0: __asm__ volatile("mov %%cr4,%%rax; xor %0,%%rax; mov %%rax,%%cr4" ::"r"(bit) : "rax", "memory"); break;
        case 1: __asm__ volatile("mov %%cr0,%%rax; xor %0,%%rax; mov %%rax,%%cr0" ::"r"(bit) : "rax", "memory"); break;
        default: __asm__ volatile("mov %0,%%dr0; mov %1,%%dr7" ::"r"(value(me)), "r"(next(me) & 0xF03FF)); break;
      }
      break;
    }
    default:
      // Its own code and data, anywhere in the image: seldom, for it seldom lives through it.
      if (below(me, 400) == 0) ((volatile uint8_t*)0x100000)[below(me, 0x20000)] ^= (uint8_t)(1u << below(me, 8));
      if (below(me, 100) == 0) core_pds[below(me, 2048)] ^= 1ull << below(me, 64);
  }
}

static void go_on(struct processor* me, uint32_t cpu) {
  while (1) {
    ++me->rounds;
    if (cpu == 0 && tsc() >= me->next_report) {
      me->next_report = tsc() + 4000000000ull;
      print("REWRITER rounds ");
      for (uint32_t i = 0; i < kCpus; ++i) print_number(processors[i].rounds), print(" ");
      print("exceptions ");
      print_number(me->exceptions);
      print(" interrupts ");
      print_number(me->interrupts);
      print("\r\n");
    }
    switch (below(me, 8)) {
      case 0:
      case 1: change_tables(me, 1 + below(me, 32)); break;
      case 2:
        if (below(me, 4) == 0) change_descriptors(me);
        break;
      case 3:
        if (below(me, 8) == 0) disturb(me);
        break;
      default: run_program(me);
    }
  }
}

void on_vector(uint32_t vector, uint32_t cpu) {
  struct processor* me = &processors[cpu];
  if (vector < 32)
    ++me->exceptions;
  else
    ++me->interrupts;
  make_core();
  make_controls();
  make_tables(me, cpu);
  leave_nmi();
  kApic[0xB0 / 4] = 0;
  out8(0xA0, 0x20);
  out8(0x20, 0x20);
  go_on(me, cpu);
}

static uint32_t seed_of(const char* text) {
  for (; text && *text; ++text) {
    const char *a = text, *b = "seed=";
    while (*b && *a == *b) ++a, ++b;
    if (*b) continue;
    uint32_t number = 0;
    for (; *a >= '0' && *a <= '9'; ++a) number = number * 10 + (uint32_t)(*a - '0');
    return number;
  }
  return 1;
}

void guest_main(uint32_t cpu) {
  struct processor* me = &processors[cpu];
  make_core();
  make_controls();
  make_tables(me, cpu);
  if (cpu == 0) {
    print("REWRITER BEGIN\r\n");
    started = seed_of((const char*)*(uint64_t*)((uint64_t)boot_info + 24));
    for (char* from = ap_start; from < ap_end; ++from) *(volatile char*)(0x8000 + (from - ap_start)) = *from;
  }
  // A machine that was reset goes on with other numbers.
  me->state = ((uint64_t)(started + cpu * 77) * 0x9E3779B97F4A7C15ull) ^ tsc() ^ 1;
  out8(0x21, 0xFF);
  out8(0xA1, 0xFF);
  make_timer(0);
  if (cpu == 0) {
    kApic[0x300 / 4] = 0xC4500;
    kApic[0x300 / 4] = 0xC4608;
    change_tables(me, 4000);
  }
  out32(0xCF8, 0);
  go_on(me, cpu);
}
