#include "cli/plant/plant_verb.h"

#include <cstdio>

#include <fcntl.h>
#include <sys/socket.h>

#include <CLI/CLI.hpp>

#include "cli/plant/up_verb.h"
#include "net/server/listen.h"
#include "net/tunnel/key_file.h"
#include "net/tunnel/vxlan.h"
#include "plant/compile.h"
#include "plant/explain.h"
#include "plant/graph.h"
#include "plant/values.h"
#include "support/os/fd.h"

namespace bulkhead::cli {
namespace {

constexpr int kDropped = 1, kPartlyDropped = 3;

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

}  // namespace

void PlantVerb::add_options(CLI::App& options) {
  app_ = &options;
  options.require_subcommand(1);
  options.footer("Examples:\n  bulkhead plant check plant.yaml\n  bulkhead plant graph plant.yaml --output plant.svg");
  CLI::App* const check =
      options.add_subcommand("check", "Say what is wrong with a plant's description, or what it has");
  CLI::App* const graph = options.add_subcommand("graph", "Draw zones, machines and conduits as SVG");
  for (CLI::App* const verb : {check, graph}) {
    verb->add_option("file", file_, "The plant's description; see docs/plants.md (plant.yaml)")->type_name("FILE");
  }
  graph->add_option("-o,--output", output_, "Write the picture there instead of standard output")->type_name("FILE");
}

Result<> PlantVerb::dispatch() {
  const plant::Plant plant = TRY(plant::load_plant(file_));
  if (app_->get_subcommands().front()->get_name() == "check") {
    print(fmt::format("{}: plant '{}': {} switches, {} zones, {} conduits, {} machines, {} links to outside\n", file_,
                      plant.name, plant.switches.size(), plant.zones.size(), plant.conduits.size(),
                      plant.machines.size(), plant.links.size()));
    return {};
  }
  const std::string svg = plant::draw_svg(plant);
  if (output_.empty()) {
    print(svg);
    return {};
  }
  const Fd file = TRY(open_file(output_, O_WRONLY | O_CREAT | O_TRUNC));
  return write_all(file.get(), {reinterpret_cast<const uint8_t*>(svg.data()), svg.size()});
}

int PlantVerb::run() {
  const auto done = dispatch();
  if (done) return 0;
  print_message(done.error().message);
  return kUsageErrorStatus;
}

void NetworkVerb::add_options(CLI::App& options) {
  app_ = &options;
  options.require_subcommand(1);
  CLI::App* const tunnels = options.add_subcommand("tunnels", "Say in which state a running plant's tunnels are");
  tunnels->add_option("file", file_, "The plant's description (plant.yaml)")->type_name("FILE");
  tunnels->add_option("--directory", directory_, "The plant's folder, where 'up' was given one")->type_name("DIR");
  switch_questions_.add_options(options);
  CLI::App* const keygen = options.add_subcommand("keygen", "Make this host's private key, and say its public one");
  CLI::App* const key = options.add_subcommand("key", "Say the public key and the address that go with a private key");
  for (CLI::App* const verb : {keygen, key}) {
    verb->add_option("file", key_file_, "The private key's file, for its owner alone")->required()->type_name("FILE");
  }
  CLI::App* const explain = options.add_subcommand("explain", "Say which rule decides about a connection");
  explain->footer(
      "Exit status: 0 all of it passes, 1 nothing does, 2 the question or the plant's description is wrong,\n"
      "3 some of it passes: some pair of cards, port or address of those asked about.\n\n"
      "Example:\n  bulkhead network explain --from historian --to plc1 tcp/502 --modbus write --address 100");
  explain->add_option("service", service_, "A service by name, or tcp/PORT, udp/PORT, udp/FIRST-LAST")->required();
  explain->add_option("--plant", file_, "The plant's description (plant.yaml)")->type_name("FILE");
  explain->add_option("--from", from_, "A machine, a link to outside or a zone")->required()->type_name("NAME");
  explain->add_option("--to", to_, "As --from")->required()->type_name("NAME");
  explain->add_option("--modbus", modbus_, "A Modbus request in the connection: read, write or a function code")
      ->type_name("WHAT");
  explain->add_option("--unit", unit_, "Its unit (1)")->check(CLI::Range(0u, 255u));
  explain->add_option("--address", addresses_, "Its first address, or FIRST-LAST (0)")->type_name("RANGE");
}

Result<int> NetworkVerb::show_key(bool make) const {
  HostRandom random;
  const net::tunnel::Secret secret =
      make ? TRY(net::tunnel::make_key_file(key_file_, random)) : TRY(net::tunnel::read_key_file(key_file_));
  const net::tunnel::Bytes32 key = net::tunnel::public_key_of(secret);
  print(fmt::format("public key {}\naddress    {}\n", net::tunnel::key_text(key),
                    net::tunnel::address_of_key(key).to_string()));
  return 0;
}

Result<int> NetworkVerb::show_tunnels() const {
  const plant::Plant plant = TRY(plant::load_plant(file_));
  const std::string directory = directory_.empty() ? folder_of(plant.name) : directory_;
  int status = 0;
  for (const plant::LinkToOutside& link : plant.links) {
    if (link.kind != plant::LinkToOutside::Kind::kTunnel) continue;
    const auto socket =
        net::server::connect_to(plant::tunnel_socket(fmt::format("{}/{}", directory, link.card.on.name), link));
    if (!socket) {
      print(fmt::format("{}: does not run\n", link.name));
      status = kDropped;
      continue;
    }
    const uint8_t question = '\n';
    TRY(write_all(socket->get(), {&question, 1}));
    std::string answer;
    char bytes[4096];
    for (ssize_t count = 0; (count = ::recv(socket->get(), bytes, sizeof bytes, 0)) > 0;) {
      answer.append(bytes, static_cast<size_t>(count));
    }
    print(fmt::format("{}: {}", link.name, answer.empty() ? "does not answer\n" : answer));
    if (answer.empty()) status = kDropped;
  }
  return status;
}

Result<int> NetworkVerb::dispatch() {
  if (switch_questions_.is_asked()) return switch_questions_.run();
  const std::string verb = app_->get_subcommands().front()->get_name();
  if (verb == "explain") return explain();
  return verb == "tunnels" ? show_tunnels() : show_key(verb == "keygen");
}

Result<int> NetworkVerb::explain() const {
  const auto [first, last] =
      TRY_IN(fmt::format("--address '{}'", addresses_), plant::parse_range(addresses_, 0, UINT16_MAX));
  const plant::Plant plant = TRY(plant::load_plant(file_));
  const plant::Explanation explanation = TRY(plant::explain(plant, {.from = from_,
                                                                    .to = to_,
                                                                    .service = service_,
                                                                    .modbus = modbus_,
                                                                    .unit = static_cast<uint8_t>(unit_),
                                                                    .first_address = static_cast<uint16_t>(first),
                                                                    .last_address = static_cast<uint16_t>(last)}));
  for (const std::string& line : explanation.lines) print(line + "\n");
  switch (explanation.passes) {
    case plant::Explanation::Passes::kNothing:
      return kDropped;
    case plant::Explanation::Passes::kSome:
      return kPartlyDropped;
    case plant::Explanation::Passes::kEverything:
      break;
  }
  return 0;
}

int NetworkVerb::run() {
  const auto status = dispatch();
  if (status) return *status;
  print_message(status.error().message);
  return kUsageErrorStatus;
}

}  // namespace bulkhead::cli
