// Appends x86-64 machine code to a buffer: the few forms that translated code is made of, besides instructions that are
// copied from the guest with other registers. Intel SDM 2, chapter 2.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>

namespace bulkhead::engine::jit {

// Host registers by their number in an instruction.
enum Host : uint8_t {
  kRax,
  kRcx,
  kRdx,
  kRbx,
  kRsp,
  kRbp,
  kRsi,
  kRdi,
  kR8,
  kR9,
  kR10,
  kR11,
  kR12,
  kR13,
  kR14,
  kR15,
  kNoHost = 0xFF,
};

// As an immediate or a displacement, which the processor extends by its sign.
[[nodiscard]] constexpr bool fits_32_bits(int64_t value) {
  return value == static_cast<int32_t>(value);
}

// A base register, a displacement, and perhaps an index, which is not RSP.
struct Memory {
  Host base;
  int32_t displacement = 0;
  Host index = kNoHost;
  [[nodiscard]] uint8_t index_number() const { return index == kNoHost ? uint8_t{0} : uint8_t{index}; }
};

class Assembler {
 public:
  static constexpr size_t kCapacity = 48 << 10;
  static constexpr size_t kReserve = 32 << 10;  // for what stands behind a block's end

  [[nodiscard]] std::span<const uint8_t> code() const { return {bytes_.data(), size_}; }
  [[nodiscard]] size_t size() const { return size_; }
  void clear() {
    size_ = 0;
    overflows_ = false;
  }
  // Room for a guest instruction and all that goes with it.
  [[nodiscard]] bool has_room() const { return size_ + kReserve < kCapacity; }

  // The code is of no use: some of it did not fit.
  [[nodiscard]] bool overflows() const { return overflows_; }

  void byte(uint8_t value) { this->value(value); }
  template <typename T>
  void value(T value) {
    if (size_ + sizeof value > kCapacity) {
      overflows_ = true;
      return;
    }
    std::memcpy(bytes_.data() + size_, &value, sizeof value);
    size_ += sizeof value;
  }
  void bytes(std::span<const uint8_t> all) {
    for (const uint8_t one : all) byte(one);
  }

  // REX where it is needed. force: byte registers 4 to 7 are SPL to DIL.
  void rex(bool wide, uint8_t reg, uint8_t index, uint8_t base, bool force = false) {
    const auto prefix =
        static_cast<uint8_t>(0x40 | (wide ? 8 : 0) | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1));
    if (prefix != 0x40 || force) byte(prefix);
  }
  void modrm_register(uint8_t reg, Host rm) { byte(static_cast<uint8_t>(0xC0 | (reg & 7) << 3 | (rm & 7))); }
  void modrm_memory(uint8_t reg, Memory memory) {
    const bool small = memory.displacement >= -128 && memory.displacement <= 127;
    const bool none = memory.displacement == 0 && (memory.base & 7) != 5;
    const bool has_sib = memory.index != kNoHost || (memory.base & 7) == 4;  // RSP and R12 need one
    const int mode = none ? 0 : small ? 0x40 : 0x80;
    byte(static_cast<uint8_t>(mode | (reg & 7) << 3 | (has_sib ? 4 : memory.base & 7)));
    if (has_sib) byte(static_cast<uint8_t>((memory.index == kNoHost ? 4 : memory.index & 7) << 3 | (memory.base & 7)));
    if (none) return;
    if (small)
      byte(static_cast<uint8_t>(memory.displacement));
    else
      value(memory.displacement);
  }

  // One-byte opcodes on 64-bit (or, with wide = false, 32-bit) operands.
  void op(uint8_t opcode, uint8_t reg, Memory memory, bool wide = true) {
    rex(wide, reg, memory.index_number(), memory.base);
    byte(opcode);
    modrm_memory(reg, memory);
  }
  void op(uint8_t opcode, uint8_t reg, Host rm, bool wide = true) {
    rex(wide, reg, 0, rm);
    byte(opcode);
    modrm_register(reg, rm);
  }
  void load(Host to, Memory from, bool wide = true) { op(0x8B, to, from, wide); }
  // movzx
  void load_word(Host to, Memory from) {
    rex(false, to, from.index_number(), from.base);
    byte(0x0F);
    byte(0xB7);
    modrm_memory(to, from);
  }
  void store(Memory to, Host from, bool wide = true) { op(0x89, from, to, wide); }
  void move(Host to, Host from) { op(0x89, from, to); }
  void move(Host to, uint64_t immediate) {
    if (immediate <= UINT32_MAX) {
      rex(false, 0, 0, to);
      byte(static_cast<uint8_t>(0xB8 | (to & 7)));
      value(static_cast<uint32_t>(immediate));
    } else {
      rex(true, 0, 0, to);
      byte(static_cast<uint8_t>(0xB8 | (to & 7)));
      value(immediate);
    }
  }
  // to = base + displacement; no flag changes.
  void lea(Host to, Memory from) {
    if (from.displacement != 0 || from.index != kNoHost) return op(0x8D, to, from);
    if (to != from.base) move(to, from.base);
  }
  // to = base + (index << scale) + displacement; index is not RSP.
  void lea(Host to, Host base, Host index, uint8_t scale_log2, int32_t displacement, bool wide = true) {
    rex(wide, to, index, base);
    byte(0x8D);
    const bool small = displacement >= -128 && displacement <= 127;
    byte(static_cast<uint8_t>((small ? 0x44 : 0x84) | (to & 7) << 3));
    byte(static_cast<uint8_t>(scale_log2 << 6 | (index & 7) << 3 | (base & 7)));
    if (small)
      byte(static_cast<uint8_t>(displacement));
    else
      value(displacement);
  }
  // to = (index << scale) + displacement.
  void lea_scaled(Host to, Host index, uint8_t scale_log2, int32_t displacement) {
    rex(true, to, index, 0);
    byte(0x8D);
    byte(static_cast<uint8_t>(0x04 | (to & 7) << 3));
    byte(static_cast<uint8_t>(scale_log2 << 6 | (index & 7) << 3 | 5));
    value(displacement);
  }
  // add (digit 0), or (1), and (4), sub (5), cmp (7) with an immediate.
  void immediate(uint8_t digit, Host to, int32_t operand, bool wide = true) {
    with_immediate(digit, to, operand, wide);
  }
  void immediate(uint8_t digit, Memory to, int32_t operand, bool wide = true) {
    with_immediate(digit, to, operand, wide);
  }
  void shift_left(Host to, uint8_t count) {
    op(0xC1, 4, to);
    byte(count);
  }
  void shift_right(Host to, uint8_t count) {
    op(0xC1, 5, to);
    byte(count);
  }
  void shift_right_signed(Host to, uint8_t count) {
    op(0xC1, 7, to);
    byte(count);
  }

  // RORX: to = from rotated; no flag changes. Only where the host has BMI2.
  void rotate_right(Host to, Host from, uint8_t count) {
    byte(0xC4);
    byte(static_cast<uint8_t>((to < 8 ? 0x80 : 0) | 0x40 | (from < 8 ? 0x20 : 0) | 3));
    byte(0xFB);  // W = 1, no vvvv, F2
    byte(0xF0);
    modrm_register(to, from);
    byte(count);
  }

  // PEXT: to = the bits of `from` that the mask has, side by side; no flag changes.
  void extract_bits(Host to, Host from, Memory mask) {
    byte(0xC4);
    byte(static_cast<uint8_t>((to < 8 ? 0x80 : 0) | 0x40 | (mask.base < 8 ? 0x20 : 0) | 2));
    byte(static_cast<uint8_t>(0x80 | (~from & 15) << 3 | 2));  // W = 1, F3
    byte(0xF5);
    modrm_memory(to, mask);
  }
  // JRCXZ over a jump to be filled in: it is taken when RCX is not 0; no flag changes.
  size_t jump_if_rcx() {
    constexpr uint8_t kJumpLength = 5;
    byte(0xE3);
    byte(kJumpLength);
    return jump();
  }

  // Jumps with a 32-bit distance to be filled in; the result is the distance's place.
  size_t jump() {
    byte(0xE9);
    return hole();
  }
  size_t jump_if(uint8_t condition) {
    byte(0x0F);
    byte(static_cast<uint8_t>(0x80 | condition));
    return hole();
  }
  size_t call() {
    byte(0xE8);
    return hole();
  }
  void bind(size_t place, size_t target) { set(place, static_cast<int64_t>(target) - static_cast<int64_t>(place + 4)); }
  void bind_here(size_t place) { bind(place, size_); }
  void set(size_t place, int64_t distance) {
    const auto value = static_cast<int32_t>(distance);
    std::memcpy(bytes_.data() + place, &value, sizeof value);
  }

 private:
  template <typename To>
  void with_immediate(uint8_t digit, To to, int32_t operand, bool wide) {
    const bool is_small = operand >= -128 && operand <= 127;
    op(is_small ? 0x83 : 0x81, digit, to, wide);
    if (is_small)
      byte(static_cast<uint8_t>(operand));
    else
      value(operand);
  }
  size_t hole() {
    value(int32_t{0});
    return size_ - 4;
  }

  std::array<uint8_t, kCapacity> bytes_;
  size_t size_ = 0;
  bool overflows_ = false;
};

// Conditions of Jcc.
inline constexpr uint8_t kIfCarry = 2, kIfNotCarry = 3, kIfZero = 4, kIfNotZero = 5, kIfNotAbove = 6, kIfAbove = 7;

}  // namespace bulkhead::engine::jit
