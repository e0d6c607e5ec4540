#include "support/yaml/document.h"

#include <sstream>

#include <yaml-cpp/eventhandler.h>

namespace bulkhead::yaml {
namespace {

struct LimitExceeded {
  int line;
  std::string what;
};

// Counts while yaml-cpp only scans. An alias is cheap to write and dear to walk, so it has a bound of its own.
class Counter final : public YAML::EventHandler {
 public:
  explicit Counter(const Limits& limits) : limits_(limits) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { value(mark); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    if (++aliases_ > limits_.aliases) throw LimitExceeded{mark.line, fmt::format("{} aliases", limits_.aliases)};
    value(mark);
  }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t, const std::string&) override {
    value(mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
    enter(mark);
  }
  void OnSequenceEnd() override { --level_; }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
    enter(mark);
  }
  void OnMapEnd() override { --level_; }

 private:
  void value(const YAML::Mark& mark) {
    if (++values_ > limits_.values) throw LimitExceeded{mark.line, fmt::format("{} values", limits_.values)};
  }
  void enter(const YAML::Mark& mark) {
    value(mark);
    if (++level_ > limits_.levels) throw LimitExceeded{mark.line, fmt::format("{} levels", limits_.levels)};
  }

  const Limits& limits_;
  int values_ = 0;
  int aliases_ = 0;
  int level_ = 0;
};

}  // namespace

Result<> check_limits(std::string_view text, const std::string& name, const Limits& limits,
                      std::string_view what_is_allowed) {
  if (text.size() > limits.bytes) return fail("{}: larger than the {} bytes allowed", name, limits.bytes);
  std::istringstream stream{std::string(text)};
  YAML::Parser parser(stream);
  Counter counter(limits);
  try {
    if (!parser.HandleNextDocument(counter)) return fail("{}:1: empty; allowed: {}", name, what_is_allowed);
    if (parser.HandleNextDocument(counter)) return fail("{}: more than one document", name);
  } catch (const LimitExceeded& limit) {
    return fail("{}:{}: more than the {} allowed", name, limit.line + 1, limit.what);
  }
  return {};
}

}  // namespace bulkhead::yaml
