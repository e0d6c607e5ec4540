// The smallest guest: says hello and ends with status 2 x 21 + 1 = 43.
#include "tiny.h"

void on_interrupt(uint32_t vector) { (void)vector; }
void on_exception(uint32_t vector) {
  print("exception ");
  print_hex(vector);
  out8(0xF4, 1);
}

void guest_main(uint32_t magic, const struct multiboot_info* info) {
  print(magic == 0x2BADB002 ? "hello" : "not multiboot");
  print(" seed ");
  print_hex(option(info, "seed", 0));
  print("\r\n");
  out8(0xF4, 21);
}
