// One decoded x86 instruction as a plain value, and the constant row of the opcode tables that describes its opcode.
// The interpreter and the translator read these; nothing here looks at CPU state. Terms of Intel SDM volume 2,
// chapter 2.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "cpu/state.h"

namespace bulkhead::engine::decoder {

enum class Mnemonic : uint16_t {
  kInvalid,
#define BULKHEAD_MNEMONIC(name) k##name,
#include "engine/decoder/mnemonics.inc"
#undef BULKHEAD_MNEMONIC
  kCount,
};

// "addps"; for conditional operations "jcc", "setcc", "cmovcc".
std::string_view mnemonic_name(Mnemonic mnemonic);

// What CPUID must show for the opcode to exist; names as in cpu/model.h.
// clang-format off
enum class Feature : uint8_t {
  kBase,  // in every x86-64 processor
  kFpu, kTsc, kMsr, kCx8, kSep, kCmov, kClflush, kMmx, kFxsr, kSse, kSse2, kSse3, kPclmulqdq, kMonitor, kSsse3, kFma, kCx16,
  kSse41, kSse42, kMovbe, kPopcnt, kAes, kXsave, kAvx, kF16c, kRdrand, kFsgsbase, kBmi1, kAvx2, kBmi2, kInvpcid, kRdseed,
  kAdx, kSmap, kClflushopt, kClwb, kShaNi, kRdpid, kXsaveopt, kXsavec, kXgetbv1, kXsaves, kSyscall, kRdtscp, kLm, kLahfLm,
  kAbm, kPrefetchw, kSvm, kVmx,
  kCount,
};
// clang-format on
std::string_view feature_name(Feature feature);

// Register numbers are 0 to 15 with the REX or VEX extension applied. AH, CH, DH and BH (only as byte registers, only
// without REX) are kHighByte + 0 to 3: bits 15:8 of register (number & 3).
inline constexpr uint8_t kHighByte = 16;
inline constexpr uint8_t kNoRegister = 0xFF;
inline constexpr uint8_t kRipRelative = 0xFE;  // as Instruction::base: the address of the next instruction

enum class Access : uint8_t { kNone, kRead, kWrite, kReadWrite };

// Where an explicit operand comes from. In brackets: the field of Instruction that holds its number.
enum class OperandKind : uint8_t {
  kNone,
  kGprReg,             // general register from ModRM.reg [reg]
  kGprRm,              // general register [rm] or memory
  kGprOpcode,          // general register from the opcode's low bits [rm; mod = 3]
  kGprVvvv,            // general register from VEX.vvvv [vvvv]
  kAccumulator,        // AL, AX, EAX, RAX [rm, or reg where another operand has rm; always 0]
  kCl,                 // shift count in CL
  kDx,                 // port number in DX
  kOne,                // the constant 1 of the short shifts
  kMemory,             // memory only; a register in ModRM is #UD
  kMoffs,              // memory at the absolute offset in `displacement` (no base, no index)
  kVsib,               // memory of a gather: index is a vector register
  kImmediate,          // `immediate`, sign-extended
  kUnsigned,           // `immediate`, zero-extended
  kUnsigned2,          // `immediate2`, zero-extended (ENTER's level)
  kRelative,           // branch displacement in `immediate`, from the end of the instruction
  kFarPointer,         // selector in `immediate2`, offset in `immediate` (zero-extended)
  kSegment,            // segment register [reg]
  kControl,            // control register [reg]
  kDebug,              // debug register [reg]
  kMmxReg,             // MMX register [reg]
  kMmxRm,              // MMX register [rm] or memory
  kXmmReg,             // XMM or YMM register [reg]
  kXmmRm,              // XMM or YMM register [rm] or memory
  kXmmVvvv,            // XMM or YMM register [vvvv]
  kXmmIs4,             // XMM or YMM register from the immediate's high bits [is4]
  kXmm0,               // the implicit mask operand of the SSE4.1 blends and SHA256RNDS2
  kSt0,                // top of the x87 stack
  kStRm,               // ST(rm) [rm]
  kStringSource,       // seg:[rSI]
  kStringDestination,  // ES:[rDI]
};

// How wide an operand is; operand_size_bytes() resolves it.
enum class OperandWidth : uint8_t {
  kNone,  // address only, or nothing
  kByte,
  kWord,
  kDword,
  kQword,
  kTenByte,
  kXmm,            // 16 bytes
  kYmm,            // 32 bytes
  kOperand,        // operand_size: 1, 2, 4 or 8
  kOperandMax4,    // operand_size but at most 4 (immediates)
  kDwordOrQword,   // operand_size when it is 8, else 4
  kWordOrOperand,  // memory: 2; register: operand_size
  kByteOrDword,    // memory: 1; register: 4
  kWordOrDword,    // memory: 2; register: 4
  kAddress,        // address_size
  kVector,         // vector_size: 8 (MMX), 16 or 32
  kHalfVector,
  kQuarterVector,
  kEighthVector,
  kFarPointer,      // operand_size + 2
  kBound,           // 2 x operand_size
  kDescriptor,      // 2 + (8 in 64-bit mode, else 4)
  kX87Environment,  // 14 or 28
  kX87State,        // 94 or 108
  kFxsave,          // 512
  kXsave,           // as XCR0 and the instruction's mask say
  kPair,            // 2 x operand_size (CMPXCHG8B, CMPXCHG16B)
};

struct OperandSpec {
  OperandKind kind = OperandKind::kNone;
  OperandWidth width = OperandWidth::kNone;
  Access access = Access::kNone;
};

// What a translator may do with it.
enum class InstructionClass : uint8_t {
  kCopy,        // registers only: may run on a host CPU with registers renamed
  kCopyMemory,  // the same with a ModRM or moffs memory operand (a register form may exist)
  kStack,       // pushes or pops through rSP besides
  kControl,     // changes rIP
  kString,      // memory through rSI and rDI, may repeat
  kPrivileged,  // system registers, I/O, anything the CPL or IOPL decides
  kHelper,      // the engine must carry it out itself (CPUID, RDTSC, FXSAVE, ...)
};

// Which part of the state CR0, CR4 and XCR0 can switch off: #NM and #UD are the executor's business.
enum class StateComponent : uint8_t { kGeneral, kX87, kMmx, kSse, kAvx };

// Required alignment of the memory operand; #GP(0) otherwise.
enum class Alignment : uint8_t { kNone, k16, kVectorSize, k64 };

// Masks in RFLAGS positions.
inline constexpr uint32_t kFlagCf = 1u << 0, kFlagPf = 1u << 2, kFlagAf = 1u << 4, kFlagZf = 1u << 6, kFlagSf = 1u << 7,
                          kFlagTf = 1u << 8, kFlagIf = 1u << 9, kFlagDf = 1u << 10, kFlagOf = 1u << 11,
                          kFlagIopl = 3u << 12, kFlagNt = 1u << 14, kFlagRf = 1u << 16, kFlagVm = 1u << 17,
                          kFlagAc = 1u << 18, kFlagVif = 1u << 19, kFlagVip = 1u << 20, kFlagId = 1u << 21;
inline constexpr uint32_t kArithmeticFlags = kFlagCf | kFlagPf | kFlagAf | kFlagZf | kFlagSf | kFlagOf;

struct OpcodeInfo {
  Mnemonic mnemonic = Mnemonic::kInvalid;
  InstructionClass instruction_class = InstructionClass::kCopy;
  StateComponent state = StateComponent::kGeneral;
  Feature feature = Feature::kBase;
  Alignment alignment = Alignment::kNone;
  uint8_t operand_count = 0;
  std::array<OperandSpec, 4> operands{};
  OperandWidth memory_width = OperandWidth::kNone;  // of the ModRM or moffs operand when it is memory
  Access memory_access = Access::kNone;             // kNone: address only (LEA, INVLPG, prefetches)
  uint32_t flags_read = 0;
  uint32_t flags_written = 0;    // defined result
  uint32_t flags_undefined = 0;  // left undefined by the manual
  uint16_t gpr_read = 0;         // implicit general registers, bit n = register n
  uint16_t gpr_written = 0;
  bool may_keep_flags = false;  // shifts by a count that may be 0, repeated CMPS and SCAS: nothing written then
  bool lockable = false;        // with a memory destination
};

// Bits of Instruction::prefixes.
enum Prefix : uint16_t {
  kPrefixLock = 1 << 0,
  kPrefixRep = 1 << 1,    // F3 that is not part of the opcode
  kPrefixRepne = 1 << 2,  // F2 that is not part of the opcode
  kPrefixOperandSize = 1 << 3,
  kPrefixAddressSize = 1 << 4,
  kPrefixSegment = 1 << 5,  // a segment override that has effect
  kPrefixRex = 1 << 6,
  kPrefixW = 1 << 7,    // REX.W or VEX.W
  kPrefixVex = 1 << 8,  // `opcode_map` says which; no other prefix flag but address size and segment goes with it
};

enum class OpcodeMap : uint8_t { kOneByte, k0F, k0F38, k0F3A };

struct Instruction {
  const OpcodeInfo* info = nullptr;
  int64_t immediate = 0;     // extended as the operand kind says
  int64_t displacement = 0;  // sign-extended; zero-extended for moffs
  Mnemonic mnemonic = Mnemonic::kInvalid;
  uint16_t immediate2 = 0;  // ENTER's level, a far pointer's selector
  uint16_t memory_size =
      0;  // bytes accessed through ModRM or moffs, of one element for a gather; 0: no memory or address only
  uint16_t prefixes = 0;
  uint8_t length = 0;
  OpcodeMap opcode_map = OpcodeMap::kOneByte;
  uint8_t opcode = 0;          // its last byte
  uint8_t operand_size = 0;    // of the general-register operation in bytes: 1, 2, 4, 8
  uint8_t address_size = 0;    // 2, 4, 8
  uint8_t vector_size = 0;     // 8 (MMX), 16, 32 or 0
  uint8_t segment = cpu::kDs;  // cpu::SegmentRegister of the ModRM, moffs or rSI operand, overrides applied

  // mod = 3: rm is a register. Without ModRM: as the operand kinds say, mod = 3 unless moffs.
  uint8_t mod = 3;
  uint8_t reg = 0;  // group opcodes: the register extension bits are not applied (0 to 7)
  uint8_t rm = 0;
  // VEX: vvvv. Legacy SSE and MMX: the destination again (reg, or rm for shifts by immediate), so that vvvv is always
  // the first source of a two-source operation.
  uint8_t vvvv = 0;
  uint8_t is4 = 0;

  uint8_t base = kNoRegister;   // or kRipRelative
  uint8_t index = kNoRegister;  // general register, or vector register of a gather
  uint8_t scale_log2 = 0;

  // Offsets of the parts inside the instruction; 0: absent (the opcode's is that of its last byte).
  uint8_t opcode_offset = 0;
  uint8_t modrm_offset = 0;
  uint8_t displacement_offset = 0;
  uint8_t displacement_length = 0;
  uint8_t immediate_offset = 0;
  uint8_t immediate_length = 0;  // both immediates together

  [[nodiscard]] bool has(Prefix prefix) const { return (prefixes & prefix) != 0; }
  [[nodiscard]] bool has_memory() const { return mod != 3; }
  [[nodiscard]] bool is_vex() const { return has(kPrefixVex); }
  // The condition of Jcc, SETcc, CMOVcc.
  [[nodiscard]] uint8_t condition() const { return opcode & 15; }
};
static_assert(sizeof(Instruction) <= 64);

// A width resolved for this instruction; 0 for kNone and for the XSAVE area, whose size only the executor knows.
uint16_t width_in_bytes(const Instruction& instruction, OperandWidth width);
// The width of operand `index` of info->operands in bytes; 0 where there is none.
uint16_t operand_size_bytes(const Instruction& instruction, unsigned index);
// The register number of operand `index`, or kNoRegister when it is memory or not a register.
uint8_t operand_register(const Instruction& instruction, unsigned index);

}  // namespace bulkhead::engine::decoder
