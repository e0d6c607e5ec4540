// Where the tiny guests begin: Multiboot 1 loads the ELF and enters here in 32-bit protected mode without paging. Interrupt and
// exception entries lead to C; an exception drops the stack and goes on at the point that the guest has chosen.
    .set FLAGS, 0x00000003

    .section .multiboot, "a"
    .balign 4
    .long 0x1BADB002, FLAGS, -(0x1BADB002 + FLAGS)

    .text
    .globl _start
_start:
    cli
    mov $stack_top, %esp
    lgdt gdt_pointer
    ljmp $0x08, $1f
1:  mov $0x10, %cx
    mov %cx, %ds
    mov %cx, %es
    mov %cx, %ss
    mov %cx, %fs
    mov %cx, %gs
    push %ebx
    push %eax
    call guest_main
2:  hlt
    jmp 2b

    .globl load_idt
load_idt:
    lidt idt_pointer
    ret

// One entry a vector, 16 bytes each: push the vector and join.
    .globl vector_entries
    .balign 16
vector_entries:
    .set vector, 0
    .rept 256
    .balign 16
    push $vector
    jmp vector_common
    .set vector, vector + 1
    .endr

vector_common:
    cmpl $32, (%esp)
    jb exception
    pusha
    cld
    mov 32(%esp), %eax
    push %eax
    call on_interrupt
    add $4, %esp
    popa
    add $4, %esp
    iret
exception:
    mov (%esp), %eax
    mov $stack_top, %esp
    cld
    push %eax
    call on_exception
3:  hlt
    jmp 3b

// What application processors run when a start-up IPI with vector 8 finds it at 0x8000: real mode, port writes of whatever is in
// the registers, for ever.
    .code16
    .globl ap_start, ap_end
ap_start:
    mov %cx, %dx
    out %al, (%dx)
    in (%dx), %ax
    add $0x9E37, %cx
    add %cl, %al
    jmp ap_start
ap_end:
    .code32

    .data
    .balign 8
gdt:
    .quad 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
    .globl idt
    .balign 8
idt:
    .fill 256, 8, 0
idt_pointer:
    .word 256 * 8 - 1
    .long idt

    .bss
    .balign 16
    .skip 16384
stack_top:
