// What a VM is made of, as its user asked for it: read from vm.yaml and then from flags, which win. Every value knows
// where it was written, so that a wrong one is reported in a single line with its place, its value and what is allowed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/filter/error_policy_disk.h"
#include "block/filter/fault_disk.h"
#include "console/backends.h"
#include "machine/board/disk_wires.h"
#include "support/result.h"
#include "vmm/config/nic.h"
#include "vmm/config/throttle.h"

namespace bulkhead::vmm {

// A value with the place it came from: "vm.yaml:7: spec.memory" or "--memory". Defaults have no place.
template <typename T>
struct Setting {
  T value{};
  std::string place;

  [[nodiscard]] bool given() const { return !place.empty(); }
  // The place and the value in front of an error, for faults found later (a file that cannot be opened).
  [[nodiscard]] std::string label(std::string_view shown) const {
    return place.empty() ? fmt::format("'{}'", shown) : fmt::format("{} '{}'", place, shown);
  }
};

enum class EngineName : uint8_t { kAuto, kKvm, kSoft };

enum class DiskCache : uint8_t {
  kWriteback,     // a write is safe after a flush
  kWritethrough,  // a write is safe when it is answered
  kNone,          // as kWriteback, past the host's page cache
  kDirectsync,    // as kWritethrough, past the host's page cache
};

// What a disk's requests go through on their way, where it has it.
enum class DiskFilter : uint8_t {
  kThrottle,  // its own limits and its group's
  kFault,
  kChanges,  // where jobs watch, read and exchange what is below: on a disk that is written, in no deterministic run
  kEncrypt,
};
[[nodiscard]] std::string_view to_string(DiskFilter filter);

struct DiskConfig {
  static constexpr uint16_t kMostQueues = 16;

  std::string path;
  // Empty: luks with a secret; else raw, unless the file looks like an image of another format.
  std::string format;
  std::string secret;  // the file with the secret of an encrypted disk; empty: it is not encrypted
  DiskCache cache = DiskCache::kWriteback;
  bool fixed_buffers = false;  // guest RAM is registered with the ring of a raw disk
  block::OnError on_error = block::OnError::kEnospc;
  machine::DiskBus bus = machine::DiskBus::kVirtio;
  machine::DiskMedium medium = machine::DiskMedium::kFixed;
  uint16_t queue_count = 0;  // of a virtio disk, at most kMostQueues; 0: as many as there are vCPUs
  std::string controller;    // of NVMe disks: those that name the same one are its namespaces; empty: one of its own
  bool read_only = false;
  std::string serial;            // what the guest reads as the disk's serial number, at most 20 bytes; empty: "diskN"
  block::ThrottleLimits limits;  // of this disk alone
  std::string group;             // whose limits it shares with others; empty: none
  block::DiskFaults faults;      // what goes wrong on purpose
  // All that it has, from the guest to the storage, as the user ordered them; empty: in the order of DiskFilter.
  std::vector<DiskFilter> filters;

  // From the guest to the storage. `jobs`: whether there can be any in this run.
  [[nodiscard]] std::vector<DiskFilter> filters_in_order(bool jobs) const;
  // Encryption within the file's own format stands at the end; else what is below it holds a LUKS volume.
  [[nodiscard]] bool encrypts_above_storage() const {
    return !filters.empty() && !secret.empty() && filters.back() != DiskFilter::kEncrypt;
  }
};

struct ModuleConfig {  // a Multiboot module: "FILE" or "FILE COMMAND LINE"
  std::string path;
  std::string command_line;
};

struct TraceConfig {
  bool exits = false;
  bool mmio = false;
  bool irq = false;
  bool blocks = false;  // those that the soft engine translates
  [[nodiscard]] bool any() const { return exits || mmio || irq || blocks; }
};

struct VmConfig {
  static constexpr uint32_t kMaximumCpus = 16;
  static constexpr size_t kMaximumDisks = 16;
  static constexpr size_t kMaximumDiskGroups = 16;
  static constexpr size_t kMaximumNics = 8;
  static constexpr size_t kMaximumSerialLines = 4;
  static constexpr size_t kMaximumModules = 16;

  Setting<std::string> name{"vm", {}};
  Setting<std::string> uuid;  // empty: made from the name
  Setting<uint32_t> cpus{1, {}};
  Setting<std::string> cpu_model{"x86-64-v3", {}};
  Setting<uint64_t> memory_bytes{512ull << 20, {}};
  Setting<EngineName> engine{EngineName::kAuto, {}};
  Setting<bool> jit{true, ""};                          // the soft engine translates what runs often
  Setting<uint64_t> code_cache_bytes{32ull << 20, {}};  // of each vCPU, for what it translates
  Setting<bool> deterministic;                          // every run the same: docs/run.md
  Setting<uint64_t> seed;                               // of all that is random in a deterministic run

  Setting<std::string> kernel;
  Setting<std::string> initrd;
  Setting<std::string> command_line;
  Setting<std::string> boot_protocol{"auto", {}};  // auto, linux64, linux32, pvh or multiboot
  std::vector<Setting<ModuleConfig>> modules;

  std::vector<Setting<DiskConfig>> disks;
  std::vector<Setting<DiskGroupConfig>> disk_groups;
  std::vector<Setting<NicConfig>> nics;
  // COM1 to COM4. None given: COM1 is stdio.
  std::vector<Setting<console::Spec>> serial_lines;
  Setting<console::Spec> virtio_console;  // there is one when given

  Setting<bool> reboot{true, {}};  // what a reset by the guest does; false ends the VM
  Setting<bool> debug_exit;

  // Of this run, not of the VM: flags only.
  Setting<std::string> gdb;
  Setting<TraceConfig> trace;
  Setting<std::string> trace_file;
  bool statistics = false;
  bool perf_map = false;
  bool final_hash = false;
};

// Reads vm.yaml; relative paths in it count from its own directory.
Result<VmConfig> load_config(const std::string& path);
// The same from text; name stands in error messages, directory goes before relative paths (empty: none).
Result<VmConfig> parse_config(std::string_view text, const std::string& name, const std::string& directory);

// Sets values as flags do. key is the path in vm.yaml ("spec.memory"), place is what errors show ("--memory"). set_list
// replaces what the file gave.
Result<> set_value(VmConfig& config, std::string_view key, const std::string& value, const std::string& place);
Result<> set_list(VmConfig& config, std::string_view key, const std::vector<std::string>& values,
                  const std::string& place);
// "exits", "mmio", "irq", "blocks" or several with commas between.
Result<TraceConfig> parse_trace(std::string_view text);

// What no single value shows: that there is a kernel, that its files can be read, that one stdio is enough.
Result<> check_config(const VmConfig& config);

std::string_view to_string(EngineName name);

}  // namespace bulkhead::vmm
