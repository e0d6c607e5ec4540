#include "cli/plant/link_verb.h"

#include <algorithm>
#include <csignal>
#include <iterator>

#include <unistd.h>

#include <CLI/CLI.hpp>

#include "net/link/nat.h"
#include "net/link/patch.h"
#include "net/link/tap.h"
#include "net/link/tunnel_link.h"
#include "net/tunnel/key_file.h"
#include "net/vhost/front_end.h"
#include "plant/compile.h"
#include "support/log.h"
#include "support/os/confine.h"
#include "support/os/thread.h"

namespace bulkhead::cli {
namespace {

// To speak vhost-user, and to make the threads that do.
const std::vector<std::string> kCalls{"socket",   "connect",  "sendmsg",         "recvmsg",   "setsockopt",
                                      "shutdown", "eventfd2", "memfd_create",    "ftruncate", "clone",
                                      "clone3",   "prctl",    "rt_sigtimedwait", "sendto",    "recvfrom"};
// A tunnel hears many datagrams at once, and takes the socket of who asks for its state away at its end.
const std::vector<std::string> kTunnelCalls{"accept4", "recvmmsg", "unlink"};

Result<> give_up(const plant::LinkToOutside& link, const std::string& directory) {
  Confinement confinement{.removable_in = {}, .readable = {}, .calls = kCalls};
  if (link.kind == plant::LinkToOutside::Kind::kTunnel) {
    confinement.removable_in = {directory};
    confinement.calls.insert(confinement.calls.end(), kTunnelCalls.begin(), kTunnelCalls.end());
  }
  if (link.kind == plant::LinkToOutside::Kind::kNat) {
    const Confinement nat = net::link::NatLink::needs();
    confinement.readable = nat.readable;
    std::ranges::copy_if(nat.calls, std::back_inserter(confinement.calls),
                         [](const std::string& call) { return std::ranges::find(kCalls, call) == kCalls.end(); });
  }
  for (const std::string& each : TRY(confine(confinement)))
    log::warning("link '{}': not confined: {}", link.name, each);
  return {};
}

}  // namespace

void LinkVerb::add_options(CLI::App& options) {
  options.footer(
      "Plugs into the link's port of a switch that runs in DIR, and into it again when the switch comes back.\n\n"
      "Example:\n  bulkhead link plant.yaml --link internet --directory /run/tank");
  options.add_option("file", file_, "The plant's description (plant.yaml)")->type_name("FILE");
  options.add_option("--link", link_, "Which of the plant's links")->type_name("NAME")->required();
  options.add_option("--directory", directory_, "The folder of the switch that the link is plugged into")
      ->type_name("DIR")
      ->required();
}

// A device, a key and a socket of its own are files; then files are given up, and only then are there threads and
// frames.
Result<std::unique_ptr<net::link::Link>> LinkVerb::open_confined(const plant::Plant& plant,
                                                                 const plant::LinkToOutside& link) const {
  if (link.kind == plant::LinkToOutside::Kind::kTunnel) {
    net::link::TunnelLinkConfig config{
        .tunnel = link.tunnel, .listen = link.listen, .status_path = plant::tunnel_socket(directory_, link)};
    config.tunnel.key = TRY(net::tunnel::read_key_file(link.key_file));
    auto tunnel = TRY_IN(fmt::format("link '{}'", link.name), net::link::TunnelLink::create(config));
    TRY(give_up(link, directory_));
    const std::string state = tunnel->describe();
    log::info("link '{}': {}", link.name, std::string_view(state).substr(0, state.find('\n')));
    tunnel->start();
    return tunnel;
  }
  const net::link::LinkConfig config = TRY(plant::link_config_of(plant, link));
  if (link.kind == plant::LinkToOutside::Kind::kTap) {
    Fd device = TRY(net::link::TapLink::open(config.tap));
    TRY(give_up(link, directory_));
    return net::link::TapLink::adopt(std::move(device));
  }
  TRY(give_up(link, directory_));
  return net::link::NatLink::create(config, net::link::NatLink::Confined::kProcess);
}

Result<> LinkVerb::serve() {
  const plant::Plant plant = TRY(plant::load_plant(file_));
  const auto found = std::ranges::find(plant.links, link_, &plant::LinkToOutside::name);
  if (found == plant.links.end()) {
    std::vector<std::string_view> names;
    names.reserve(plant.links.size());
    for (const auto& each : plant.links) names.push_back(each.name);
    return fail("--link '{}': allowed: {}", link_, fmt::join(names, ", "));
  }
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  const auto outside = TRY(open_confined(plant, *found));
  const auto port = TRY(net::vhost::FrontEnd::create(fmt::format("{}/{}.sock", directory_, found->name)));
  const auto patch = TRY(net::link::Patch::create(*port, *outside));
  const Thread carrier("patch", [&] {
    patch->run([&](bool up) { log::info("link '{}': {}", found->name, up ? plant::kLinkIsUp : "down"); });
  });
  int signal = 0;
  while (::sigwait(&signals, &signal) != 0) continue;
  patch->stop();
  return {};
}

int LinkVerb::run() {
  const auto served = serve();
  if (served) return 0;
  print_message(served.error().message);
  return kUsageErrorStatus;
}

}  // namespace bulkhead::cli
