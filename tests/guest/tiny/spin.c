// Never looks at the power button.
#include "tiny.h"

void on_interrupt(uint32_t vector) { (void)vector; }
void on_exception(uint32_t vector) { (void)vector; }

void guest_main(uint32_t magic, const struct multiboot_info* info) {
  (void)magic;
  (void)info;
  print("spinning\r\n");
  while (1) {
  }
}
