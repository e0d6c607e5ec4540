#include "instructions/register_names.h"

#include <algorithm>
#include <array>
#include <charconv>

#include <fmt/format.h>

namespace bulkhead::instructions {
namespace {

template <typename T>
std::span<uint8_t> bytes_of(T& value) {
  return {reinterpret_cast<uint8_t*>(&value), sizeof value};
}

constexpr std::array<std::string_view, 16> kGprs = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                                    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr std::array<std::string_view, 6> kSegments = {"es", "cs", "ss", "ds", "fs", "gs"};

std::span<uint8_t> segment_part(cpu::Segment& segment, std::string_view part) {
  if (part.empty()) return bytes_of(segment.selector);
  if (part == ".base") return bytes_of(segment.base);
  if (part == ".limit") return bytes_of(segment.limit);
  if (part == ".attr") return bytes_of(segment.attributes);
  return {};
}

std::span<uint8_t> table_part(cpu::DescriptorTable& table, std::string_view part) {
  if (part == ".base") return bytes_of(table.base);
  if (part == ".limit") return bytes_of(table.limit);
  return {};
}

// "xmm12" with prefix "xmm" and count 16: 12.
std::optional<size_t> numbered(std::string_view name, std::string_view prefix, size_t count) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  size_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size() || number >= count) return std::nullopt;
  return number;
}

std::span<uint8_t> find_vector(cpu::State& state, std::string_view name) {
  const auto area = [&](size_t offset, size_t size) { return std::span<uint8_t>(state.xsave.data() + offset, size); };
  if (const auto i = numbered(name, "xmm", 16)) return area(160 + 16 * *i, 16);
  if (const auto i = numbered(name, "ymmh", 16)) return area(576 + 16 * *i, 16);
  if (const auto i = numbered(name, "st", 8)) return area(32 + 16 * *i, 10);
  if (name == "fcw") return area(0, 2);
  if (name == "fsw") return area(2, 2);
  if (name == "ftw") return area(4, 1);
  if (name == "mxcsr") return area(24, 4);
  return {};
}

std::span<uint8_t> find_system(cpu::State& state, std::string_view name) {
  if (name == "rip") return bytes_of(state.rip);
  if (name == "rflags") return bytes_of(state.rflags);
  if (name == "cr0") return bytes_of(state.cr0);
  if (name == "cr2") return bytes_of(state.cr2);
  if (name == "cr3") return bytes_of(state.cr3);
  if (name == "cr4") return bytes_of(state.cr4);
  if (name == "xcr0") return bytes_of(state.xcr0);
  if (name == "efer") return bytes_of(state.efer);
  if (name == "dr6") return bytes_of(state.dr6);
  if (name == "dr7") return bytes_of(state.dr7);
  if (const auto i = numbered(name, "dr", 4)) return bytes_of(state.dr[*i]);
  if (name == "star") return bytes_of(state.msr_star);
  if (name == "lstar") return bytes_of(state.msr_lstar);
  if (name == "cstar") return bytes_of(state.msr_cstar);
  if (name == "sfmask") return bytes_of(state.msr_sfmask);
  if (name == "kernel_gs_base") return bytes_of(state.msr_kernel_gs_base);
  if (name == "sysenter_cs") return bytes_of(state.msr_sysenter_cs);
  if (name == "sysenter_esp") return bytes_of(state.msr_sysenter_esp);
  if (name == "sysenter_eip") return bytes_of(state.msr_sysenter_eip);
  if (name == "tsc_aux") return bytes_of(state.msr_tsc_aux);
  if (name == "shadow") return bytes_of(state.interrupt_shadow);
  return {};
}

std::vector<std::string> make_compared() {
  std::vector<std::string> names = {"rip", "rflags"};
  names.insert(names.end(), kGprs.begin(), kGprs.end());
  for (const std::string_view segment : kSegments) {
    names.emplace_back(segment);
    names.push_back(fmt::format("{}.base", segment));
    names.push_back(fmt::format("{}.limit", segment));
  }
  for (const char* name : {"ldtr",
                           "tr",
                           "gdtr.base",
                           "gdtr.limit",
                           "idtr.base",
                           "idtr.limit",
                           "cr0",
                           "cr2",
                           "cr3",
                           "cr4",
                           "xcr0",
                           "efer",
                           "dr0",
                           "dr1",
                           "dr2",
                           "dr3",
                           "dr6",
                           "dr7",
                           "star",
                           "lstar",
                           "cstar",
                           "sfmask",
                           "kernel_gs_base",
                           "sysenter_cs",
                           "sysenter_esp",
                           "sysenter_eip",
                           "tsc_aux",
                           "shadow",
                           "fcw",
                           "fsw",
                           "ftw",
                           "mxcsr"}) {
    names.emplace_back(name);
  }
  for (unsigned i = 0; i < 8; ++i) names.push_back(fmt::format("st{}", i));
  for (unsigned i = 0; i < 16; ++i) names.push_back(fmt::format("xmm{}", i));
  for (unsigned i = 0; i < 16; ++i) names.push_back(fmt::format("ymmh{}", i));
  return names;
}

}  // namespace

std::span<uint8_t> find_register(cpu::State& state, std::string_view name) {
  if (const auto gpr = std::find(kGprs.begin(), kGprs.end(), name); gpr != kGprs.end()) {
    return bytes_of(state.gpr[static_cast<size_t>(gpr - kGprs.begin())]);
  }
  for (size_t i = 0; i < kSegments.size(); ++i) {
    if (name.starts_with(kSegments[i]) && (name.size() == 2 || name[2] == '.'))
      return segment_part(state.segments[i], name.substr(2));
  }
  if (name.starts_with("ldtr")) return segment_part(state.ldtr, name.substr(4));
  if (name == "tr" || name.starts_with("tr.")) return segment_part(state.tr, name.substr(2));
  if (name.starts_with("gdtr")) return table_part(state.gdtr, name.substr(4));
  if (name.starts_with("idtr")) return table_part(state.idtr, name.substr(4));
  const auto vector = find_vector(state, name);
  return vector.empty() ? find_system(state, name) : vector;
}

const std::vector<std::string>& compared_registers() {
  static const std::vector<std::string> names = make_compared();
  return names;
}

std::string to_hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (size_t i = bytes.size(); i-- > 0;) text += fmt::format("{:02x}", bytes[i]);
  const size_t first = text.find_first_not_of('0');
  return first == std::string::npos ? "0" : text.substr(first);
}

bool from_hex(std::string_view text, std::span<uint8_t> bytes) {
  std::fill(bytes.begin(), bytes.end(), 0);
  if (text.empty() || text.size() > 2 * bytes.size() + 1) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char digit = text[text.size() - 1 - i];
    unsigned value = 0;
    if (std::from_chars(&digit, &digit + 1, value, 16).ptr != &digit + 1) return false;
    if (i / 2 >= bytes.size()) return value == 0;
    bytes[i / 2] |= static_cast<uint8_t>(value << (i % 2 * 4));
  }
  return true;
}

}  // namespace bulkhead::instructions
