#include "vmm/gdb/registers.h"

#include <array>

#include <fmt/format.h>

namespace bulkhead::vmm::gdb {
namespace {

using Source = RegisterInfo::Source;

constexpr uint64_t kEferLma = 1 << 10;
constexpr const char* kCore = "org.gnu.gdb.i386.core";
constexpr const char* kSse = "org.gnu.gdb.i386.sse";
constexpr const char* kSegments = "org.gnu.gdb.i386.segments";
constexpr const char* kSystem = "org.bulkhead.system";

// Where the legacy area of XSAVE keeps what gdb asks for (SDM 1, table 10-2).
constexpr size_t kFcw = 0, kFsw = 2, kFtw = 4, kFop = 6, kFip = 8, kFcs = 12, kFdp = 16, kFds = 20, kMxcsr = 24;
constexpr size_t kSt0 = 32, kXmm0 = 160, kXstateBv = 512;

// gdb's fctrl, fstat, ftag, fiseg, fioff, foseg, fooff, fop.
struct FpuRegister {
  const char* name;
  size_t offset;
  size_t size;
};
constexpr std::array<FpuRegister, 8> kFpu = {{{"fctrl", kFcw, 2},
                                              {"fstat", kFsw, 2},
                                              {"ftag", kFtw, 1},
                                              {"fiseg", kFcs, 2},
                                              {"fioff", kFip, 4},
                                              {"foseg", kFds, 2},
                                              {"fooff", kFdp, 4},
                                              {"fop", kFop, 2}}};
constexpr uint8_t kFtag = 2;

constexpr const char* kTypes = R"(
  <flags id="i386_eflags" size="4">
    <field name="CF" start="0" end="0"/><field name="" start="1" end="1"/><field name="PF" start="2" end="2"/>
    <field name="AF" start="4" end="4"/><field name="ZF" start="6" end="6"/><field name="SF" start="7" end="7"/>
    <field name="TF" start="8" end="8"/><field name="IF" start="9" end="9"/><field name="DF" start="10" end="10"/>
    <field name="OF" start="11" end="11"/><field name="NT" start="14" end="14"/><field name="RF" start="16" end="16"/>
    <field name="VM" start="17" end="17"/><field name="AC" start="18" end="18"/><field name="VIF" start="19" end="19"/>
    <field name="VIP" start="20" end="20"/><field name="ID" start="21" end="21"/>
  </flags>)";
constexpr const char* kVectorTypes = R"(
  <vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>
  <vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>
  <vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>
  <union id="vec128">
    <field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/>
    <field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>
    <field name="uint128" type="uint128"/>
  </union>)";

std::vector<RegisterInfo> make_table(Architecture architecture) {
  const bool is_64 = architecture == Architecture::kX86_64;
  const auto word = static_cast<uint8_t>(is_64 ? 8 : 4);
  const char* const integer = is_64 ? "int64" : "int32";
  std::vector<RegisterInfo> table;
  const auto add = [&table](std::string name, uint8_t size, const char* type, const char* feature, Source source,
                            size_t index) {
    table.push_back({std::move(name), size, type, feature, source, static_cast<uint8_t>(index)});
  };
  // gdb orders the first eight differently for the two.
  constexpr std::array<cpu::Register, 8> kOrder64 = {cpu::kRax, cpu::kRbx, cpu::kRcx, cpu::kRdx,
                                                     cpu::kRsi, cpu::kRdi, cpu::kRbp, cpu::kRsp};
  constexpr std::array<const char*, 8> kNames = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
  for (uint8_t i = 0; i < 8; ++i) {
    const uint8_t number = is_64 ? static_cast<uint8_t>(kOrder64[i]) : i;
    const bool pointer = number == cpu::kRsp || number == cpu::kRbp;
    add(std::string(is_64 ? "r" : "e") + kNames[number], word, pointer ? "data_ptr" : integer, kCore, Source::kGpr,
        number);
  }
  for (uint8_t i = 8; is_64 && i < 16; ++i) add(fmt::format("r{}", i), 8, integer, kCore, Source::kGpr, i);
  add(is_64 ? "rip" : "eip", word, "code_ptr", kCore, Source::kRip, 0);
  add("eflags", 4, "i386_eflags", kCore, Source::kFlags, 0);
  constexpr std::array<std::pair<const char*, cpu::SegmentRegister>, 6> kSegmentOrder = {
      {{"cs", cpu::kCs}, {"ss", cpu::kSs}, {"ds", cpu::kDs}, {"es", cpu::kEs}, {"fs", cpu::kFs}, {"gs", cpu::kGs}}};
  for (const auto& [name, segment] : kSegmentOrder) add(name, 4, "int32", kCore, Source::kSegment, segment);
  for (uint8_t i = 0; i < 8; ++i) add(fmt::format("st{}", i), 10, "i387_ext", kCore, Source::kSt, i);
  for (uint8_t i = 0; i < kFpu.size(); ++i) add(kFpu[i].name, 4, "int", kCore, Source::kFpu, i);
  for (uint8_t i = 0; i < (is_64 ? 16 : 8); ++i) add(fmt::format("xmm{}", i), 16, "vec128", kSse, Source::kXmm, i);
  add("mxcsr", 4, "int32", kSse, Source::kMxcsr, 0);
  if (is_64) {
    add("fs_base", 8, "int64", kSegments, Source::kSegmentBase, cpu::kFs);
    add("gs_base", 8, "int64", kSegments, Source::kSegmentBase, cpu::kGs);
  }
  for (const uint8_t number : {0, 2, 3, 4, 8}) {
    if (number == 8 && !is_64) continue;
    add(fmt::format("cr{}", number), word, integer, kSystem, Source::kControl, number);
  }
  add("efer", word, integer, kSystem, Source::kEfer, 0);
  return table;
}

uint64_t* control_register(cpu::State& state, uint8_t number) {
  switch (number) {
    case 0:
      return &state.cr0;
    case 2:
      return &state.cr2;
    case 3:
      return &state.cr3;
    case 4:
      return &state.cr4;
    default:
      return &state.cr8;
  }
}

// The tag word has two bits a register, XSAVE one: 3 is empty, all else counts as valid (SDM 1, 8.1.7).
uint64_t full_tag(uint8_t abridged) {
  uint64_t tag = 0;
  for (unsigned i = 0; i < 8; ++i) {
    if ((abridged >> i & 1) == 0) tag |= 3ull << (2 * i);
  }
  return tag;
}
uint8_t abridged_tag(uint64_t tag) {
  unsigned abridged = 0;
  for (unsigned i = 0; i < 8; ++i) abridged |= static_cast<unsigned>((tag >> (2 * i) & 3) != 3) << i;
  return static_cast<uint8_t>(abridged);
}

// The integer registers; those of 10 and 16 bytes are copied.
uint64_t read_integer(const RegisterInfo& info, const cpu::State& state) {
  switch (info.source) {
    case Source::kGpr:
      return state.gpr[info.index];
    case Source::kRip:
      return state.rip;
    case Source::kFlags:
      return state.rflags;
    case Source::kSegment:
      return state.segments[info.index].selector;
    case Source::kSegmentBase:
      return state.segments[info.index].base;
    case Source::kControl:
      return *control_register(const_cast<cpu::State&>(state), info.index);
    case Source::kEfer:
      return state.efer;
    case Source::kMxcsr:
      return load<uint32_t>(&state.xsave[kMxcsr]);
    case Source::kFpu:
      if (info.index == kFtag) return full_tag(state.xsave[kFtw]);
      return load_little(ByteSpan(state.xsave).subspan(kFpu[info.index].offset, kFpu[info.index].size));
    case Source::kSt:
    case Source::kXmm:
      break;
  }
  return 0;
}

size_t area_offset(const RegisterInfo& info) {
  return (info.source == Source::kSt ? kSt0 : kXmm0) + 16u * info.index;
}
bool is_wide(const RegisterInfo& info) {
  return info.source == Source::kSt || info.source == Source::kXmm;
}

}  // namespace

Architecture architecture_of(const cpu::State& state) {
  return (state.efer & kEferLma) != 0 ? Architecture::kX86_64 : Architecture::kI386;
}

std::span<const RegisterInfo> registers_of(Architecture architecture) {
  static const std::vector<RegisterInfo> i386 = make_table(Architecture::kI386);
  static const std::vector<RegisterInfo> x86_64 = make_table(Architecture::kX86_64);
  return architecture == Architecture::kI386 ? i386 : x86_64;
}

std::string target_xml(Architecture architecture) {
  std::string xml = fmt::format(
      "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n"
      "  <architecture>{}</architecture>\n",
      architecture == Architecture::kX86_64 ? "i386:x86-64" : "i386");
  std::string_view feature;
  for (const RegisterInfo& info : registers_of(architecture)) {
    if (feature != info.feature) {
      if (!feature.empty()) xml += "  </feature>\n";
      feature = info.feature;
      xml += fmt::format("  <feature name=\"{}\">", feature);
      if (feature == kCore) xml += kTypes;
      if (feature == kSse) xml += kVectorTypes;
      xml += '\n';
    }
    xml += fmt::format("    <reg name=\"{}\" bitsize=\"{}\" type=\"{}\"/>\n", info.name, info.size * 8, info.type);
  }
  return xml + "  </feature>\n</target>\n";
}

std::vector<uint8_t> read_register(const RegisterInfo& info, const cpu::State& state) {
  std::vector<uint8_t> bytes(info.size);
  if (is_wide(info)) {
    std::memcpy(bytes.data(), &state.xsave[area_offset(info)], bytes.size());
  } else {
    store_little(bytes, read_integer(info, state));
  }
  return bytes;
}

void write_register(const RegisterInfo& info, ByteSpan bytes, cpu::State& state) {
  const uint64_t value = load_little(bytes);
  switch (info.source) {
    case Source::kGpr:
      state.gpr[info.index] = value;
      break;
    case Source::kRip:
      state.rip = value;
      break;
    // Bit 1 is always set (SDM 1, 3.4.3).
    case Source::kFlags:
      state.rflags = (value & 0x3F'7FD5) | 2;
      break;
    // A selector alone would contradict the cached descriptor; the guest's own code loads segments.
    case Source::kSegment:
      break;
    case Source::kSegmentBase:
      state.segments[info.index].base = value;
      break;
    case Source::kControl:
      *control_register(state, info.index) = value;
      break;
    case Source::kEfer:
      state.efer = value;
      break;
    case Source::kMxcsr:
      store(&state.xsave[kMxcsr], static_cast<uint32_t>(value));
      break;
    case Source::kFpu: {
      const uint64_t stored = info.index == kFtag ? abridged_tag(value) : value;
      store_little(MutableByteSpan(state.xsave).subspan(kFpu[info.index].offset, kFpu[info.index].size), stored);
      state.xsave[kXstateBv] |= 1;
      break;
    }
    case Source::kSt:
    case Source::kXmm:
      std::memcpy(&state.xsave[area_offset(info)], bytes.data(), info.size);
      state.xsave[kXstateBv] |= info.source == Source::kSt ? 1 : 2;
      break;
  }
}

}  // namespace bulkhead::vmm::gdb
