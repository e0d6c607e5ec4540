// What a user states of a new image, KEY=VALUE each: taken one by one, and an error when something is left.
#pragma once

#include <bit>
#include <charconv>
#include <initializer_list>
#include <map>
#include <string>

#include "support/result.h"

namespace bulkhead::block {

class Settings {
 public:
  Settings(std::string format, std::map<std::string, std::string> settings)
      : format_(std::move(format)), left_(std::move(settings)) {}

  Result<std::string> word(const std::string& key, const std::string& without,
                           std::initializer_list<std::string_view> allowed) {
    const std::string text = take(key);
    if (text.empty()) return without;
    std::string list;
    for (const std::string_view one : allowed) {
      if (text == one) return text;
      list += list.empty() ? "" : ", ";
      list += one;
    }
    return fail("option {}={}: allowed are {}", key, text, list);
  }
  Result<uint64_t> number(const std::string& key, uint64_t without, uint64_t low, uint64_t high) {
    const std::string text = take(key);
    if (text.empty()) return without;
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) {
      return fail("option {}={}: a number from {} to {}", key, text, low, high);
    }
    return value;
  }
  Result<uint64_t> power_of_two(const std::string& key, uint64_t without, uint64_t low, uint64_t high) {
    const uint64_t value = TRY(number(key, without, low, high));
    if (!std::has_single_bit(value)) return fail("option {}={}: not a power of two", key, value);
    return value;
  }
  Result<> finish() const {
    if (left_.empty()) return {};
    return fail("option {}={}: unknown to {}", left_.begin()->first, left_.begin()->second, format_);
  }

 private:
  std::string take(const std::string& key) {
    const auto found = left_.find(key);
    if (found == left_.end()) return "";
    std::string text = std::move(found->second);
    left_.erase(found);
    return text;
  }

  std::string format_;
  std::map<std::string, std::string> left_;
};

}  // namespace bulkhead::block
