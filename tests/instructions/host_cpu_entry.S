// Runs bytes on the host's CPU with every register that user mode can see loaded from a Registers value (registers.h), and
// stores them back when the bytes jump to one of the exits. Single-threaded: it keeps what it needs in static storage, since no
// register is its own between entry and exit.

        .set    kRflags, 128
        .set    kRip, 136
        .set    kXsave, 192

        .bss
        .balign 8
saved_stack:    .skip 8
saved_state:    .skip 8
saved_code:     .skip 8
saved_rsp:      .skip 8
saved_rdi:      .skip 8
exit_taken:     .skip 8

        .section .rodata
        .balign 4
default_mxcsr:  .long 0x1F80

        .text
// void host_cpu_enter(Registers*, const void* code)
        .globl  host_cpu_enter
        .type   host_cpu_enter, @function
host_cpu_enter:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, saved_stack(%rip)
        mov     %rdi, saved_state(%rip)
        mov     %rsi, saved_code(%rip)
        mov     $7, %eax
        xor     %edx, %edx
        xrstor64 kXsave(%rdi)
        push    kRflags(%rdi)
        popfq
        mov     0(%rdi), %rax
        mov     8(%rdi), %rcx
        mov     16(%rdi), %rdx
        mov     24(%rdi), %rbx
        mov     32(%rdi), %rsp
        mov     40(%rdi), %rbp
        mov     48(%rdi), %rsi
        mov     64(%rdi), %r8
        mov     72(%rdi), %r9
        mov     80(%rdi), %r10
        mov     88(%rdi), %r11
        mov     96(%rdi), %r12
        mov     104(%rdi), %r13
        mov     112(%rdi), %r14
        mov     120(%rdi), %r15
        mov     56(%rdi), %rdi
        jmp     *saved_code(%rip)
        .size   host_cpu_enter, .-host_cpu_enter

// Where the bytes go on: behind the instruction, at its branch target, or (sent by the signal handler) after a fault.
// Nothing here may change a flag before PUSHF.
        .globl  host_cpu_exit_next
host_cpu_exit_next:
        movq    $0, exit_taken(%rip)
        jmp     store
        .globl  host_cpu_exit_taken
host_cpu_exit_taken:
        movq    $1, exit_taken(%rip)
        jmp     store
        .globl  host_cpu_exit_fault
host_cpu_exit_fault:
        movq    $2, exit_taken(%rip)
store:
        mov     %rsp, saved_rsp(%rip)
        mov     %rdi, saved_rdi(%rip)
        mov     saved_stack(%rip), %rsp
        mov     saved_state(%rip), %rdi
        pushfq
        pop     kRflags(%rdi)
        mov     %rax, 0(%rdi)
        mov     %rcx, 8(%rdi)
        mov     %rdx, 16(%rdi)
        mov     %rbx, 24(%rdi)
        mov     %rbp, 40(%rdi)
        mov     %rsi, 48(%rdi)
        mov     %r8, 64(%rdi)
        mov     %r9, 72(%rdi)
        mov     %r10, 80(%rdi)
        mov     %r11, 88(%rdi)
        mov     %r12, 96(%rdi)
        mov     %r13, 104(%rdi)
        mov     %r14, 112(%rdi)
        mov     %r15, 120(%rdi)
        mov     saved_rsp(%rip), %rax
        mov     %rax, 32(%rdi)
        mov     saved_rdi(%rip), %rax
        mov     %rax, 56(%rdi)
        mov     exit_taken(%rip), %rax
        mov     %rax, kRip(%rdi)
        push    $2
        popfq
        mov     $7, %eax
        xor     %edx, %edx
        xsave64 kXsave(%rdi)
        // What follows is C++ again: no pending x87 exception, empty stack, default rounding.
        fninit
        ldmxcsr default_mxcsr(%rip)
        vzeroupper
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
        .section .note.GNU-stack,"",@progbits
