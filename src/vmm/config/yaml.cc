// Reads vm.yaml. The file may come from anywhere: support/yaml bounds it before a tree is built.
#include <algorithm>
#include <set>

#include "support/os/fd.h"
#include "support/yaml/document.h"
#include "vmm/config/config.h"
#include "vmm/config/keys.h"
#include "vmm/config/values.h"

namespace bulkhead::vmm {
namespace {

constexpr yaml::Limits kLimits;

class Reader {
 public:
  Reader(const std::string& name, const std::string& directory) : name_(name), directory_(directory) {}

  Result<VmConfig> read(const YAML::Node& root) {
    if (!root.IsMap()) return fail("{}: not a map; allowed: kind, metadata and spec", at(root));
    TRY(map(root, ""));
    if (!kind_seen_) return fail("{}: kind is missing; allowed: kind: VirtualMachine", at(root));
    return std::move(config_);
  }

 private:
  [[nodiscard]] std::string at(const YAML::Node& node) const {
    return fmt::format("{}:{}", name_, node.Mark().line + 1);
  }

  // The keys that may stand directly under a path.
  static std::string allowed_under(const std::string& prefix) {
    std::set<std::string> names;
    for (const Key& key : all_keys()) {
      if (!key.path.starts_with(prefix)) continue;
      const std::string_view rest = key.path.substr(prefix.size());
      names.emplace(rest.substr(0, rest.find('.')));
    }
    return fmt::format("{}", fmt::join(names, ", "));
  }

  Result<> map(const YAML::Node& node, const std::string& prefix) {
    std::set<std::string> seen;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) return fail("{}: a key that is not a word", at(entry.first));
      const std::string path = prefix + entry.first.Scalar();
      if (!seen.insert(path).second) return fail("{}: {}: stands twice", at(entry.first), path);
      TRY(value(entry.first, entry.second, path, prefix));
    }
    return {};
  }

  Result<> value(const YAML::Node& key_node, const YAML::Node& node, const std::string& path,
                 const std::string& prefix) {
    const std::string section = path + ".";
    const bool is_section =
        std::ranges::any_of(all_keys(), [&](const Key& key) { return key.path.starts_with(section); });
    const Key* key = find_key(path);
    if (key == nullptr && !is_section) {
      return fail("{}: {}: unknown key; allowed: {}", at(key_node), path, allowed_under(prefix));
    }
    if (node.IsNull()) return fail("{}: {}: has no value", at(key_node), path);
    if (is_section) {
      if (!node.IsMap()) return fail("{}: {}: not a map; allowed: {}", at(node), path, allowed_under(section));
      return map(node, section);
    }
    kind_seen_ |= path == "kind";
    if (key->clear != nullptr && node.IsSequence()) return list(*key, node);
    return item(*key, node, path);
  }

  Result<> list(const Key& key, const YAML::Node& node) {
    size_t index = 0;
    for (const YAML::Node& entry : node) TRY(item(key, entry, fmt::format("{}[{}]", key.path, index++)));
    return {};
  }

  Result<> item(const Key& key, const YAML::Node& node, const std::string& path) {
    if (key.path == "spec.disks" && node.IsMap()) return disk(node, path);
    if (!node.IsScalar()) return fail("{}: {}: not a single value", at(node), path);
    const auto set = key.set(config_, node.Scalar(), Origin{fmt::format("{}: {}", at(node), path), directory_});
    if (!set) return fail("{}: {} '{}': {}", at(node), path, node.Scalar(), set.error().message);
    return {};
  }

  // A disk written out: {file: a.qcow2, format: qcow2, read-only: true, serial: DATA1}.
  Result<> disk(const YAML::Node& node, const std::string& path) {
    if (config_.disks.size() >= VmConfig::kMaximumDisks) {
      return fail("{}: {}: more than the {} disks allowed", at(node), path, VmConfig::kMaximumDisks);
    }
    Setting<DiskConfig> made{{}, fmt::format("{}: {}.file", at(node), path)};
    std::set<std::string> seen;
    for (const auto& entry : node) {
      const std::string name = entry.first.IsScalar() ? entry.first.Scalar() : "";
      if (!seen.insert(name).second) return fail("{}: {}.{}: stands twice", at(entry.first), path, name);
      if (fmt::format(", {},", kDiskProperties).find(fmt::format(" {},", name)) == std::string::npos) {
        return fail("{}: {}.{}: unknown key; allowed: {}", at(entry.first), path, name, kDiskProperties);
      }
      if (!entry.second.IsScalar()) return fail("{}: {}.{}: not a single value", at(entry.first), path, name);
      const std::string text = entry.second.Scalar();
      const std::string place = fmt::format("{}: {}.{}", at(entry.second), path, name);
      TRY_IN(fmt::format("{} '{}'", place, text), set_disk_property(made.value, name, text, directory_));
      if (name == "file") made.place = place;
    }
    if (made.value.path.empty()) return fail("{}: {}: file is missing", at(node), path);
    config_.disks.push_back(std::move(made));
    return {};
  }

  const std::string& name_;
  const std::string& directory_;
  VmConfig config_;
  bool kind_seen_ = false;
};

}  // namespace

Result<VmConfig> parse_config(std::string_view text, const std::string& name, const std::string& directory) {
  return yaml::read(text, name, kLimits, "kind, metadata and spec",
                    [&](const YAML::Node& root) { return Reader(name, directory).read(root); });
}

Result<VmConfig> load_config(const std::string& path) {
  const std::string text = TRY(read_file(path, kLimits.bytes));
  const size_t slash = path.rfind('/');
  return parse_config(text, path, slash == std::string::npos ? std::string() : path.substr(0, slash));
}

}  // namespace bulkhead::vmm
