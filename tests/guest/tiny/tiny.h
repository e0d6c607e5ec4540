// What the tiny guests share: ports, the serial line, interrupt entries, and the Multiboot command line.
#pragma once

#include <stdint.h>

struct multiboot_info {
  uint32_t flags, mem_lower, mem_upper, boot_device, cmdline;
};

static inline void out8(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0,%1" ::"a"(value), "Nd"(port));
}
static inline void out16(uint16_t port, uint16_t value) {
  __asm__ volatile("outw %0,%1" ::"a"(value), "Nd"(port));
}
static inline void out32(uint16_t port, uint32_t value) {
  __asm__ volatile("outl %0,%1" ::"a"(value), "Nd"(port));
}
static inline uint8_t in8(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1,%0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline uint16_t in16(uint16_t port) {
  uint16_t value;
  __asm__ volatile("inw %1,%0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline uint32_t in32(uint16_t port) {
  uint32_t value;
  __asm__ volatile("inl %1,%0" : "=a"(value) : "Nd"(port));
  return value;
}

static inline void print(const char* text) {
  for (; *text; ++text) {
    while ((in8(0x3FD) & 0x20) == 0) {
    }
    out8(0x3F8, (uint8_t)*text);
  }
}

static inline void print_hex(uint64_t value) {
  char text[17];
  for (int i = 15; i >= 0; --i, value >>= 4) text[i] = "0123456789abcdef"[value & 15];
  text[16] = 0;
  print(text);
}

// The decimal number behind "name=" in the command line, or otherwise.
static inline uint32_t option(const struct multiboot_info* info, const char* name, uint32_t otherwise) {
  if ((info->flags & 4) == 0) return otherwise;
  for (const char* at = (const char*)info->cmdline; *at; ++at) {
    const char *a = at, *b = name;
    while (*b && *a == *b) ++a, ++b;
    if (*b || *a != '=') continue;
    uint32_t value = 0;
    for (++a; *a >= '0' && *a <= '9'; ++a) value = value * 10 + (uint32_t)(*a - '0');
    return value;
  }
  return otherwise;
}

extern uint64_t idt[256];
extern char vector_entries[];
void load_idt(void);

static inline void set_up_vectors(void) {
  for (uint32_t i = 0; i < 256; ++i) {
    const uint32_t entry = (uint32_t)vector_entries + 16 * i;
    idt[i] = (uint64_t)(entry & 0xFFFF0000) << 32 | 0x8E0000000000 | 8 << 16 | (entry & 0xFFFF);
  }
  load_idt();
}
