#include "net/server/listen.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace bulkhead::net::server {
namespace {

struct Folder {
  Folder() { EXPECT_NE(::mkdtemp(path.data()), nullptr); }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path = "/tmp/listen-XXXXXX";
};

// Calls that nobody takes, until no more fit: what a process that is held looks like.
std::vector<Fd> fill(const std::string& path) {
  std::vector<Fd> calls;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  for (unsigned i = 0; i < 1000; ++i) {
    Fd call(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::connect(call.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) break;
    calls.push_back(std::move(call));
  }
  return calls;
}

TEST(Listen, NobodyWaitsForeverForAProcessThatIsHeld) {
  const Folder folder;
  const std::string path = folder.path + "/s";
  EXPECT_FALSE(is_listening(path));
  const Fd held = listen_at(path).value();
  EXPECT_TRUE(is_listening(path));
  {
    // It is let in by the kernel, and never answered.
    const Fd call = connect_to(path, std::chrono::seconds(1)).value();
    char byte = 0;
    EXPECT_EQ(::recv(call.get(), &byte, 1, 0), -1);
    EXPECT_EQ(errno, EAGAIN);
  }
  const std::vector<Fd> calls = fill(path);
  const auto refused = connect_to(path, std::chrono::seconds(1));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("took nobody in for 1 s"), std::string::npos) << refused.error().message;
  // And who would take its place is told that it is taken.
  EXPECT_TRUE(is_listening(path));
  const auto second = listen_at(path);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another process listens there"), std::string::npos) << second.error().message;
  EXPECT_TRUE(std::filesystem::is_socket(path));
}

// Between the look at a path and its taking nobody else comes.
TEST(Listen, WaitsWhileSomebodyElseTakesAPathInTheFolder) {
  const Folder folder;
  Fd other = open_file(folder.path, O_RDONLY | O_DIRECTORY).value();
  ASSERT_EQ(::flock(other.get(), LOCK_EX), 0);
  std::atomic<bool> is_done = false;
  std::jthread listens([&] {
    EXPECT_TRUE(listen_at(folder.path + "/s"));
    is_done = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_FALSE(is_done);
  other.reset();
  listens.join();
  EXPECT_TRUE(is_done);
}

TEST(Listen, OfSeveralThatBeginAtOnceExactlyOneGetsThePath) {
  const Folder folder;
  const std::string path = folder.path + "/s";
  constexpr unsigned kThreads = 4, kRounds = 300;
  for (unsigned round = 0; round < kRounds; ++round) {
    // Somebody was killed there.
    (void)listen_at(path).value();
    ASSERT_FALSE(is_listening(path));
    std::vector<Fd> got(kThreads);
    std::barrier start(kThreads);
    {
      std::vector<std::jthread> threads;
      for (Fd& each : got) {
        threads.emplace_back([&] {
          start.arrive_and_wait();
          if (auto socket = listen_at(path)) each = std::move(*socket);
        });
      }
    }
    ASSERT_EQ(std::ranges::count_if(got, &Fd::valid), 1) << "round " << round;
    ASSERT_TRUE(is_listening(path)) << "round " << round;
  }
}

}  // namespace
}  // namespace bulkhead::net::server
