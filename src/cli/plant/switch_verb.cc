#include "cli/plant/switch_verb.h"

#include <csignal>

#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <CLI/CLI.hpp>

#include "net/server/server.h"
#include "plant/compile.h"
#include "support/os/confine.h"

namespace bulkhead::cli {
namespace {

// A write to a front end's descriptor that was made to wait is interrupted by the next alarm.
constexpr suseconds_t kAlarm_us = 200'000;

Result<> start_alarm() {
  struct sigaction action{};
  action.sa_handler = [](int) {};
  const itimerval every{.it_interval = {.tv_sec = 0, .tv_usec = kAlarm_us},
                        .it_value = {.tv_sec = 0, .tv_usec = kAlarm_us}};
  if (::sigaction(SIGALRM, &action, nullptr) != 0 || ::setitimer(ITIMER_REAL, &every, nullptr) != 0) {
    return fail_errno(errno, "alarm");
  }
  return {};
}

Result<net::server::Setup> setup_of(const plant::Plant& plant, const std::string& name, const std::string& directory) {
  const plant::SwitchConfig* const found =
      name.empty() && plant.switches.size() == 1 ? &plant.switches[0] : plant.find_switch(name);
  if (found == nullptr) {
    std::vector<std::string_view> names;
    for (const auto& each : plant.switches) names.push_back(each.name);
    return fail("--switch '{}': allowed: {}", name, fmt::join(names, ", "));
  }
  net::server::Setup setup{.name = found->name, .directory = directory, .plan = plant::policy_of(plant)};
  for (plant::MirrorPlan& mirror : plant::mirrors_of(plant, found->name)) {
    setup.mirrors.push_back({.name = std::move(mirror.name),
                             .ports = std::move(mirror.ports),
                             .groups = std::move(mirror.groups),
                             .target = std::move(mirror.target),
                             .capture = std::move(mirror.capture),
                             .capture_bytes = mirror.capture_bytes});
  }
  for (const plant::GroupConfig& group : plant.groups) setup.groups.push_back({group.policy, group.zone.name});
  for (plant::PortPlan& port : plant::ports_of(plant, found->name)) {
    setup.ports.push_back({.name = port.name,
                           .port = std::move(port.port),
                           .group = port.group,
                           .faults = port.faults,
                           .faults_out = port.faults_out,
                           .fault_seed = port.fault_seed});
  }
  return setup;
}

}  // namespace

void SwitchVerb::add_options(CLI::App& options) {
  options.footer(
      "Each card of the plant finds its port at DIR/MACHINE.NUMBER.sock, each link at DIR/NAME.sock, cards that the\n"
      "plant does not know at DIR/group-GROUP.sock. They speak vhost-user.\n\n"
      "Example:\n  bulkhead switch plant.yaml --directory /run/tank\n"
      "  bulkhead run plc1.yaml --nic switch=/run/tank,port=plc1.0");
  options.add_option("file", file_, "The plant's description (plant.yaml)")->type_name("FILE");
  options.add_option("--switch", switch_, "Which of the plant's switches, where it has several")->type_name("NAME");
  options.add_option("--directory", directory_, "A folder for its sockets; made when it is not there")
      ->type_name("DIR")
      ->required();
}

Result<> SwitchVerb::serve() {
  const plant::Plant plant = TRY(plant::load_plant(file_));
  const net::server::Setup setup = TRY(setup_of(plant, switch_, directory_));
  if (::mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST)
    return fail_errno(errno, "--directory '{}'", directory_);
  const auto loop = TRY(EventLoop::create());
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  const Fd ends(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!ends.valid()) return fail_errno(errno, "signals");
  TRY(loop->watch(ends.get(), EPOLLIN, [&loop](uint32_t) { loop->stop(); }));
  const auto server = TRY(net::server::Server::create(setup, *loop));
  TRY(start_alarm());
  const auto missing = TRY(confine({.removable_in = {directory_},
                                    .readable = {},
                                    .calls = {"accept4", "recvmsg", "recvfrom", "sendmsg", "sendto", "setsockopt",
                                              "ftruncate", "fstatfs", "unlink"}}));
  for (const std::string& each : missing) log::warning("switch '{}': not confined: {}", setup.name, each);
  log::info("switch '{}': {} ports and {} groups at '{}'", setup.name, setup.ports.size(), setup.groups.size(),
            directory_);
  loop->run();
  return {};
}

int SwitchVerb::run() {
  const auto served = serve();
  if (served) return 0;
  print_message(served.error().message);
  return kUsageErrorStatus;
}

}  // namespace bulkhead::cli
