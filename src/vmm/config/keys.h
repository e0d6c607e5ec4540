// Every key of vm.yaml in one table: the file's reader, the flags and the documentation's test all go through it.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "vmm/config/config.h"

namespace bulkhead::vmm {

// Where a value stands: what to show in errors, and which directory relative paths count from (empty: none).
struct Origin {
  std::string place;
  std::string directory;
};

struct Key {
  std::string_view path;  // "spec.boot.kernel"
  // The error is the reason alone; the caller puts place and value in front.
  Result<> (*set)(VmConfig& config, const std::string& value, const Origin& origin);
  // For lists: forgets what was given before. nullptr for single values.
  void (*clear)(VmConfig& config) = nullptr;
};

std::span<const Key> all_keys();
const Key* find_key(std::string_view path);

std::string resolve_path(const std::string& path, const std::string& directory);
// One property of a disk by its name in vm.yaml and in --disk, one of kDiskProperties.
Result<> set_disk_property(DiskConfig& disk, std::string_view name, const std::string& value,
                           const std::string& directory);
inline constexpr std::string_view kDiskProperties =
    "bps, bps-burst, bus, cache, controller, encrypt, fault, file, filters, fixed-buffers, format, group, iops, "
    "iops-burst, "
    "on-error, queues, "
    "read-only, "
    "serial";

}  // namespace bulkhead::vmm
