#include "net/server/control.h"

#include <cstdlib>
#include <filesystem>
#include <optional>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/server/listen.h"
#include "support/os/thread.h"

namespace bulkhead::net::server {
namespace {

// A short path: a socket's has 107 characters.
struct Folder {
  Folder() { EXPECT_NE(::mkdtemp(path.data()), nullptr); }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path = "/tmp/control-XXXXXX";
};

// A control socket that says what it was asked, in a loop on a thread of its own.
struct World {
  explicit World(std::chrono::nanoseconds patience = std::chrono::hours(1)) {
    control = Control::create(
                  at, *loop, [](std::string_view line) { return "heard " + std::string(line); }, patience)
                  .value();
    thread = Thread("control", [this] { loop->run(); });
  }
  ~World() {
    loop->stop();
    thread.join();
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  [[nodiscard]] Fd come() const { return connect_to(at).value(); }

  Folder folder;
  std::string at = folder.path + "/socket";
  std::unique_ptr<EventLoop> loop = EventLoop::create().value();
  std::unique_ptr<Control> control;
  Thread thread;
};

void say(const Fd& socket, std::string_view words) {
  ASSERT_EQ(::send(socket.get(), words.data(), words.size(), MSG_NOSIGNAL), static_cast<ssize_t>(words.size()));
}

// All that comes until the end; waits for it.
std::string hear(const Fd& socket) {
  std::string all;
  char bytes[256];
  for (ssize_t count = 0; (count = ::read(socket.get(), bytes, sizeof bytes)) > 0;) {
    all.append(bytes, static_cast<size_t>(count));
  }
  return all;
}

TEST(ControlSocket, AnswersALineAndEnds) {
  const World world;
  const Fd socket = world.come();
  say(socket, "one li");
  say(socket, "ne\nand what follows");
  EXPECT_EQ(hear(socket), "heard one line");
}

TEST(ControlSocket, AnswersThoughOthersSayNothing) {
  const World world;
  std::vector<Fd> silent;
  for (size_t i = 0; i < 3 * Control::kMaximumQuestions; ++i) silent.push_back(world.come());
  const Fd socket = world.come();
  say(socket, "still there\n");
  EXPECT_EQ(hear(socket), "heard still there");
  // Those that came first have given way; the last one is still waited for.
  EXPECT_EQ(hear(silent.front()), "");
  say(silent.back(), "late\n");
  EXPECT_EQ(hear(silent.back()), "heard late");
}

TEST(ControlSocket, WaitsForNobodyForLong) {
  const World world(std::chrono::milliseconds(20));
  const Fd socket = world.come();
  EXPECT_EQ(hear(socket), "");
}

TEST(ControlSocket, EndsWithALineThatHasNoEnd) {
  const World world;
  const Fd socket = world.come();
  say(socket, std::string(Control::kMaximumLine, 'x'));
  EXPECT_EQ(hear(socket), "heard " + std::string(Control::kMaximumLine, 'x'));
}

// Whose descriptors are all in use, as long as it lives.
class OutOfDescriptors {
 public:
  OutOfDescriptors() {
    EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &before_), 0);
    const Fd lowest_free(::fcntl(0, F_DUPFD_CLOEXEC, 0));
    const rlimit none{.rlim_cur = static_cast<rlim_t>(lowest_free.get()), .rlim_max = before_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  }
  ~OutOfDescriptors() { EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &before_), 0); }
  OutOfDescriptors(const OutOfDescriptors&) = delete;
  OutOfDescriptors& operator=(const OutOfDescriptors&) = delete;

 private:
  rlimit before_{};
};

TEST(Listener, RestsWhenThereAreNoDescriptorsAndTakesWhoWaitsLater) {
#if defined(__has_feature)
#if __has_feature(undefined_behavior_sanitizer)
  GTEST_SKIP() << "the sanitizer opens a pipe to look at memory, and takes it for bad when there are no descriptors";
#endif
#endif
  const Folder folder;
  const auto loop = EventLoop::create().value();
  uint64_t taken = 0;
  const auto listener = Listener::create(folder.path + "/socket", *loop, [&](Fd) {
                          ++taken;
                          loop->stop();
                        }).value();
  const Fd waiting = connect_to(folder.path + "/socket").value();
  std::optional<OutOfDescriptors> none(std::in_place);
  constexpr auto kWhile = 3 * Listener::kRest + Listener::kRest / 2;
  uint64_t failures = 0;
  loop->call_after(kWhile, [&] {
    failures = listener->failures();
    none.reset();
  });
  loop->run();
  EXPECT_EQ(taken, 1u);
  // One at once and one after each rest; a slow host has fewer.
  EXPECT_GE(failures, 1u);
  EXPECT_LE(failures, 4u);
}

}  // namespace
}  // namespace bulkhead::net::server
