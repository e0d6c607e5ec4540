#include "cli/disk/stats.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>

#include <fmt/format.h>

#include "cli/image/image_verb.h"

namespace bulkhead::cli {
namespace {

constexpr std::array<const char*, 5> kOperations{"read", "write", "flush", "discard", "write_zeroes"};

std::string text_of(const Facts& facts, const std::string& name) {
  const auto found = facts.find(name);
  return found == facts.end() ? "" : found->second;
}

uint64_t number_of(const Facts& facts, const std::string& name) {
  return std::strtoull(text_of(facts, name).c_str(), nullptr, 10);
}

// 4.1us, 250us, 1.2ms, 3.0s.
std::string short_time(uint64_t ns) {
  const auto in = [ns](double unit, const char* name) {
    const double value = static_cast<double>(ns) / unit;
    return fmt::format("{:.{}f}{}", value, value < 9.95 ? 1 : 0, name);
  };
  if (ns < 1'000'000) return in(1e3, "us");
  if (ns < 1'000'000'000) return in(1e6, "ms");
  return in(1e9, "s");
}

double us(uint64_t ns) {
  return static_cast<double>(ns) / 1e3;
}

// "4096:12,8192:3".
std::string histogram_json(const std::string& text) {
  std::string json;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    char* count = nullptr;
    const uint64_t below = std::strtoull(text.c_str() + at, &count, 10);
    json += fmt::format("{}{{\"below_us\": {:.3f}, \"count\": {}}}", json.empty() ? "" : ", ", us(below),
                        *count == ':' ? std::strtoull(count + 1, nullptr, 10) : 0);
    at = end + 1;
  }
  return "[" + json + "]";
}

}  // namespace

Facts facts_of(const std::string& line) {
  Facts facts;
  for (size_t at = 0; at < line.size();) {
    const size_t end = std::min(line.find('\t', at), line.size());
    const std::string fact = line.substr(at, end - at);
    facts[fact.substr(0, fact.find('='))] = fact.substr(std::min(fact.find('='), fact.size() - 1) + 1);
    at = end + 1;
  }
  return facts;
}

std::string disk_stats_text(size_t number, const Facts& place, const Facts& stats) {
  std::string text =
      fmt::format("{} {} ({})\n  {:<12}{:>12}{:>18}{:>9}{:>9}{:>9}{:>9}\n", number, text_of(place, "file"),
                  text_of(place, "format"), "", "requests", "bytes", "p50", "p99", "p99.9", "max");
  for (const std::string name : kOperations) {
    if (number_of(stats, name + "_requests") == 0) continue;
    text += fmt::format("  {:<12}{:>12}{:>18}", name == "write_zeroes" ? "write zeroes" : name,
                        number_of(stats, name + "_requests"), number_of(stats, name + "_bytes"));
    // Nothing of it has been answered, or the run is deterministic.
    const bool timed = !text_of(stats, name + "_histogram").empty();
    for (const char* const percentile : {"_p50_ns", "_p99_ns", "_p999_ns", "_max_ns"}) {
      text += fmt::format("{:>9}", timed ? short_time(number_of(stats, name + percentile)) : "-");
    }
    text += '\n';
  }
  return text + fmt::format("  errors {}, put off {}, in flight {}\n", number_of(stats, "errors"),
                            number_of(stats, "put_off"), number_of(stats, "in_flight"));
}

std::string disk_stats_json(size_t number, const Facts& place, const Facts& stats) {
  std::string json = fmt::format("{{\"disk\": {}, \"file\": {}, \"format\": {}", number,
                                 json_text(text_of(place, "file")), json_text(text_of(place, "format")));
  for (const std::string name : kOperations) {
    json += fmt::format(
        ", \"{}\": {{\"requests\": {}, \"bytes\": {}, \"total_us\": {:.3f}, \"p50_us\": {:.3f}, \"p99_us\": {:.3f}, "
        "\"p99.9_us\": {:.3f}, \"max_us\": {:.3f}, \"histogram\": {}}}",
        name, number_of(stats, name + "_requests"), number_of(stats, name + "_bytes"),
        us(number_of(stats, name + "_total_ns")), us(number_of(stats, name + "_p50_ns")),
        us(number_of(stats, name + "_p99_ns")), us(number_of(stats, name + "_p999_ns")),
        us(number_of(stats, name + "_max_ns")), histogram_json(text_of(stats, name + "_histogram")));
  }
  return json + fmt::format(", \"errors\": {}, \"put_off\": {}, \"in_flight\": {}}}", number_of(stats, "errors"),
                            number_of(stats, "put_off"), number_of(stats, "in_flight"));
}

}  // namespace bulkhead::cli
