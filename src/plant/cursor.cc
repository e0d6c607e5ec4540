#include "plant/cursor.h"

#include <algorithm>
#include <set>

#include "plant/values.h"

namespace bulkhead::plant {

Result<std::string> Cursor::text() const {
  if (node_.IsNull()) return fail("{}: has no value", place());
  if (!node_.IsScalar()) return fail("{}: not a single value", place());
  return node_.Scalar();
}

Result<> Cursor::entries(const std::function<Result<>(const std::string&, const Cursor&)>& read) const {
  // An empty section is one without entries.
  if (node_.IsNull()) return {};
  if (!node_.IsMap()) return fail("{}: not a map", place());
  std::set<std::string> seen;
  for (const auto& entry : node_) {
    const Cursor key(*file_, entry.first, path_);
    if (!entry.first.IsScalar()) return fail("{}: a key that is not a word", key.place());
    const std::string name = entry.first.Scalar();
    const std::string path = path_.empty() ? name : fmt::format("{}.{}", path_, name);
    if (!seen.insert(name).second) return fail("{}:{}: {}: stands twice", *file_, key.line(), path);
    TRY(read(name, Cursor(*file_, entry.second, path, key.line())));
  }
  return {};
}

Result<> Cursor::fields(std::span<const Field> known) const {
  return entries([&](const std::string& name, const Cursor& value) -> Result<> {
    const auto found = std::ranges::find(known, name, &Field::name);
    if (found != known.end()) return found->read(value);
    std::vector<std::string_view> names;
    for (const Field& field : known) names.push_back(field.name);
    return fail("{}: unknown key; allowed: {}", value.place(), fmt::join(names, ", "));
  });
}

Result<> Cursor::named(size_t most, const std::function<Result<>(const std::string& name, const Cursor&)>& read) const {
  size_t count = 0;
  return entries([&](const std::string& name, const Cursor& value) -> Result<> {
    if (++count > most) return fail("{}: more than the {} allowed", value.place(), most);
    TRY(value.in_place(name, check_name(name)));
    return read(name, value);
  });
}

Result<> Cursor::list(size_t most, const std::function<Result<>(const Cursor&)>& read) const {
  if (!node_.IsSequence()) return read(*this);
  size_t index = 0;
  for (const YAML::Node& entry : node_) {
    const Cursor value(*file_, entry, fmt::format("{}[{}]", path_, index));
    if (++index > most) return fail("{}: more than the {} allowed", value.place(), most);
    TRY(read(value));
  }
  return {};
}

}  // namespace bulkhead::plant
