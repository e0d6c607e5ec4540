#include "net/policy/service.h"

#include <algorithm>
#include <charconv>

#include "net/frame/protocol.h"

namespace bulkhead::net::policy {
namespace {

struct Known {
  std::string_view name;
  ServicePorts ports;
};

constexpr ServicePorts tcp(uint16_t port) {
  return {Transport::kTcp, port, port};
}
constexpr ServicePorts udp(uint16_t port) {
  return {Transport::kUdp, port, port};
}

// A service of several lines has them all. Sorted by name.
constexpr Known kServices[] = {
    {"bacnet", udp(47808)},
    {"dhcp", udp(67)},
    {"dnp3", tcp(20000)},
    {"dnp3", udp(20000)},
    {"dns", tcp(53)},
    {"dns", udp(53)},
    {"ethernet-ip", tcp(44818)},
    {"ethernet-ip", udp(44818)},
    {"ethernet-ip", udp(2222)},
    {"http", tcp(80)},
    {"https", tcp(443)},
    {"iec-104", tcp(2404)},
    {"modbus", tcp(502)},
    {"mqtt", tcp(1883)},
    {"mqtts", tcp(8883)},
    {"ntp", udp(123)},
    {"opc-ua", tcp(4840)},
    {"ping", {Transport::kPing, 0, 0}},
    // Hello, Get and Set, Identify's question and answer; the type's other frames are the devices' cyclic values.
    {"profinet-dcp", {Transport::kEthernet, frame::kTypeProfinet, frame::kTypeProfinet, 0xFEFC, 0xFEFF}},
    {"rdp", tcp(3389)},
    {"rdp", udp(3389)},
    {"s7comm", tcp(102)},
    {"ssh", tcp(22)},
    {"syslog", udp(514)},
};

Result<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) return fail("a port is 1 to 65535");
  return port;
}

}  // namespace

std::vector<std::string_view> service_names() {
  std::vector<std::string_view> names;
  for (const Known& known : kServices) {
    if (names.empty() || names.back() != known.name) names.push_back(known.name);
  }
  return names;
}

Result<Service> find_service(std::string_view text) {
  Service service{.name = std::string(text), .ports = {}};
  for (const Known& known : kServices) {
    if (known.name == text) service.ports.push_back(known.ports);
  }
  if (!service.ports.empty()) return service;
  const bool is_tcp = text.starts_with("tcp/");
  if (!is_tcp && !text.starts_with("udp/")) {
    return fail("service '{}': allowed: {}, or tcp/PORT, udp/PORT, udp/FIRST-LAST", text,
                fmt::join(service_names(), ", "));
  }
  const std::string_view range = text.substr(4);
  const size_t dash = range.find('-');
  ServicePorts ports{.transport = is_tcp ? Transport::kTcp : Transport::kUdp};
  ports.first = TRY_IN(fmt::format("service '{}'", text), parse_port(range.substr(0, dash)));
  ports.last = dash == std::string_view::npos
                   ? ports.first
                   : TRY_IN(fmt::format("service '{}'", text), parse_port(range.substr(dash + 1)));
  if (ports.last < ports.first) return fail("service '{}': the range ends before it begins", text);
  service.ports.push_back(ports);
  return service;
}

}  // namespace bulkhead::net::policy
