// What a switch's control socket answers: tables of ports, rules and refusals, and faults that are changed while
// running.
#include <algorithm>
#include <charconv>
#include <chrono>

#include "net/server/server.h"

namespace bulkhead::net::server {
namespace {

// The next word of a line, which is taken off it.
std::string_view next_word(std::string_view& line) {
  const size_t begin = std::min(line.find_first_not_of(' '), line.size());
  line.remove_prefix(begin);
  const std::string_view word = line.substr(0, line.find(' '));
  line.remove_prefix(word.size());
  return word;
}

std::string end_text(const frame::IpAddress& address, uint16_t port) {
  return address.family == frame::Family::kIpv4 ? fmt::format("{}:{}", address.to_string(), port)
                                                : fmt::format("[{}]:{}", address.to_string(), port);
}

std::string_view protocol_name(uint8_t protocol) {
  switch (protocol) {
    case frame::kProtocolTcp:
      return "TCP";
    case frame::kProtocolUdp:
      return "UDP";
    case frame::kProtocolIcmp:
    case frame::kProtocolIcmpv6:
      return "ping";
    default:
      return "IP";
  }
}

}  // namespace

std::string Server::name_of(switching::PortId id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? fmt::format("port {}", id) : found->second->name;
}

std::string Server::refusal_text(const policy::Refusal& refusal) const {
  std::string text = fmt::format("{} -> {}", refusal.gone_from ? *refusal.gone_from : name_of(refusal.from),
                                 refusal.gone_to ? *refusal.gone_to : name_of(refusal.to));
  if (refusal.flow && refusal.type == frame::kTypeArp) {
    text += fmt::format(" ARP {} asks for {}", refusal.flow->source.to_string(), refusal.flow->destination.to_string());
  } else if (refusal.flow) {
    text += fmt::format(" {} {} -> {}", protocol_name(refusal.flow->protocol),
                        end_text(refusal.flow->source, refusal.flow->source_port),
                        end_text(refusal.flow->destination, refusal.flow->destination_port));
  } else {
    text += fmt::format(" frame type {:#06x}", refusal.type);
  }
  text += fmt::format(": refused: {}", to_string(refusal.reason));
  if (refusal.reason != policy::Reason::kInspection) return text;
  text += fmt::format(": {}", to_string(refusal.modbus));
  if (refusal.modbus == inspect::ModbusVerdict::kMalformed) return text;
  text += fmt::format(": Modbus function {} to unit {}", refusal.request.function, refusal.request.unit);
  for (size_t i = 0; i < refusal.request.range_count; ++i) {
    text += fmt::format(", addresses {} to {}", refusal.request.ranges[i].first, refusal.request.ranges[i].last);
  }
  if (refusal.rule) text += fmt::format(" by {}", firewall_.plan().rules()[*refusal.rule].name);
  return text;
}

void Server::log_refusals() {
  for (const auto& [refusal, untold] : firewall_.refusals().take_lines()) {
    const std::string more = untold == 0 ? std::string() : fmt::format(" ({} more since the line before)", untold);
    log::warning("switch '{}': {}{}", name_, refusal_text(refusal), more);
  }
}

// A line for the first such frame of a port in a second, with how many there were since the line before.
void Server::log_forged(const Port& port, size_t kind, Forgeries& forged, ByteSpan frame, uint64_t now_ns) {
  constexpr uint64_t kOnce_ns = 1'000'000'000;
  ++forged.untold;
  if (forged.told_ns != 0 && now_ns - forged.told_ns < kOnce_ns) return;
  const frame::Headers headers = frame::read_headers(frame);
  std::string who = headers.source.to_string();
  if (headers.arp) {
    who += fmt::format(", ARP {} asks for {}", headers.arp->sender.to_string(), headers.arp->target.to_string());
  } else if (headers.ip) {
    who += fmt::format(", IP {} -> {}", headers.ip->source.to_string(), headers.ip->destination.to_string());
  }
  log::warning("switch '{}': {} sends as {}: refused: {} ({} since the line before)", name_, port.name, who,
               to_string(kForged[kind]), std::exchange(forged.untold, 0));
  forged.told_ns = now_ns;
}

std::string Server::list_ports() const {
  std::string text = fmt::format("{:<24} {:<16} {:<16} {:<5} {:>12} {:>12} {:>10} {:>10}  {}\n", "PORT", "ZONE",
                                 "GROUP", "LINK", "FRAMES IN", "FRAMES OUT", "REFUSED", "LOST", "DROPPED");
  for (const auto& port : ports_) {
    const switching::Counters* const counters = port->id ? switch_.counters(*port->id) : nullptr;
    std::string drops;
    for (size_t i = 0; counters != nullptr && i < switching::kDropCount; ++i) {
      if (counters->drops[i] == 0 || static_cast<switching::Drop>(i) == switching::Drop::kFilter) continue;
      drops += fmt::format("{}{} {}", drops.empty() ? "" : ", ", to_string(static_cast<switching::Drop>(i)),
                           counters->drops[i]);
    }
    text += fmt::format(
        "{:<24} {:<16} {:<16} {:<5} {:>12} {:>12} {:>10} {:>10}  {}\n", port->name, group_zones_[port->group],
        group_names_[port->group], port->connection && port->connection->is_ready() ? "up" : "down",
        counters == nullptr ? 0 : counters->received_frames, counters == nullptr ? 0 : counters->sent_frames,
        counters == nullptr ? 0 : counters->dropped(switching::Drop::kFilter), port->lost, drops);
  }
  return text;
}

// A line a port and a line a group: what it is, its name, and facts as NAME=VALUE; sizes in bytes.
std::string Server::list_counters() const {
  std::string text;
  const auto add = [&text](const switching::Counters& counters) {
    text += fmt::format(
        " received-frames={} received-bytes={} sent-frames={} sent-bytes={} flooded={} not-learned={} moved={}",
        counters.received_frames, counters.received_bytes, counters.sent_frames, counters.sent_bytes,
        counters.flooded_frames, counters.not_learned, counters.moved_addresses);
    for (size_t i = 0; i < switching::kDropCount; ++i) {
      std::string name(to_string(static_cast<switching::Drop>(i)));
      std::ranges::replace(name, ' ', '-');
      text += fmt::format(" dropped.{}={}", name, counters.drops[i]);
    }
  };
  for (const auto& port : ports_) {
    const switching::Counters* const counters = port->id ? switch_.counters(*port->id) : nullptr;
    text += fmt::format("port {} zone={} group={} link={} lost={}", port->name, group_zones_[port->group],
                        group_names_[port->group], port->connection && port->connection->is_ready() ? "up" : "down",
                        port->lost);
    add(counters == nullptr ? switching::Counters{} : *counters);
    text += '\n';
  }
  for (switching::GroupId group = 0; group < group_names_.size(); ++group) {
    text += fmt::format("group {} zone={}", group_names_[group], group_zones_[group]);
    add(*switch_.group_counters(group));
    text += '\n';
  }
  return text;
}

// A line a port and direction: "PORT in|out" and facts as NAME=VALUE, in the units of set_faults().
std::string Server::list_faults() const {
  std::string text;
  for (const auto& port : ports_) {
    for (const auto& [direction, faults] : {std::pair("in", port->inward.get()), {"out", port->outward.get()}}) {
      const fault::FaultConfig& config = faults->config();
      const fault::FaultCounters& counters = faults->counters();
      text += fmt::format("{} {} delay={} jitter={} lost={} duplicated={} reordered={} corrupted={} rate={} cut={}",
                          port->name, direction, config.delay_ns, config.jitter_ns, config.lost, config.duplicated,
                          config.reordered, config.corrupted, config.rate_bytes_a_second, config.is_cut ? 1 : 0);
      text += fmt::format(
          " frames.passed={} frames.lost={} frames.duplicated={} frames.reordered={} frames.corrupted={} "
          "frames.overflowed={}\n",
          counters.passed, counters.lost, counters.duplicated, counters.reordered, counters.corrupted,
          counters.overflowed);
    }
  }
  return text;
}

std::string Server::list_addresses() const {
  std::string text = fmt::format("{} of {} addresses learned\n", switch_.addresses().size(),
                                 switching::MacTableLimits{}.address_count);
  for (const auto& port : ports_) {
    if (port->id) text += fmt::format("{:<24} {:>6}\n", port->name, switch_.addresses().count_of(*port->id));
  }
  return text;
}

std::string Server::list_rules() const {
  std::string text = fmt::format("{:>12}  {}\n", "PASSED", "RULE");
  const auto& rules = firewall_.plan().rules();
  for (uint32_t i = 0; i < rules.size(); ++i)
    text += fmt::format("{:>12}  {}\n", firewall_.passed_by(i), rules[i].name);
  for (size_t i = 0; i < policy::kReasonCount; ++i) {
    const auto reason = static_cast<policy::Reason>(i);
    if (firewall_.count(reason) != 0) {
      text += fmt::format("{:>12}  {}{}\n", firewall_.count(reason),
                          policy::is_pass(reason) ? "passed: " : "refused: ", to_string(reason));
    }
  }
  return text + fmt::format("{:>12}  connections, {} of them inspected\n", firewall_.connections().size(),
                            firewall_.connections().inspected());
}

// Oldest first; of more than a socket takes at once the latest, behind a line with the number of the others.
std::string Server::list_refusals() const {
  const std::vector<policy::Refusal> latest = firewall_.refusals().latest();
  const auto now = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  std::vector<std::string> lines;
  size_t bytes = 0;
  for (size_t left = latest.size(); left > 0; --left) {
    const policy::Refusal& refusal = latest[left - 1];
    const uint64_t ago_ms = now > refusal.time_ns ? (now - refusal.time_ns) / 1'000'000 : 0;
    std::string line = fmt::format("{}.{:03} s ago: {}\n", ago_ms / 1000, ago_ms % 1000, refusal_text(refusal));
    bytes += line.size();
    if (bytes > Control::kMaximumAnswer) {
      lines.push_back(fmt::format("{} older ones are left out\n", left));
      break;
    }
    lines.push_back(std::move(line));
  }
  std::ranges::reverse(lines);
  return fmt::format("{}", fmt::join(lines, ""));
}

// Nothing: what there is. Else "PORT [in|out] delay_ns jitter_ns lost duplicated reordered corrupted rate cut", numbers
// all of them.
std::string Server::set_faults(std::string_view arguments) {
  const std::string_view name = next_word(arguments);
  if (name.empty()) return list_faults();
  const auto port = std::ranges::find_if(ports_, [name](const auto& each) { return each->name == name; });
  if (port == ports_.end()) return fmt::format("error: no port '{}'\n", name);
  // A line that is bad in one direction only may be half-open: "in" is what the port sends.
  std::string_view direction = arguments;
  direction = next_word(direction);
  const bool is_one_way = direction == "in" || direction == "out";
  if (is_one_way) (void)next_word(arguments);
  uint64_t numbers[8] = {};
  for (uint64_t& number : numbers) {
    const std::string_view word = next_word(arguments);
    const char* const word_end = word.data() + word.size();
    const auto [end, error] = std::from_chars(word.data(), word_end, number);
    if (error != std::errc() || end != word_end) return fmt::format("error: '{}' is no number\n", word);
  }
  if (const std::string_view more = next_word(arguments); !more.empty()) {
    return fmt::format("error: '{}': allowed: {} numbers\n", more, std::size(numbers));
  }
  for (size_t i = 2; i < 6; ++i) {
    if (numbers[i] > fault::FaultConfig::kAlways) return fmt::format("error: {} of a million\n", numbers[i]);
  }
  const fault::FaultConfig config{.delay_ns = numbers[0],
                                  .jitter_ns = numbers[1],
                                  .lost = static_cast<uint32_t>(numbers[2]),
                                  .duplicated = static_cast<uint32_t>(numbers[3]),
                                  .reordered = static_cast<uint32_t>(numbers[4]),
                                  .corrupted = static_cast<uint32_t>(numbers[5]),
                                  .rate_bytes_a_second = numbers[6],
                                  .is_cut = numbers[7] != 0};
  if (const auto checked = fault::check_faults(config); !checked) return "error: " + checked.error().message + "\n";
  if (!is_one_way || direction == "in") (*port)->inward->set_config(config);
  if (!is_one_way || direction == "out") (*port)->outward->set_config(config);
  return "done\n";
}

std::string Server::reply_to(std::string_view line) {
  const std::string_view word = next_word(line);
  if (word == "ports") return list_ports();
  if (word == "counters") return list_counters();
  if (word == "addresses") return list_addresses();
  if (word == "rules") return list_rules();
  if (word == "refusals") return list_refusals();
  if (word == "faults") return set_faults(line);
  return fmt::format("error: '{}'; allowed: ports, counters, addresses, rules, refusals, faults\n", word);
}

}  // namespace bulkhead::net::server
