// Frames a second from one port of a switch to another, as fast as a sender gives them away: Bulkhead's switch between
// two cards' front ends, with and without its firewall; any other vhost-user switch between the same two, which
// FORWARDING_BENCH_PORTS names as SOCKET,SOCKET; and vde_switch (where it is installed) between two of its own plugs.
// bench/switch/run.py puts the figures beside each other.
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/frame/frame_builder.h"
#include "net/server/listen.h"
#include "net/server/server.h"
#include "net/vhost/front_end.h"
#include "support/os/thread.h"

namespace bulkhead::net::server {
namespace {

constexpr size_t kAddresses = 1000;
constexpr size_t kFramesAnIteration = 50'000;
constexpr int kPatience_ms = 5000, kTurn_ms = 100, kMostTurns = 1000;

// Two ends of a switch.
class Rig {
 public:
  virtual ~Rig() = default;
  // Waits a while for room; false when there was none.
  virtual bool send(ByteSpan frame) = 0;
  // Frames that have come, waiting a while for one.
  virtual size_t receive() = 0;
};

// Until somebody says that there is something to do.
void wait_for(EventFd& news) {
  pollfd wake{.fd = news.fd(), .events = POLLIN, .revents = 0};
  (void)::poll(&wake, 1, kTurn_ms);
  (void)news.take();
}

frame::MacAddress address(size_t number) {
  return {{2, 0, 0, 1, static_cast<uint8_t>(number >> 8), static_cast<uint8_t>(number)}};
}

// Frames of this size from a thousand addresses, all of them UDP to the far end.
std::vector<std::vector<uint8_t>> frames_of(size_t size) {
  std::vector<std::vector<uint8_t>> frames;
  for (size_t i = 1; i <= kAddresses; ++i) {
    const std::vector<uint8_t> payload(size - 42);
    frames.push_back(frame::FrameBuilder()
                         .ethernet(address(i), address(0))
                         .ipv4("10.0.0.1", "10.0.0.2")
                         .udp(5000, 502)
                         .payload(ByteSpan(payload))
                         .build());
  }
  return frames;
}

std::string make_folder() {
  std::string path = "/tmp/switch-bench-XXXXXX";
  return ::mkdtemp(path.data()) == nullptr ? std::string() : path;
}

// Two cards whose switch listens on these sockets.
class Cards final : public Rig {
 public:
  Cards(const std::string& from, const std::string& to)
      : from_(vhost::FrontEnd::create(from).value()), to_(vhost::FrontEnd::create(to).value()) {
    to_->set_listener([this] { news_.signal(); });
    from_->set_listener([this] { room_.signal(); });
    for (int i = 0; i < kPatience_ms && !is_up(); ++i) ::usleep(1000);
    // The switch learns where the far end is.
    const auto hello = frame::FrameBuilder().ethernet(address(0), address(1)).payload("hello").build();
    if (is_up()) (void)to_->send(hello);
  }
  ~Cards() override {
    to_->set_listener({});
    from_->set_listener({});
  }
  [[nodiscard]] bool is_up() const { return from_->link_up() && to_->link_up(); }
  bool send(ByteSpan frame) override {
    if (from_->send(frame) == Sent::kDone) return true;
    wait_for(room_);
    return false;
  }
  size_t receive() override {
    size_t count = 0;
    while (to_->receive(frame_, offload_) != 0) ++count;
    if (count == 0) wait_for(news_);
    return count;
  }

 private:
  EventFd news_ = EventFd::create().value(), room_ = EventFd::create().value();
  std::unique_ptr<link::Link> from_, to_;
  std::array<uint8_t, vhost::FrontEnd::kMaximumFrame> frame_{};
  frame::Offload offload_;
};

class OwnSwitch {
 public:
  explicit OwnSwitch(bool firewall) : folder_(make_folder()), loop_(EventLoop::create().value()) {
    Setup setup{.name = "bench", .directory = folder_};
    setup.plan = {.zones = {"one", "other"},
                  .address_sets = {},
                  .services = {},
                  .conduits = {{.name = "udp", .from = "one", .to = "other", .services = {"udp/502"}}}};
    // Any card may send from any address here, as a host behind an uplink does.
    setup.groups = {{{.name = "one", .forged_mac = switching::Permission::kAllow}, "one"},
                    {{.name = "other", .forged_mac = switching::Permission::kAllow}, "other"}};
    const auto port = [&](const std::string& name, const std::string& group) {
      setup.ports.push_back({.name = name, .port = {.name = name, .ip_addresses = {}}, .group = group, .faults = {}});
    };
    port("a", "one");
    port("b", firewall ? "other" : "one");
    server_ = Server::create(setup, *loop_).value();
    thread_ = Thread("switch", [this] { loop_->run(); });
    cards_ = std::make_unique<Cards>(folder_ + "/a.sock", folder_ + "/b.sock");
  }
  ~OwnSwitch() {
    cards_.reset();
    loop_->stop();
    thread_.join();
    server_.reset();
    std::filesystem::remove_all(folder_);
  }
  OwnSwitch(const OwnSwitch&) = delete;
  OwnSwitch& operator=(const OwnSwitch&) = delete;
  [[nodiscard]] Cards& cards() { return *cards_; }

 private:
  const std::string folder_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<Server> server_;
  Thread thread_;
  std::unique_ptr<Cards> cards_;
};

// VDE's plug: a request on the control socket names the socket that frames go to; the switch answers with its own.
class VdePlug {
 public:
  VdePlug(const std::string& folder, const std::string& own) {
    control_ = connect_to(folder + "/ctl").value();
    data_ = Fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    struct {
      uint32_t magic = 0xFEEDFACE;
      uint32_t version = 3;
      uint32_t type = 0;
      sockaddr_un socket{};
      char description[128]{};
    } request;
    request.socket.sun_family = AF_UNIX;
    const size_t size = own.copy(request.socket.sun_path, sizeof request.socket.sun_path - 1);
    request.socket.sun_path[size] = 0;
    const timeval patience{.tv_sec = 0, .tv_usec = kTurn_ms * 1000};
    (void)::setsockopt(data_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    const int buffer_bytes = 1 << 20;
    (void)::setsockopt(data_.get(), SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes);
    (void)::setsockopt(data_.get(), SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
    is_plugged_ =
        ::bind(data_.get(), reinterpret_cast<const sockaddr*>(&request.socket), sizeof request.socket) == 0 &&
        ::send(control_.get(), &request, sizeof request, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof request) &&
        ::recv(control_.get(), &far_, sizeof far_, 0) > 0;
  }
  [[nodiscard]] bool is_plugged() const { return is_plugged_; }
  [[nodiscard]] int fd() const { return data_.get(); }
  [[nodiscard]] bool send(ByteSpan frame) const {
    return ::sendto(data_.get(), frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&far_), sizeof far_) >
           0;
  }

 private:
  Fd control_, data_;
  sockaddr_un far_{};
  bool is_plugged_ = false;
};

class VdeSwitch final : public Rig {
 public:
  static std::unique_ptr<Rig> create() {
    std::unique_ptr<VdeSwitch> made(new VdeSwitch);
    return made->from_ && made->to_ && made->from_->is_plugged() && made->to_->is_plugged() ? std::move(made) : nullptr;
  }
  ~VdeSwitch() override {
    if (pid_ > 0) {
      ::kill(pid_, SIGTERM);
      ::waitpid(pid_, nullptr, 0);
    }
    std::filesystem::remove_all(folder_);
  }
  bool send(ByteSpan frame) override { return from_->send(frame); }
  size_t receive() override {
    size_t count = 0;
    while (::recv(to_->fd(), frame_.data(), frame_.size(), MSG_DONTWAIT) > 0) ++count;
    if (count != 0) return count;
    pollfd wake{.fd = to_->fd(), .events = POLLIN, .revents = 0};
    (void)::poll(&wake, 1, kTurn_ms);
    return 0;
  }

 private:
  VdeSwitch() : folder_(make_folder()) {
    const std::string socket = folder_ + "/s";
    // Its console reads standard input, so that gets a pipe which says nothing.
    std::array<const char*, 5> words{"vde_switch", "-s", socket.c_str(), "-x", nullptr};
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return;
    const Fd read_end(ends[0]);
    input_ = Fd(ends[1]);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, read_end.get(), STDIN_FILENO);
    ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    if (::posix_spawnp(&pid_, words[0], &actions, nullptr, const_cast<char* const*>(words.data()), environ) != 0) {
      pid_ = -1;
    }
    ::posix_spawn_file_actions_destroy(&actions);
    for (int i = 0; pid_ > 0 && i < kPatience_ms && !connect_to(socket + "/ctl"); ++i) ::usleep(1000);
    if (pid_ < 0 || !connect_to(socket + "/ctl")) return;
    from_ = std::make_unique<VdePlug>(socket, folder_ + "/from");
    to_ = std::make_unique<VdePlug>(socket, folder_ + "/to");
    const auto hello = frame::FrameBuilder().ethernet(address(0), address(1)).payload("hello").build();
    if (to_->is_plugged()) (void)to_->send(hello);
  }

  const std::string folder_;
  Fd input_;
  pid_t pid_ = -1;
  std::unique_ptr<VdePlug> from_, to_;
  std::array<uint8_t, 65536> frame_{};
};

void measure(benchmark::State& state, Rig& rig) {
  const auto frames = frames_of(static_cast<size_t>(state.range(0)));
  std::atomic<bool> on = true;
  Thread sender("sender", [&] {
    for (size_t i = 0; on; i = (i + 1) % frames.size()) {
      while (on && !rig.send(frames[i])) continue;
    }
  });
  uint64_t all = 0;
  for (auto _ : state) {
    size_t received = 0;
    const auto began = std::chrono::steady_clock::now();
    int turns = 0;  // without a frame
    while (received < kFramesAnIteration && turns < kMostTurns) {
      const size_t count = rig.receive();
      turns = count == 0 ? turns + 1 : 0;
      received += count;
    }
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    all += received;
    if (received < kFramesAnIteration) {
      state.SkipWithError("no frames come any more");
      break;
    }
  }
  on = false;
  sender.join();
  state.SetItemsProcessed(static_cast<int64_t>(all));
}

void measure_cards(benchmark::State& state, Cards& cards) {
  if (!cards.is_up()) return state.SkipWithError("the switch does not answer the cards");
  measure(state, cards);
}
void bulkhead_switch(benchmark::State& state) {
  measure_cards(state, OwnSwitch(false).cards());
}
void bulkhead_firewall(benchmark::State& state) {
  measure_cards(state, OwnSwitch(true).cards());
}
void other_switch(benchmark::State& state) {
  const char* const ports = std::getenv("FORWARDING_BENCH_PORTS");
  const std::string_view names = ports == nullptr ? "" : ports;
  const size_t comma = names.find(',');
  if (comma == std::string_view::npos) return state.SkipWithError("FORWARDING_BENCH_PORTS names no two sockets");
  Cards cards(std::string(names.substr(0, comma)), std::string(names.substr(comma + 1)));
  measure_cards(state, cards);
}
void vde_switch(benchmark::State& state) {
  const auto rig = VdeSwitch::create();
  if (rig == nullptr) return state.SkipWithError("vde_switch is not installed");
  measure(state, *rig);
}

BENCHMARK(bulkhead_switch)->Arg(64)->Arg(1500)->UseManualTime();
BENCHMARK(bulkhead_firewall)->Arg(64)->Arg(1500)->UseManualTime();
BENCHMARK(other_switch)->Arg(64)->Arg(1500)->UseManualTime();
BENCHMARK(vde_switch)->Arg(64)->Arg(1500)->UseManualTime();

}  // namespace
}  // namespace bulkhead::net::server
