// Where the 64-bit guests begin: PVH loads the ELF file and enters here in 32-bit protected mode without paging. Goes to long mode on
// page tables that map the first 4 GiB one to one with 2 MiB pages; other processors come the same way from a start-up IPI.
    .set CPUS, 4
    .set STACK, 0x4000

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long _start

    .text
    .code32
    .globl _start
_start:
    cli
    mov %ebx, boot_info
    xor %ebp, %ebp
// EBP: the processor's number.
    .globl common_32
common_32:
    mov $stacks + STACK, %esp
    imul $STACK, %ebp, %eax
    add %eax, %esp
    call core_tables_32
    mov $core_pml4, %eax
    mov %eax, %cr3
    mov $0x40620, %eax             // PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
    mov %eax, %cr4
    mov $0xC0000080, %ecx
    mov $0x901, %eax               // SCE, LME, NXE
    xor %edx, %edx
    wrmsr
    mov $0x80010033, %eax          // PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $0x08, $1f
    .code64
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    mov %ebp, %edi
    mov %esp, %esp
    call guest_main
2:  hlt
    jmp 2b

// The map of the first 4 GiB. Rewritten by every processor that comes up: all write the same.
    .code32
core_tables_32:
    mov $core_pml4, %edi
    movl $core_pdpt + 7, (%edi)
    mov $core_pdpt, %edi
    mov $core_pds + 7, %eax
    mov $4, %ecx
1:  mov %eax, (%edi)
    add $0x1000, %eax
    add $8, %edi
    loop 1b
    mov $core_pds, %edi
    mov $0x83, %eax
    mov $2048, %ecx
2:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 2b
    ret

    .code64
// One entry a vector, 16 bytes each; whatever the stack holds, on_vector begins on a known one (IST 1) and never returns here.
    .globl vector_entries
    .balign 16
vector_entries:
    .set vector, 0
    .rept 256
    .balign 16
    mov $vector, %edi
    jmp vector_common
    .set vector, vector + 1
    .endr
vector_common:
    cld
    mov $1, %eax
    cpuid
    shr $24, %ebx
    and $CPUS - 1, %ebx
    mov %ebx, %esi
    imul $STACK, %ebx, %eax
    lea stacks + STACK(%eax), %esp
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    call on_vector
    ud2

// leave_nmi(): IRET, so that the next NMI is taken.
    .globl leave_nmi
leave_nmi:
    mov %rsp, %rax
    pushq $0x10
    push %rax
    pushq $2
    pushq $0x08
    pushq $1f
    iretq
1:  ret

// run_at(const uint64_t registers[16], code, flags, selectors): all registers but RSP loaded, then IRET to the code, at CPL 3 when CS
// (low 16 bits of selectors; SS above) says so. registers[4] is RSP.
    .globl run_at
run_at:
    mov %rdx, %r8
    movzwl %cx, %eax
    shr $16, %ecx
    push %rcx
    push 32(%rdi)
    push %r8
    push %rax
    push %rsi
    mov 8(%rdi), %rcx
    mov 16(%rdi), %rdx
    mov 24(%rdi), %rbx
    mov 40(%rdi), %rbp
    mov 48(%rdi), %rsi
    mov 64(%rdi), %r8
    mov 72(%rdi), %r9
    mov 80(%rdi), %r10
    mov 88(%rdi), %r11
    mov 96(%rdi), %r12
    mov 104(%rdi), %r13
    mov 112(%rdi), %r14
    mov 120(%rdi), %r15
    mov (%rdi), %rax
    mov 56(%rdi), %rdi
    iretq

// Other processors, by a start-up IPI with vector 8: real mode at 0x8000.
    .code16
    .globl ap_start, ap_end
ap_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl 0x8000 + ap_gdt_pointer - ap_start
    mov $0x11, %eax
    mov %eax, %cr0
    ljmpl $0x18, $0x8000 + ap_32 - ap_start
    .code32
ap_32:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $1, %eax
    cpuid
    shr $24, %ebx
    and $CPUS - 1, %ebx
    mov %ebx, %ebp
    mov $common_32, %eax
    jmp *%eax
    .balign 8
ap_gdt_pointer:
    .word 31
    .long boot_gdt
ap_end:

    .data
    .balign 8
boot_gdt:
    .quad 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF, 0x00CF9A000000FFFF
boot_gdt_pointer:
    .word 31
    .long boot_gdt
    .globl boot_info
boot_info:
    .long 0

    .bss
    .globl core_pml4, core_pdpt, core_pds
    .balign 4096
core_pml4:
    .skip 4096
core_pdpt:
    .skip 4096
core_pds:
    .skip 4 * 4096
stacks:
    .skip CPUS * STACK
