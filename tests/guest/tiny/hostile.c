// A guest that does what no driver does: random values to every port, device register, MSR, virtio ring and control register, and
// interrupts and start-up IPIs to itself and others, for as long as "seconds=" says. Whatever it breaks must be its own.
#include "tiny.h"

static uint64_t state;
static uint32_t interrupts, exceptions, rounds;
static uint64_t end_tsc;
static uint32_t seed;

static uint64_t tsc(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

static uint32_t next(void) {  // xorshift64*
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return (uint32_t)((state * 0x2545F4914F6CDD1Dull) >> 32);
}
static uint32_t below(uint32_t bound) { return next() % bound; }

// Small numbers, single bits, all ones and noise: what register decoders trip over.
static uint32_t value(void) {
  switch (below(6)) {
    case 0: return below(16);
    case 1: return 1u << below(32);
    case 2: return ~0u << below(32);
    case 3: return next() & 0xFF;
    default: return next();
  }
}

static const uint16_t kPorts[] = {0x00, 0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xA0, 0xA1,
                                  0xB2, 0xE9, 0x2E8, 0x2F8, 0x3E8, 0x3F8, 0x402, 0x4D0, 0x4D1, 0x510, 0x511, 0x514, 0x518, 0x600,
                                  0xCF8, 0xCF9, 0xCFC, 0xB000, 0xC000};

static void ports(void) {
  const uint16_t port = below(3) ? (uint16_t)(kPorts[below(sizeof kPorts / sizeof *kPorts)] + below(8)) : (uint16_t)next();
  switch (below(6)) {
    case 0: out8(port, (uint8_t)value()); break;
    case 1: out16(port, (uint16_t)value()); break;
    case 2: out32(port, value()); break;
    case 3: in8(port); break;
    case 4: in16(port); break;
    default: in32(port); break;
  }
}

struct region {
  uint32_t start, size;
};
// What the board has, and a place for each BAR that PCI configuration tells of.
static struct region regions[64] = {{0xFEC00000, 0x1000}, {0xFEE00000, 0x1000}, {0xFED00000, 0x1000}, {0xE0000000, 0x100000},
                                    {0xA0000, 0x60000},   {0xC0000000, 0x100000}, {0xFE000000, 0x1000000}};
static uint32_t region_count = 7;

static void registers(void) {
  const struct region* region = &regions[below(region_count)];
  const uint32_t address = region->start + (below(2) ? below(region->size) : below(0x400) & ~3u);
  switch (below(8)) {
    case 0: *(volatile uint8_t*)address = (uint8_t)value(); break;
    case 1: *(volatile uint16_t*)address = (uint16_t)value(); break;
    case 2:
    case 3: *(volatile uint32_t*)address = value(); break;
    case 4: (void)*(volatile uint8_t*)address; break;
    case 5: (void)*(volatile uint32_t*)address; break;
    case 6: __asm__ volatile("lock addl %0,(%1)" ::"r"(value()), "r"(address) : "memory"); break;
    default:
      // More bytes at once than any register has, from one register to another.
      __asm__ volatile("rep movsb" ::"c"(below(40)), "S"(address), "D"(address + below(64)) : "memory");
  }
}

static void model_specific_registers(void) {
  static const uint32_t kKnown[] = {0x10, 0x1B, 0x8B, 0x174, 0x1A0, 0x200, 0x250, 0x277, 0x2FF, 0x6E0, 0x800, 0x830, 0x4B564D00,
                                    0x4B564D01, 0xC0000080, 0xC0000081, 0xC0000100, 0xC0000101};
  const uint32_t index = below(4) ? kKnown[below(sizeof kKnown / sizeof *kKnown)] + below(64) : next();
  uint32_t low = value(), high = below(2) ? 0 : value();
  if (below(2)) {
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
  } else {
    __asm__ volatile("wrmsr" ::"a"(low), "d"(high), "c"(index));
  }
}

static void control_registers(void) {
  if (below(200)) return;  // seldom: it often ends in a triple fault, which starts the guest anew
  switch (below(5)) {
    case 0: __asm__ volatile("mov %0,%%cr4" ::"r"(value())); break;
    case 1: __asm__ volatile("mov %0,%%cr3" ::"r"(value())); break;
    case 2: __asm__ volatile("mov %0,%%dr7" ::"r"(value())); break;
    case 3: __asm__ volatile("mov %0,%%dr0" ::"r"(value())); break;
    default: __asm__ volatile("mov %0,%%cr0" ::"r"(value() | 1)); break;
  }
}

static uint32_t configuration(uint32_t device, uint32_t offset) {
  out32(0xCF8, 0x80000000 | device << 11 | offset);
  return in32(0xCFC);
}
static void configure(uint32_t device, uint32_t offset, uint32_t to) {
  out32(0xCF8, 0x80000000 | device << 11 | offset);
  out32(0xCFC, to);
}

// Where rings are built: 1 MiB of RAM from 4 MiB on.
static volatile uint8_t* const kRings = (volatile uint8_t*)0x400000;

static void write64(volatile uint8_t* at, uint64_t number) { *(volatile uint64_t*)at = number; }

// Brings a virtio device to DRIVER_OK as a driver would, so that what follows reaches the queues and not only the registers.
static void virtio(uint32_t device) {
  uint32_t common = 0, notify = 0;
  for (uint32_t capability = configuration(device, 0x34) & 0xFC, i = 0; capability && i < 16; ++i) {
    const uint32_t head = configuration(device, capability);
    if ((head & 0xFF) == 9) {
      const uint32_t bar = configuration(device, capability + 4) & 7, offset = configuration(device, capability + 8);
      const uint32_t base = bar < 6 ? configuration(device, 0x10 + 4 * bar) & ~15u : 0;
      if (head >> 24 == 1) common = base + offset;
      if (head >> 24 == 2) notify = base + offset;
    }
    capability = head >> 8 & 0xFC;
  }
  if (!common || common < 0x80000000) return;
  volatile uint8_t* c = (volatile uint8_t*)common;
  configure(device, 4, 6);
  c[20] = 0;
  c[20] = 1;
  c[20] = 3;
  *(volatile uint32_t*)(c + 8) = 0;
  *(volatile uint32_t*)(c + 12) = below(4) ? *(volatile uint32_t*)(c + 4) : value();
  *(volatile uint32_t*)(c + 8) = 1;
  *(volatile uint32_t*)(c + 12) = below(2) ? 1 : 5;  // VERSION_1, sometimes packed rings
  c[20] = 11;
  const uint32_t size = 1u << below(9);
  for (uint32_t queue = 0; queue < 3; ++queue) {
    *(volatile uint16_t*)(c + 22) = (uint16_t)queue;
    *(volatile uint16_t*)(c + 24) = (uint16_t)size;
    write64(c + 32, below(16) ? 0x400000 + (below(0x40000) & ~15u) : (uint64_t)value() << 32 | value());
    write64(c + 40, below(16) ? 0x440000 + (below(0x40000) & ~15u) : (uint64_t)value() << 32 | value());
    write64(c + 48, below(16) ? 0x480000 + (below(0x40000) & ~15u) : (uint64_t)value() << 32 | value());
    *(volatile uint16_t*)(c + 28) = 1;
  }
  c[20] = 15;
  for (uint32_t i = 0; i < 64; ++i) {
    // Descriptors that are half right: addresses in RAM, small lengths, any flags and next.
    volatile uint8_t* descriptor = kRings + (below(0x100000) & ~15u);
    write64(descriptor, below(8) ? 0x500000 + below(0x400000) : (uint64_t)value() << 32 | value());
    *(volatile uint32_t*)(descriptor + 8) = below(4) ? below(8192) : value();
    *(volatile uint16_t*)(descriptor + 12) = (uint16_t)(below(2) ? below(8) : value());
    *(volatile uint16_t*)(descriptor + 14) = (uint16_t)below(below(2) ? size : 65536);
  }
  for (uint32_t i = 0; i < 0x4000; ++i) {
    if (below(64) == 0) *(volatile uint32_t*)(kRings + (below(0x100000) & ~3u)) = value();
  }
  if (notify) {
    for (uint32_t queue = 0; queue < 8; ++queue) *(volatile uint16_t*)(notify + 4 * queue) = (uint16_t)queue;
  }
}

static void find_devices(void) {
  for (uint32_t device = 0; device < 32; ++device) {
    if (configuration(device, 0) == 0xFFFFFFFF) continue;
    for (uint32_t bar = 0; bar < 6 && region_count < 64; ++bar) {
      const uint32_t base = configuration(device, 0x10 + 4 * bar);
      if ((base & 1) || base < 0x80000000) continue;
      regions[region_count].start = base & ~15u;
      regions[region_count++].size = 0x4000;
    }
  }
}

static void processors(void) {
  volatile uint32_t* apic = (volatile uint32_t*)0xFEE00000;
  apic[0x310 / 4] = below(4) << 24;
  switch (below(4)) {
    case 0: apic[0x300 / 4] = 0xC4500; break;       // INIT to all others
    case 1: apic[0x300 / 4] = 0xC4608; break;       // start-up at 0x8000
    case 2: apic[0x300 / 4] = value() & ~0x700u; break;
    default: apic[0x300 / 4] = 0x40000 | (32 + below(224)); break;  // fixed to itself
  }
}

static void go_on(void) {
  while (tsc() < end_tsc) {
    ++rounds;
    if (below(1000) == 0) __asm__ volatile("sti; nop; nop; cli");
    switch (below(8)) {
      case 0:
      case 1: ports(); break;
      case 2:
      case 3:
      case 4: registers(); break;
      case 5: model_specific_registers(); break;
      case 6: control_registers(); break;
      default:
        if (below(50) == 0) processors();
        else if (below(100) == 0) virtio(below(32));
        else if (below(2)) *(volatile uint32_t*)(kRings + (below(0x100000) & ~3u)) = value();
    }
  }
  print("HOSTILE DONE rounds ");
  print_hex(rounds);
  print(" exceptions ");
  print_hex(exceptions);
  print(" interrupts ");
  print_hex(interrupts);
  print("\r\n");
  while (1) out8(0xF4, 0);
}

void on_interrupt(uint32_t vector) {
  (void)vector;
  ++interrupts;
  *(volatile uint32_t*)0xFEE000B0 = 0;
  out8(0xA0, 0x20);
  out8(0x20, 0x20);
}

void on_exception(uint32_t vector) {
  (void)vector;
  ++exceptions;
  go_on();
}

extern char ap_start[], ap_end[];

void guest_main(uint32_t magic, const struct multiboot_info* info) {
  (void)magic;
  seed = option(info, "seed", 1);
  // A machine that was reset goes on with other numbers.
  state = (seed * 0x9E3779B97F4A7C15ull) ^ tsc() ^ 1;
  const uint32_t megahertz = option(info, "mhz", 2000);
  end_tsc = tsc() + (uint64_t)option(info, "seconds", 10) * megahertz * 1000000;
  print("HOSTILE BEGIN\r\n");
  for (char* from = ap_start; from < ap_end; ++from) *(volatile char*)(0x8000 + (from - ap_start)) = *from;
  set_up_vectors();
  find_devices();
  go_on();
}
