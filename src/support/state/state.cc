// Encoding, all little-endian: node = u32 version, u32 field count, fields; field = u16 name length, name, u8 kind
// (0 integer: u64; 1 bytes: u32 length, bytes; 2 node: u32 length, node).
#include "support/state/state.h"

#include "support/check.h"

namespace bulkhead {
namespace {

constexpr int kMaximumDepth = 16;
constexpr uint32_t kMaximumFieldsANode = 65536;
enum class Kind : uint8_t { kInteger = 0, kBytes = 1, kNode = 2 };

template <typename T>
void append(std::vector<uint8_t>& out, T value) {
  const ByteSpan bytes = as_bytes(value);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void encode_node(const StateNode& node, std::vector<uint8_t>& out) {
  append(out, node.version);
  append(out, static_cast<uint32_t>(node.fields.size()));
  for (const auto& [name, value] : node.fields) {
    append(out, static_cast<uint16_t>(name.size()));
    out.insert(out.end(), name.begin(), name.end());
    if (const auto* integer = std::get_if<uint64_t>(&value)) {
      append(out, Kind::kInteger);
      append(out, *integer);
    } else if (const auto* bytes = std::get_if<std::vector<uint8_t>>(&value)) {
      append(out, Kind::kBytes);
      append(out, static_cast<uint32_t>(bytes->size()));
      out.insert(out.end(), bytes->begin(), bytes->end());
    } else {
      std::vector<uint8_t> inner;
      encode_node(*std::get<std::unique_ptr<StateNode>>(value), inner);
      append(out, Kind::kNode);
      append(out, static_cast<uint32_t>(inner.size()));
      out.insert(out.end(), inner.begin(), inner.end());
    }
  }
}

class Parser {
 public:
  Parser(ByteSpan bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  Result<std::unique_ptr<StateNode>> node(int depth) {
    if (depth > kMaximumDepth) return fail("{}: saved state is nested deeper than {}", path_, kMaximumDepth);
    auto made = std::make_unique<StateNode>();
    made->version = TRY(integer<uint32_t>());
    const uint32_t count = TRY(integer<uint32_t>());
    if (count > kMaximumFieldsANode) return fail("{}: {} fields in one node of saved state", path_, count);
    for (uint32_t i = 0; i < count; ++i) TRY(field(*made, depth));
    return made;
  }
  [[nodiscard]] bool at_end() const { return bytes_.empty(); }

 private:
  Result<ByteSpan> take(size_t size) {
    if (size > bytes_.size()) return fail("{}: saved state ends {} bytes too early", path_, size - bytes_.size());
    const ByteSpan taken = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return taken;
  }
  template <typename T>
  Result<T> integer() {
    return load<T>(TRY(take(sizeof(T))).data());
  }
  Result<> field(StateNode& node, int depth) {
    const ByteSpan name_bytes = TRY(take(TRY(integer<uint16_t>())));
    std::string name(name_bytes.begin(), name_bytes.end());
    const auto kind = static_cast<Kind>(TRY(integer<uint8_t>()));
    StateNode::Value value;
    if (kind == Kind::kInteger) {
      value = TRY(integer<uint64_t>());
    } else if (kind == Kind::kBytes) {
      const ByteSpan bytes = TRY(take(TRY(integer<uint32_t>())));
      value = std::vector<uint8_t>(bytes.begin(), bytes.end());
    } else if (kind == Kind::kNode) {
      Parser inner(TRY(take(TRY(integer<uint32_t>()))), path_);
      value = TRY(inner.node(depth + 1));
      if (!inner.at_end()) return fail("{}: bytes left over in saved state of '{}'", path_, name);
    } else {
      return fail("{}: field '{}' has unknown kind {}", path_, name, static_cast<int>(kind));
    }
    if (!node.fields.emplace(std::move(name), std::move(value)).second) return fail("{}: a field stands twice", path_);
    return {};
  }

  ByteSpan bytes_;
  const std::string& path_;
};

}  // namespace

StateWriter::StateWriter(uint32_t version) : owned_(std::make_shared<StateNode>()), node_(owned_.get()) {
  node_->version = version;
}

StateWriter& StateWriter::put_integer(std::string_view name, uint64_t value) {
  CHECK(node_->fields.emplace(name, value).second, "a field of saved state is written twice");
  return *this;
}

StateWriter& StateWriter::put_bytes(std::string_view name, ByteSpan bytes) {
  CHECK(node_->fields.emplace(name, std::vector<uint8_t>(bytes.begin(), bytes.end())).second,
        "a field of saved state is written twice");
  return *this;
}

StateWriter StateWriter::child(std::string_view name, uint32_t version) {
  auto made = std::make_unique<StateNode>();
  made->version = version;
  StateNode& node = *made;
  CHECK(node_->fields.emplace(name, std::move(made)).second, "a child of saved state is written twice");
  return StateWriter(node);
}

std::vector<uint8_t> StateWriter::encode() const {
  std::vector<uint8_t> out;
  encode_node(*node_, out);
  return out;
}

Result<StateReader> StateReader::parse(ByteSpan bytes, std::string path) {
  Parser parser(bytes, path);
  std::shared_ptr<const StateNode> root = TRY(parser.node(0));
  if (!parser.at_end()) return fail("{}: bytes left over after the saved state", path);
  const StateNode* node = root.get();
  return StateReader(std::move(root), node, std::move(path));
}

Result<uint64_t> StateReader::get(std::string_view name, uint64_t maximum) const {
  const auto found = node_->fields.find(name);
  if (found == node_->fields.end()) return fail("{}: field '{}' is missing", path_, name);
  const auto* value = std::get_if<uint64_t>(&found->second);
  if (value == nullptr) return fail("{}: field '{}' is not an integer", path_, name);
  if (*value > maximum) return fail("{}: field '{}' is {}, above {}", path_, name, *value, maximum);
  return *value;
}

Result<ByteSpan> StateReader::get_bytes_up_to(std::string_view name, size_t size) const {
  const auto found = node_->fields.find(name);
  if (found == node_->fields.end()) return fail("{}: field '{}' is missing", path_, name);
  const auto* value = std::get_if<std::vector<uint8_t>>(&found->second);
  if (value == nullptr) return fail("{}: field '{}' is not a byte string", path_, name);
  if (value->size() > size) return fail("{}: field '{}' has {} bytes, above {}", path_, name, value->size(), size);
  return ByteSpan(*value);
}

Result<ByteSpan> StateReader::get_bytes(std::string_view name, size_t size) const {
  const ByteSpan bytes = TRY(get_bytes_up_to(name, size));
  if (bytes.size() != size) return fail("{}: field '{}' has {} bytes, not {}", path_, name, bytes.size(), size);
  return bytes;
}

Result<StateReader> StateReader::child(std::string_view name) const {
  const auto found = node_->fields.find(name);
  if (found == node_->fields.end()) return fail("{}: '{}' is missing", path_, name);
  const auto* value = std::get_if<std::unique_ptr<StateNode>>(&found->second);
  if (value == nullptr) return fail("{}: '{}' has no fields of its own", path_, name);
  return StateReader(owned_, value->get(), fmt::format("{}/{}", path_, name));
}

}  // namespace bulkhead
