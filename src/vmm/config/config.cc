#include "vmm/config/config.h"

#include <algorithm>
#include <set>

#include <sys/stat.h>
#include <unistd.h>

#include "block/store/nbd/uri.h"
#include "vmm/config/disk_filters.h"
#include "vmm/config/keys.h"

namespace bulkhead::vmm {
namespace {

// That a file is there and may be read (and written); what is in it is for its reader to say.
template <typename T>
Result<> check_file(const Setting<T>& setting, const std::string& path, int access_mode) {
  if (::access(path.c_str(), access_mode) != 0) return fail_errno(errno, "{}", setting.label(path));
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
    return fail("{}: is a directory", setting.label(path));
  }
  return {};
}

Result<> check_stdio_once(const VmConfig& config) {
  const Setting<console::Spec>* first = nullptr;
  std::vector<const Setting<console::Spec>*> all;
  for (const auto& line : config.serial_lines) all.push_back(&line);
  all.push_back(&config.virtio_console);
  for (const auto* setting : all) {
    if (setting->value.kind != console::Spec::Kind::kStdio) continue;
    if (first != nullptr) {
      return fail("{}: {} has the terminal already; allowed: one stdio", setting->label("stdio"),
                  first->place == setting->place ? "another line" : first->place);
    }
    first = setting;
  }
  return {};
}

Result<> check_deterministic(const VmConfig& config) {
  if (!config.deterministic.value) {
    if (config.final_hash) return fail("--final-hash: only for a deterministic run");
    if (config.seed.given())
      return fail("{}: only for a deterministic run", config.seed.label(std::to_string(config.seed.value)));
    return {};
  }
  const std::string label = config.deterministic.label("true");
  if (config.engine.value == EngineName::kKvm) {
    return fail("{}: hardware does not count instructions exactly; allowed with engine: auto or soft", label);
  }
  for (const auto& nic : config.nics) {
    using Kind = net::link::LinkConfig::Kind;
    if (nic.value.link.kind == Kind::kNone || nic.value.link.kind == Kind::kIsolated) continue;
    return fail("{}: not in a deterministic run, where frames would come at the host's time; allowed: isolated or none",
                nic.label(nic.value.text));
  }
  if (config.gdb.given()) return fail("{}: not together with --gdb, which stops the guest at the host's time", label);
  return {};
}

Result<> apply(const Key& key, VmConfig& config, const std::string& value, const std::string& place) {
  const auto set = key.set(config, value, Origin{place, {}});
  if (!set) return fail("{} '{}': {}", place, value, set.error().message);
  return {};
}

Result<> check_disk_settings(const VmConfig& config) {
  std::set<std::string_view> names;
  for (const auto& group : config.disk_groups) {
    if (!names.insert(group.value.name).second) return fail("{}: named twice", group.label(group.value.name));
  }
  for (const auto& disk : config.disks) {
    const DiskConfig& value = disk.value;
    if (!value.group.empty() && !names.contains(value.group)) {
      return fail("{}: no disk group '{}'", disk.label(value.path), value.group);
    }
    TRY_IN(disk.label(value.path), check_limits(value.limits));
    if (!value.controller.empty() && value.bus != machine::DiskBus::kNvme) {
      return fail("{}: controller={}: only with bus=nvme", disk.label(value.path), value.controller);
    }
    if (config.deterministic.value && (value.limits.any() || !value.group.empty())) {
      return fail("{}: limits: the disks of a deterministic run answer at once", disk.label(value.path));
    }
    if (config.deterministic.value && value.faults.takes_time()) {
      return fail("{}: fault: the disks of a deterministic run answer at once, without a delay",
                  disk.label(value.path));
    }
    TRY_IN(disk.label(value.path), check_disk_filters(value, config.deterministic.value));
  }
  return {};
}

}  // namespace

std::string_view to_string(EngineName name) {
  switch (name) {
    case EngineName::kAuto:
      return "auto";
    case EngineName::kKvm:
      return "kvm";
    case EngineName::kSoft:
      return "soft";
  }
  return "";
}

Result<> set_value(VmConfig& config, std::string_view key, const std::string& value, const std::string& place) {
  const Key* found = find_key(key);
  if (found == nullptr) return fail("{}: no key '{}'", place, key);
  return apply(*found, config, value, place);
}

Result<> set_list(VmConfig& config, std::string_view key, const std::vector<std::string>& values,
                  const std::string& place) {
  const Key* found = find_key(key);
  if (found == nullptr || found->clear == nullptr) return fail("{}: no list '{}'", place, key);
  found->clear(config);
  for (const std::string& value : values) TRY(apply(*found, config, value, place));
  return {};
}

Result<TraceConfig> parse_trace(std::string_view text) {
  TraceConfig trace;
  while (true) {
    const std::string_view item = text.substr(0, text.find(','));
    if (item == "exits") {
      trace.exits = true;
    } else if (item == "mmio") {
      trace.mmio = true;
    } else if (item == "irq") {
      trace.irq = true;
    } else if (item == "blocks") {
      trace.blocks = true;
    } else {
      return fail("allowed: exits, mmio, irq, blocks, or several with commas between");
    }
    if (item.size() == text.size()) return trace;
    text.remove_prefix(item.size() + 1);
  }
}

Result<> check_config(const VmConfig& config) {
  if (!config.kernel.given()) {
    return fail("no kernel; allowed: spec.boot.kernel in the VM's file, or --kernel FILE");
  }
  TRY(check_file(config.kernel, config.kernel.value, R_OK));
  if (config.initrd.given()) TRY(check_file(config.initrd, config.initrd.value, R_OK));
  for (const auto& module : config.modules) TRY(check_file(module, module.value.path, R_OK));
  for (const auto& disk : config.disks) {
    if (disk.value.queue_count != 0 && disk.value.bus != machine::DiskBus::kVirtio) {
      return fail("{}: queues: bus=virtio alone has it", disk.label(disk.value.path));
    }
    const bool is_raw = (disk.value.format.empty() || disk.value.format == "raw") && disk.value.secret.empty();
    if (disk.value.fixed_buffers && (!is_raw || block::nbd::is_uri(disk.value.path))) {
      return fail("{}: fixed-buffers: a raw file or block device alone has them", disk.label(disk.value.path));
    }
    if (block::nbd::is_uri(disk.value.path)) continue;
    TRY(check_file(disk, disk.value.path, disk.value.read_only ? R_OK : R_OK | W_OK));
  }
  TRY(check_disk_settings(config));
  TRY(check_deterministic(config));
  return check_stdio_once(config);
}

}  // namespace bulkhead::vmm
