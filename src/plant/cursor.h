// A value of a YAML file with the place where it stands, so that every complaint names file, line, path and value. Used
// within yaml::read() only: yaml-cpp may throw.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/yaml/document.h"

namespace bulkhead::plant {

class Cursor {
 public:
  // The file's name outlives the cursor.
  Cursor(const std::string& file, YAML::Node node, std::string path)
      : Cursor(file, node, std::move(path), static_cast<uint32_t>(node.Mark().line + 1)) {}

  // Where its key stands, or a list's item begins.
  [[nodiscard]] uint32_t line() const { return line_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] bool is_list() const { return node_.IsSequence(); }
  [[nodiscard]] bool is_map() const { return node_.IsMap(); }
  // "plant.yaml:7: spec.zones.office".
  [[nodiscard]] std::string place() const { return fmt::format("{}:{}: {}", *file_, line(), path_); }

  [[nodiscard]] Result<std::string> text() const;
  // parse gives a Result of the text; its error is put behind place and value.
  template <typename Parse>
  auto value(Parse&& parse) const -> decltype(parse(std::string_view())) {
    const std::string written = TRY(text());
    return in_place(written, parse(std::string_view(written)));
  }
  template <typename T>
  Result<T> in_place(std::string_view written, Result<T> result) const {
    if (result) return result;
    return fail("{} '{}': {}", place(), written, result.error().message);
  }

  struct Field {
    std::string_view name;
    std::function<Result<>(const Cursor&)> read;
  };
  // A map with these keys and no others; what is not there is not read.
  [[nodiscard]] Result<> fields(std::span<const Field> known) const;
  [[nodiscard]] Result<> fields(std::initializer_list<Field> known) const {
    return fields(std::span(known.begin(), known.size()));
  }
  // A map whose keys are names (check_name), at most most of them.
  [[nodiscard]] Result<> named(size_t most,
                               const std::function<Result<>(const std::string& name, const Cursor&)>& read) const;
  // A list, or a single value in place of a list of one.
  [[nodiscard]] Result<> list(size_t most, const std::function<Result<>(const Cursor&)>& read) const;

 private:
  Cursor(const std::string& file, YAML::Node node, std::string path, uint32_t line)
      : file_(&file), node_(std::move(node)), path_(std::move(path)), line_(line) {}
  // Calls with each key and value of a map; a key that is no word or stands twice is an error.
  [[nodiscard]] Result<> entries(const std::function<Result<>(const std::string&, const Cursor&)>& read) const;

  const std::string* file_;
  YAML::Node node_;
  std::string path_;
  uint32_t line_;
};

}  // namespace bulkhead::plant
