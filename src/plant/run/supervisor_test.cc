// The supervisor with a program of the test's own in the place of bulkhead: a switch that only answers at its control
// socket, and machines that do what their names say.
#include "plant/run/supervisor.h"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "net/server/listen.h"
#include "plant/run/own_log.h"
#include "support/os/thread.h"

// Instead of the library's, so that a test can have the kernel refuse to watch the so many'th child's output.
static std::atomic<int> pipes_until_refusal{0};
extern "C" int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) noexcept {
  struct stat status{};
  const bool is_pipe = operation == EPOLL_CTL_ADD && ::fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode);
  if (is_pipe && pipes_until_refusal > 0 && --pipes_until_refusal == 0) {
    errno = ENOSPC;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_epoll_ctl, epoll, operation, fd, event));
}

namespace bulkhead::plant {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 60s;

constexpr const char* kProgram = R"(#!/bin/sh
if [ "$1" = switch ]; then
  exec python3 -c '
import os, socket, sys
os.makedirs(sys.argv[1], exist_ok=True)
path = sys.argv[1] + "/control.sock"
if os.path.exists(path): os.unlink(path)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
while True: listener.accept()[0].close()
' "$6"
fi
while [ "$1" != --name ]; do shift; done
echo "$2 begins"
case $2 in
  fails*) exit 3 ;;
  silent*) trap 'exit 0' TERM; while :; do sleep 0.1; done ;;
  once*) echo READY; exit 0 ;;
  *) trap 'echo power button; exit 0' TERM; echo READY; while read -r line; do echo "heard $line"; done; exit 0 ;;
esac
)";

template <typename Condition>
[[nodiscard]] bool comes_true(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    ::usleep(10'000);
  }
  return true;
}

Plant plant_of(const std::string& machines) {
  const std::string text =
      "kind: Plant\nmetadata: {name: test}\nspec:\n  switches: {wire: {}}\n  zones: {floor: {}}\n" +
      ("  machines:\n" + machines);
  auto plant = parse_plant(text, "plant.yaml", "");
  EXPECT_TRUE(plant) << plant.error().message;
  return std::move(*plant);
}

constexpr std::string_view kLog = "nics: {zone: floor}, ready: {log: READY, within: 50s}";

class World {
 public:
  // prepare gets the folder before anything starts.
  explicit World(const std::string& machines,
                 std::function<Supervisor::Clock::time_point()> now = Supervisor::Clock::now,
                 const std::function<void(const std::string&)>& prepare = {}) {
    EXPECT_NE(::mkdtemp(folder.data()), nullptr);
    if (prepare) prepare(folder);
    const std::string program = folder + "/program";
    std::ofstream(program) << kProgram;
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    loop_ = EventLoop::create().value();
    supervisor_ = Supervisor::create(plant_of(machines), "plant.yaml", folder, program, *loop_, std::move(now)).value();
    supervisor_->on_up = [this](const std::string& why_not) { up_.set_value(why_not); };
    supervisor_->on_down = [this] { loop_->stop(); };
    thread_ = Thread("supervisor", [this] { loop_->run(); });
  }
  ~World() {
    if (thread_.joinable()) down();
    supervisor_.reset();
    std::filesystem::remove_all(folder);
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // What it says when it is up: nothing when all is well.
  std::string wait_until_up() {
    auto future = up_.get_future();
    return future.wait_for(kPatience) == std::future_status::ready ? future.get() : "it is not up";
  }
  [[nodiscard]] Fd say(std::string_view line) const {
    Fd socket = net::server::connect_to(folder + "/plant.sock").value();
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    EXPECT_TRUE(write_all(socket.get(), ByteSpan(reinterpret_cast<const uint8_t*>(line.data()), line.size())));
    return socket;
  }
  // Until the end of the stream, or until the words have come.
  static std::string read_from(const Fd& socket, std::string_view until) {
    std::string text;
    char byte = 0;
    while ((until.empty() || !text.ends_with(until)) && ::recv(socket.get(), &byte, 1, 0) == 1) text += byte;
    return text;
  }
  [[nodiscard]] std::string ask(std::string_view line) const { return read_from(say(line), ""); }
  // The words of a process's line: NAME, KIND, STATE, PID, STARTS.
  [[nodiscard]] std::vector<std::string> listed(const std::string& name) const {
    std::istringstream lines(ask("ps\n"));
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::vector<std::string> all{std::istream_iterator<std::string>(words), {}};
      if (!all.empty() && all[0] == name) return all;
    }
    return std::vector<std::string>(5);
  }
  [[nodiscard]] std::string log_of(const std::string& name) const {
    std::ifstream file(folder + "/" + name + ".log");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void down() {
    EXPECT_EQ(ask("down\n"), "done\n");
    thread_.join();
  }

  std::string folder = "/tmp/plant-XXXXXX";

 private:
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<Supervisor> supervisor_;
  std::promise<std::string> up_;
  Thread thread_;
};

std::string machine(std::string_view name, std::string_view more = "") {
  return fmt::format("    {}: {{kernel: k, {}{}}}\n", name, kLog, more);
}

TEST(Supervisor, StartsMachinesInTheOrderOfWhoWaitsForWhom) {
  World world(machine("third", ", after: second") + machine("second", ", after: first") + machine("first"));
  EXPECT_EQ(world.wait_until_up(), "");
  const auto began = [&](const char* name) {
    return std::filesystem::last_write_time(fmt::format("{}/{}.log", world.folder, name));
  };
  EXPECT_LE(began("first"), began("second"));
  EXPECT_LE(began("second"), began("third"));
  for (const char* const name : {"wire", "first", "second", "third"}) EXPECT_EQ(world.listed(name)[2], "ready") << name;
  world.down();
  EXPECT_EQ(world.log_of("third"), "third begins\nREADY\npower button\n");
}

TEST(Supervisor, SaysWhichMachineCannotComeUp) {
  World world(machine("good") + machine("fails") + machine("waits", ", after: fails"));
  EXPECT_EQ(world.wait_until_up(), fmt::format("fails has ended with status 3; see {}/fails.log", world.folder));
  EXPECT_EQ(world.listed("waits")[2], "waiting");
  EXPECT_EQ(world.listed("fails")[2] + " " + world.listed("fails")[3], "ended 3");
}

TEST(Supervisor, SaysWhichMachineIsLate) {
  World world("    silent: {kernel: k, nics: {zone: floor}, ready: {log: READY, within: 1s}}\n");
  EXPECT_EQ(world.wait_until_up(), "silent is not ready in time");
  EXPECT_EQ(world.listed("silent")[2], "late");
}

TEST(Supervisor, OneThatHasDoneItsWorkCountsAsReady) {
  World world(machine("once") + machine("next", ", after: once"));
  EXPECT_EQ(world.wait_until_up(), "");
  EXPECT_TRUE(comes_true([&] { return world.listed("once")[2] == "ended"; }));
}

TEST(Supervisor, GivesTheConsoleToOneAtATime) {
  World world(machine("plc"));
  EXPECT_EQ(world.wait_until_up(), "");
  {
    const Fd console = world.say("console plc\n");
    EXPECT_EQ(World::read_from(console, "\n"), "done\n");
    EXPECT_EQ(world.ask("console plc\n"), "error: somebody else is at the console of 'plc'\n");
    ASSERT_TRUE(write_all(console.get(), as_bytes(std::array{'h', 'i', '\n'})));
    EXPECT_EQ(World::read_from(console, "\n"), "heard hi\n");
  }
  // It is free again when the first has gone, and what is typed right behind the question counts.
  std::string heard;
  EXPECT_TRUE(comes_true([&] {
    const Fd console = world.say("console plc\nagain\n");
    heard = World::read_from(console, "\n");
    if (heard == "done\n") heard = World::read_from(console, "\n");
    return heard == "heard again\n";
  })) << heard;
  EXPECT_NE(world.log_of("plc").find("heard hi\n"), std::string::npos);
  EXPECT_EQ(world.ask("console nobody\n"), "error: no machine 'nobody'\n");
  EXPECT_EQ(world.ask("console wire\n"), "error: no machine 'wire'\n");
}

TEST(Supervisor, WhoSaysNothingKeepsNobodyOut) {
  World world(machine("plc"));
  EXPECT_EQ(world.wait_until_up(), "");
  const Fd console = world.say("console plc\n");
  EXPECT_EQ(World::read_from(console, "\n"), "done\n");
  std::vector<Fd> silent;
  for (unsigned i = 0; i < 40; ++i) silent.push_back(world.say("p"));
  EXPECT_EQ(world.listed("plc")[2], "ready");
  // Who has a console keeps it.
  ASSERT_TRUE(write_all(console.get(), as_bytes(std::array{'h', 'i', '\n'})));
  EXPECT_EQ(World::read_from(console, "\n"), "heard hi\n");
}

TEST(Supervisor, WhatDiesYoungRestsLongerAndLonger) {
  Pause pause;
  std::vector<int64_t> lengths;
  for (unsigned i = 0; i < 9; ++i) {
    pause.ended_after(5ms);
    lengths.push_back(pause.length().count());
  }
  EXPECT_EQ(lengths, (std::vector<int64_t>{100, 200, 400, 800, 1600, 3200, 6400, 10'000, 10'000}));
  pause.ended_after(99s);
  EXPECT_EQ(pause.length(), 10s) << "it lived, but not for long";
  pause.ended_after(101s);
  EXPECT_EQ(pause.length(), 100ms);
}

// Time stands still but where the test moves it.
TEST(Supervisor, StartsAMachineThatDiesAtOnceSeldomerAndSeldomer) {
  std::atomic<Supervisor::Clock::duration> time{1h};
  World world(machine("fails", ", restart: true"), [&time] { return Supervisor::Clock::time_point(time.load()); });
  // NAME KIND "ended 3" PID STARTS
  const auto has_ended_after = [&world](int starts) {
    const auto words = world.listed("fails");
    return words[2] == "ended" && words.size() > 5 && words[5] == std::to_string(starts);
  };
  int starts = 1;
  for (const std::chrono::milliseconds pause : {100ms, 200ms, 400ms, 800ms}) {
    ASSERT_TRUE(comes_true([&] { return has_ended_after(starts); })) << starts;
    time = time.load() + pause - 1ms;
    std::this_thread::sleep_for(200ms);  // in which it is looked at a few times
    EXPECT_TRUE(has_ended_after(starts)) << "before its pause of " << pause.count() << " ms was over";
    time = time.load() + 1ms;
    ++starts;
  }
  EXPECT_TRUE(comes_true([&] { return has_ended_after(starts); }));
}

TEST(Supervisor, WhatCannotBeStartedIsTriedAgain) {
  const auto block = [](const std::string& folder) { std::filesystem::create_directory(folder + "/plc.log"); };
  World world(machine("plc", ", restart: true"), Supervisor::Clock::now, block);
  EXPECT_EQ(world.wait_until_up(),
            fmt::format("plc cannot be started: open '{}/plc.log': Is a directory", world.folder));
  EXPECT_EQ(world.listed("plc")[2] + " " + world.listed("plc")[3], "ended 127");
  std::filesystem::remove(world.folder + "/plc.log");
  EXPECT_TRUE(comes_true([&] { return world.listed("plc")[2] == "ready"; }));
}

TEST(Supervisor, SaysWhichMachineCannotBeStarted) {
  const auto block = [](const std::string& folder) { std::filesystem::create_directory(folder + "/plc.log"); };
  World world(machine("plc") + machine("good"), Supervisor::Clock::now, block);
  EXPECT_EQ(world.wait_until_up(),
            fmt::format("plc cannot be started: open '{}/plc.log': Is a directory", world.folder));
}

// The test is the machine's end of its agent's line.
TEST(Supervisor, LeavesTheLineToTheAgentToCommands) {
  Fd listener;
  const auto prepare = [&listener](const std::string& folder) {
    listener = net::server::listen_at(agent_socket_of(folder, "plc")).value();
  };
  World world("    plc: {kernel: k, nics: {zone: floor}, ready: {exec: nothing, within: 600s}}\n",
              Supervisor::Clock::now, prepare);
  Fd line;
  const auto is_asked = [&] {
    line = Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    return line.valid();
  };
  ASSERT_TRUE(comes_true(is_asked));
  char bytes[256];
  {
    const Fd one = world.say("exec plc\n"), other = world.say("exec plc\n");
    EXPECT_EQ(World::read_from(one, "\n"), "done\n");
    EXPECT_EQ(World::read_from(other, "\n"), "done\n");
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    ::setsockopt(line.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ssize_t count = 0;
    while ((count = ::recv(line.get(), bytes, sizeof bytes, 0)) > 0) continue;
    EXPECT_EQ(count, 0) << "the question has not gone";
    std::this_thread::sleep_for(1500ms);
    EXPECT_FALSE(is_asked()) << "while commands run";
  }
  EXPECT_TRUE(comes_true(is_asked));
  EXPECT_EQ(world.ask("exec wire\n"), "error: no machine 'wire'\n");
}

// Who sits at the line to the agent makes no machine late.
TEST(Supervisor, TheTimeInWhichAMachineCannotBeAskedDoesNotCount) {
  std::atomic<Supervisor::Clock::duration> time{1h};
  World world("    plc: {kernel: k, nics: {zone: floor}, ready: {exec: nothing, within: 60s}}\n",
              [&time] { return Supervisor::Clock::time_point(time.load()); });
  ASSERT_TRUE(comes_true([&] { return world.listed("plc")[2] == "starting"; }));
  const auto turn = [] { std::this_thread::sleep_for(500ms); };  // in which it is looked at a few times
  {
    const Fd command = world.say("exec plc\n");
    EXPECT_EQ(World::read_from(command, "\n"), "done\n");
    time = time.load() + 10min;
    turn();
    EXPECT_EQ(world.listed("plc")[2], "starting");
  }
  turn();
  EXPECT_EQ(world.listed("plc")[2], "starting");
  time = time.load() + 61s;
  EXPECT_TRUE(comes_true([&] { return world.listed("plc")[2] == "late"; }));
}

TEST(Supervisor, SaysWhyAProcessWhoseOutputCannotBeReadIsNotStarted) {
  pipes_until_refusal = 2;  // the switch's, and the machine's
  World world(machine("plc"));
  const std::string why = world.wait_until_up();
  EXPECT_TRUE(why.starts_with("plc cannot be started: watch descriptor ")) << why;
  EXPECT_TRUE(why.ends_with(": No space left on device")) << why;
  EXPECT_EQ(world.listed("plc")[2] + " " + world.listed("plc")[3], "ended 137");
}

TEST(OwnLog, BeginsAnewWhenItIsFullAndKeepsTheOneBefore) {
  std::string folder = "/tmp/log-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/_up.log";
  const Fd one = open_file("/dev/null", O_WRONLY).value(), other = open_file("/dev/null", O_WRONLY).value();
  const auto log = OwnLog::create(path, {one.get(), other.get()}, 1000).value();
  const std::string line(99, 'x');
  for (unsigned i = 0; i < 500; ++i) {
    const std::string text = fmt::format("{:>5}{}\n", i, line.substr(5));
    ASSERT_TRUE(write_all((i % 2 == 0 ? one : other).get(),
                          ByteSpan(reinterpret_cast<const uint8_t*>(text.data()), text.size())));
    log.look_after();
    ASSERT_LE(std::filesystem::file_size(path), 1100u);
  }
  EXPECT_EQ(std::filesystem::file_size(path + ".1"), 1100u);
  std::ifstream file(path);
  std::string last;
  for (std::string each; std::getline(file, each);) last = each;
  EXPECT_TRUE(last.starts_with("  499")) << last;
  std::filesystem::remove_all(folder);
}

TEST(Supervisor, EndsTheConsoleOfAMachineThatEnds) {
  World world(machine("plc"));
  EXPECT_EQ(world.wait_until_up(), "");
  const Fd console = world.say("console plc\n");
  EXPECT_EQ(World::read_from(console, "\n"), "done\n");
  EXPECT_EQ(world.ask("stop plc\n"), "done\n");
  EXPECT_EQ(World::read_from(console, ""), "power button\n");
}

TEST(Supervisor, StopsAMachineAndTellsThatItDoesNotRun) {
  World world(machine("plc", ", restart: true"));
  EXPECT_EQ(world.wait_until_up(), "");
  EXPECT_EQ(world.ask("stop plc\n"), "done\n");
  EXPECT_TRUE(comes_true([&] { return world.listed("plc")[2] == "ended"; }));
  EXPECT_NE(world.log_of("plc").find("power button"), std::string::npos);
  EXPECT_EQ(world.ask("console plc\n"), "error: machine 'plc' does not run\n");
  EXPECT_EQ(world.ask("stop wire\n"), "error: no machine 'wire'\n");
  EXPECT_EQ(world.ask("dance\n"), "error: 'dance'; allowed: ps, stop, console, exec, down\n");
}

TEST(Supervisor, StartsAgainWhatIsToGoOn) {
  World world(machine("plc", ", restart: true") + machine("other"));
  EXPECT_EQ(world.wait_until_up(), "");
  for (const char* const name : {"wire", "plc", "other"}) {
    const pid_t pid = std::stoi(world.listed(name)[3]);
    ASSERT_EQ(::kill(pid, SIGKILL), 0);
  }
  for (const char* const name : {"wire", "plc"}) {
    EXPECT_TRUE(comes_true([&] {
      const auto words = world.listed(name);
      return words[2] == "ready" && words[4] == "2";
    })) << name;
  }
  EXPECT_TRUE(comes_true([&] { return world.listed("other")[2] == "ended"; }));
  EXPECT_EQ(world.listed("other")[3], "137");
}

}  // namespace
}  // namespace bulkhead::plant
