#include "console/backends.h"

#include <condition_variable>
#include <csignal>
#include <mutex>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/os/thread.h"

namespace bulkhead::console {
namespace {

using std::chrono::milliseconds;

ByteSpan bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Reads from a descriptor until it has size bytes or ten seconds passed.
std::string read_exactly(int fd, size_t size) {
  std::string text;
  while (text.size() < size) {
    pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, 10'000) != 1) break;
    char buffer[4096];
    const ssize_t count = ::read(fd, buffer, std::min(sizeof buffer, size - text.size()));
    if (count <= 0) break;
    text.append(buffer, static_cast<size_t>(count));
  }
  return text;
}

// An event loop on a thread of its own, and a device that collects what the back end brings.
class BackendTest : public testing::Test {
 protected:
  BackendTest() : directory_(testing::TempDir() + "bulkhead_console_" + std::to_string(::getpid())) {
    std::signal(SIGPIPE, SIG_IGN);
    ::mkdir(directory_.c_str(), 0700);
  }
  ~BackendTest() override {
    loop_->stop();
    thread_.join();
    backend_.reset();
    ::rmdir(directory_.c_str());
  }
  void start(Result<std::unique_ptr<Backend>> opened) {
    ASSERT_TRUE(opened) << opened.error().message;
    backend_ = std::move(*opened);
    backend_->set_listener([this] { on_ready(); });
    thread_ = Thread("loop", [this] { loop_->run(); });
  }
  void on_ready() {
    uint8_t buffer[512];
    std::lock_guard guard(mutex_);
    ++notices_;
    if (reading_) {
      while (const size_t count = backend_->read(buffer)) input_.append(buffer, buffer + count);
    }
    changed_.notify_all();
  }
  template <typename Condition>
  bool wait_until(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), condition);
  }
  [[nodiscard]] std::string path(const char* name) const { return directory_ + "/" + name; }
  Fd connect_to(const std::string& path) {
    Fd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return client;
  }

  std::string directory_;
  std::unique_ptr<EventLoop> loop_ = EventLoop::create().value();
  std::unique_ptr<Backend> backend_;
  Thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string input_;
  int notices_ = 0;
  bool reading_ = true;
};

TEST_F(BackendTest, AFileGetsAllOutputByTheTimeFlushReturns) {
  const std::string file = path("log");
  start(open_file_backend(file, *loop_));
  std::string expected;
  for (int i = 0; i < 2000; ++i) {
    const std::string line = fmt::format("line {}\n", i);
    ASSERT_EQ(backend_->write(bytes_of(line)), line.size());
    expected += line;
  }
  EXPECT_TRUE(backend_->flush(milliseconds(10'000)));
  EXPECT_EQ(read_file(file, 1 << 20).value(), expected);
  EXPECT_EQ(backend_->counters().bytes_from_guest, expected.size());
  ::unlink(file.c_str());
}

TEST_F(BackendTest, NullTakesEverythingAndDropsIt) {
  start(open_backend(Spec{}, *loop_, {}));
  EXPECT_EQ(backend_->write(std::vector<uint8_t>(1 << 20)), 1u << 20);
  EXPECT_TRUE(backend_->flush(milliseconds(0)));
  EXPECT_EQ(backend_->counters().bytes_dropped, 1u << 20);
}

TEST_F(BackendTest, ASocketKeepsTheLatestOutputForTheNextClient) {
  const std::string socket = path("socket");
  start(open_socket_backend(socket, *loop_));
  const std::vector<uint8_t> old(DescriptorStream::kOutputRing, 'o');
  EXPECT_EQ(backend_->write(old), old.size());
  EXPECT_EQ(backend_->write(bytes_of("login: ")), 7u);
  const Fd client = connect_to(socket);
  const std::string text = read_exactly(client.get(), DescriptorStream::kOutputRing);
  ASSERT_EQ(text.size(), DescriptorStream::kOutputRing);
  EXPECT_EQ(text.substr(text.size() - 8), "ologin: ");
  EXPECT_EQ(backend_->counters().bytes_dropped, 7u);
}

TEST_F(BackendTest, ASocketServesOneClientAfterAnother) {
  const std::string socket = path("socket");
  start(open_socket_backend(socket, *loop_));
  {
    const Fd first = connect_to(socket);
    ASSERT_EQ(::write(first.get(), "ab", 2), 2);
    ASSERT_TRUE(wait_until([&] { return input_ == "ab"; }));
    const Fd second = connect_to(socket);
    EXPECT_EQ(read_exactly(second.get(), 1), "");  // turned away
    EXPECT_EQ(backend_->write(bytes_of("hello")), 5u);
    EXPECT_EQ(read_exactly(first.get(), 5), "hello");
  }
  // The loop may not have seen the first one leave yet; then it turns the newcomer away once more.
  bool served = false;
  for (int attempt = 0; attempt < 1000 && !served; ++attempt) {
    const Fd third = connect_to(socket);
    backend_->write(bytes_of("x"));
    served = read_exactly(third.get(), 1) == "x";
  }
  EXPECT_TRUE(served);
}

TEST_F(BackendTest, AStalledClientGivesShortCountsAndANoticeWhenItReadsAgain) {
  const std::string socket = path("socket");
  start(open_socket_backend(socket, *loop_));
  const Fd client = connect_to(socket);
  ASSERT_EQ(::write(client.get(), "x", 1), 1);
  ASSERT_TRUE(wait_until([&] { return input_ == "x"; }));
  const std::vector<uint8_t> block(4096, 'b');
  // Until the socket's own buffer is full too and nothing moves any more.
  size_t written = 0;
  do {
    written += backend_->write(block);
    ASSERT_LT(written, 100u << 20);
  } while (backend_->flush(milliseconds(20)));
  while (const size_t taken = backend_->write(block)) {
    written += taken;
  }
  int before = 0;
  {
    std::lock_guard guard(mutex_);
    before = notices_;
  }
  EXPECT_EQ(read_exactly(client.get(), written).size(), written);
  EXPECT_TRUE(wait_until([&] { return notices_ > before; }));
  EXPECT_GT(backend_->write(block), 0u);
}

TEST_F(BackendTest, InputThatTheGuestDoesNotReadStaysWithItsSender) {
  const std::string socket = path("socket");
  {
    std::lock_guard guard(mutex_);
    reading_ = false;
  }
  start(open_socket_backend(socket, *loop_));
  const Fd client = connect_to(socket);
  const std::string sent(64 * 1024, 'i');
  Thread sender("sender", [&] { EXPECT_TRUE(write_all(client.get(), bytes_of(sent))); });
  ASSERT_TRUE(wait_until([&] { return notices_ > 0; }));
  {
    std::lock_guard guard(mutex_);
    reading_ = true;
  }
  on_ready();
  EXPECT_TRUE(wait_until([&] { return input_.size() == sent.size(); }));
}

TEST_F(BackendTest, ASocketReplacesADeadSocketFileButNotALiveOne) {
  const std::string socket = path("socket");
  start(open_socket_backend(socket, *loop_));
  const auto refused = open_socket_backend(socket, *loop_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, fmt::format("listen on socket '{}': Address already in use", socket));
  const std::string dead = path("dead");
  {
    const Fd left(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    dead.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(left.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  const auto loop = EventLoop::create().value();
  EXPECT_TRUE(open_socket_backend(dead, *loop));
  EXPECT_FALSE(open_socket_backend(std::string(200, 'x'), *loop));
}

TEST_F(BackendTest, APtyCarriesBothWaysAndSurvivesItsUserLeaving) {
  start(open_pty_backend(*loop_));
  const std::string notice = backend_->notice();
  const std::string name = notice.substr(notice.find("/dev/"));
  EXPECT_EQ(backend_->write(bytes_of("boot\n")), 5u);
  for (int user = 0; user < 2; ++user) {
    const Fd slave = open_file(name, O_RDWR | O_NOCTTY).value();
    if (user == 0) {
      EXPECT_EQ(read_exactly(slave.get(), 5), "boot\n");
    }
    ASSERT_EQ(::write(slave.get(), "k\n", 2), 2);
    ASSERT_TRUE(wait_until([&] { return input_ == (user == 0 ? "k\n" : "k\nk\n"); }));
  }
}

TEST(BackendSpec, NamesWhatIsAllowed) {
  EXPECT_EQ(parse_spec("file:/a b").value(), (Spec{Spec::Kind::kFile, "/a b"}));
  EXPECT_EQ(to_string(parse_spec("socket:s").value()), "socket:s");
  EXPECT_EQ(parse_spec("tcp:1").error().message,
            "not a serial back end; allowed: stdio, pty, null, file:PATH or socket:PATH");
  EXPECT_EQ(parse_spec("file:").error().message, "names no path; allowed: stdio, pty, null, file:PATH or socket:PATH");
}

TEST(EscapeKey, TakesCommandsOutOfTheGuestsInputAcrossReads) {
  std::vector<TerminalCommand> commands;
  EscapeKey key([&](TerminalCommand command) { commands.push_back(command); });
  const auto filter = [&](std::string text) {
    text.resize(key.filter({reinterpret_cast<uint8_t*>(text.data()), text.size()}));
    return text;
  };
  EXPECT_EQ(filter("ls\n"), "ls\n");
  EXPECT_EQ(filter("a\x1d"), "a");
  EXPECT_EQ(filter("pb"), "b");
  EXPECT_EQ(filter("\x1d\x1d\x1d]"), "\x1d\x1d");
  EXPECT_EQ(filter("\x1dq\x1dr\x1d?z\x1d"
                   "c"),
            "z");
  EXPECT_EQ(commands, (std::vector{TerminalCommand::kPowerButton, TerminalCommand::kQuit, TerminalCommand::kReset,
                                   TerminalCommand::kHelp, TerminalCommand::kContinue}));
}

}  // namespace
}  // namespace bulkhead::console
