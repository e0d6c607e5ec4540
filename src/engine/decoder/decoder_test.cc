#include "engine/decoder/decoder.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

#include "engine/decoder/encodings.h"

namespace bulkhead::engine::decoder {
namespace {

using enum DecodeMode;

DecodeResult decode_bytes(std::initializer_list<uint8_t> list, DecodeMode mode = kLong64,
                          const DecodeOptions& options = {}) {
  return decode(std::vector<uint8_t>(list), mode, options);
}

Instruction valid(std::initializer_list<uint8_t> list, DecodeMode mode = kLong64) {
  const DecodeResult result = decode_bytes(list, mode);
  EXPECT_EQ(result.status, DecodeStatus::kOk);
  EXPECT_EQ(result.instruction.length, list.size());
  return result.instruction;
}

void expect_invalid(std::initializer_list<uint8_t> list, DecodeMode mode = kLong64) {
  EXPECT_EQ(decode_bytes(list, mode).status, DecodeStatus::kInvalid);
}

TEST(Decoder, KnowsEveryNameAndFeature) {
  EXPECT_EQ(mnemonic_name(Mnemonic::kCmpxchg16b), "cmpxchg16b");
  EXPECT_EQ(mnemonic_name(Mnemonic::kVfmsubadd231pd), "vfmsubadd231pd");
  EXPECT_EQ(feature_name(Feature::kSse42), "sse4_2");
  EXPECT_EQ(feature_name(Feature::kVmx), "vmx");
  for (unsigned i = 1; i < static_cast<unsigned>(Mnemonic::kCount); ++i)
    EXPECT_FALSE(mnemonic_name(static_cast<Mnemonic>(i)).empty());
}

TEST(Decoder, ReadsMemoryOperandsInAllTheirForms) {
  // mov rax, [r12 + r13*8 - 0x80]
  Instruction mov = valid({0x4B, 0x8B, 0x44, 0xEC, 0x80});
  EXPECT_EQ(mov.mnemonic, Mnemonic::kMov);
  EXPECT_EQ(mov.base, 12);
  EXPECT_EQ(mov.index, 13);
  EXPECT_EQ(mov.scale_log2, 3);
  EXPECT_EQ(mov.displacement, -0x80);
  EXPECT_EQ(mov.operand_size, 8);
  EXPECT_EQ(mov.memory_size, 8);
  EXPECT_EQ(mov.segment, cpu::kDs);
  EXPECT_EQ(mov.opcode_offset, 1);
  EXPECT_EQ(mov.modrm_offset, 2);
  EXPECT_EQ(mov.displacement_offset, 4);
  // cmp dword [rip + 0x10], 5
  const Instruction compare = valid({0x83, 0x3D, 0x10, 0, 0, 0, 0x05});
  EXPECT_EQ(compare.base, kRipRelative);
  EXPECT_EQ(compare.immediate, 5);
  EXPECT_EQ(compare.immediate_offset, 6);
  // The same bytes are absolute outside 64-bit mode.
  EXPECT_EQ(valid({0x83, 0x3D, 0x10, 0, 0, 0, 0x05}, kProtected32).base, kNoRegister);
  // 16-bit: mov ax, [bp + si + 0x1234] uses SS.
  mov = valid({0x8B, 0x82, 0x34, 0x12}, kReal16);
  EXPECT_EQ(mov.base, cpu::kRbp);
  EXPECT_EQ(mov.index, cpu::kRsi);
  EXPECT_EQ(mov.segment, cpu::kSs);
  EXPECT_EQ(mov.operand_size, 2);
  EXPECT_EQ(valid({0x64, 0x8B, 0x82, 0x34, 0x12}, kReal16).segment, cpu::kFs);
  // mov eax, [moffs64]: no base, no index.
  mov = valid({0xA1, 1, 2, 3, 4, 5, 6, 7, 0x88});
  EXPECT_EQ(static_cast<uint64_t>(mov.displacement), 0x8807060504030201u);
  EXPECT_TRUE(mov.has_memory());
  EXPECT_EQ(mov.memory_size, 4);
}

TEST(Decoder, MarksHighByteRegistersOnlyWithoutRex) {
  const Instruction plain = valid({0x88, 0xE5});  // mov ch, ah
  EXPECT_EQ(plain.reg, kHighByte + 0);
  EXPECT_EQ(plain.rm, kHighByte + 1);
  const Instruction rex = valid({0x40, 0x88, 0xE5});  // mov bpl, spl
  EXPECT_EQ(rex.reg, 4);
  EXPECT_EQ(rex.rm, 5);
  EXPECT_EQ(valid({0xB7, 0x12}).rm, kHighByte + 3);        // mov bh, 0x12
  EXPECT_EQ(valid({0x0F, 0xB6, 0xC4}).rm, kHighByte + 0);  // movzx eax, ah
  EXPECT_EQ(valid({0x0F, 0xB6, 0xC4}).reg, 0);
}

TEST(Decoder, SizesOperandsByModeAndPrefix) {
  EXPECT_EQ(valid({0x50}).operand_size, 8);  // push defaults to 64
  EXPECT_EQ(valid({0x66, 0x50}).operand_size, 2);
  EXPECT_EQ(valid({0x50}, kProtected32).operand_size, 4);
  EXPECT_EQ(valid({0x66, 0x50}, kProtected16).operand_size, 4);
  EXPECT_EQ(valid({0x66, 0xE8, 0, 0, 0, 0}).operand_size, 8);  // near branches ignore 66 in 64-bit mode
  EXPECT_EQ(valid({0x66, 0xE8, 0, 0}, kProtected32).operand_size, 2);
  EXPECT_EQ(valid({0x0F, 0x20, 0xC0}).operand_size, 8);  // mov rax, cr0
  EXPECT_EQ(valid({0x48, 0xED}).operand_size, 4);        // in eax, dx: no 64-bit ports
  EXPECT_EQ(valid({0x67, 0xE3, 0x00}).address_size, 4);  // jecxz
  EXPECT_EQ(valid({0x0F, 0x01, 0x10}).memory_size, 10);  // lgdt
  EXPECT_EQ(valid({0x0F, 0x01, 0x10}, kProtected32).memory_size, 6);
}

TEST(Decoder, ExtendsImmediatesAsTheOperationWants) {
  EXPECT_EQ(valid({0x83, 0xC0, 0xFF}).immediate, -1);      // add eax, -1
  EXPECT_EQ(valid({0xE4, 0xFF}).immediate, 0xFF);          // in al, 0xFF
  EXPECT_EQ(valid({0xC2, 0xFF, 0xFF}).immediate, 0xFFFF);  // ret 0xFFFF
  EXPECT_EQ(valid({0x48, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8}).immediate, 0x0807060504030201);
  const Instruction enter = valid({0xC8, 0x10, 0x80, 0x03});
  EXPECT_EQ(enter.immediate, 0x8010);
  EXPECT_EQ(enter.immediate2, 3);
  const Instruction far = valid({0xEA, 0x78, 0x56, 0x34, 0xF2, 0x08, 0x00}, kProtected32);
  EXPECT_EQ(far.immediate, 0xF2345678);
  EXPECT_EQ(far.immediate2, 8);
  EXPECT_EQ(valid({0xEB, 0xFE}).immediate, -2);
}

TEST(Decoder, AllowsLockOnlyOnMemoryDestinationsThatMayHaveIt) {
  EXPECT_TRUE(valid({0xF0, 0x01, 0x08}).has(kPrefixLock));
  EXPECT_TRUE(valid({0xF0, 0x0F, 0xC7, 0x08}).has(kPrefixLock));
  expect_invalid({0xF0, 0x01, 0xC8});        // add eax, ecx
  expect_invalid({0xF0, 0x03, 0x08});        // add ecx, [rax]
  expect_invalid({0xF0, 0x39, 0x08});        // cmp
  expect_invalid({0xF0, 0x8B, 0x00});        // mov
  expect_invalid({0xF0, 0x0F, 0xA3, 0x08});  // bt
  expect_invalid({0xF0, 0x90});
}

TEST(Decoder, RefusesWhatDoesNotExist) {
  expect_invalid({0x06});  // push es in 64-bit mode
  expect_invalid({0x0F, 0x04});
  expect_invalid({0x8E, 0xC8});              // mov cs, ax
  expect_invalid({0x8C, 0xF0});              // segment register 6
  expect_invalid({0x0F, 0x20, 0xC8});        // cr1
  expect_invalid({0x44, 0x0F, 0x23, 0xC0});  // dr8
  expect_invalid({0x8D, 0xC0});              // lea of a register
  expect_invalid({0xFF, 0xF8});
  expect_invalid({0x0F, 0x0F, 0xC0, 0xB4});              // 3DNow!
  expect_invalid({0x62, 0xF1, 0x7C, 0x48, 0x58, 0xC0});  // EVEX
  expect_invalid({0x8F, 0xE9, 0x78, 0x01, 0xC8});        // XOP
  expect_invalid({0x0F, 0x00, 0xC0}, kReal16);           // sldt
  expect_invalid({0x0F, 0x01, 0xF8}, kProtected32);      // swapgs
}

TEST(Decoder, ChecksVexAsTheProcessorDoes) {
  const Instruction add = valid({0xC5, 0xEC, 0x58, 0xC1});  // vaddps ymm0, ymm2, ymm1
  EXPECT_EQ(add.mnemonic, Mnemonic::kAddps);
  EXPECT_TRUE(add.is_vex());
  EXPECT_EQ(add.vvvv, 2);
  EXPECT_EQ(add.vector_size, 32);
  expect_invalid({0x66, 0xC5, 0xEC, 0x58, 0xC1});
  expect_invalid({0xF3, 0xC5, 0xEC, 0x58, 0xC1});
  expect_invalid({0xF0, 0xC5, 0xEC, 0x58, 0xC1});
  expect_invalid({0x48, 0xC5, 0xEC, 0x58, 0xC1});
  expect_invalid({0xC5, 0xE8, 0x28, 0xC1});                    // vmovaps: vvvv unused but not 1111
  expect_invalid({0xC5, 0xFD, 0x6E, 0xC0});                    // vmovd with L
  expect_invalid({0xC4, 0xE2, 0xF9, 0x0C, 0xC0});              // vpermilps with W
  expect_invalid({0xC4, 0xE0, 0x78, 0x58, 0xC1});              // map 0
  EXPECT_EQ(valid({0xC5, 0xFE, 0x58, 0xC1}).vector_size, 16);  // vaddss ignores L
  // lds eax, [edx] outside 64-bit mode; with a register ModRM it is VEX, but not in real mode.
  EXPECT_EQ(valid({0xC5, 0x02}, kProtected32).mnemonic, Mnemonic::kLds);
  EXPECT_EQ(valid({0xC5, 0xF8, 0x58, 0xC1}, kProtected32).mnemonic, Mnemonic::kAddps);
  expect_invalid({0xC5, 0xF8, 0x58, 0xC1}, kReal16);
}

TEST(Decoder, WantsThreeDifferentRegistersForAGather) {
  const Instruction gather = valid({0xC4, 0xE2, 0x75, 0x92, 0x14, 0x80});  // vgatherdps ymm2, [rax + ymm0*4], ymm1
  EXPECT_EQ(gather.index, 0);
  EXPECT_EQ(gather.base, 0);
  EXPECT_EQ(gather.memory_size, 4);
  EXPECT_EQ(valid({0xC4, 0xE2, 0x75, 0x92, 0x14, 0xA0}).index, 4);  // ymm4, where a general index would be none
  expect_invalid({0xC4, 0xE2, 0x6D, 0x92, 0x14, 0x80});             // mask = destination
  expect_invalid({0xC4, 0xE2, 0x75, 0x92, 0x04, 0x80});             // index = destination
  expect_invalid({0xC4, 0xE2, 0x75, 0x92, 0x10});                   // no SIB
}

TEST(Decoder, RepeatsTheDestinationAsFirstSourceOfLegacyForms) {
  EXPECT_EQ(valid({0x0F, 0x58, 0xD1}).vvvv, 2);              // addps xmm2, xmm1
  EXPECT_EQ(valid({0x66, 0x0F, 0x71, 0xD3, 0x04}).vvvv, 3);  // psrlw xmm3, 4
  EXPECT_EQ(valid({0x0F, 0x58, 0xD1}).info->alignment, Alignment::k16);
  EXPECT_EQ(valid({0x0F, 0x10, 0x10}).info->alignment, Alignment::kNone);  // movups
}

TEST(Decoder, TakesAMandatoryPrefixForPartOfTheOpcode) {
  const Instruction count = valid({0x66, 0xF3, 0x0F, 0xB8, 0xC1});  // popcnt ax, cx
  EXPECT_EQ(count.mnemonic, Mnemonic::kPopcnt);
  EXPECT_EQ(count.operand_size, 2);
  EXPECT_FALSE(count.has(kPrefixRep));
  EXPECT_TRUE(valid({0xF3, 0xA4}).has(kPrefixRep));
  EXPECT_EQ(valid({0xF3, 0x90}).mnemonic, Mnemonic::kPause);
  EXPECT_EQ(valid({0x41, 0x90}).mnemonic, Mnemonic::kXchg);
  EXPECT_EQ(valid({0xF3, 0x0F, 0x1E, 0xFA}).mnemonic, Mnemonic::kNop);          // endbr64
  EXPECT_EQ(valid({0xF2, 0xF3, 0x0F, 0x58, 0xC1}).mnemonic, Mnemonic::kAddss);  // the later one wins
}

TEST(Decoder, FallsBackOrRefusesWithoutTheFeature) {
  DecodeOptions old;
  for (const Feature feature : {Feature::kBmi1, Feature::kAbm, Feature::kPopcnt, Feature::kAvx2})
    old.set(feature, false);
  EXPECT_EQ(decode_bytes({0xF3, 0x0F, 0xBC, 0xC1}).instruction.mnemonic, Mnemonic::kTzcnt);
  EXPECT_EQ(decode_bytes({0xF3, 0x0F, 0xBC, 0xC1}, kLong64, old).instruction.mnemonic, Mnemonic::kBsf);
  EXPECT_EQ(decode_bytes({0xF3, 0x0F, 0xBD, 0xC1}, kLong64, old).instruction.mnemonic, Mnemonic::kBsr);
  EXPECT_EQ(decode_bytes({0xF3, 0x0F, 0xB8, 0xC1}, kLong64, old).status, DecodeStatus::kInvalid);
  EXPECT_EQ(decode_bytes({0xC5, 0xED, 0xFE, 0xC1}, kLong64, old).status, DecodeStatus::kInvalid);  // vpaddd ymm
  EXPECT_EQ(decode_bytes({0xC5, 0xE9, 0xFE, 0xC1}, kLong64, old).status, DecodeStatus::kOk);       // vpaddd xmm
}

TEST(Decoder, TakesItsFeaturesFromACpuModel) {
  cpu::FeatureSet features;
  for (const char* name : {"fpu", "sse", "sse2", "sse4_1"}) features.add(name);
  const DecodeOptions options = options_for(features);
  EXPECT_TRUE(options.has(Feature::kBase));
  EXPECT_TRUE(options.has(Feature::kSse41));
  EXPECT_FALSE(options.has(Feature::kSse42));
  EXPECT_FALSE(options.has(Feature::kAvx));
}

TEST(Decoder, StopsAtFifteenBytes) {
  std::vector<uint8_t> bytes(14, 0x66);
  bytes.push_back(0x90);
  EXPECT_EQ(decode(bytes, kLong64, {}).status, DecodeStatus::kOk);
  bytes.insert(bytes.begin(), 0x66);
  EXPECT_EQ(decode(bytes, kLong64, {}).status, DecodeStatus::kTooLong);
}

TEST(Decoder, ReadsNothingBehindAGatherWithoutSib) {
  // On the heap, so that AddressSanitizer sees a read past the end.
  EXPECT_EQ(decode(std::vector<uint8_t>{0xC4, 0xE2, 0x21, 0x92, 0x21}, kLong64, {}).status, DecodeStatus::kInvalid);
}

TEST(Decoder, AsksForMoreBytesUntilTheInstructionIsWhole) {
  EncodingGenerator generator(11);
  for (int i = 0; i < 200'000; ++i) {
    const Encoding encoding = generator.next();
    const std::span<const uint8_t> bytes(encoding.bytes);
    const DecodeResult whole = decode(bytes, encoding.mode, {});
    if (whole.status != DecodeStatus::kOk) continue;
    const size_t length = whole.instruction.length;
    for (size_t part = 0; part < length; ++part)
      ASSERT_EQ(decode(bytes.first(part), encoding.mode, {}).status, DecodeStatus::kNeedsMoreBytes);
    ASSERT_EQ(decode(bytes.first(length), encoding.mode, {}).status, DecodeStatus::kOk);
  }
}

}  // namespace
}  // namespace bulkhead::engine::decoder
