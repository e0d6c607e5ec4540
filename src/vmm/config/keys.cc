#include "vmm/config/keys.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <set>

#include "block/format/image.h"
#include "block/store/nbd/uri.h"
#include "cpu/model.h"
#include "memory/guest_memory.h"
#include "vmm/config/disk_faults.h"
#include "vmm/config/disk_filters.h"
#include "vmm/config/values.h"

namespace bulkhead::vmm {
namespace {

constexpr uint64_t kMaximumMemory = 1ull << 40;
constexpr uint64_t kMinimumCodeCache = 1ull << 20, kMaximumCodeCache = 1ull << 30;
constexpr std::array<std::string_view, 5> kProtocols = {"auto", "linux64", "linux32", "pvh", "multiboot"};

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= 63 && std::ranges::all_of(text, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.';
  });
}

bool is_uuid(std::string_view text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : std::isxdigit(static_cast<unsigned char>(text[i])) == 0) return false;
  }
  return true;
}

Result<> set_kind(VmConfig&, const std::string& value, const Origin&) {
  if (value != "VirtualMachine") return fail("allowed: VirtualMachine");
  return {};
}

Result<> set_name(VmConfig& config, const std::string& value, const Origin& origin) {
  if (!is_name(value)) return fail("allowed: 1 to 63 letters, digits, '-', '_' and '.'");
  config.name = {value, origin.place};
  return {};
}

Result<> set_uuid(VmConfig& config, const std::string& value, const Origin& origin) {
  if (!is_uuid(value)) return fail("allowed: a UUID like 123e4567-e89b-12d3-a456-426614174000");
  config.uuid = {value, origin.place};
  return {};
}

Result<> set_cpus(VmConfig& config, const std::string& value, const Origin& origin) {
  config.cpus = {static_cast<uint32_t>(TRY(parse_number(value, 1, VmConfig::kMaximumCpus))), origin.place};
  return {};
}

Result<> set_cpu_model(VmConfig& config, const std::string& value, const Origin& origin) {
  const auto names = cpu::model_names();
  if (std::ranges::find(names, value) == names.end()) return fail("allowed: {}", fmt::join(names, ", "));
  config.cpu_model = {value, origin.place};
  return {};
}

Result<> set_memory(VmConfig& config, const std::string& value, const Origin& origin) {
  const uint64_t size = TRY(parse_size(value));
  if (size < memory::GuestMemory::kMinimumSize || size > kMaximumMemory || size % (1 << 20) != 0) {
    return fail("allowed: whole MiB from {} to {}", format_size(memory::GuestMemory::kMinimumSize),
                format_size(kMaximumMemory));
  }
  config.memory_bytes = {size, origin.place};
  return {};
}

Result<> set_engine(VmConfig& config, const std::string& value, const Origin& origin) {
  for (const EngineName name : {EngineName::kAuto, EngineName::kKvm, EngineName::kSoft}) {
    if (value != to_string(name)) continue;
    config.engine = {name, origin.place};
    return {};
  }
  return fail("allowed: auto, kvm or soft");
}

Result<> set_jit(VmConfig& config, const std::string& value, const Origin& origin) {
  config.jit = {TRY(parse_flag(value)), origin.place};
  return {};
}

Result<> set_code_cache(VmConfig& config, const std::string& value, const Origin& origin) {
  const uint64_t size = TRY(parse_size(value));
  if (size < kMinimumCodeCache || size > kMaximumCodeCache || size % (1 << 20) != 0) {
    return fail("allowed: whole MiB from {} to {}", format_size(kMinimumCodeCache), format_size(kMaximumCodeCache));
  }
  config.code_cache_bytes = {size, origin.place};
  return {};
}

Result<> set_deterministic(VmConfig& config, const std::string& value, const Origin& origin) {
  config.deterministic = {TRY(parse_flag(value)), origin.place};
  return {};
}

Result<> set_seed(VmConfig& config, const std::string& value, const Origin& origin) {
  config.seed = {TRY(parse_number(value, 0, UINT64_MAX)), origin.place};
  return {};
}

Result<> set_kernel(VmConfig& config, const std::string& value, const Origin& origin) {
  config.kernel = {resolve_path(value, origin.directory), origin.place};
  return {};
}

Result<> set_initrd(VmConfig& config, const std::string& value, const Origin& origin) {
  config.initrd = {resolve_path(value, origin.directory), origin.place};
  return {};
}

Result<> set_command_line(VmConfig& config, const std::string& value, const Origin& origin) {
  config.command_line = {value, origin.place};
  return {};
}

Result<> set_boot_protocol(VmConfig& config, const std::string& value, const Origin& origin) {
  if (std::ranges::find(kProtocols, value) == kProtocols.end()) return fail("allowed: {}", fmt::join(kProtocols, ", "));
  config.boot_protocol = {value, origin.place};
  return {};
}

Result<> add_module(VmConfig& config, const std::string& value, const Origin& origin) {
  if (config.modules.size() >= VmConfig::kMaximumModules) {
    return fail("more than the {} modules allowed", VmConfig::kMaximumModules);
  }
  const size_t space = value.find(' ');
  ModuleConfig module{resolve_path(value.substr(0, space), origin.directory), {}};
  if (space != std::string::npos) module.command_line = value.substr(space + 1);
  config.modules.push_back({std::move(module), origin.place});
  return {};
}

struct DiskBusName {
  std::string_view name;
  machine::DiskBus bus;
};
constexpr DiskBusName kDiskBuses[] = {
    {"virtio", machine::DiskBus::kVirtio}, {"nvme", machine::DiskBus::kNvme}, {"sata", machine::DiskBus::kSata}};
constexpr std::string_view kDiskBusNames = "virtio, nvme or sata";

// "FILE", "FILE,ro", or "file=FILE,bus=nvme,format=qcow2,readonly,serial=DATA1,cache=writethrough" in any order.
Result<DiskConfig> parse_disk(const std::string& value, const std::string& directory) {
  DiskConfig disk;
  std::string rest = value;
  if (!rest.starts_with("file=") && rest.find(",file=") == std::string::npos) {
    if (rest.ends_with(",ro")) {
      disk.read_only = true;
      rest.resize(rest.size() - 3);
    }
    if (rest.empty()) return fail("names no file; allowed: FILE, FILE,ro or file=FILE,format=FORMAT,...");
    disk.path = resolve_path(rest, directory);
    return disk;
  }
  std::set<std::string> seen;
  while (!rest.empty()) {
    const std::string word = rest.substr(0, rest.find(','));
    rest.erase(0, word.size() + 1);
    const size_t equals = word.find('=');
    std::string name = word.substr(0, equals), text = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (word == "readonly" || word == "ro") {
      name = "read-only";
      text = "true";
    }
    if (!seen.insert(name).second) return fail("{} stands twice", name);
    TRY_IN(word, set_disk_property(disk, name, text, directory));
  }
  return disk;
}

Result<> add_disk(VmConfig& config, const std::string& value, const Origin& origin) {
  if (config.disks.size() >= VmConfig::kMaximumDisks)
    return fail("more than the {} disks allowed", VmConfig::kMaximumDisks);
  config.disks.push_back({TRY(parse_disk(value, origin.directory)), origin.place});
  return {};
}

// The image of a CD or DVD, in a drive on SATA.
Result<> add_cdrom(VmConfig& config, const std::string& value, const Origin& origin) {
  if (config.disks.size() >= VmConfig::kMaximumDisks)
    return fail("more than the {} disks allowed", VmConfig::kMaximumDisks);
  if (value.empty()) return fail("names no file");
  DiskConfig disk;
  disk.path = resolve_path(value, origin.directory);
  disk.format = "raw";
  disk.bus = machine::DiskBus::kSata;
  disk.medium = machine::DiskMedium::kCdrom;
  disk.read_only = true;
  config.disks.push_back({std::move(disk), origin.place});
  return {};
}

Result<> add_disk_group(VmConfig& config, const std::string& value, const Origin& origin) {
  if (config.disk_groups.size() >= VmConfig::kMaximumDiskGroups) {
    return fail("more than the {} groups allowed", VmConfig::kMaximumDiskGroups);
  }
  config.disk_groups.push_back({TRY(parse_disk_group(value)), origin.place});
  return {};
}

void clear_drives(VmConfig& config, machine::DiskMedium medium) {
  std::erase_if(config.disks, [medium](const auto& disk) { return disk.value.medium == medium; });
}

Result<> add_nic(VmConfig& config, const std::string& value, const Origin& origin) {
  if (config.nics.size() >= VmConfig::kMaximumNics) {
    return fail("more than the {} network cards allowed", VmConfig::kMaximumNics);
  }
  config.nics.push_back({TRY(parse_nic(value)), origin.place});
  return {};
}

Result<console::Spec> resolve_spec(const std::string& value, const Origin& origin) {
  console::Spec spec = TRY(console::parse_spec(value));
  if (!spec.path.empty()) spec.path = resolve_path(spec.path, origin.directory);
  return spec;
}

Result<> add_serial_line(VmConfig& config, const std::string& value, const Origin& origin) {
  if (config.serial_lines.size() >= VmConfig::kMaximumSerialLines) {
    return fail("more than the {} serial lines allowed", VmConfig::kMaximumSerialLines);
  }
  config.serial_lines.push_back({TRY(resolve_spec(value, origin)), origin.place});
  return {};
}

Result<> set_console(VmConfig& config, const std::string& value, const Origin& origin) {
  config.virtio_console = {TRY(resolve_spec(value, origin)), origin.place};
  return {};
}

Result<> set_on_reset(VmConfig& config, const std::string& value, const Origin& origin) {
  if (value != "reboot" && value != "end") return fail("allowed: reboot or end");
  config.reboot = {value == "reboot", origin.place};
  return {};
}

Result<> set_debug_exit(VmConfig& config, const std::string& value, const Origin& origin) {
  config.debug_exit = {TRY(parse_flag(value)), origin.place};
  return {};
}

constexpr Key kKeys[] = {
    {"kind", set_kind},
    {"metadata.name", set_name},
    {"metadata.uuid", set_uuid},
    {"spec.cpus", set_cpus},
    {"spec.cpu-model", set_cpu_model},
    {"spec.memory", set_memory},
    {"spec.engine", set_engine},
    {"spec.jit", set_jit},
    {"spec.code-cache", set_code_cache},
    {"spec.deterministic", set_deterministic},
    {"spec.seed", set_seed},
    {"spec.boot.kernel", set_kernel},
    {"spec.boot.initrd", set_initrd},
    {"spec.boot.cmdline", set_command_line},
    {"spec.boot.protocol", set_boot_protocol},
    {"spec.boot.modules", add_module, [](VmConfig& config) { config.modules.clear(); }},
    {"spec.disks", add_disk, [](VmConfig& config) { clear_drives(config, machine::DiskMedium::kFixed); }},
    {"spec.cdroms", add_cdrom, [](VmConfig& config) { clear_drives(config, machine::DiskMedium::kCdrom); }},
    {"spec.disk-groups", add_disk_group, [](VmConfig& config) { config.disk_groups.clear(); }},
    {"spec.nics", add_nic, [](VmConfig& config) { config.nics.clear(); }},
    {"spec.serial", add_serial_line, [](VmConfig& config) { config.serial_lines.clear(); }},
    {"spec.console", set_console},
    {"spec.on-reset", set_on_reset},
    {"spec.debug-exit", set_debug_exit},
};

}  // namespace

std::span<const Key> all_keys() {
  return kKeys;
}

const Key* find_key(std::string_view path) {
  const auto found = std::ranges::find(kKeys, path, &Key::path);
  return found == std::end(kKeys) ? nullptr : &*found;
}

std::string resolve_path(const std::string& path, const std::string& directory) {
  return directory.empty() || path.starts_with('/') || block::nbd::is_uri(path) ? path : directory + "/" + path;
}

Result<> set_disk_property(DiskConfig& disk, std::string_view name, const std::string& value,
                           const std::string& directory) {
  if (name == "file") {
    if (value.empty()) return fail("names no file");
    disk.path = resolve_path(value, directory);
  } else if (name == "format") {
    TRY(block::find_format(value));
    disk.format = value;
  } else if (name == "encrypt") {
    if (value.empty()) return fail("names no file with a secret");
    disk.secret = resolve_path(value, directory);
  } else if (name == "bus") {
    const auto found = std::ranges::find(kDiskBuses, value, &DiskBusName::name);
    if (found == std::end(kDiskBuses)) return fail("allowed: {}", kDiskBusNames);
    disk.bus = found->bus;
  } else if (name == "queues") {
    disk.queue_count = static_cast<uint16_t>(TRY(parse_number(value, 1, DiskConfig::kMostQueues)));
  } else if (name == "fixed-buffers") {
    disk.fixed_buffers = TRY(parse_flag(value));
  } else if (name == "read-only") {
    disk.read_only = TRY(parse_flag(value));
  } else if (name == "serial") {
    const bool printable = std::ranges::all_of(value, [](char c) { return c > ' ' && c <= '~'; });
    if (value.empty() || value.size() > 20 || !printable) return fail("allowed: 1 to 20 printable characters");
    disk.serial = value;
  } else if (name == "cache") {
    if (value == "writeback") {
      disk.cache = DiskCache::kWriteback;
    } else if (value == "writethrough") {
      disk.cache = DiskCache::kWritethrough;
    } else if (value == "none") {
      disk.cache = DiskCache::kNone;
    } else if (value == "directsync") {
      disk.cache = DiskCache::kDirectsync;
    } else {
      return fail("allowed: writeback, writethrough, none or directsync");
    }
  } else if (name == "on-error") {
    if (value == "enospc") {
      disk.on_error = block::OnError::kEnospc;
    } else if (value == "pause") {
      disk.on_error = block::OnError::kPause;
    } else if (value == "report") {
      disk.on_error = block::OnError::kReport;
    } else {
      return fail("allowed: enospc, pause or report");
    }
  } else if (is_limit(name)) {
    TRY(set_limit(disk.limits, name, value));
  } else if (name == "controller") {
    disk.controller = TRY(parse_group_name(value));
  } else if (name == "fault") {
    disk.faults = TRY(parse_disk_faults(value));
  } else if (name == "filters") {
    disk.filters = TRY(parse_disk_filters(value));
  } else if (name == "group") {
    disk.group = TRY(parse_group_name(value));
  } else {
    return fail("unknown; allowed: {}", kDiskProperties);
  }
  return {};
}

}  // namespace bulkhead::vmm
