#include "cli/plant/switch_questions.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdio>

#include <sys/socket.h>
#include <CLI/CLI.hpp>

#include "cli/command_line.h"
#include "cli/plant/up_verb.h"
#include "net/server/listen.h"
#include "plant/model.h"
#include "plant/values.h"

namespace bulkhead::cli {
namespace {

constexpr int kRefused = 1;

struct Unit {
  uint64_t size;
  std::string_view name;
};

// In the largest unit that keeps it whole.
std::string whole(uint64_t value, std::initializer_list<Unit> units) {
  for (const Unit& unit : units) {
    if (value % unit.size == 0) return fmt::format("{}{}", value / unit.size, unit.name);
  }
  return std::to_string(value);
}

std::string duration(uint64_t ns) {
  return whole(ns, {{1'000'000'000, "s"}, {1'000'000, "ms"}, {1'000, "us"}, {1, "ns"}});
}

std::string share(uint32_t millionths) {
  std::string text = fmt::format("{}.{:04}", millionths / 10'000, millionths % 10'000);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text + "%";
}

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

bool is_number(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0; });
}

Result<std::string> ask_one(const std::string& path, const std::string& question) {
  const Fd socket = TRY(net::server::connect_to(path));
  const std::string line = question + "\n";
  TRY(write_all(socket.get(), {reinterpret_cast<const uint8_t*>(line.data()), line.size()}));
  std::string answer;
  char bytes[4096];
  for (ssize_t count = 0; (count = ::recv(socket.get(), bytes, sizeof bytes, 0)) > 0;) {
    answer.append(bytes, static_cast<size_t>(count));
  }
  if (answer.empty()) return fail("'{}': no answer in {} s", path, net::server::kAskPatience.count());
  return answer;
}

std::vector<SwitchFacts> facts_of(const std::string& switch_name, std::string_view text) {
  std::vector<SwitchFacts> all;
  while (!text.empty()) {
    const size_t size = std::min(text.find('\n'), text.size());
    all.push_back(read_facts(switch_name, text.substr(0, size)));
    text.remove_prefix(std::min(size + 1, text.size()));
  }
  return all;
}

net::fault::FaultConfig config_of(const SwitchFacts& facts) {
  const auto millionths = [&facts](std::string_view name) { return static_cast<uint32_t>(facts.number(name)); };
  return {.delay_ns = facts.number("delay"),
          .jitter_ns = facts.number("jitter"),
          .lost = millionths("lost"),
          .duplicated = millionths("duplicated"),
          .reordered = millionths("reordered"),
          .corrupted = millionths("corrupted"),
          .rate_bytes_a_second = facts.number("rate"),
          .is_cut = facts.number("cut") != 0};
}

// The facts whose names begin so and that are not 0: "forged-MAC 3, rate 9".
std::string counted(const SwitchFacts& facts, std::string_view prefix) {
  std::string text;
  for (const auto& [name, value] : facts.facts) {
    if (!name.starts_with(prefix) || value == "0") continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name.substr(prefix.size()), value);
  }
  return text;
}

}  // namespace

SwitchFacts read_facts(const std::string& switch_name, std::string_view line) {
  SwitchFacts made{.switch_name = switch_name, .words = {}, .facts = {}};
  while (!line.empty()) {
    const size_t size = std::min(line.find(' '), line.size());
    const std::string_view word = line.substr(0, size);
    line.remove_prefix(std::min(size + 1, line.size()));
    const size_t equals = word.find('=');
    if (equals == std::string_view::npos) {
      made.words.emplace_back(word);
    } else {
      made.facts.emplace_back(word.substr(0, equals), word.substr(equals + 1));
    }
  }
  return made;
}

std::string SwitchFacts::fact(std::string_view name) const {
  const auto found = std::ranges::find(facts, name, &std::pair<std::string, std::string>::first);
  return found == facts.end() ? std::string() : found->second;
}

uint64_t SwitchFacts::number(std::string_view name) const {
  const std::string text = fact(name);
  uint64_t value = 0;
  (void)std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// Names of a plant have nothing in them that JSON writes in another way.
std::string SwitchFacts::json(const std::vector<std::string_view>& names) const {
  std::string text = fmt::format("{{\"switch\": \"{}\"", switch_name);
  for (size_t i = 0; i < std::min(words.size(), names.size()); ++i) {
    text += fmt::format(", \"{}\": \"{}\"", names[i], words[i]);
  }
  for (const auto& [name, value] : facts) {
    text += is_number(value) ? fmt::format(", \"{}\": {}", name, value) : fmt::format(", \"{}\": \"{}\"", name, value);
  }
  return text + "}";
}

std::string describe_faults(const net::fault::FaultConfig& config) {
  std::vector<std::string> words;
  if (config.delay_ns != 0) words.push_back("delay " + duration(config.delay_ns));
  if (config.jitter_ns != 0) words.push_back("jitter " + duration(config.jitter_ns));
  for (const auto& [name, value] :
       {std::pair("lost", config.lost), std::pair("duplicated", config.duplicated),
        std::pair("reordered", config.reordered), std::pair("corrupted", config.corrupted)}) {
    if (value != 0) words.push_back(fmt::format("{} {}", name, share(value)));
  }
  if (config.rate_bytes_a_second != 0) {
    words.push_back("rate " + whole(config.rate_bytes_a_second * 8,
                                    {{1'000'000'000, "G"}, {1'000'000, "M"}, {1'000, "K"}, {1, ""}}));
  }
  if (config.is_cut) words.emplace_back("cut");
  return words.empty() ? "none" : fmt::format("{}", fmt::join(words, ", "));
}

void SwitchQuestions::add_options(CLI::App& network) {
  counters_ = network.add_subcommand("counters", "Frames and bytes of each port and port group of a running plant");
  fault_ = network.add_subcommand("fault", "A bad line on purpose, at a port of a running plant");
  fault_->require_subcommand(1);
  CLI::App* const show = fault_->add_subcommand("show", "Say which faults there are, and what they did");
  set_ = fault_->add_subcommand("set", "Make a port's line so; what is not named does not happen any more");
  clear_ = fault_->add_subcommand("clear", "Make a port's line good again");
  set_->footer(
      "Examples:\n  bulkhead network fault set plc1.0 --delay 5ms --jitter 2ms --lost 1%\n"
      "  bulkhead network fault set plc1.0 --out --cut   # half-open: it is heard and hears nothing");
  for (CLI::App* const verb : {set_, clear_}) {
    verb->add_option("port", port_, "A card like plc1.0, or a link")->required()->type_name("PORT");
    CLI::Option* const in = verb->add_flag("--in", in_, "Only what the port sends into the switch");
    verb->add_flag("--out", out_, "Only what it gets")->excludes(in);
  }
  for (const auto& [name, help, type] : {std::tuple("delay", "How long each frame takes", "TIME"),
                                         {"jitter", "Up to so much longer", "TIME"},
                                         {"lost", "Frames that do not arrive, like 1% or 0.05%", "SHARE"},
                                         {"duplicated", "That arrive twice", "SHARE"},
                                         {"reordered", "That overtake those before", "SHARE"},
                                         {"corrupted", "With a wrong bit", "SHARE"},
                                         {"rate", "Bits a second, like 64K", "BITS"}}) {
    set_->add_option(fmt::format("--{}", name), values_[name], help)->type_name(type);
  }
  set_->add_flag("--cut", cut_, "Nothing passes");
  for (CLI::App* const verb : {counters_, show, set_, clear_}) {
    verb->add_option("file", file_, "The plant's description (plant.yaml)")->type_name("FILE");
    verb->add_option("--directory", directory_, "The plant's folder, where 'up' was given one")->type_name("DIR");
  }
  for (CLI::App* const verb : {counters_, show}) {
    verb->add_option("-o,--output", format_, "text, or json")
        ->check(CLI::IsMember({"text", "json"}))
        ->type_name("FORMAT");
  }
}

bool SwitchQuestions::is_asked() const {
  return counters_->parsed() || fault_->parsed();
}

Result<int> SwitchQuestions::run() {
  if (counters_->parsed()) return show_counters();
  return set_->parsed() || clear_->parsed() ? set_faults() : show_faults();
}

Result<int> SwitchQuestions::ask(
    const std::string& question,
    const std::function<void(const std::string& name, const std::string& text)>& answer) const {
  const plant::Plant plant = TRY(plant::load_plant(file_));
  const std::string directory = directory_.empty() ? folder_of(plant.name) : directory_;
  int status = 0;
  for (const plant::SwitchConfig& each : plant.switches) {
    const auto said = ask_one(fmt::format("{}/{}/control.sock", directory, each.name), question);
    if (said) {
      answer(each.name, *said);
    } else {
      print_message(fmt::format("switch '{}' does not run: {}", each.name, said.error().message));
      status = kRefused;
    }
  }
  return status;
}

void SwitchQuestions::print_facts(const std::vector<SwitchFacts>& all,
                                  const std::vector<std::string_view>& names) const {
  std::vector<std::string> objects;
  for (const SwitchFacts& each : all) objects.push_back(each.json(names));
  print(fmt::format("[{}]\n", fmt::join(objects, ",\n ")));
}

Result<int> SwitchQuestions::show_counters() const {
  std::vector<SwitchFacts> all;
  const int status = TRY(ask("counters", [&all](const std::string& name, const std::string& text) {
    const auto some = facts_of(name, text);
    all.insert(all.end(), some.begin(), some.end());
  }));
  if (format_ == "json") {
    print_facts(all, {"kind", "name"});
    return status;
  }
  print(fmt::format("{:<6} {:<24} {:<16} {:<5} {:>12} {:>14} {:>12} {:>14} {:>9}  {}\n", "KIND", "NAME", "ZONE", "LINK",
                    "FRAMES IN", "BYTES IN", "FRAMES OUT", "BYTES OUT", "LOST", "DROPPED"));
  for (const SwitchFacts& each : all) {
    if (each.words.size() != 2) continue;
    print(fmt::format("{:<6} {:<24} {:<16} {:<5} {:>12} {:>14} {:>12} {:>14} {:>9}  {}\n", each.words[0], each.words[1],
                      each.fact("zone"), each.fact("link"), each.fact("received-frames"), each.fact("received-bytes"),
                      each.fact("sent-frames"), each.fact("sent-bytes"), each.fact("lost"), counted(each, "dropped.")));
  }
  return status;
}

Result<int> SwitchQuestions::show_faults() const {
  std::vector<SwitchFacts> all;
  const int status = TRY(ask("faults", [&all](const std::string& name, const std::string& text) {
    const auto some = facts_of(name, text);
    all.insert(all.end(), some.begin(), some.end());
  }));
  if (format_ == "json") {
    print_facts(all, {"port", "direction"});
    return status;
  }
  print(fmt::format("{:<24} {:<4} {:<48} {}\n", "PORT", "WAY", "FAULTS", "FRAMES"));
  for (const SwitchFacts& each : all) {
    const std::string faults = describe_faults(config_of(each)), frames = counted(each, "frames.");
    if (each.words.size() != 2 || (faults == "none" && frames.empty())) continue;
    print(fmt::format("{:<24} {:<4} {:<48} {}\n", each.words[0], each.words[1], faults, frames));
  }
  return status;
}

Result<net::fault::FaultConfig> SwitchQuestions::wanted_faults() const {
  net::fault::FaultConfig made{.is_cut = cut_};
  const auto read = [this](const std::string& name, auto& target, auto parse) -> Result<> {
    const auto given = values_.find(name);
    if (given == values_.end() || given->second.empty()) return {};
    target = TRY_IN(fmt::format("--{} '{}'", name, given->second), parse(given->second));
    return {};
  };
  TRY(read("delay", made.delay_ns, parse_duration_ns));
  TRY(read("jitter", made.jitter_ns, parse_duration_ns));
  TRY(read("lost", made.lost, parse_share));
  TRY(read("duplicated", made.duplicated, parse_share));
  TRY(read("reordered", made.reordered, parse_share));
  TRY(read("corrupted", made.corrupted, parse_share));
  TRY(read("rate", made.rate_bytes_a_second, plant::parse_bit_rate));
  TRY(net::fault::check_faults(made));
  if (set_->parsed() && made == net::fault::FaultConfig{}) return fail("set: no fault is named; allowed: clear");
  return made;
}

Result<int> SwitchQuestions::set_faults() const {
  const net::fault::FaultConfig config = TRY(wanted_faults());
  if (port_.empty() || port_.find_first_of(" \n") != std::string::npos) return fail("port '{}': no name", port_);
  const std::string question =
      fmt::format("faults {} {}{} {} {} {} {} {} {} {}", port_, in_ ? "in " : (out_ ? "out " : ""), config.delay_ns,
                  config.jitter_ns, config.lost, config.duplicated, config.reordered, config.corrupted,
                  config.rate_bytes_a_second, config.is_cut ? 1 : 0);
  bool done = false;
  std::string complaint;
  (void)TRY(ask(question, [&](const std::string&, const std::string& text) {
    done |= text == "done\n";
    if (text != "done\n") complaint = text;
  }));
  if (done) return 0;
  if (complaint.starts_with("error: ")) complaint.erase(0, 7);
  print_message(complaint.empty() ? "no switch runs" : complaint.substr(0, complaint.find('\n')));
  return kRefused;
}

}  // namespace bulkhead::cli
