#include "plant/run/supervisor.h"

#include <algorithm>
#include <array>
#include <csignal>

#include <fcntl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/server/listen.h"
#include "plant/compile.h"
#include "support/log.h"
#include "support/random.h"

namespace bulkhead::plant {
namespace {

// Of one that was never ready.
constexpr unsigned kStartsInVain = 4;

// As a shell says of a command that it cannot start.
constexpr int kNotStarted = 127;
// Of one machine's, whose askers keep a descriptor each.
constexpr size_t kMaximumCommands = 16;

constexpr std::chrono::milliseconds kTick{50};
constexpr std::chrono::seconds kShutDownPatience{8};
// What a command that asks for readiness may take, and the rest before it is asked again.
constexpr uint64_t kCommandPatience_ns = 10'000'000'000, kCommandPause_ns = 1'000'000'000;

}  // namespace

std::string_view to_string(Stage stage) {
  switch (stage) {
    case Stage::kWaiting:
      return "waiting";
    case Stage::kStarting:
      return "starting";
    case Stage::kReady:
      return "ready";
    case Stage::kLate:
      return "late";
    case Stage::kEnded:
      return "ended";
  }
  return "";
}

Result<std::unique_ptr<Supervisor>> Supervisor::create(Plant plant, std::string plant_file, std::string directory,
                                                       std::string program, EventLoop& loop,
                                                       std::function<Clock::time_point()> now) {
  std::unique_ptr<Supervisor> made(
      new Supervisor(std::move(plant), std::move(directory), std::move(program), loop, std::move(now)));
  TRY(made->open(plant_file));
  return made;
}

Result<> Supervisor::open(const std::string& plant_file) {
  control_ = TRY(net::server::Control::create(directory_ + "/plant.sock", loop_,
                                              [this](std::string_view line) { return answer(line); }));
  control_->on_take_over = [this](std::string_view line, std::string_view typed, Fd& socket) {
    constexpr std::string_view kConsole = "console ", kCommand = "exec ";
    if (line.starts_with(kConsole)) view(line.substr(kConsole.size()), typed, socket);
    if (line.starts_with(kCommand)) leave_line(line.substr(kCommand.size()), socket);
  };
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  children_ = Fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!children_.valid()) return fail_errno(errno, "signals");
  TRY(loop_.watch(children_.get(), EPOLLIN, [this](uint32_t) { on_child(); }));
  TRY(add_processes(plant_file));
  tick();
  return {};
}

Result<> Supervisor::add_processes(const std::string& plant_file) {
  for (const SwitchConfig& each : plant_.switches) {
    auto process = std::make_unique<Process>();
    process->name = each.name;
    process->arguments = {"switch", plant_file, "--switch", each.name, "--directory", directory_ + "/" + each.name};
    processes_.push_back(std::move(process));
  }
  for (const LinkToOutside& link : plant_.links) {
    if (find(link.name) != nullptr) {
      return fail("{}:{}: link '{}': a switch has this name", plant_.file, link.line, link.name);
    }
    auto process = std::make_unique<Process>();
    process->name = link.name;
    process->link = &link;
    process->arguments = {"link", plant_file, "--link", link.name, "--directory", directory_ + "/" + link.card.on.name};
    process->awaited = kLinkIsUp;
    processes_.push_back(std::move(process));
  }
  for (const MachineConfig& machine : plant_.machines) {
    if (find(machine.name) != nullptr) {
      return fail("{}:{}: machine '{}': a switch has this name", plant_.file, machine.line, machine.name);
    }
    auto process = std::make_unique<Process>();
    process->name = machine.name;
    process->machine = &machine;
    process->arguments = machine_arguments(machine);
    if (machine.ready.kind == ProbeConfig::Kind::kLog) process->awaited = machine.ready.text;
    processes_.push_back(std::move(process));
  }
  return {};
}

Supervisor::~Supervisor() {
  for (const auto& process : processes_) {
    if (process->child.pid > 0) ::kill(process->child.pid, SIGKILL);
    if (process->child.output.valid()) loop_.unwatch(process->child.output.get());
    if (process->viewer.valid()) loop_.unwatch(process->viewer.get());
    for (const Fd& command : process->commands) loop_.unwatch(command.get());
  }
  if (children_.valid()) loop_.unwatch(children_.get());
}

std::vector<std::string> Supervisor::machine_arguments(const MachineConfig& machine) const {
  std::vector<std::string> arguments{"run"};
  if (!machine.file.empty()) arguments.push_back(machine.file);
  arguments.insert(arguments.end(), {"--name", machine.name, "--serial", "stdio", "--serial",
                                     "socket:" + agent_socket_of(directory_, machine.name), "--control",
                                     fmt::format("{}/{}.control", directory_, machine.name)});
  arguments.insert(arguments.end(), machine.arguments.begin(), machine.arguments.end());
  for (size_t i = 0; i < machine.cards.size(); ++i) {
    const std::string port = port_name(machine, i);
    const CardConfig& card = machine.cards[i];
    std::string nic = fmt::format("switch={}/{},port={},mac={}", directory_, card.on.name, port,
                                  mac_of(plant_, card, port).to_string());
    if (!card.model.empty()) nic += fmt::format(",model={}", card.model);
    arguments.insert(arguments.end(), {"--nic", std::move(nic)});
  }
  return arguments;
}

Supervisor::Process* Supervisor::find(std::string_view name) {
  const auto found = std::ranges::find_if(processes_, [name](const auto& each) { return each->name == name; });
  return found == processes_.end() ? nullptr : found->get();
}

// ---- Processes ----

Result<> Supervisor::start(Process& process) {
  if (!process.log.valid()) {
    process.log = TRY(
        open_file(fmt::format("{}/{}.log", directory_, process.name), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600));
    process.log_bytes = 0;
  }
  process.child = TRY(Child::start(program_, process.arguments));
  process.began = process.looked = now_();
  process.not_asked = {};
  process.stage = Stage::kStarting;
  process.tail.clear();
  process.text_seen = false;
  process.question.reset();
  process.not_started.clear();
  ++process.starts;
  Process* const raw = &process;
  const auto watched = loop_.watch(process.child.output.get(), EPOLLIN, [this, raw](uint32_t) { on_output(*raw); });
  // One that nobody listens to would wait for ever once its pipe is full, and what it says makes it ready no more. Its
  // end comes as any other's.
  if (!watched) {
    process.not_started = watched.error().message;
    log::error("plant '{}': {}: cannot be started: {}", plant_.name, process.name, process.not_started);
    ::kill(process.child.pid, SIGKILL);
    process.child.output.reset();
  }
  return {};
}

// Out of descriptors, processes or disk, for one: that passes, so it counts as a start that ended at once.
void Supervisor::not_started(Process& process, std::string why) {
  ++process.starts;
  process.stage = Stage::kEnded;
  process.status = kNotStarted;
  process.ended = now_();
  process.pause.ended_after({});
  log::error("plant '{}': {}: cannot be started: {}{}", plant_.name, process.name, why, again_text(process));
  process.not_started = std::move(why);
}

void Supervisor::tick() {
  if (is_down_) return;
  if (!is_going_down_) start_those_whose_turn_it_is();
  for (const auto& process : processes_) look_after(*process);
  report_up();
  if (is_going_down_) {
    const auto waited = now_() - down_since_;
    bool machines_left = false, any_left = false;
    for (const auto& process : processes_) {
      if (process->child.pid <= 0) continue;
      any_left = true;
      machines_left |= process->machine != nullptr;
      const auto patience = process->machine != nullptr ? kShutDownPatience : 2 * kShutDownPatience;
      if (waited > patience) ::kill(process->child.pid, SIGKILL);
    }
    // Switches go last, so that machines can say goodbye.
    for (const auto& process : processes_) {
      if (!machines_left && process->machine == nullptr && process->child.pid > 0) ::kill(process->child.pid, SIGTERM);
    }
    if (!any_left) {
      is_down_ = true;
      if (on_down) on_down();
      return;
    }
  }
  loop_.call_after(kTick, [this] { tick(); });
}

void Supervisor::start_those_whose_turn_it_is() {
  const auto is_there = [this](std::string_view name) {
    const Process* const other = find(name);
    // One that was ready and has done its work may be gone.
    return other != nullptr && (other->stage == Stage::kReady || (other->stage == Stage::kEnded && other->was_ready));
  };
  // Machines wait for links, too: what they begin with may be outside.
  const auto all_ready = [this](bool links) {
    return std::ranges::all_of(processes_, [links](const auto& each) {
      return each->machine != nullptr || (!links && each->link != nullptr) || each->stage == Stage::kReady;
    });
  };
  const bool switches_ready = all_ready(false), wires_ready = all_ready(true);
  for (const auto& process : processes_) {
    const bool again = process->stage == Stage::kEnded && !process->stop_asked && process->child.pid < 0 &&
                       now_() - process->ended >= process->pause.length() &&
                       (process->machine == nullptr || process->machine->restart);
    if (process->stage != Stage::kWaiting && !again) continue;
    if (process->link != nullptr && !switches_ready) continue;
    if (process->machine != nullptr) {
      const bool may = wires_ready && std::ranges::all_of(process->machine->after,
                                                          [&](const Reference& other) { return is_there(other.name); });
      if (!may) continue;
    }
    if (const auto started = start(*process); !started) not_started(*process, started.error().message);
  }
}

bool Supervisor::is_ready(Process& process) {
  if (!process.awaited.empty()) return process.text_seen;
  if (process.machine == nullptr) {
    return net::server::is_listening(fmt::format("{}/{}/control.sock", directory_, process.name));
  }
  const ProbeConfig& ready = process.machine->ready;
  if (ready.kind == ProbeConfig::Kind::kNone) return true;
  if (ready.kind == ProbeConfig::Kind::kExec) return command_says_ready(process);
  if (!process.prober) {
    auto made = Prober::create(plant_, *process.machine, directory_, HostRandom().next_u64());
    if (!made) return false;
    process.prober = std::move(*made);
  }
  return process.prober->poll(static_cast<uint64_t>(now_().time_since_epoch().count()));
}

bool Supervisor::command_says_ready(Process& process) {
  const auto now = static_cast<uint64_t>(now_().time_since_epoch().count());
  if (!process.commands.empty()) {
    process.question.reset();
    return false;
  }
  if (!process.question) {
    if (now < process.question_ns + kCommandPause_ns) return false;
    const std::vector<std::string> words{"/bin/sh", "-c", process.machine->ready.text};
    process.question =
        std::make_unique<AgentLine>(agent_socket_of(directory_, process.name), HostRandom().next_u64(), words);
    process.question->talk().on_output = [&talk = process.question->talk()](bool, std::string_view bytes) {
      talk.took(bytes.size());
    };
    process.question_ns = now;
  }
  AgentTalk& talk = process.question->talk();
  process.question->poll(now);
  if (talk.input_room() != 0) talk.give_input("");
  const AgentLine::State state = process.question->state();
  // Nobody may be there yet, and whoever uses the line is waited for; a command that goes on and on keeps it no longer.
  if (talk.stage() == AgentTalk::Stage::kCalling) {
    process.question_ns = now;
    return false;
  }
  if (state == AgentLine::State::kTalking && now - process.question_ns < kCommandPatience_ns) return false;
  const bool good = state == AgentLine::State::kEnded && talk.status() == 0;
  process.question.reset();
  process.question_ns = now;
  return good;
}

void Supervisor::look_after(Process& process) {
  if (process.stage != Stage::kStarting && process.stage != Stage::kLate) return;
  if (is_ready(process)) {
    process.prober.reset();
    process.question.reset();
    process.stage = Stage::kReady;
    process.was_ready = true;
    log::info("plant '{}': {}: ready", plant_.name, process.name);
    return;
  }
  const uint64_t within_ns = process.machine == nullptr ? 30'000'000'000 : process.machine->ready.within_ns;
  const Clock::time_point now = now_();
  const bool is_asked_by_command =
      process.machine != nullptr && process.machine->ready.kind == ProbeConfig::Kind::kExec;
  if (is_asked_by_command && !process.commands.empty()) process.not_asked += now - process.looked;
  process.looked = now;
  if (process.stage == Stage::kStarting &&
      now - process.began - process.not_asked > std::chrono::nanoseconds(within_ns)) {
    process.stage = Stage::kLate;
    log::warning("plant '{}': {}: not ready in time", plant_.name, process.name);
  }
}

void Supervisor::report_up() {
  if (is_up_ || is_going_down_) return;
  std::string why;
  bool waits = false;
  for (const auto& process : processes_) {
    // What is started again and again and was never ready is given up waiting for, after a few times.
    const bool is_again = process->machine == nullptr || process->machine->restart;
    const bool has_ended = process->stage == Stage::kEnded && !process->was_ready;
    const bool failed = process->stage == Stage::kLate ||
                        (has_ended && process->status != 0 && (!is_again || process->starts >= kStartsInVain));
    if (failed && why.empty()) {
      why = process->stage == Stage::kLate ? fmt::format("{} is not ready in time", process->name)
            : !process->not_started.empty()
                ? fmt::format("{} cannot be started: {}", process->name, process->not_started)
                : fmt::format("{} has ended with status {}; see {}/{}.log", process->name, process->status, directory_,
                              process->name);
    }
    waits |= process->stage == Stage::kWaiting || process->stage == Stage::kStarting ||
             (has_ended && is_again && !process->stop_asked);
  }
  if (waits && why.empty()) return;
  is_up_ = true;
  if (on_up) on_up(why);
}

void Supervisor::on_output(Process& process) {
  std::array<uint8_t, 16384> bytes;
  const ssize_t count = ::read(process.child.output.get(), bytes.data(), bytes.size());
  if (count < 0 && errno == EAGAIN) return;
  if (count <= 0) {
    loop_.unwatch(process.child.output.get());
    process.child.output.reset();
    return;
  }
  const ByteSpan fresh = ByteSpan(bytes).first(static_cast<size_t>(count));
  write_log(process, fresh);
  if (process.viewer.valid())
    (void)!::send(process.viewer.get(), fresh.data(), fresh.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (process.awaited.empty() || process.text_seen) return;
  const std::string& wanted = process.awaited;
  process.tail.append(reinterpret_cast<const char*>(fresh.data()), fresh.size());
  process.text_seen = process.tail.find(wanted) != std::string::npos;
  if (process.tail.size() >= wanted.size()) process.tail.erase(0, process.tail.size() - wanted.size() + 1);
  // It may end before the next tick.
  look_after(process);
}

void Supervisor::write_log(Process& process, ByteSpan bytes) {
  if (process.log_bytes + bytes.size() > kLogBytes) {
    const std::string path = fmt::format("{}/{}.log", directory_, process.name);
    (void)::rename(path.c_str(), (path + ".1").c_str());
    auto next = open_file(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
    if (!next) return;
    process.log = std::move(*next);
    process.log_bytes = 0;
  }
  // A full disk costs the log, not the plant.
  if (write_all(process.log.get(), bytes)) process.log_bytes += bytes.size();
}

void Supervisor::on_child() {
  signalfd_siginfo news;
  while (::read(children_.get(), &news, sizeof news) == sizeof news) continue;
  for (const auto& process : processes_) {
    int status = 0;
    if (process->child.pid > 0 && ::waitpid(process->child.pid, &status, WNOHANG) == process->child.pid) {
      ended(*process, status);
    }
  }
}

std::string Supervisor::again_text(const Process& process) {
  const bool again = process.machine == nullptr || process.machine->restart;
  return again ? fmt::format("; it is started again in {} ms", process.pause.length().count()) : std::string();
}

void Supervisor::ended(Process& process, int status) {
  // What it still said.
  for (int i = 0; i < 64 && process.child.output.valid(); ++i) on_output(process);
  if (process.child.output.valid()) loop_.unwatch(process.child.output.get());
  // Whoever sits at its console sees that it has gone.
  if (process.viewer.valid()) loop_.unwatch(process.viewer.get());
  process.viewer.reset();
  process.child = Child();
  process.prober.reset();
  process.question.reset();
  process.stage = Stage::kEnded;
  process.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  process.ended = now_();
  process.pause.ended_after(process.ended - process.began);
  if (process.stop_asked) return;
  const std::string more = again_text(process);
  if (process.status == 0 && process.machine != nullptr) {
    log::info("plant '{}': {}: ended{}", plant_.name, process.name, more);
  } else {
    log::warning("plant '{}': {}: ended with status {}{}", plant_.name, process.name, process.status, more);
  }
}

void Supervisor::shut_down() {
  if (std::exchange(is_going_down_, true)) return;
  down_since_ = now_();
  for (const auto& process : processes_) {
    process->stop_asked = true;
    if (process->machine != nullptr && process->child.pid > 0) ::kill(process->child.pid, SIGTERM);
  }
}

// ---- Questions ----

std::string Supervisor::list() const {
  std::string text =
      fmt::format("{:<20} {:<8} {:<9} {:>8} {:>7}  {}\n", "NAME", "KIND", "STATE", "PID", "STARTS", "NETWORK");
  for (const auto& process : processes_) {
    std::vector<std::string> cards;
    if (process->machine != nullptr) {
      for (const CardConfig& card : process->machine->cards) {
        cards.push_back(card.address ? fmt::format("{} {}", card.zone.name, card.address->to_string())
                                     : card.zone.name);
      }
    }
    const std::string state = process->stage == Stage::kEnded ? fmt::format("ended {}", process->status)
                                                              : std::string(to_string(process->stage));
    text += fmt::format("{:<20} {:<8} {:<9} {:>8} {:>7}  {}\n", process->name,
                        process->machine != nullptr ? "machine"
                        : process->link != nullptr  ? "link"
                                                    : "switch",
                        state, process->child.pid > 0 ? std::to_string(process->child.pid) : "-", process->starts,
                        fmt::join(cards, ", "));
  }
  return text;
}

std::string Supervisor::stop(std::string_view name) {
  Process* const process = find(name);
  if (process == nullptr || process->machine == nullptr) return fmt::format("error: no machine '{}'\n", name);
  process->stop_asked = true;
  if (process->stage == Stage::kWaiting) process->stage = Stage::kEnded;
  if (process->child.pid > 0) ::kill(process->child.pid, SIGTERM);
  return "done\n";
}

std::string Supervisor::why_no_view(const Process* process, std::string_view name) const {
  if (process == nullptr || process->machine == nullptr) return fmt::format("error: no machine '{}'\n", name);
  if (process->child.pid <= 0) return fmt::format("error: machine '{}' does not run\n", name);
  if (process->viewer.valid()) return fmt::format("error: somebody else is at the console of '{}'\n", name);
  return "";
}

void Supervisor::view(std::string_view name, std::string_view typed, Fd& socket) {
  Process* const process = find(name);
  std::string reply = why_no_view(process, name);
  const int fd = socket.get();
  if (reply.empty() && !loop_.watch(fd, EPOLLIN, [this, process](uint32_t) { on_viewer(*process); })) {
    reply = "error: no room to watch for one more\n";
  }
  const bool is_refused = !reply.empty();
  if (!is_refused) reply = "done\n";
  (void)!::send(fd, reply.data(), reply.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (is_refused) return socket.reset();
  process->viewer = std::move(socket);
  if (process->child.input.valid() && !typed.empty()) {
    (void)!::write(process->child.input.get(), typed.data(), typed.size());
  }
}

void Supervisor::on_viewer(Process& process) {
  std::array<uint8_t, 1024> bytes;
  const ssize_t count = ::recv(process.viewer.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) return;
  if (count > 0) {
    // A machine that does not read its console loses what is typed, as a serial line does.
    if (process.child.input.valid())
      (void)!::write(process.child.input.get(), bytes.data(), static_cast<size_t>(count));
    return;
  }
  loop_.unwatch(process.viewer.get());
  process.viewer.reset();
}

void Supervisor::leave_line(std::string_view name, Fd& socket) {
  Process* const process = find(name);
  std::string reply = "done\n";
  if (process == nullptr || process->machine == nullptr) {
    reply = fmt::format("error: no machine '{}'\n", name);
  } else if (process->commands.size() >= kMaximumCommands) {
    reply = fmt::format("error: machine '{}' has {} commands already\n", name, kMaximumCommands);
  } else if (!loop_.watch(socket.get(), EPOLLIN,
                          [this, process, fd = socket.get()](uint32_t) { on_command(*process, fd); })) {
    reply = "error: no room to watch for one more\n";
  }
  const bool is_refused = reply != "done\n";
  // Not before the line is free.
  if (!is_refused) process->question.reset();
  (void)!::send(socket.get(), reply.data(), reply.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (is_refused) return socket.reset();
  process->commands.push_back(std::move(socket));
}

void Supervisor::on_command(Process& process, int fd) {
  std::array<uint8_t, 256> bytes;
  const ssize_t count = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (count > 0 || (count < 0 && errno == EAGAIN)) return;
  loop_.unwatch(fd);
  std::erase_if(process.commands, [fd](const Fd& each) { return each.get() == fd; });
}

std::string Supervisor::answer(std::string_view line) {
  const size_t space = line.find(' ');
  const std::string_view word = line.substr(0, space);
  const std::string_view name = space == std::string_view::npos ? std::string_view() : line.substr(space + 1);
  if (word == "ps") return list();
  if (word == "stop") return stop(name);
  if (word == "down") {
    shut_down();
    return "done\n";
  }
  return fmt::format("error: '{}'; allowed: ps, stop, console, exec, down\n", word);
}

}  // namespace bulkhead::plant
