// The decoder proper: prefixes, opcode, ModRM, SIB, displacement, choice of the table entry, immediates, in the order
// the bytes stand. It reads no byte before it knows that it belongs to the instruction, so that a fetch never touches a
// page that the processor would not.
#include "engine/decoder/decoder.h"

#include <algorithm>

#include "engine/decoder/tables.h"

namespace bulkhead::engine::decoder {
namespace {

using tables::Entry;
using tables::Field;
using tables::Immediates;
using tables::Table;
using tables::VectorLength;

enum class PrefixByte : uint8_t { kNone, kSegment, kOperandSize, kAddressSize, kLock, kRepne, kRep, kRex };

consteval std::array<PrefixByte, 256> make_prefix_bytes() {
  std::array<PrefixByte, 256> bytes{};
  for (const size_t segment : {0x26u, 0x2Eu, 0x36u, 0x3Eu, 0x64u, 0x65u}) bytes[segment] = PrefixByte::kSegment;
  for (size_t rex = 0x40; rex < 0x50; ++rex) bytes[rex] = PrefixByte::kRex;
  bytes[0x66] = PrefixByte::kOperandSize;
  bytes[0x67] = PrefixByte::kAddressSize;
  bytes[0xF0] = PrefixByte::kLock;
  bytes[0xF2] = PrefixByte::kRepne;
  bytes[0xF3] = PrefixByte::kRep;
  return bytes;
}
constexpr std::array<PrefixByte, 256> kPrefixBytes = make_prefix_bytes();

class Decoding {
 public:
  Decoding(std::span<const uint8_t> bytes, DecodeMode mode, const DecodeOptions& options, Instruction& out)
      : bytes_(bytes.data()),
        end_(static_cast<uint8_t>(std::min(bytes.size(), kMaxInstructionLength))),
        complete_(bytes.size() >= kMaxInstructionLength),
        mode_(mode),
        is_64_(mode == DecodeMode::kLong64),
        options_(options),
        out_(out) {}

  DecodeStatus run();

 private:
  bool next(uint8_t& byte) {
    if (position_ >= end_) [[unlikely]]
      return false;
    byte = bytes_[position_++];
    return true;
  }
  // A little-endian value of 1, 2, 4 or 8 bytes.
  bool take(unsigned length, uint64_t& value) {
    if (position_ + length > end_) [[unlikely]]
      return false;
    value = 0;
    for (unsigned i = 0; i < length; ++i) value |= static_cast<uint64_t>(bytes_[position_ + i]) << (8 * i);
    position_ = static_cast<uint8_t>(position_ + length);
    return true;
  }
  bool take_signed(unsigned length, int64_t& value) {
    uint64_t raw = 0;
    if (!take(length, raw)) return false;
    const unsigned unused = 64 - 8 * length;
    value = static_cast<int64_t>(raw << unused) >> unused;
    return true;
  }
  [[nodiscard]] DecodeStatus ran_out() const {
    return complete_ ? DecodeStatus::kTooLong : DecodeStatus::kNeedsMoreBytes;
  }

  bool prefixes();
  bool opcode();
  bool vex(uint8_t first);
  bool modrm();
  bool memory_16();
  bool memory_32_64();
  [[nodiscard]] const Entry* choose(const tables::Opcode& opcode) const;
  void operand_size(const Entry& entry);
  bool immediates(const Entry& entry);
  void registers(const Entry& entry);
  [[nodiscard]] bool is_legal(const Entry& entry) const;
  [[nodiscard]] uint8_t register_field(Field field, uint8_t low, uint8_t extension) const;

  const uint8_t* bytes_;
  uint8_t position_ = 0;
  const uint8_t end_;
  const bool complete_;
  const DecodeMode mode_;
  const bool is_64_;
  const DecodeOptions& options_;
  Instruction& out_;

  Table table_ = Table::kOneByte;
  uint8_t pp_ = 0;  // the prefix that selects the entry: 0 none, 1 66, 2 F3, 3 F2
  bool has_66_ = false;
  bool has_67_ = false;
  bool w_ = false;
  uint8_t r_ = 0, x_ = 0, b_ = 0;  // register extensions, 0 or 8
  uint8_t vvvv_ = 0;
  bool vex_l_ = false;
  uint8_t modrm_ = 0;
  uint8_t sib_index_ = 0;
  uint8_t sib_scale_ = 0;
  bool has_sib_ = false;
  uint8_t override_ = kNoRegister;
  uint8_t default_segment_ = cpu::kDs;
};

// Later prefixes of a kind win. REX counts only directly before the opcode; in 64-bit mode the overrides of CS, DS, ES
// and SS are ignored.
bool Decoding::prefixes() {
  uint8_t rex = 0;
  while (true) {
    if (position_ >= end_) [[unlikely]]
      return false;
    const uint8_t byte = bytes_[position_];
    const PrefixByte kind = kPrefixBytes[byte];
    if (kind == PrefixByte::kNone || (kind == PrefixByte::kRex && !is_64_)) [[likely]]
      break;
    ++position_;
    if (kind == PrefixByte::kRex) {
      rex = byte;
      continue;
    }
    rex = 0;
    switch (kind) {
      case PrefixByte::kSegment: {
        const auto segment = static_cast<uint8_t>(byte >= 0x64 ? byte - 0x60 : (byte >> 3) & 3);
        if (is_64_ && segment < cpu::kFs) break;
        override_ = segment;
        out_.prefixes |= kPrefixSegment;
        break;
      }
      case PrefixByte::kOperandSize:
        has_66_ = true;
        break;
      case PrefixByte::kAddressSize:
        has_67_ = true;
        break;
      case PrefixByte::kLock:
        out_.prefixes |= kPrefixLock;
        break;
      case PrefixByte::kRepne:
        out_.prefixes = static_cast<uint16_t>((out_.prefixes & ~kPrefixRep) | kPrefixRepne);
        break;
      default:
        out_.prefixes = static_cast<uint16_t>((out_.prefixes & ~kPrefixRepne) | kPrefixRep);
        break;
    }
  }
  if (rex != 0) {
    out_.prefixes |= kPrefixRex;
    w_ = (rex & 8) != 0;
    r_ = static_cast<uint8_t>((rex & 4) << 1);
    x_ = static_cast<uint8_t>((rex & 2) << 2);
    b_ = static_cast<uint8_t>((rex & 1) << 3);
  }
  pp_ = out_.has(kPrefixRep) ? 2 : out_.has(kPrefixRepne) ? 3 : has_66_ ? 1 : 0;
  return true;
}

bool Decoding::vex(uint8_t first) {
  const bool is_forbidden = has_66_ || (out_.prefixes & (kPrefixRep | kPrefixRepne | kPrefixLock | kPrefixRex)) != 0;
  uint8_t byte = 0;
  if (!next(byte)) return false;
  r_ = (byte & 0x80) != 0 ? 0 : 8;
  x_ = b_ = 0;
  w_ = false;
  unsigned map = 1;
  if (first == 0xC4) {
    x_ = (byte & 0x40) != 0 ? 0 : 8;
    b_ = (byte & 0x20) != 0 ? 0 : 8;
    map = byte & 0x1F;
    if (!next(byte)) return false;
    w_ = (byte & 0x80) != 0;
  }
  // Outside 64-bit mode there are eight registers, whatever the extension bits say.
  if (!is_64_) r_ = x_ = b_ = 0;
  vvvv_ = static_cast<uint8_t>((~byte >> 3) & 15);
  vex_l_ = (byte & 4) != 0;
  // VEX.pp counts 66, F3, F2 like pp_ does.
  pp_ = byte & 3;
  out_.prefixes = static_cast<uint16_t>((out_.prefixes & kPrefixSegment) | kPrefixVex);
  // These prefixes make it #UD, whatever follows.
  switch (is_forbidden ? 0 : map) {
    case 1:
      table_ = Table::kVex0F;
      out_.opcode_map = OpcodeMap::k0F;
      break;
    case 2:
      table_ = Table::kVex0F38;
      out_.opcode_map = OpcodeMap::k0F38;
      break;
    case 3:
      table_ = Table::kVex0F3A;
      out_.opcode_map = OpcodeMap::k0F3A;
      break;
    default:
      table_ = Table::kCount;
      return true;
  }
  return next(out_.opcode);
}

bool Decoding::opcode() {
  uint8_t byte = 0;
  if (!next(byte)) return false;
  if (byte == 0xC4 || byte == 0xC5) {
    // Outside 64-bit mode these are LES and LDS, unless the next byte would be a ModRM that names a register.
    if (position_ >= end_) return false;
    if (is_64_ || (mode_ != DecodeMode::kReal16 && (bytes_[position_] & 0xC0) == 0xC0)) {
      if (!vex(byte)) return false;
      out_.opcode_offset = static_cast<uint8_t>(position_ - 1);
      return true;
    }
  }
  if (byte == 0x0F) {
    table_ = Table::k0F;
    out_.opcode_map = OpcodeMap::k0F;
    if (!next(byte)) return false;
    if (byte == 0x38 || byte == 0x3A) {
      table_ = byte == 0x38 ? Table::k0F38 : Table::k0F3A;
      out_.opcode_map = byte == 0x38 ? OpcodeMap::k0F38 : OpcodeMap::k0F3A;
      if (!next(byte)) return false;
    }
  }
  out_.opcode = byte;
  out_.opcode_offset = static_cast<uint8_t>(position_ - 1);
  return true;
}

bool Decoding::memory_16() {
  constexpr std::array<uint8_t, 8> kBases = {cpu::kRbx, cpu::kRbx, cpu::kRbp, cpu::kRbp,
                                             cpu::kRsi, cpu::kRdi, cpu::kRbp, cpu::kRbx};
  constexpr std::array<uint8_t, 4> kIndices = {cpu::kRsi, cpu::kRdi, cpu::kRsi, cpu::kRdi};
  const uint8_t mod = modrm_ >> 6, rm = modrm_ & 7;
  unsigned length = mod;  // mod 1: 1 byte, mod 2: 2 bytes
  if (mod == 0 && rm == 6) {
    length = 2;
  } else {
    out_.base = kBases[rm];
    if (rm < 4) out_.index = kIndices[rm];
    if (out_.base == cpu::kRbp) default_segment_ = cpu::kSs;
  }
  if (length == 0) return true;
  out_.displacement_offset = position_;
  out_.displacement_length = static_cast<uint8_t>(length);
  return take_signed(length, out_.displacement);
}

bool Decoding::memory_32_64() {
  const uint8_t mod = modrm_ >> 6, rm = modrm_ & 7;
  unsigned length = mod == 1 ? 1 : mod == 2 ? 4 : 0;
  if (rm == 4) {
    uint8_t sib = 0;
    if (!next(sib)) return false;
    has_sib_ = true;
    sib_scale_ = sib >> 6;
    sib_index_ = static_cast<uint8_t>(((sib >> 3) & 7) | x_);
    if (sib_index_ != cpu::kRsp) {
      out_.index = sib_index_;
      out_.scale_log2 = sib_scale_;
    }
    const uint8_t base = sib & 7;
    if (base == 5 && mod == 0)
      length = 4;
    else
      out_.base = static_cast<uint8_t>(base | b_);
  } else if (rm == 5 && mod == 0) {
    length = 4;
    if (is_64_) out_.base = kRipRelative;
  } else {
    out_.base = static_cast<uint8_t>(rm | b_);
  }
  if (out_.base == cpu::kRsp || out_.base == cpu::kRbp) default_segment_ = cpu::kSs;
  if (length == 0) return true;
  out_.displacement_offset = position_;
  out_.displacement_length = static_cast<uint8_t>(length);
  return take_signed(length, out_.displacement);
}

bool Decoding::modrm() {
  out_.modrm_offset = position_;
  if (!next(modrm_)) return false;
  out_.mod = modrm_ >> 6;
  return true;
}

const Entry* Decoding::choose(const tables::Opcode& opcode) const {
  const unsigned group_index = (modrm_ >= 0xC0 ? 8u : 0u) + ((modrm_ >> 3) & 7u);
  const uint8_t mod_bit = out_.mod == 3 ? 2 : 1;
  const uint8_t mode_bit = is_64_ ? tables::kLongMode : tables::kLegacyModes;
  const uint8_t prefix_bit = static_cast<uint8_t>(1u << pp_);
  for (const uint16_t index : tables::candidates(opcode, group_index)) {
    const Entry& entry = tables::entry(index);
    if ((entry.prefix & prefix_bit) == 0 || (entry.modes & mode_bit) == 0) continue;
    if (opcode.has_modrm && !opcode.mod_ignored && (entry.mod & mod_bit) == 0) continue;
    if (entry.rm >= 0 && entry.rm != (modrm_ & 7)) continue;
    if (entry.w >= 0) {
      const bool w = w_ && (is_64_ || (entry.attributes & tables::kWIgnoredOutside64) == 0);
      if (entry.w != static_cast<int8_t>(w)) continue;
    }
    if (out_.is_vex() &&
        ((entry.length == VectorLength::k128 && vex_l_) || (entry.length == VectorLength::k256 && !vex_l_)))
      continue;
    if ((entry.attributes & tables::kNoRexB) != 0 && b_ != 0) continue;
    if (!options_.has(entry.feature)) continue;
    return &entry;
  }
  return nullptr;
}

void Decoding::operand_size(const Entry& entry) {
  const uint16_t attributes = entry.attributes;
  // A 66 that selects the entry does not change the size.
  const bool small = has_66_ && entry.prefix != tables::k66;
  const bool default_16 = mode_ == DecodeMode::kReal16 || mode_ == DecodeMode::kProtected16;
  uint8_t size = 0;
  if ((attributes & tables::kByteOperand) != 0)
    size = 1;
  else if ((attributes & tables::kNativeSize) != 0)
    size = is_64_ ? 8 : 4;
  else if ((attributes & tables::kDwordOrW) != 0)
    size = is_64_ && w_ ? 8 : 4;
  else if (!is_64_)
    size = default_16 != small ? 2 : 4;
  else if (w_ && (attributes & tables::kMax4) != 0)
    size = 4;
  else if (w_ || (attributes & tables::kForce64) != 0)
    size = 8;
  else if (small)
    size = 2;
  else
    size = (attributes & tables::kDefault64) != 0 ? 8 : 4;
  out_.operand_size = size;
  if (small) out_.prefixes |= kPrefixOperandSize;
}

bool Decoding::immediates(const Entry& entry) {
  if (entry.immediates == Immediates::kNone) return true;
  const uint8_t start = position_;
  const unsigned at_most_4 = std::min<unsigned>(out_.operand_size, 4);
  uint64_t raw = 0, second = 0;
  bool taken = true;
  switch (entry.immediates) {
    case Immediates::kNone:
      break;
    case Immediates::kUnsigned8:
      taken = take(1, raw);
      out_.immediate = static_cast<int64_t>(raw);
      break;
    case Immediates::kSigned8:
      taken = take_signed(1, out_.immediate);
      break;
    case Immediates::kUnsigned16:
      taken = take(2, raw);
      out_.immediate = static_cast<int64_t>(raw);
      break;
    case Immediates::kSignedMax32:
    case Immediates::kRelative:
      taken = take_signed(at_most_4, out_.immediate);
      break;
    case Immediates::kFull:
      taken = take_signed(out_.operand_size, out_.immediate);
      break;
    case Immediates::kFarPointer:
      taken = take(at_most_4, raw) && take(2, second);
      out_.immediate = static_cast<int64_t>(raw);
      out_.immediate2 = static_cast<uint16_t>(second);
      break;
    case Immediates::kEnter:
      taken = take(2, raw) && take(1, second);
      out_.immediate = static_cast<int64_t>(raw);
      out_.immediate2 = static_cast<uint16_t>(second);
      break;
    case Immediates::kRegister:
      taken = take(1, raw);
      out_.immediate = static_cast<int64_t>(raw);
      out_.is4 = static_cast<uint8_t>((raw >> 4) & (is_64_ ? 15 : 7));
      break;
    case Immediates::kMoffs:
      taken = take(out_.address_size, raw);
      out_.displacement = static_cast<int64_t>(raw);
      out_.displacement_offset = start;
      out_.displacement_length = out_.address_size;
      out_.mod = 0;
      return taken;
  }
  out_.immediate_offset = start;
  out_.immediate_length = static_cast<uint8_t>(position_ - start);
  return taken;
}

uint8_t Decoding::register_field(Field field, uint8_t low, uint8_t extension) const {
  switch (field) {
    case Field::kRaw:
    case Field::kSegment:
      return low;
    case Field::kByte:
      if (low >= 4 && (out_.prefixes & (kPrefixRex | kPrefixVex)) == 0)
        return static_cast<uint8_t>(kHighByte + low - 4);
      return static_cast<uint8_t>(low | extension);
    default:
      return static_cast<uint8_t>(low | extension);
  }
}

void Decoding::registers(const Entry& entry) {
  if (out_.modrm_offset != 0) {
    out_.reg = register_field(entry.reg_field, (modrm_ >> 3) & 7, r_);
    out_.rm = out_.mod == 3 ? register_field(entry.rm_field, modrm_ & 7, b_) : static_cast<uint8_t>(modrm_ & 7);
  } else if (entry.rm_field != Field::kRaw) {
    out_.rm = register_field(entry.rm_field, out_.opcode & 7, b_);
  } else if (entry.reg_field == Field::kSegment) {
    out_.reg = (out_.opcode >> 3) & 7;
  }
  if (out_.is_vex())
    out_.vvvv = is_64_ ? vvvv_ : vvvv_ & 7;
  else
    out_.vvvv = entry.destination_is_rm ? out_.rm : out_.reg;
  if ((entry.attributes & tables::kGather) != 0) {
    out_.index = is_64_ ? sib_index_ : sib_index_ & 7;
    out_.scale_log2 = sib_scale_;
  }
  out_.vector_size = entry.vector_size;
  if (out_.is_vex() && vex_l_ && entry.length != VectorLength::kIgnored)
    out_.vector_size = static_cast<uint8_t>(entry.vector_size * 2);
}

// What makes an encoding #UD although an entry matches.
bool Decoding::is_legal(const Entry& entry) const {
  if (out_.has(kPrefixLock) && !(entry.info->lockable && out_.mod != 3)) return false;
  if ((entry.attributes & tables::kProtectedOnly) != 0 && mode_ == DecodeMode::kReal16) return false;
  if (out_.is_vex() && vvvv_ != 0 && (entry.attributes & tables::kUsesVvvv) == 0) return false;
  if ((entry.attributes & tables::kGather) != 0) {
    if (!has_sib_ || out_.index == out_.reg || out_.index == out_.vvvv || out_.reg == out_.vvvv) return false;
  }
  switch (entry.reg_field) {
    case Field::kSegment:
      return out_.reg < cpu::kSegmentCount &&
             !(out_.reg == cpu::kCs && entry.info->mnemonic == Mnemonic::kMovToSegment);
    case Field::kControl:
      return out_.reg == 0 || (out_.reg >= 2 && out_.reg <= 4) || out_.reg == 8;
    case Field::kDebug:
      return out_.reg < 8;
    default:
      return true;
  }
}

DecodeStatus Decoding::run() {
  if (!prefixes() || !opcode()) return ran_out();
  if (table_ == Table::kCount) return DecodeStatus::kInvalid;
  const tables::Opcode& opcode = tables::find_opcode(table_, out_.opcode);
  if (!opcode.exists) return DecodeStatus::kInvalid;

  const bool default_16 = mode_ == DecodeMode::kReal16 || mode_ == DecodeMode::kProtected16;
  out_.address_size = is_64_ ? (has_67_ ? 4 : 8) : default_16 == has_67_ ? 4 : 2;
  if (has_67_) out_.prefixes |= kPrefixAddressSize;
  if (w_) out_.prefixes |= kPrefixW;

  if (opcode.has_modrm) {
    if (!modrm()) return ran_out();
    if (opcode.mod_ignored)
      out_.mod = 3;
    else if (out_.mod != 3 && !(out_.address_size == 2 ? memory_16() : memory_32_64()))
      return ran_out();
  }
  const Entry* entry = choose(opcode);
  if (entry == nullptr) return DecodeStatus::kInvalid;
  out_.info = entry->info;
  out_.mnemonic = entry->info->mnemonic;
  operand_size(*entry);
  if (!immediates(*entry)) return ran_out();
  registers(*entry);
  // A mandatory prefix is part of the opcode.
  if ((entry->prefix & (tables::kNp | tables::k66)) == 0)
    out_.prefixes = static_cast<uint16_t>(out_.prefixes & ~(kPrefixRep | kPrefixRepne));
  out_.segment = override_ != kNoRegister ? override_ : default_segment_;
  out_.length = position_;
  if (!is_legal(*entry)) return DecodeStatus::kInvalid;
  if (out_.has_memory()) out_.memory_size = width_in_bytes(out_, entry->info->memory_width);
  return DecodeStatus::kOk;
}

}  // namespace

DecodeStatus decode(std::span<const uint8_t> bytes, DecodeMode mode, const DecodeOptions& options, Instruction& out) {
  out = Instruction{};
  return Decoding(bytes, mode, options, out).run();
}

DecodeResult decode(std::span<const uint8_t> bytes, DecodeMode mode, const DecodeOptions& options) {
  DecodeResult result;
  result.status = Decoding(bytes, mode, options, result.instruction).run();
  return result;
}

}  // namespace bulkhead::engine::decoder
