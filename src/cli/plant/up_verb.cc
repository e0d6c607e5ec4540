#include "cli/plant/up_verb.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "cli/plant/terminal_text.h"
#include "net/server/listen.h"
#include "plant/run/own_log.h"
#include "plant/run/supervisor.h"
#include "support/log.h"

namespace bulkhead::cli {
namespace {

constexpr int kRefused = 1;
constexpr char kLeave = 0x1D;  // ^]
constexpr int kDownPatience_s = 20;
// A machine answers when its disks have come to rest.
constexpr std::chrono::seconds kHoldPatience{120};
constexpr std::chrono::seconds kLogTurn{1};

// Each folder on the way that is not there is made, for its owner alone; the last one must be the user's own.
Result<> make_folder(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    (void)::mkdir(path.substr(0, slash).c_str(), 0700);
  }
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, "folder '{}'", path);
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode) || status.st_uid != ::getuid()) {
    return fail("folder '{}': not a folder of this user", path);
  }
  return {};
}

Result<std::string> absolute(const std::string& path) {
  std::array<char, PATH_MAX> resolved;
  if (::realpath(path.c_str(), resolved.data()) == nullptr) return fail_errno(errno, "'{}'", path);
  return std::string(resolved.data());
}

// What a detached plant tells whoever started it: a line, empty when all is well.
void tell(const Fd& parent, const std::string& line) {
  const std::string text = line + "\n";
  if (parent.valid()) (void)!::write(parent.get(), text.data(), text.size());
}

// In the one that started it: waits for that line.
Result<int> wait_for(Fd pipe) {
  std::string line;
  char byte = 0;
  while (::read(pipe.get(), &byte, 1) == 1 && byte != '\n') line += byte;
  if (byte != '\n') return fail("the plant has ended before it was up");
  if (line.empty()) return 0;
  print_message(line);
  return kRefused;
}

}  // namespace

std::string folder_of(const std::string& name) {
  if (const char* const runtime = std::getenv("XDG_RUNTIME_DIR"); runtime != nullptr && *runtime == '/') {
    return fmt::format("{}/bulkhead/{}", runtime, name);
  }
  return fmt::format("/tmp/bulkhead-{}/{}", ::getuid(), name);
}

void UpVerb::add_options(CLI::App& options) {
  options.footer(
      "Ends with ^C or SIGTERM, which press the machines' power buttons, or by 'bulkhead down'.\n\n"
      "Examples:\n  bulkhead up plant.yaml --detach\n  bulkhead ps plant.yaml\n  bulkhead down plant.yaml");
  options.add_option("file", file_, "The plant's description; see docs/plants.md (plant.yaml)")->type_name("FILE");
  options.add_option("--directory", directory_, "A folder for sockets and logs ($XDG_RUNTIME_DIR/bulkhead/NAME)")
      ->type_name("DIR");
  options.add_flag("--detach", detach_, "Return when everything is ready, and leave the plant running");
}

Result<int> UpVerb::supervise() {
  const std::string file = TRY(absolute(file_));
  plant::Plant plant = TRY(plant::load_plant(file));
  const std::string name = plant.name;
  TRY(make_folder(directory_.empty() ? folder_of(name) : directory_));
  const std::string directory = TRY(absolute(directory_.empty() ? folder_of(name) : directory_));
  const std::string program = TRY(absolute("/proc/self/exe"));
  Fd parent;
  std::optional<plant::OwnLog> own_log;
  if (detach_) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
    Fd reads(ends[0]);
    parent = Fd(ends[1]);
    const pid_t pid = ::fork();
    if (pid < 0) return fail_errno(errno, "fork");
    if (pid != 0) {
      parent.reset();
      return wait_for(std::move(reads));
    }
    ::setsid();
    const Fd nothing = TRY(open_file("/dev/null", O_RDWR));
    ::dup2(nothing.get(), STDIN_FILENO);
  }
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  const Fd ends(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  const auto loop = TRY(EventLoop::create());
  auto made = plant::Supervisor::create(std::move(plant), file, directory, program, *loop);
  if (!made) {
    if (!detach_) return std::unexpected(std::move(made).error());
    tell(parent, made.error().message);
    return kRefused;
  }
  // Not before it is certain that no other plant writes there.
  if (detach_) {
    own_log = TRY(
        plant::OwnLog::create(directory + "/_up.log", {STDOUT_FILENO, STDERR_FILENO}, plant::Supervisor::kLogBytes));
  }
  plant::Supervisor& supervisor = **made;
  TRY(loop->watch(ends.get(), EPOLLIN, [&](uint32_t) {
    signalfd_siginfo news;
    while (::read(ends.get(), &news, sizeof news) == sizeof news) continue;
    supervisor.shut_down();
  }));
  int status = 0;
  supervisor.on_up = [&](const std::string& why_not) {
    log::info("plant '{}': {}", name, why_not.empty() ? "up" : why_not);
    tell(parent, why_not.empty() ? std::string() : fmt::format("plant '{}': {}", name, why_not));
    parent.reset();
    if (!why_not.empty()) status = kRefused;
  };
  supervisor.on_down = [&] { loop->stop(); };
  std::function<void()> look_after_log = [&] {
    own_log->look_after();
    loop->call_after(kLogTurn, look_after_log);
  };
  if (own_log) look_after_log();
  loop->run();
  log::info("plant '{}': down", name);
  return status;
}

int UpVerb::run() {
  const auto status = supervise();
  if (status) return *status;
  print_message(status.error().message);
  return kUsageErrorStatus;
}

// ---- Questions to a plant that runs ----

std::string AskPlantVerb::name() const {
  switch (kind_) {
    case Kind::kPs:
      return "ps";
    case Kind::kLogs:
      return "logs";
    case Kind::kConsole:
      return "console";
    case Kind::kStop:
      return "stop";
    case Kind::kDown:
      return "down";
    case Kind::kPause:
      return "pause";
    case Kind::kResume:
      return "resume";
  }
  return "";
}

std::string AskPlantVerb::summary() const {
  switch (kind_) {
    case Kind::kPs:
      return "List a running plant's switches and machines";
    case Kind::kLogs:
      return "Print what a plant's machine or switch wrote";
    case Kind::kConsole:
      return "Sit down at a machine's serial console; leave with ^]";
    case Kind::kStop:
      return "Press the power button of a plant's machine";
    case Kind::kDown:
      return "Shut a running plant down, and wait until it is";
    case Kind::kPause:
      return "Hold a running machine's processors and devices";
    case Kind::kResume:
      return "Let a machine go on that was paused, by hand or by a full disk";
  }
  return "";
}

void AskPlantVerb::add_options(CLI::App& options) {
  const bool has_name = kind_ != Kind::kPs && kind_ != Kind::kDown;
  const bool to_machine = kind_ == Kind::kPause || kind_ == Kind::kResume;
  if (has_name) {
    options.add_option("name", machine_, "A machine of the plant")->required(!to_machine)->type_name("NAME");
  }
  if (to_machine) {
    options.add_option("--control", control_, "The machine's socket, where it was started with --control, and no NAME")
        ->type_name("SOCKET");
  }
  options.add_option("file", file_, "The plant's description (plant.yaml)")->type_name("FILE");
  options.add_option("--directory", directory_, "The plant's folder, where 'up' was given one")->type_name("DIR");
}

Result<int> AskPlantVerb::show_log(const std::string& directory) const {
  bool found = false;
  TerminalText filter;
  for (const char* const suffix : {".log.1", ".log"}) {
    const auto text = read_file(fmt::format("{}/{}{}", directory, machine_, suffix), 2 * plant::Supervisor::kLogBytes);
    if (!text) continue;
    found = true;
    // A guest's words may hold a terminal's commands: those are for a console, not for a list.
    const std::string shown = filter.filter(*text);
    std::fwrite(shown.data(), 1, shown.size(), stdout);
  }
  if (!found) return fail("no log of '{}' in '{}'", machine_, directory);
  return 0;
}

namespace {

// Carries bytes between the terminal and the plant until either ends, or ^] is typed.
Result<int> sit_down(const Fd& socket) {
  termios before{};
  const bool is_terminal = ::tcgetattr(STDIN_FILENO, &before) == 0;
  if (is_terminal) {
    termios raw = before;
    ::cfmakeraw(&raw);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    std::fputs("leave with ^]\r\n", stderr);
  }
  std::array<pollfd, 2> fds{
      {{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0}, {.fd = socket.get(), .events = POLLIN, .revents = 0}}};
  std::array<char, 4096> bytes;
  for (bool on = true; on && ::poll(fds.data(), fds.size(), -1) >= 0;) {
    if (fds[0].revents != 0) {
      const ssize_t count = ::read(STDIN_FILENO, bytes.data(), bytes.size());
      const char* const end = bytes.data() + std::max<ssize_t>(count, 0);
      const char* const leave = is_terminal ? std::find<const char*>(bytes.data(), end, kLeave) : end;
      (void)!::send(socket.get(), bytes.data(), static_cast<size_t>(leave - bytes.data()), MSG_NOSIGNAL);
      on = leave == end;
      // A pipe that ends leaves the console to be read.
      if (count <= 0) fds[0].fd = -1;
    }
    if (fds[1].revents != 0) {
      const ssize_t count = ::recv(socket.get(), bytes.data(), bytes.size(), 0);
      if (count <= 0) break;
      (void)!::write(STDOUT_FILENO, bytes.data(), static_cast<size_t>(count));
    }
  }
  if (is_terminal) ::tcsetattr(STDIN_FILENO, TCSANOW, &before);
  return 0;
}

// The next line, without its end; what there is where the stream ends.
Result<std::string> read_line(const Fd& socket, std::string_view who, std::chrono::seconds patience) {
  std::string line;
  char byte = 0;
  ssize_t count = 0;
  while ((count = ::recv(socket.get(), &byte, 1, 0)) == 1 && byte != '\n') line += byte;
  if (count < 0 && errno == EAGAIN) return fail("{}: no answer in {} s", who, patience.count());
  return line;
}

}  // namespace

Result<int> AskPlantVerb::tell_machine(const std::string& socket_path) const {
  const Fd socket = TRY_IN("the machine does not run", net::server::connect_to(socket_path, kHoldPatience));
  const std::string word = name() + "\n";
  TRY(write_all(socket.get(), {reinterpret_cast<const uint8_t*>(word.data()), word.size()}));
  const std::string line = TRY(read_line(socket, "the machine", kHoldPatience));
  if (line == "done") return 0;
  print_message(line.empty() ? "the machine has ended" : line);
  return kRefused;
}

Result<int> AskPlantVerb::ask() {
  if (!control_.empty()) {
    if (!machine_.empty()) return fail("a NAME or --control, not both");
    return tell_machine(control_);
  }
  std::string directory = directory_;
  if (directory.empty()) directory = folder_of(TRY(plant::load_plant(file_)).name);
  if (kind_ == Kind::kPause || kind_ == Kind::kResume) {
    if (machine_.empty()) return fail("which machine: a NAME of a plant, or --control SOCKET");
    if (machine_.find('/') != std::string::npos) return fail("'{}': no name", machine_);
    return tell_machine(fmt::format("{}/{}.control", directory, machine_));
  }
  if (kind_ == Kind::kLogs) {
    if (machine_.find('/') != std::string::npos) return fail("'{}': no name", machine_);
    return show_log(directory);
  }
  const Fd socket = TRY_IN("the plant does not run", net::server::connect_to(directory + "/plant.sock"));
  const std::string question = machine_.empty() ? name() + "\n" : fmt::format("{} {}\n", name(), machine_);
  TRY(write_all(socket.get(), {reinterpret_cast<const uint8_t*>(question.data()), question.size()}));
  const auto next_line = [&] { return read_line(socket, "the plant", net::server::kAskPatience); };
  std::string line = TRY(next_line());
  if (line.starts_with("error: ")) {
    print_message(line.substr(7));
    return kRefused;
  }
  if (kind_ == Kind::kConsole) return sit_down(socket);
  if (kind_ == Kind::kPs) {
    for (; !line.empty(); line = TRY(next_line())) std::puts(line.c_str());
  }
  if (kind_ != Kind::kDown) return 0;
  for (int waited_ms = 0; waited_ms < kDownPatience_s * 1000; waited_ms += 50) {
    if (!net::server::is_listening(directory + "/plant.sock")) return 0;
    ::usleep(50'000);
  }
  return fail("the plant goes on after {} s", kDownPatience_s);
}

int AskPlantVerb::run() {
  const auto status = ask();
  if (status) return *status;
  print_message(status.error().message);
  return kUsageErrorStatus;
}

}  // namespace bulkhead::cli
