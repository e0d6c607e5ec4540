// Says that it booted and resets the machine, each time by another way.
#include "tiny.h"

void on_interrupt(uint32_t vector) { (void)vector; }
void on_exception(uint32_t vector) { (void)vector; }

void guest_main(uint32_t magic, const struct multiboot_info* info) {
  (void)magic;
  (void)info;
  print("boot\r\n");
  // The CMOS keeps a count over resets, as a battery does.
  out8(0x70, 0x40);
  const uint8_t count = in8(0x71);
  out8(0x70, 0x40);
  out8(0x71, (uint8_t)(count + 1));
  switch (count % 3) {
    case 0: out8(0x64, 0xFE); break;
    case 1:
      out8(0xCF9, 2);
      out8(0xCF9, 6);
      break;
    default: out8(0x92, 1); break;
  }
  while (1) __asm__ volatile("hlt");
}
