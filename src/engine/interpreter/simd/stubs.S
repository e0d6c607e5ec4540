// The host's vector instructions in register form with fixed registers, each followed by RET, and the routines that call one
// with the guest's operands. Nothing is assembled at run time: an instruction with an immediate has one copy for each value.
// Registers: ModRM.reg = XMM1, MM1 or ECX; ModRM.rm = XMM2, MM2 or EDX; VEX.vvvv = XMM3; fourth register XMM4; implicit XMM0, RAX.
#define MODRM 0xCA

        .text
        .p2align 4
        .globl  bulkhead_simd_stubs
        .hidden bulkhead_simd_stubs
bulkhead_simd_stubs:

        .section .rodata.bulkhead_simd_offsets, "a", @progbits
        .p2align 2
        .globl  bulkhead_simd_stub_offsets
        .hidden bulkhead_simd_stub_offsets
bulkhead_simd_stub_offsets:
        .text

// Every stub takes 8 bytes; its offset goes into the table in the order of stubs.inc.
        .macro  enter
        .p2align 3, 0xCC
        .pushsection .rodata.bulkhead_simd_offsets
        .long   8000000f - bulkhead_simd_stubs
        .popsection
8000000:
        .endm

        .macro  opcode_prefix prefix, wide
        .if \prefix == 1
        .byte   0x66
        .elseif \prefix == 2
        .byte   0xF3
        .elseif \prefix == 3
        .byte   0xF2
        .endif
        .if \wide
        .byte   0x48
        .endif
        .endm

        .macro  opcode_map map
        .byte   0x0F
        .if \map == 2
        .byte   0x38
        .elseif \map == 3
        .byte   0x3A
        .endif
        .endm

        .macro  legacy prefix, map, opcode, wide
        enter
        opcode_prefix \prefix, \wide
        opcode_map \map
        .byte   \opcode, MODRM
        ret
        .endm

        .macro  legacy_immediate prefix, map, opcode, wide, count
        enter
        .set    value, 0
        .rept   \count
        .p2align 3, 0xCC
        opcode_prefix \prefix, \wide
        opcode_map \map
        .byte   \opcode, MODRM, value
        ret
        .set    value, value + 1
        .endr
        .endm

// VEX.RXB and vvvv are stored inverted.
        .macro  vex_bytes prefix, map, opcode, w, l, nds
        .byte   0xC4, 0xE0 | \map, (\w << 7) | ((15 - 3 * \nds) << 3) | (\l << 2) | \prefix, \opcode, MODRM
        .endm

        .macro  vex prefix, map, opcode, w, l, nds
        enter
        vex_bytes \prefix, \map, \opcode, \w, \l, \nds
        ret
        .endm

        .macro  vex_immediate prefix, map, opcode, w, l, nds, count
        enter
        .set    value, 0
        .rept   \count
        .p2align 3, 0xCC
        vex_bytes \prefix, \map, \opcode, \w, \l, \nds
        .byte   value
        ret
        .set    value, value + 1
        .endr
        .endm

        .macro  vex_is4 prefix, map, opcode, w, l
        enter
        vex_bytes \prefix, \map, \opcode, \w, \l, 1
        .byte   0x40
        ret
        .endm

#define SSE(k, n, p, m, o) legacy p, m, o, 0;
#define SSEW(k, n, p, m, o) legacy p, m, o, 1;
#define SSEI(k, n, p, m, o, c) legacy_immediate p, m, o, 0, c;
#define SSEWI(k, n, p, m, o, c) legacy_immediate p, m, o, 1, c;
#define MMX(k, n, p, m, o) legacy p, m, o, 0;
#define MMXI(k, n, p, m, o, c) legacy_immediate p, m, o, 0, c;
#define VEX(k, n, p, m, o, w, l, v) vex p, m, o, w, l, v;
#define VEXI(k, n, p, m, o, w, l, v, c) vex_immediate p, m, o, w, l, v, c;
#define VEX_IS4(k, n, p, m, o, w, l) vex_is4 p, m, o, w, l;
#include "engine/interpreter/simd/stubs.inc"

// void run(StubFrame* frame [rdi], const void* stub [rsi]); the layout of StubFrame is in stubs.h.
#define FRAME_XMM0 0
#define FRAME_XMM1 32
#define FRAME_XMM2 64
#define FRAME_XMM3 96
#define FRAME_XMM4 128
#define FRAME_MM1 160
#define FRAME_MM2 168
#define FRAME_RAX 176
#define FRAME_RCX 184
#define FRAME_RDX 192
#define FRAME_FLAGS 200

        .macro  start name
        .p2align 4
        .globl  \name
        .hidden \name
        .type   \name, @function
\name:
        .cfi_startproc
        push    %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        mov     %rdi, %rbx
        mov     FRAME_RAX(%rbx), %rax
        mov     FRAME_RCX(%rbx), %rcx
        mov     FRAME_RDX(%rbx), %rdx
        .endm

        .macro  call_stub
        call    *%rsi
        pushf
        .cfi_adjust_cfa_offset 8
        pop     FRAME_FLAGS(%rbx)
        .cfi_adjust_cfa_offset -8
        mov     %rax, FRAME_RAX(%rbx)
        mov     %rcx, FRAME_RCX(%rbx)
        mov     %rdx, FRAME_RDX(%rbx)
        .endm

        .macro  finish name
        pop     %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        ret
        .cfi_endproc
        .size   \name, . - \name
        .endm

        .macro  load_xmm
        movaps  FRAME_XMM0(%rbx), %xmm0
        movaps  FRAME_XMM1(%rbx), %xmm1
        movaps  FRAME_XMM2(%rbx), %xmm2
        .endm

        .macro  store_xmm
        movaps  %xmm0, FRAME_XMM0(%rbx)
        movaps  %xmm1, FRAME_XMM1(%rbx)
        movaps  %xmm2, FRAME_XMM2(%rbx)
        .endm

        .macro  load_ymm
        vmovaps FRAME_XMM0(%rbx), %ymm0
        vmovaps FRAME_XMM1(%rbx), %ymm1
        vmovaps FRAME_XMM2(%rbx), %ymm2
        vmovaps FRAME_XMM3(%rbx), %ymm3
        vmovaps FRAME_XMM4(%rbx), %ymm4
        .endm

        .macro  store_ymm
        vmovaps %ymm0, FRAME_XMM0(%rbx)
        vmovaps %ymm1, FRAME_XMM1(%rbx)
        vmovaps %ymm2, FRAME_XMM2(%rbx)
        vzeroupper
        .endm

        start   bulkhead_simd_run_sse
        load_xmm
        call_stub
        store_xmm
        finish  bulkhead_simd_run_sse

        start   bulkhead_simd_run_avx
        load_ymm
        call_stub
        store_ymm
        finish  bulkhead_simd_run_avx

        start   bulkhead_simd_run_mmx
        load_xmm
        movq    FRAME_MM1(%rbx), %mm1
        movq    FRAME_MM2(%rbx), %mm2
        call_stub
        movq    %mm1, FRAME_MM1(%rbx)
        emms
        store_xmm
        finish  bulkhead_simd_run_mmx

        .section .note.GNU-stack, "", @progbits
