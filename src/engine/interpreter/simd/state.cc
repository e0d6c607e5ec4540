// FXSAVE, FXRSTOR and the XSAVE family: Intel SDM volume 1, chapters 10.5 and 13. Everything is read and checked, or
// tried for writing, before the first change. XSAVEOPT does what XSAVE does but for components in their initial
// configuration.
#include "engine/interpreter/simd/state.h"

#include <algorithm>
#include <array>

#include "engine/interpreter/simd/families.h"
#include "engine/interpreter/simd/float_control.h"
#include "engine/interpreter/simd/registers.h"
#include "engine/interpreter/x87/image.h"

namespace bulkhead::engine::simd {
namespace {

using decoder::Mnemonic;

constexpr size_t kLegacyBytes = 512, kHeaderOffset = 512, kHeaderBytes = 64, kAvxOffset = 576, kRegisterFileBytes = 256;
constexpr size_t kX87WordsBytes = 24, kMxcsrBytes = 8;
constexpr uint64_t kCompacted = uint64_t{1} << 63;
constexpr unsigned kAllRegisters = 16, kRegistersOutside64 = 8;

struct Header {
  uint64_t components = 0;  // XSTATE_BV
  uint64_t format = 0;      // XCOMP_BV
  std::array<uint64_t, 6> reserved{};
};
static_assert(sizeof(Header) == kHeaderBytes);

using Area = std::array<uint8_t, kAvxOffset + kRegisterFileBytes>;

template <typename T>
T get(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <typename T>
void put(uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

unsigned register_count(const Cpu& cpu) {
  return cpu.code64() ? kAllRegisters : kRegistersOutside64;
}

bool is_zero(const uint8_t* bytes, size_t size) {
  return std::all_of(bytes, bytes + size, [](uint8_t byte) { return byte == 0; });
}

uint64_t aligned_operand(Cpu& cpu, const Op& op, unsigned alignment, unsigned size, MemoryAccess access) {
  const uint64_t offset = memory_offset(cpu, op);
  const cpu::SegmentRegister segment = memory_segment(op);
  // The same check whatever the access: the address alone is wanted here.
  const uint64_t linear = access == MemoryAccess::kRead
                              ? linear_address<MemoryAccess::kRead>(cpu, segment, offset, size)
                              : linear_address<MemoryAccess::kWrite>(cpu, segment, offset, size);
  require_alignment(linear, alignment);
  return offset;
}

// With 64-bit operands the pointers are 64 bits wide, else 32 and a selector, which is 0.
void narrow_pointers(const Op& op, uint8_t* image) {
  if (op.instruction->has(decoder::kPrefixW)) return;
  for (const size_t offset : {x87::kCodePointerOffset, x87::kDataPointerOffset}) {
    put<uint64_t>(image + offset, get<uint32_t>(image + offset));
  }
}

// The x87 part of an image in memory, sanitised as hardware does it.
void load_x87(Cpu& cpu, const Op& op, const uint8_t* image) {
  std::array<uint8_t, kX87WordsBytes> words;
  std::memcpy(words.data(), image, words.size());
  narrow_pointers(op, words.data());
  std::memcpy(cpu.xsave.data(), words.data(), words.size());
  cpu.xsave[x87::kTagOffset + 1] = 0;
  x87::set_word_at(cpu, x87::kOpcodeOffset, x87::word_at(cpu, x87::kOpcodeOffset) & 0x7FF);
  x87::set_control_and_status(cpu, get<uint16_t>(image), get<uint16_t>(image + x87::kStatusOffset));
  x87::leave_block_if_unmasked(cpu);
  for (unsigned number = 0; number < 8; ++number) {
    std::memcpy(x87::stack_register(cpu, number), image + x87::kRegistersOffset + x87::kRegisterBytes * number, 10);
  }
}

void require_valid_mxcsr(const uint8_t* image) {
  if ((get<uint32_t>(image + kMxcsrOffset) & ~uint32_t{kMxcsrWritable}) != 0) raise(kGeneralProtection, 0);
}

// --- FXSAVE ---

void fxsave(Cpu& cpu, const Op& op) {
  if (cpu.mode.has(ModeBits::kX87Off)) raise(kDeviceNotAvailable);
  const uint64_t offset = aligned_operand(cpu, op, 16, kLegacyBytes, MemoryAccess::kWrite);
  const cpu::SegmentRegister segment = memory_segment(op);
  probe_bytes(cpu, segment, offset, kLegacyBytes, MemoryAccess::kWrite);
  std::array<uint8_t, kLegacyBytes> image;
  std::memcpy(image.data(), cpu.xsave.data(), image.size());
  narrow_pointers(op, image.data());
  put<uint32_t>(image.data() + x87::kMxcsrMaskOffset, kMxcsrWritable);
  // What lies behind the registers belongs to software.
  write_bytes(cpu, segment, offset, image.data(), static_cast<unsigned>(kXmmOffset + 16 * register_count(cpu)));
}

void fxrstor(Cpu& cpu, const Op& op) {
  if (cpu.mode.has(ModeBits::kX87Off)) raise(kDeviceNotAvailable);
  const uint64_t offset = aligned_operand(cpu, op, 16, kLegacyBytes, MemoryAccess::kRead);
  std::array<uint8_t, kLegacyBytes> image;
  read_bytes(cpu, memory_segment(op), offset, image.data(), kLegacyBytes);
  const bool with_sse = (cpu.cr4 & kCr4Osfxsr) != 0;
  if (with_sse) require_valid_mxcsr(image.data());
  load_x87(cpu, op, image.data());
  if (!with_sse) return;
  set_mxcsr(cpu, get<uint32_t>(image.data() + kMxcsrOffset));
  std::memcpy(xmm(cpu, 0), image.data() + kXmmOffset, 16 * register_count(cpu));
  leave_block_if_unmasked(cpu);
}

// --- XSAVE ---

void require_xsave(const Cpu& cpu) {
  if (!cpu.mode.has(ModeBits::kXsave)) raise(kInvalidOpcode);
  if (cpu.mode.has(ModeBits::kTaskSwitched)) raise(kDeviceNotAvailable);
}

uint64_t requested_components(const Cpu& cpu) {
  const uint64_t mask = cpu.gpr[cpu::kRdx] << 32 | static_cast<uint32_t>(cpu.gpr[cpu::kRax]);
  return mask & cpu.xcr0 & kStateAll;
}

unsigned area_bytes(uint64_t components) {
  return static_cast<unsigned>((components & kStateAvx) != 0 ? sizeof(Area) : kAvxOffset);
}

// Writes `components` and nothing else. In the compacted format AVX, the only extended component, has the same place.
void write_components(Cpu& cpu, const Op& op, uint64_t offset, uint64_t components, bool with_mxcsr) {
  const cpu::SegmentRegister segment = memory_segment(op);
  const auto write_part = [&](size_t at, const uint8_t* from, size_t size) {
    write_bytes(cpu, segment, offset + at, from, static_cast<unsigned>(size));
  };
  if ((components & kStateX87) != 0) {
    std::array<uint8_t, kX87WordsBytes> words;
    std::memcpy(words.data(), cpu.xsave.data(), words.size());
    narrow_pointers(op, words.data());
    write_part(0, words.data(), words.size());
    write_part(x87::kRegistersOffset, x87::stack_register(cpu, 0), 8 * x87::kRegisterBytes);
  }
  if (with_mxcsr) {
    std::array<uint8_t, kMxcsrBytes> words;
    put<uint32_t>(words.data(), mxcsr(cpu));
    put<uint32_t>(words.data() + 4, kMxcsrWritable);
    write_part(kMxcsrOffset, words.data(), words.size());
  }
  if ((components & kStateSse) != 0) write_part(kXmmOffset, xmm(cpu, 0), 16 * register_count(cpu));
  if ((components & kStateAvx) != 0) write_part(kAvxOffset, ymm_high(cpu, 0), 16 * register_count(cpu));
}

// kOptimised: components in their initial configuration are left out.
template <bool kOptimised>
void xsave(Cpu& cpu, const Op& op) {
  require_xsave(cpu);
  const uint64_t requested = requested_components(cpu), in_use = components_in_use(cpu);
  const uint64_t offset = aligned_operand(cpu, op, 64, area_bytes(requested), MemoryAccess::kWrite);
  const cpu::SegmentRegister segment = memory_segment(op);
  probe_bytes(cpu, segment, offset, area_bytes(requested), MemoryAccess::kWrite);
  const auto old = read<uint64_t>(cpu, segment, offset + kHeaderOffset);
  write_components(cpu, op, offset, kOptimised ? requested & in_use : requested,
                   (requested & (kStateSse | kStateAvx)) != 0);
  write<uint64_t>(cpu, segment, offset + kHeaderOffset, (old & ~requested) | (requested & in_use));
}

void xsavec(Cpu& cpu, const Op& op) {
  require_xsave(cpu);
  const uint64_t requested = requested_components(cpu), saved = requested & components_in_use(cpu);
  const uint64_t offset = aligned_operand(cpu, op, 64, area_bytes(requested), MemoryAccess::kWrite);
  const cpu::SegmentRegister segment = memory_segment(op);
  probe_bytes(cpu, segment, offset, area_bytes(requested), MemoryAccess::kWrite);
  write_components(cpu, op, offset, saved, (saved & kStateSse) != 0);
  const std::array<uint64_t, 2> header = {saved, requested | kCompacted};
  write_bytes(cpu, segment, offset + kHeaderOffset, header.data(), sizeof header);
}

// #GP(0) unless the header is one that this processor could have written.
void require_valid_header(const Cpu& cpu, const Header& header) {
  const bool reserved_used =
      std::any_of(header.reserved.begin(), header.reserved.end(), [](uint64_t word) { return word != 0; });
  bool valid;
  if ((header.format & kCompacted) == 0) {
    // The standard format asks for zeros in bytes 23:8 only.
    valid = header.format == 0 && header.reserved[0] == 0 && (header.components & ~cpu.xcr0) == 0;
  } else {
    const uint64_t present = header.format & ~kCompacted;
    valid = !reserved_used && (present & ~cpu.xcr0) == 0 && (header.components & ~present) == 0;
  }
  if (!valid) raise(kGeneralProtection, 0);
}

void xrstor(Cpu& cpu, const Op& op) {
  require_xsave(cpu);
  const uint64_t requested = requested_components(cpu);
  const uint64_t offset = aligned_operand(cpu, op, 64, area_bytes(requested), MemoryAccess::kRead);
  const cpu::SegmentRegister segment = memory_segment(op);
  Header header;
  read_bytes(cpu, segment, offset + kHeaderOffset, &header, sizeof header);
  require_valid_header(cpu, header);
  const bool compacted = (header.format & kCompacted) != 0;
  const uint64_t restored = requested & header.components;
  // The standard format loads MXCSR with either vector component, whether or not there is data for it.
  const bool with_mxcsr = compacted ? (restored & kStateSse) != 0 : (requested & (kStateSse | kStateAvx)) != 0;
  const unsigned count = register_count(cpu);
  Area area{};
  read_bytes(cpu, segment, offset, area.data(), area_bytes(restored));
  if (with_mxcsr) require_valid_mxcsr(area.data());

  const uint32_t kept_mxcsr = mxcsr(cpu);
  initialise_components(cpu, requested & ~restored, count);
  // Initialising SSE sets MXCSR in the compacted format only.
  if (!compacted) set_mxcsr(cpu, kept_mxcsr);
  if ((restored & kStateX87) != 0) load_x87(cpu, op, area.data());
  if (with_mxcsr) set_mxcsr(cpu, get<uint32_t>(area.data() + kMxcsrOffset));
  if ((restored & kStateSse) != 0) std::memcpy(xmm(cpu, 0), area.data() + kXmmOffset, 16 * count);
  if ((restored & kStateAvx) != 0) std::memcpy(ymm_high(cpu, 0), area.data() + kAvxOffset, 16 * count);
  leave_block_if_unmasked(cpu);
}

}  // namespace

uint64_t components_in_use(const Cpu& cpu) {
  const uint8_t* image = cpu.xsave.data();
  uint64_t used = 0;
  if (x87::control(cpu) != x87::kControlReset ||
      !is_zero(image + x87::kStatusOffset, kX87WordsBytes - x87::kStatusOffset) ||
      !is_zero(image + x87::kRegistersOffset, 8 * x87::kRegisterBytes)) {
    used |= kStateX87;
  }
  if (mxcsr(cpu) != kMxcsrReset || !is_zero(image + kXmmOffset, kRegisterFileBytes)) used |= kStateSse;
  if (!is_zero(image + kYmmHighOffset, kRegisterFileBytes)) used |= kStateAvx;
  return used;
}

void initialise_components(Cpu& cpu, uint64_t components, unsigned count) {
  if ((components & kStateX87) != 0) {
    x87::initialise(cpu);
    std::memset(x87::stack_register(cpu, 0), 0, 8 * x87::kRegisterBytes);
  }
  if ((components & kStateSse) != 0) {
    set_mxcsr(cpu, kMxcsrReset);
    std::memset(xmm(cpu, 0), 0, 16 * count);
  }
  if ((components & kStateAvx) != 0) std::memset(ymm_high(cpu, 0), 0, 16 * count);
}

void import_state(Cpu& cpu, const cpu::State& state) {
  cpu.xsave.fill(0);
  std::copy_n(state.xsave.begin(), sizeof(Area), cpu.xsave.begin());
  const auto present = get<uint64_t>(state.xsave.data() + kHeaderOffset);
  const uint32_t loaded_mxcsr = get<uint32_t>(state.xsave.data() + kMxcsrOffset) & kMxcsrWritable;
  // Data without its bit is taken all the same when all bits are clear: a state made by hand has no header.
  if (present != 0) initialise_components(cpu, kStateAll & ~present);
  set_mxcsr(cpu, loaded_mxcsr);
  cpu.xsave[x87::kTagOffset + 1] = 0;
  x87::set_control_and_status(cpu, x87::control(cpu), x87::status(cpu));
  put<uint32_t>(cpu.xsave.data() + x87::kMxcsrMaskOffset, kMxcsrWritable);
  for (unsigned number = 0; number < 8; ++number) std::memset(x87::stack_register(cpu, number) + 10, 0, 6);
  std::memset(cpu.xsave.data() + kHeaderOffset, 0, kHeaderBytes);
}

void export_state(const Cpu& cpu, cpu::State& state) {
  state.xsave.fill(0);
  std::copy_n(cpu.xsave.begin(), sizeof(Area), state.xsave.begin());
  std::memset(state.xsave.data() + kHeaderOffset, 0, kHeaderBytes);
  put<uint64_t>(state.xsave.data() + kHeaderOffset, components_in_use(cpu));
  // MXCSR_MASK is a property of the processor, not part of its state.
  put<uint32_t>(state.xsave.data() + x87::kMxcsrMaskOffset, 0);
}

Handler select_state(const decoder::Instruction& instruction) {
  switch (instruction.mnemonic) {
    case Mnemonic::kFxsave:
      return fxsave;
    case Mnemonic::kFxrstor:
      return fxrstor;
    case Mnemonic::kXsave:
      return xsave<false>;
    case Mnemonic::kXsaveopt:
      return xsave<true>;
    case Mnemonic::kXsavec:
      return xsavec;
    case Mnemonic::kXrstor:
      return xrstor;
    default:
      return nullptr;
  }
}

}  // namespace bulkhead::engine::simd
