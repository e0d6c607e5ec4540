// CPU models by name and the CPUID leaves that describe them. CPUID shows exactly what works: a model is cut down to
// what the engine at hand can do, and asking for a model the engine cannot give whole is an error that names what is
// missing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/result.h"

namespace bulkhead::cpu {

struct CpuidLeaf {
  uint32_t leaf = 0;
  uint32_t subleaf = 0;
  bool has_subleaves = false;  // the subleaf takes part in the look-up
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// One bit of one CPUID register.
struct Feature {
  std::string_view name;  // as Linux's /proc/cpuinfo spells it
  uint32_t leaf, subleaf;
  enum class Output : uint8_t { kEax, kEbx, kEcx, kEdx } output;
  uint8_t bit;
};

// A set of features by name, in the order of the feature table.
class FeatureSet {
 public:
  void add(std::string_view name);
  void remove(std::string_view name);
  [[nodiscard]] bool has(std::string_view name) const;
  // What is in this set and not in other.
  [[nodiscard]] std::vector<std::string> missing_from(const FeatureSet& other) const;

 private:
  std::vector<bool> bits_;
};

// IA32_ARCH_CAPABILITIES (MSR 0x10A; SDM 4, table 2-2) of an engine that shows "arch_capabilities" and has no hardware
// speculation to defend against: RDCL_NO, IBRS_ALL, SKIP_L1DFL, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO,
// FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
inline constexpr uint64_t kArchCapabilities = 1ull << 0 | 1ull << 1 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 |
                                              1ull << 8 | 1ull << 13 | 1ull << 14 | 1ull << 15 | 1ull << 20 |
                                              1ull << 24 | 1ull << 26 | 1ull << 27 | 1ull << 62;

// What the local APIC's timer counts at with a divisor of 1, in every engine.
inline constexpr uint32_t kApicTimerHz = 1'000'000'000;

// Every feature that a model may show.
const std::vector<Feature>& feature_table();
// The features that this host's CPUID shows, of those in the table.
FeatureSet host_features();

// The names that --cpu-model takes: "x86-64-v1", "x86-64-v2", "x86-64-v3" (the default), "host".
std::vector<std::string_view> model_names();

struct Topology {
  uint32_t vcpu_count = 1;
};

class CpuModel {
 public:
  // available: what the engine can do here. Optional features of the model (RDRAND, SHA, ...) appear when available.
  static Result<CpuModel> create(std::string_view name, const FeatureSet& available);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const FeatureSet& features() const { return features_; }
  // The leaves of one vCPU: topology, APIC id (= vcpu_index), XSAVE sizes, brand string, address widths (40 physical,
  // 48 linear), 0x15/0x16 frequencies, hypervisor leaves 0x40000000 (signature "KVMKVMKVM", kvm-clock).
  [[nodiscard]] std::vector<CpuidLeaf> leaves(uint32_t vcpu_index, const Topology& topology, uint64_t tsc_hz) const;

 private:
  std::string name_;
  FeatureSet features_;
};

// The answer of CPUID by the rules for leaves out of range (SDM 2A, CPUID): all zero here for basic and extended ones.
CpuidLeaf look_up(const std::vector<CpuidLeaf>& leaves, uint32_t leaf, uint32_t subleaf);

}  // namespace bulkhead::cpu
