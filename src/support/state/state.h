// Saved state: a tree of named fields, the same for checkpoints and migration. A writer builds it; a reader hands it
// out with a range check on every value, because a stream is hostile until validated (and a device's validate() comes
// after).
//
//   StateWriter writer(/*version=*/1);          StateReader reader = TRY(StateReader::parse(bytes, "pit"));
//   writer.put("reload", reload_);           reload_ = TRY(reader.get("reload", 0x10000));
//   writer.child("channel0", 1).put(...);    StateReader channel = TRY(reader.child("channel0"));
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "support/bytes.h"
#include "support/result.h"

namespace bulkhead {

struct StateNode {
  using Value = std::variant<uint64_t, std::vector<uint8_t>, std::unique_ptr<StateNode>>;
  uint32_t version = 1;
  std::map<std::string, Value, std::less<>> fields;
};

class StateWriter {
 public:
  explicit StateWriter(uint32_t version = 1);

  // Integers, enums and bools.
  template <typename T>
    requires(std::is_integral_v<T> || std::is_enum_v<T>)
  StateWriter& put(std::string_view name, T value) {
    return put_integer(name, static_cast<uint64_t>(value));
  }
  StateWriter& put_bytes(std::string_view name, ByteSpan bytes);
  // A trivially copyable struct of fixed layout, as its bytes.
  template <typename T>
  StateWriter& put_object(std::string_view name, const T& object) {
    return put_bytes(name, as_bytes(object));
  }
  // The child writes into this tree and must not outlive it.
  StateWriter child(std::string_view name, uint32_t version = 1);

  [[nodiscard]] std::vector<uint8_t> encode() const;
  [[nodiscard]] const StateNode& node() const { return *node_; }

 private:
  explicit StateWriter(StateNode& node) : node_(&node) {}
  StateWriter& put_integer(std::string_view name, uint64_t value);
  std::shared_ptr<StateNode> owned_;
  StateNode* node_;
};

class StateReader {
 public:
  // The tree that encode() wrote. path names it in errors ("checkpoint 'a.bhs'").
  static Result<StateReader> parse(ByteSpan bytes, std::string path);

  [[nodiscard]] uint32_t version() const { return node_->version; }
  // An integer not above maximum; the error names field, value and bound.
  Result<uint64_t> get(std::string_view name, uint64_t maximum = UINT64_MAX) const;
  Result<bool> get_flag(std::string_view name) const { return TRY(get(name, 1)) != 0; }
  // Bytes of exactly size, or of at most size with get_bytes_up_to().
  Result<ByteSpan> get_bytes(std::string_view name, size_t size) const;
  Result<ByteSpan> get_bytes_up_to(std::string_view name, size_t size) const;
  template <typename T>
  Result<T> get_object(std::string_view name) const {
    return load<T>(TRY(get_bytes(name, sizeof(T))).data());
  }
  Result<StateReader> child(std::string_view name) const;
  [[nodiscard]] bool has(std::string_view name) const { return node_->fields.contains(name); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  StateReader(std::shared_ptr<const StateNode> owned, const StateNode* node, std::string path)
      : owned_(std::move(owned)), node_(node), path_(std::move(path)) {}
  std::shared_ptr<const StateNode> owned_;
  const StateNode* node_;
  std::string path_;
};

}  // namespace bulkhead
