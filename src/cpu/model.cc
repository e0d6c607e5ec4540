// The feature table and the CPUID leaves built from it. Bit positions: SDM 2A, "CPUID—CPU Identification", and for
// leaves from 0x80000000 AMD's APM volume 3, appendix E. Names of levels: the x86-64 psABI's micro-architecture levels.
#include "cpu/model.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include <cpuid.h>
#include <fmt/format.h>

#include "support/bytes.h"
#include "support/check.h"

namespace bulkhead::cpu {
namespace {

using enum Feature::Output;

const std::vector<Feature> kFeatures = {
    {"fpu", 1, 0, kEdx, 0},
    {"vme", 1, 0, kEdx, 1},
    {"de", 1, 0, kEdx, 2},
    {"pse", 1, 0, kEdx, 3},
    {"tsc", 1, 0, kEdx, 4},
    {"msr", 1, 0, kEdx, 5},
    {"pae", 1, 0, kEdx, 6},
    {"mce", 1, 0, kEdx, 7},
    {"cx8", 1, 0, kEdx, 8},
    {"apic", 1, 0, kEdx, 9},
    {"sep", 1, 0, kEdx, 11},
    {"mtrr", 1, 0, kEdx, 12},
    {"pge", 1, 0, kEdx, 13},
    {"mca", 1, 0, kEdx, 14},
    {"cmov", 1, 0, kEdx, 15},
    {"pat", 1, 0, kEdx, 16},
    {"pse36", 1, 0, kEdx, 17},
    {"clflush", 1, 0, kEdx, 19},
    {"mmx", 1, 0, kEdx, 23},
    {"fxsr", 1, 0, kEdx, 24},
    {"sse", 1, 0, kEdx, 25},
    {"sse2", 1, 0, kEdx, 26},
    {"ht", 1, 0, kEdx, 28},
    {"pni", 1, 0, kEcx, 0},
    {"pclmulqdq", 1, 0, kEcx, 1},
    {"ssse3", 1, 0, kEcx, 9},
    {"fma", 1, 0, kEcx, 12},
    {"cx16", 1, 0, kEcx, 13},
    {"pcid", 1, 0, kEcx, 17},
    {"sse4_1", 1, 0, kEcx, 19},
    {"sse4_2", 1, 0, kEcx, 20},
    {"x2apic", 1, 0, kEcx, 21},
    {"movbe", 1, 0, kEcx, 22},
    {"popcnt", 1, 0, kEcx, 23},
    {"tsc_deadline_timer", 1, 0, kEcx, 24},
    {"aes", 1, 0, kEcx, 25},
    {"xsave", 1, 0, kEcx, 26},
    {"avx", 1, 0, kEcx, 28},
    {"f16c", 1, 0, kEcx, 29},
    {"rdrand", 1, 0, kEcx, 30},
    {"hypervisor", 1, 0, kEcx, 31},
    {"fsgsbase", 7, 0, kEbx, 0},
    {"bmi1", 7, 0, kEbx, 3},
    {"avx2", 7, 0, kEbx, 5},
    {"smep", 7, 0, kEbx, 7},
    {"bmi2", 7, 0, kEbx, 8},
    {"erms", 7, 0, kEbx, 9},
    {"invpcid", 7, 0, kEbx, 10},
    {"rdseed", 7, 0, kEbx, 18},
    {"adx", 7, 0, kEbx, 19},
    {"smap", 7, 0, kEbx, 20},
    {"clflushopt", 7, 0, kEbx, 23},
    {"clwb", 7, 0, kEbx, 24},
    {"sha_ni", 7, 0, kEbx, 29},
    {"umip", 7, 0, kEcx, 2},
    {"rdpid", 7, 0, kEcx, 22},
    {"spec_ctrl", 7, 0, kEdx, 26},
    {"arch_capabilities", 7, 0, kEdx, 29},
    {"xsaveopt", 13, 1, kEax, 0},
    {"xsavec", 13, 1, kEax, 1},
    {"xgetbv1", 13, 1, kEax, 2},
    {"lahf_lm", 0x80000001, 0, kEcx, 0},
    {"abm", 0x80000001, 0, kEcx, 5},
    {"3dnowprefetch", 0x80000001, 0, kEcx, 8},
    {"syscall", 0x80000001, 0, kEdx, 11},
    {"nx", 0x80000001, 0, kEdx, 20},
    {"pdpe1gb", 0x80000001, 0, kEdx, 26},
    {"rdtscp", 0x80000001, 0, kEdx, 27},
    {"lm", 0x80000001, 0, kEdx, 29},
    {"constant_tsc", 0x80000007, 0, kEdx, 8},
};

// What a model must have (asking for it where the engine lacks one is an error) beyond the models before it.
constexpr std::string_view kLevel1[] = {"fpu", "de",   "pse",     "tsc", "msr",   "pae",     "cx8", "apic",
                                        "sep", "pge",  "cmov",    "pat", "pse36", "clflush", "mmx", "fxsr",
                                        "sse", "sse2", "syscall", "nx",  "lm",    "mce",     "mca", "mtrr"};
constexpr std::string_view kLevel2[] = {"pni", "ssse3", "cx16", "sse4_1", "sse4_2", "popcnt", "lahf_lm"};
constexpr std::string_view kLevel3[] = {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"};

// What appears in every model when the engine has it: what system software uses and applications do not select by
// level.
constexpr std::string_view kPlatform[] = {"x2apic", "tsc_deadline_timer", "hypervisor", "pcid", "invpcid", "smep",
                                          "smap", "umip", "fsgsbase", "rdtscp", "rdpid", "pdpe1gb", "erms",
                                          "constant_tsc", "clflushopt", "clwb", "3dnowprefetch",
                                          // Together they say which speculation faults the processor does not have.
                                          "spec_ctrl", "arch_capabilities"};
// What comes with level 2 and level 3 when the engine has it.
constexpr std::string_view kOptional2[] = {"aes", "pclmulqdq", "rdrand", "rdseed", "sha_ni"};
constexpr std::string_view kOptional3[] = {"adx", "xsaveopt", "xsavec", "xgetbv1"};

size_t index_of(std::string_view name) {
  const auto found = std::find_if(kFeatures.begin(), kFeatures.end(), [&](const Feature& f) { return f.name == name; });
  CHECK(found != kFeatures.end(), "a CPU feature that the table does not have");
  return static_cast<size_t>(found - kFeatures.begin());
}

uint32_t& output_of(CpuidLeaf& leaf, Feature::Output output) {
  switch (output) {
    case kEax:
      return leaf.eax;
    case kEbx:
      return leaf.ebx;
    case kEcx:
      return leaf.ecx;
    case kEdx:
      return leaf.edx;
  }
  return leaf.eax;
}

constexpr uint32_t kHighestBasic = 0x16;
constexpr uint32_t kHighestExtended = 0x80000008;
constexpr uint32_t kPhysicalBits = 40;
constexpr uint32_t kLinearBits = 48;
constexpr uint32_t kSseStateBytes = 576;
constexpr uint32_t kAvxStateBytes = 832;

void set_text(CpuidLeaf& leaf, std::string_view text) {  // 16 characters in EAX, EBX, ECX, EDX
  std::array<char, 16> padded{};
  std::copy_n(text.begin(), std::min<size_t>(text.size(), 16), padded.begin());
  leaf.eax = load<uint32_t>(padded.data());
  leaf.ebx = load<uint32_t>(padded.data() + 4);
  leaf.ecx = load<uint32_t>(padded.data() + 8);
  leaf.edx = load<uint32_t>(padded.data() + 12);
}

// The fraction nearest to tsc_hz / kApicTimerHz, or nothing when it would be wrong by more than 1 ppm: guests do not
// calibrate what they are told. Linux multiplies the crystal's kHz by the numerator in 32 bits, which bounds it.
struct Ratio {
  uint32_t numerator, denominator;
};
std::optional<Ratio> crystal_ratio(uint64_t tsc_hz) {
  constexpr uint64_t kLargestNumerator = UINT32_MAX / (kApicTimerHz / 1000);
  Ratio best{1, 1};
  double least_error = 1e18;
  for (uint64_t denominator = 1; denominator <= kLargestNumerator; ++denominator) {
    const uint64_t numerator = (tsc_hz * denominator + kApicTimerHz / 2) / kApicTimerHz;
    if (numerator > kLargestNumerator) break;
    const double shown_hz = static_cast<double>(numerator) * kApicTimerHz / static_cast<double>(denominator);
    const double error = std::abs(shown_hz - static_cast<double>(tsc_hz));
    if (error >= least_error) continue;
    least_error = error;
    best = {static_cast<uint32_t>(numerator), static_cast<uint32_t>(denominator)};
  }
  if (least_error > static_cast<double>(tsc_hz) * 1e-6) return std::nullopt;
  return best;
}

}  // namespace

const std::vector<Feature>& feature_table() {
  return kFeatures;
}

void FeatureSet::add(std::string_view name) {
  bits_.resize(kFeatures.size());
  bits_[index_of(name)] = true;
}
void FeatureSet::remove(std::string_view name) {
  bits_.resize(kFeatures.size());
  bits_[index_of(name)] = false;
}
bool FeatureSet::has(std::string_view name) const {
  const size_t index = index_of(name);
  return index < bits_.size() && bits_[index];
}
std::vector<std::string> FeatureSet::missing_from(const FeatureSet& other) const {
  std::vector<std::string> missing;
  for (const Feature& feature : kFeatures) {
    if (has(feature.name) && !other.has(feature.name)) missing.emplace_back(feature.name);
  }
  return missing;
}

FeatureSet host_features() {
  FeatureSet set;
  for (const Feature& feature : kFeatures) {
    CpuidLeaf leaf;
    if (__get_cpuid_count(feature.leaf, feature.subleaf, &leaf.eax, &leaf.ebx, &leaf.ecx, &leaf.edx) == 0) continue;
    if ((output_of(leaf, feature.output) >> feature.bit & 1) != 0) set.add(feature.name);
  }
  return set;
}

std::vector<std::string_view> model_names() {
  return {"x86-64-v1", "x86-64-v2", "x86-64-v3", "host"};
}

Result<CpuModel> CpuModel::create(std::string_view name, const FeatureSet& available) {
  CpuModel model;
  model.name_ = name;
  FeatureSet required;
  FeatureSet optional;
  const auto add_all = [](FeatureSet& set, auto& names) {
    for (const std::string_view feature : names) set.add(feature);
  };
  add_all(required, kLevel1);
  add_all(optional, kPlatform);
  if (name == "host") {
    for (const Feature& feature : kFeatures) optional.add(feature.name);
    optional.remove("ht");
  } else if (name == "x86-64-v2" || name == "x86-64-v3") {
    add_all(required, kLevel2);
    add_all(optional, kOptional2);
    if (name == "x86-64-v3") {
      add_all(required, kLevel3);
      add_all(optional, kOptional3);
    }
  } else if (name != "x86-64-v1") {
    return fail("cpu-model '{}': not one of {}", name, fmt::join(model_names(), ", "));
  }
  const auto missing = required.missing_from(available);
  if (!missing.empty())
    return fail("cpu-model '{}': this engine on this host lacks {}", name, fmt::join(missing, ", "));

  for (const Feature& feature : kFeatures) {
    const bool wanted = required.has(feature.name) || optional.has(feature.name);
    if (wanted && available.has(feature.name)) model.features_.add(feature.name);
  }
  return model;
}

std::vector<CpuidLeaf> CpuModel::leaves(uint32_t vcpu_index, const Topology& topology, uint64_t tsc_hz) const {
  std::vector<CpuidLeaf> leaves;
  const auto leaf = [&](uint32_t number) -> CpuidLeaf& { return leaves.emplace_back(CpuidLeaf{.leaf = number}); };
  const auto subleaf = [&](uint32_t number, uint32_t sub) -> CpuidLeaf& {
    return leaves.emplace_back(CpuidLeaf{.leaf = number, .subleaf = sub, .has_subleaves = true});
  };

  CpuidLeaf& vendor = leaf(0);
  vendor.eax = kHighestBasic;
  vendor.ebx = load<uint32_t>("Genu");
  vendor.edx = load<uint32_t>("ineI");
  vendor.ecx = load<uint32_t>("ntel");

  CpuidLeaf& version = leaf(1);
  version.eax =
      0x000806F8;  // family 6, a model for which system software knows no work-arounds beyond IA32_ARCH_CAPABILITIES
  const uint32_t logical_count = std::bit_ceil(topology.vcpu_count);
  version.ebx = vcpu_index << 24 | std::min(logical_count, 255u) << 16 | 8 << 8;  // CLFLUSH of 64 bytes
  if (topology.vcpu_count > 1) version.edx |= 1u << 28;

  leaf(2).eax = 0x00FEFF01;  // no descriptors: look at leaf 4
  struct Cache {
    uint32_t type, level, ways, sets, sharing;
  };
  constexpr Cache kCaches[] = {{1, 1, 8, 64, 1}, {2, 1, 8, 64, 1}, {3, 2, 16, 2048, 1}};
  for (uint32_t i = 0; i < 3; ++i) {
    CpuidLeaf& cache = subleaf(4, i);
    cache.eax = kCaches[i].type | kCaches[i].level << 5 | 1 << 8 | (std::min(logical_count, 64u) - 1) << 26;
    cache.ebx = (kCaches[i].ways - 1) << 22 | 63;
    cache.ecx = kCaches[i].sets - 1;
  }
  subleaf(4, 3);
  subleaf(7, 0);

  // Topology: one thread a core, all cores in one package.
  const uint32_t core_bits = static_cast<uint32_t>(std::bit_width(logical_count - 1));
  CpuidLeaf& threads = subleaf(0xB, 0);
  threads.ebx = 1;
  threads.ecx = 1 << 8;
  threads.edx = vcpu_index;
  CpuidLeaf& cores = subleaf(0xB, 1);
  cores.eax = core_bits;
  cores.ebx = topology.vcpu_count;
  cores.ecx = 2 << 8 | 1;
  cores.edx = vcpu_index;
  CpuidLeaf& last_level = subleaf(0xB, 2);
  last_level.ecx = 2;
  last_level.edx = vcpu_index;

  if (features_.has("xsave")) {
    const bool avx = features_.has("avx");
    CpuidLeaf& areas = subleaf(0xD, 0);
    areas.eax = avx ? 7 : 3;
    areas.ebx = areas.ecx = avx ? kAvxStateBytes : kSseStateBytes;  // EBX follows XCR0; the engine adjusts it
    subleaf(0xD, 1);
    if (avx) {
      CpuidLeaf& ymm = subleaf(0xD, 2);
      ymm.eax = 256;
      ymm.ebx = 576;
    }
  }

  // TSC = crystal x EBX / EAX, and the crystal also drives the local APIC's timer.
  CpuidLeaf& crystal = leaf(0x15);
  crystal.ecx = kApicTimerHz;
  if (const std::optional<Ratio> ratio = crystal_ratio(tsc_hz)) {
    crystal.eax = ratio->denominator;
    crystal.ebx = ratio->numerator;
  }
  CpuidLeaf& frequency = leaf(0x16);
  frequency.eax = frequency.ebx = static_cast<uint32_t>(tsc_hz / 1'000'000);
  frequency.ecx = 100;

  if (features_.has("hypervisor")) {
    CpuidLeaf& hypervisor = leaf(0x40000000);
    hypervisor.eax = 0x40000001;
    hypervisor.ebx = load<uint32_t>("KVMK");
    hypervisor.ecx = load<uint32_t>("VMKV");
    hypervisor.edx = load<uint32_t>("M\0\0\0");
    // Clock source at the new MSRs (bit 3), stable on all vCPUs (bit 24).
    leaf(0x40000001).eax = 1u << 3 | 1u << 24;
  }

  leaf(0x80000000).eax = kHighestExtended;
  leaf(0x80000001);
  const std::string brand = fmt::format("Bulkhead {} processor", name_);
  for (uint32_t i = 0; i < 3; ++i) {
    set_text(leaf(0x80000002 + i), brand.size() > i * 16 ? std::string_view(brand).substr(i * 16) : "");
  }
  leaf(0x80000006).ecx = 2048u << 16 | 8u << 12 | 64;
  leaf(0x80000007);
  leaf(0x80000008).eax = kLinearBits << 8 | kPhysicalBits;

  for (const Feature& feature : kFeatures) {
    if (!features_.has(feature.name)) continue;
    for (CpuidLeaf& each : leaves) {
      if (each.leaf == feature.leaf && each.subleaf == feature.subleaf)
        output_of(each, feature.output) |= 1u << feature.bit;
    }
  }
  return leaves;
}

CpuidLeaf look_up(const std::vector<CpuidLeaf>& leaves, uint32_t leaf, uint32_t subleaf) {
  for (const CpuidLeaf& each : leaves) {
    if (each.leaf == leaf && (!each.has_subleaves || each.subleaf == subleaf)) return each;
  }
  CpuidLeaf none{.leaf = leaf, .subleaf = subleaf};
  // Topology leaves echo the level asked for and the APIC id whatever the level.
  if (leaf == 0xB && subleaf != 0) {
    none.ecx = subleaf & 0xFF;
    none.edx = look_up(leaves, 0xB, 0).edx;
  }
  return none;
}

}  // namespace bulkhead::cpu
