// Every x87 instruction of the host: register forms D8 C0 ... DF FF and memory forms D8 /0 ... DF /7 with the operand at
// (%rdx), each in four bytes with RET; and the routine that runs one on the guest's state.
        .text
        .p2align 4
        .globl  bulkhead_x87_register_stubs
        .hidden bulkhead_x87_register_stubs
bulkhead_x87_register_stubs:
        .set    index, 0
        .rept   8 * 64
        .byte   0xD8 + index / 64, 0xC0 + (index & 63), 0xC3, 0xCC
        .set    index, index + 1
        .endr

        .globl  bulkhead_x87_memory_stubs
        .hidden bulkhead_x87_memory_stubs
bulkhead_x87_memory_stubs:
        .set    index, 0
        .rept   8 * 8
        .byte   0xD8 + index / 8, ((index & 7) << 3) | 2, 0xC3, 0xCC
        .set    index, index + 1
        .endr

// uint64_t bulkhead_x87_run(void* image [rdi], const void* stub [rsi], void* operand [rdx], uint64_t flags [rcx])
// Loads the FXSAVE image, runs the stub with the arithmetic flags given, saves the image, gives the flags behind it. Leaves the
// host an empty x87 stack with the ABI's control word, and its own MXCSR. The image must have no exception pending.
        .p2align 4
        .globl  bulkhead_x87_run
        .hidden bulkhead_x87_run
        .type   bulkhead_x87_run, @function
bulkhead_x87_run:
        .cfi_startproc
        sub     $8, %rsp
        .cfi_adjust_cfa_offset 8
        stmxcsr 4(%rsp)
        fxrstor64 (%rdi)
        push    %rcx
        .cfi_adjust_cfa_offset 8
        popf
        .cfi_adjust_cfa_offset -8
        call    *%rsi
        pushf
        .cfi_adjust_cfa_offset 8
        pop     %rax
        .cfi_adjust_cfa_offset -8
        fxsave64 (%rdi)
        fninit
        ldmxcsr 4(%rsp)
        add     $8, %rsp
        .cfi_adjust_cfa_offset -8
        ret
        .cfi_endproc
        .size   bulkhead_x87_run, . - bulkhead_x87_run

        .section .note.GNU-stack, "", @progbits
