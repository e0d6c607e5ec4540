// The switch's process in one thread of this one, with the cards' own front ends at its sockets.
#include "net/server/server.h"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "net/frame/frame_builder.h"
#include "net/server/listen.h"
#include "net/vhost/front_end.h"
#include "support/os/thread.h"

// Instead of the library's, so that a test can have the kernel refuse to watch the next front end.
static std::atomic<bool> refuses_front_end{false};
extern "C" int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) noexcept {
  const bool is_front_end = operation == EPOLL_CTL_ADD && (event->events & EPOLLRDHUP) != 0;
  if (is_front_end && refuses_front_end.exchange(false)) {
    errno = ENOSPC;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_epoll_ctl, epoll, operation, fd, event));
}

namespace bulkhead::net::server {
namespace {

using frame::FrameBuilder;
using namespace std::chrono_literals;

constexpr auto kPatience = 60s;

// Until it holds; events of other threads and processes take as long as they take.
template <typename Condition>
[[nodiscard]] bool comes_true(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    ::usleep(1000);
  }
  return true;
}

// A short path: a socket's has 107 characters.
struct Folder {
  Folder() { EXPECT_NE(::mkdtemp(path.data()), nullptr); }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path = "/tmp/server-XXXXXX";
};

frame::MacAddress mac(uint8_t number) {
  return {{2, 0, 0, 0, 0, number}};
}

// Two cards in a zone, one in another that may reach the first by HTTP, and a group for whoever comes.
server::Setup setup_in(const std::string& directory) {
  server::Setup setup{.name = "test", .directory = directory};
  setup.plan = {.zones = {"office", "floor"},
                .address_sets = {},
                .services = {},
                .conduits = {{.name = "web", .from = "office", .to = "floor", .services = {"http"}}}};
  setup.groups = {{{.name = "office"}, "office"}, {{.name = "floor"}, "floor"}};
  for (const auto& [name, group, number] : {std::tuple("a", "floor", 1), {"b", "floor", 2}, {"desk", "office", 3}}) {
    setup.ports.push_back({.name = name,
                           .port = {.name = name, .mac = mac(static_cast<uint8_t>(number)), .ip_addresses = {}},
                           .group = group,
                           .faults = {}});
  }
  return setup;
}

// A server on a thread of its own.
class Running {
 public:
  explicit Running(const server::Setup& setup) : loop_(EventLoop::create().value()) {
    auto made = Server::create(setup, *loop_);
    EXPECT_TRUE(made) << made.error().message;
    server_ = std::move(*made);
    thread_ = Thread("server", [this] { loop_->run(); });
  }
  ~Running() {
    loop_->stop();
    thread_.join();
  }

 private:
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<Server> server_;
  Thread thread_;
};

struct Cards {
  explicit Cards(const std::string& directory) : path(directory) {}
  link::Link& plug(const std::string& socket) {
    links.push_back(vhost::FrontEnd::create(fmt::format("{}/{}.sock", path, socket)).value());
    EXPECT_TRUE(comes_true([&] { return links.back()->link_up(); })) << socket;
    return *links.back();
  }
  [[nodiscard]] std::string ask(std::string_view question) const {
    const Fd socket = connect_to(path + "/control.sock").value();
    EXPECT_TRUE(write_all(socket.get(), ByteSpan(reinterpret_cast<const uint8_t*>(question.data()), question.size())));
    std::string answer;
    char bytes[4096];
    for (ssize_t count = 0; (count = ::read(socket.get(), bytes, sizeof bytes)) > 0;) {
      answer.append(bytes, static_cast<size_t>(count));
    }
    return answer;
  }
  std::string path;
  std::vector<std::unique_ptr<link::Link>> links;
};

// The next frame, or nothing when none comes.
std::vector<uint8_t> next(link::Link& link) {
  std::vector<uint8_t> frame(vhost::FrontEnd::kMaximumFrame);
  size_t size = 0;
  frame::Offload offload;
  EXPECT_TRUE(comes_true([&] { return (size = link.receive(frame, offload)) != 0; }));
  frame.resize(size);
  return frame;
}

FrameBuilder between(uint8_t from, uint8_t to) {
  return FrameBuilder().ethernet(mac(from), mac(to)).ipv4(fmt::format("10.0.0.{}", from), fmt::format("10.0.0.{}", to));
}

TEST(SwitchServer, CarriesFramesBetweenCardsAndAsksThePlan) {
  const Folder folder;
  const Running running(setup_in(folder.path));
  Cards cards(folder.path);
  link::Link& a = cards.plug("a");
  link::Link& b = cards.plug("b");
  link::Link& desk = cards.plug("desk");
  const auto within = between(1, 2).udp(1, 2).payload("within the zone").build();
  ASSERT_EQ(a.send(within), Sent::kDone);
  EXPECT_EQ(next(b), within);
  // What no conduit names does not come, and what does comes behind it.
  const auto ssh = between(3, 1).tcp(4000, 22, frame::kTcpSyn).build();
  const auto http = between(3, 1).tcp(4000, 80, frame::kTcpSyn).build();
  ASSERT_EQ(desk.send(ssh), Sent::kDone);
  ASSERT_EQ(desk.send(http), Sent::kDone);
  EXPECT_EQ(next(a), http);
  EXPECT_NE(cards.ask("refusals\n").find("desk -> a TCP 10.0.0.3:4000 -> 10.0.0.1:22: refused"), std::string::npos);
  EXPECT_NE(cards.ask("rules\n").find("1  conduit 'web': http"), std::string::npos);
  EXPECT_NE(cards.ask("ports\n").find("desk"), std::string::npos);
  EXPECT_NE(cards.ask("what\n").find("error: 'what'; allowed:"), std::string::npos);
}

// The switch need not say anything while a card takes frames; whatever the moment, the last frame is told of.
TEST(SwitchServer, TellsACardOfEveryFrameThatItWouldNotFind) {
  const Folder folder;
  const Running server(setup_in(folder.path));
  Cards cards(folder.path);
  link::Link& from = cards.plug("a");
  link::Link& to = cards.plug("b");
  constexpr unsigned kFrames = 2000;
  Mutex mutex;  // a listener and its replacement may overlap
  std::atomic<unsigned> seen = 0;
  const auto take_all = [&] {
    const LockGuard lock(mutex);
    std::array<uint8_t, 2048> frame;
    frame::Offload offload;
    while (to.receive(frame, offload) != 0) ++seen;
  };
  to.set_listener(take_all);
  const auto frame = between(1, 2).udp(1, 2).payload("news").build();
  for (unsigned i = 1; i <= kFrames; ++i) {
    // Sometimes nobody listens when it comes.
    if (i % 100 == 0) to.set_listener({});
    ASSERT_EQ(from.send(frame), Sent::kDone);
    if (i % 100 == 0) {
      if (i % 200 == 0) ::usleep(2000);
      to.set_listener(take_all);
    }
    // One at a time, and at once behind the one before, so that each finds the card at rest or on its way there.
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (seen != i && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    ASSERT_EQ(seen, i) << "frame " << i << " was not told of";
  }
  to.set_listener({});
}

// A card that waits for the switch's own event hears of every frame by it alone, and of room too.
TEST(SwitchServer, SignalsTheCardsOwnEvent) {
  std::atomic<unsigned> called = 0;
  const Folder folder;
  const Running server(setup_in(folder.path));
  Cards cards(folder.path);
  link::Link& from = cards.plug("a");
  link::Link& to = cards.plug("b");
  to.set_listener([&] { ++called; });
  from.set_listener([&] { ++called; });
  EventFd* const news = to.news();
  EventFd* const room = from.news();
  ASSERT_TRUE(news != nullptr && room != nullptr);
  const auto wait_for = [](EventFd& event) {
    pollfd wanted{.fd = event.fd(), .events = POLLIN, .revents = 0};
    return ::poll(&wanted, 1, 20'000) == 1 && event.take() != 0;
  };
  std::array<uint8_t, 2048> taken;
  frame::Offload offload;
  const auto frame = between(1, 2).udp(1, 2).payload("news").build();
  (void)to.receive(taken, offload);
  // Setting a listener has it called once.
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (called < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  const unsigned before = called;
  for (unsigned i = 0; i < 500; ++i) {
    ASSERT_EQ(from.send(frame), Sent::kDone);
    size_t size = to.receive(taken, offload);
    while (size == 0) {
      ASSERT_TRUE(wait_for(*news)) << "frame " << i << " was not told of";
      size = to.receive(taken, offload);
    }
    ASSERT_EQ(to.receive(taken, offload), 0u);
  }
  // Faster than the switch takes them, sooner or later.
  unsigned full = 0;
  for (unsigned i = 0; i < 200'000 && full < 3; ++i) {
    if (from.send(frame) == Sent::kDone) continue;
    ++full;
    // It may have been told of room that was there before.
    while (from.send(frame) == Sent::kNoRoom) ASSERT_TRUE(wait_for(*room)) << "nobody told of room";
  }
  // Not the listener, but for the link.
  EXPECT_LT(called, before + 10);
}

TEST(SwitchServer, AGuestOfAGroupIsTheAddressThatItSendsFromFirst) {
  const Folder folder;
  server::Setup setup = setup_in(folder.path);
  setup.groups.push_back({{.name = "open", .forged_mac = switching::Permission::kAllow}, "floor"});
  setup.ports.push_back({.name = "up", .port = {.name = "up"}, .group = "open", .faults = {}});
  const Running running(setup);
  Cards cards(folder.path);
  link::Link& a = cards.plug("a");
  link::Link& guest = cards.plug("group-floor");
  const auto honest = between(9, 1).udp(1, 2).build();
  ASSERT_EQ(guest.send(honest), Sent::kDone);
  EXPECT_EQ(next(a), honest);
  ASSERT_EQ(guest.send(between(8, 1).udp(1, 2).build()), Sent::kDone);
  const auto again = between(9, 1).udp(3, 4).build();
  ASSERT_EQ(guest.send(again), Sent::kDone);
  EXPECT_EQ(next(a), again);
  // An address that is heard at another port is nobody's to take.
  link::Link& up = cards.plug("up");
  const auto from_outside = between(6, 1).udp(5, 6).build();
  ASSERT_EQ(up.send(from_outside), Sent::kDone);
  EXPECT_EQ(next(a), from_outside);
  link::Link& thief = cards.plug("group-floor");
  ASSERT_EQ(thief.send(between(6, 1).udp(5, 6).build()), Sent::kDone);
  const auto own = between(7, 1).udp(7, 8).build();
  ASSERT_EQ(thief.send(own), Sent::kDone);
  EXPECT_EQ(next(a), own);
  cards.links.clear();
  // They are gone when their cards are, and their places with them.
  EXPECT_TRUE(comes_true([&] { return cards.ask("ports\n").find("floor#") == std::string::npos; }));
}

TEST(SwitchServer, AGuestThatCannotBeServedLeavesNothing) {
  const Folder folder;
  const Running running(setup_in(folder.path));
  Cards cards(folder.path);
  refuses_front_end = true;
  const Fd guest = connect_to(folder.path + "/group-floor.sock").value();
  char byte = 0;
  EXPECT_EQ(::read(guest.get(), &byte, 1), 0);
  EXPECT_EQ(cards.ask("ports\n").find("floor#"), std::string::npos);
  cards.plug("group-floor");
  EXPECT_NE(cards.ask("ports\n").find("floor#"), std::string::npos);
}

TEST(SwitchServer, ListsTheLatestRefusalsByTheNamesOfThoseWhoTried) {
  const Folder folder;
  const Running running(setup_in(folder.path));
  Cards cards(folder.path);
  (void)cards.plug("a");
  link::Link& guest = cards.plug("group-office");
  ASSERT_EQ(guest.send(between(9, 1).tcp(7, 22, frame::kTcpSyn).build()), Sent::kDone);
  EXPECT_TRUE(comes_true([&] { return cards.ask("refusals\n").find("office#") != std::string::npos; }));
  cards.links.pop_back();
  EXPECT_TRUE(comes_true([&] { return cards.ask("ports\n").find("office#") == std::string::npos; }));
  const std::string after = cards.ask("refusals\n");
  EXPECT_NE(after.find("-> a TCP 10.0.0.9:7 -> 10.0.0.1:22: refused"), std::string::npos) << after;
  EXPECT_NE(after.find("ago: office#"), std::string::npos) << after;
  // More guests than there is room in an answer; what each is refused has a long name.
  for (unsigned number = 0; number < 60; ++number) {
    link::Link& each = cards.plug("group-office");
    const frame::MacAddress own{{2, 0, 0, 0, 1, static_cast<uint8_t>(number)}};
    for (uint16_t port = 1; port <= 32; ++port) {
      ASSERT_EQ(each.send(FrameBuilder()
                              .ethernet(own, mac(1))
                              .ipv6(fmt::format("fd00:1111:2222:3333:4444:5555:6666:{:x}", 0xF000 + number),
                                    "fd00:1111:2222:3333:4444:5555:6666:7777")
                              .tcp(static_cast<uint16_t>(50000 + number), port, frame::kTcpSyn)
                              .build()),
                Sent::kDone);
    }
  }
  std::string all;
  EXPECT_TRUE(comes_true([&] { return (all = cards.ask("refusals\n")).find(":50059 -> ") != std::string::npos; }));
  EXPECT_TRUE(
      comes_true([&] { return (all = cards.ask("refusals\n")).find("]:32: ", all.rfind(":50059 ")) != all.npos; }));
  EXPECT_LE(all.size(), Control::kMaximumAnswer + 100);
  EXPECT_NE(all.find(" older ones are left out\n"), std::string::npos) << all.substr(0, 200);
  EXPECT_EQ(all.back(), '\n');
}

TEST(SwitchServer, KeepsAPortForWhoIsThereAndClosesItForNonsense) {
  const Folder folder;
  const Running running(setup_in(folder.path));
  Cards cards(folder.path);
  link::Link& a = cards.plug("a");
  link::Link& b = cards.plug("b");
  // A second one at a port is told by the end of its stream.
  const Fd second = connect_to(folder.path + "/a.sock").value();
  char byte = 0;
  EXPECT_EQ(::read(second.get(), &byte, 1), 0);
  const Fd nonsense = connect_to(folder.path + "/desk.sock").value();
  const std::array<uint8_t, 12> words{77, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0};
  ASSERT_TRUE(write_all(nonsense.get(), words));
  EXPECT_EQ(::read(nonsense.get(), &byte, 1), 0);
  const auto after = between(1, 2).udp(1, 2).build();
  ASSERT_EQ(a.send(after), Sent::kDone);
  EXPECT_EQ(next(b), after);
}

TEST(SwitchServer, CardsOutliveIt) {
  const Folder folder;
  Cards cards(folder.path);
  {
    const Running first(setup_in(folder.path));
    cards.plug("a");
    cards.plug("b");
    EXPECT_FALSE(Server::create(setup_in(folder.path), *EventLoop::create().value())) << "two switches in one folder";
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path));
  EXPECT_TRUE(comes_true([&] { return !cards.links[0]->link_up() && !cards.links[1]->link_up(); }));
  // Frames to nowhere are lost, and nothing waits for them.
  EXPECT_EQ(cards.links[0]->send(between(1, 2).udp(1, 2).build()), Sent::kDone);
  const Running second(setup_in(folder.path));
  EXPECT_TRUE(comes_true([&] { return cards.links[0]->link_up() && cards.links[1]->link_up(); }));
  const auto frame = between(1, 2).udp(1, 2).payload("again").build();
  ASSERT_EQ(cards.links[0]->send(frame), Sent::kDone);
  EXPECT_EQ(next(*cards.links[1]), frame);
}

TEST(SwitchServer, CardsDoNotNoticeOneThatIsBackAtOnce) {
  const Folder folder;
  std::atomic<bool> is_noticed = false;
  Cards cards(folder.path);
  auto running = std::make_unique<Running>(setup_in(folder.path));
  link::Link& a = cards.plug("a");
  link::Link& b = cards.plug("b");
  a.set_listener([&] { is_noticed = is_noticed || !a.link_up(); });
  const auto passes = [&] {
    const auto frame = between(1, 2).udp(1, 2).build();
    std::vector<uint8_t> taken(frame.size());
    frame::Offload offload;
    (void)a.send(frame);
    return b.receive(taken, offload) != 0;
  };
  // On a busy host "at once" may take longer than a card waits, but not every time.
  bool was_unnoticed = false;
  for (unsigned i = 0; i < 50 && !was_unnoticed; ++i) {
    ASSERT_TRUE(comes_true(passes));
    is_noticed = false;
    running.reset();
    // What is under way has been taken by now, and nothing passes.
    std::vector<uint8_t> taken(frame::kMaximumFrameSize);
    frame::Offload offload;
    while (b.receive(taken, offload) != 0) continue;
    running = std::make_unique<Running>(setup_in(folder.path));
    ASSERT_TRUE(comes_true(passes));
    was_unnoticed = !is_noticed;
  }
  EXPECT_TRUE(was_unnoticed);
  a.set_listener({});
}

// An intrusion detection's card sees what is refused and what passes, once, in both directions, and reaches nobody.
TEST(SwitchServer, ShowsAMirrorsCardWhatPassesAndWhatIsRefused) {
  const Folder folder;
  server::Setup setup = setup_in(folder.path);
  setup.mirrors = {{.name = "watch", .ports = {"a"}, .groups = {"office"}, .target = "b"}};
  const Running running(setup);
  Cards cards(folder.path);
  link::Link& a = cards.plug("a");
  link::Link& ids = cards.plug("b");
  link::Link& desk = cards.plug("desk");
  link::Link& guest = cards.plug("group-office");
  const auto ssh = between(3, 1).tcp(4000, 22, frame::kTcpSyn).build();
  const auto http = between(3, 1).tcp(4000, 80, frame::kTcpSyn).build();
  const auto answer = between(1, 3).tcp(80, 4000, frame::kTcpSyn | frame::kTcpAcknowledge).build();
  const auto attack = between(2, 1).udp(1, 2).payload("from the card that only looks").build();
  const auto late = between(9, 1).tcp(4001, 80, frame::kTcpSyn).build();
  ASSERT_EQ(desk.send(ssh), Sent::kDone);
  EXPECT_EQ(next(ids), ssh);
  ASSERT_EQ(desk.send(http), Sent::kDone);
  EXPECT_EQ(next(a), http);
  EXPECT_EQ(next(ids), http);
  ASSERT_EQ(a.send(answer), Sent::kDone);
  EXPECT_EQ(next(desk), answer);
  EXPECT_EQ(next(ids), answer);
  ASSERT_EQ(ids.send(attack), Sent::kDone);
  // A card that came after the mirror was made.
  ASSERT_EQ(guest.send(late), Sent::kDone);
  EXPECT_EQ(next(a), late);
  EXPECT_EQ(next(ids), late);
  const std::string refusals = cards.ask("refusals\n");
  EXPECT_EQ(refusals.find("-> b"), std::string::npos) << "a copy asked the firewall: " << refusals;
  EXPECT_NE(refusals.find("desk -> a TCP"), std::string::npos) << refusals;
}

TEST(SwitchServer, ChangesFaultsWhileItRuns) {
  const Folder folder;
  const Running running(setup_in(folder.path));
  Cards cards(folder.path);
  link::Link& a = cards.plug("a");
  link::Link& b = cards.plug("b");
  EXPECT_EQ(cards.ask("faults a 0 0 0 1000000 0 0 0 0\n"), "done\n");
  const auto twice = between(1, 2).udp(1, 2).build();
  ASSERT_EQ(a.send(twice), Sent::kDone);
  EXPECT_EQ(next(b), twice);
  EXPECT_EQ(next(b), twice);
  EXPECT_EQ(cards.ask("faults a 0 0 0 0 0 0 0 1\n"), "done\n");
  ASSERT_EQ(a.send(twice), Sent::kDone);
  EXPECT_NE(cards.ask("ports\n").find("a  "), std::string::npos);
  EXPECT_EQ(cards.ask("faults a 0 0 0 0 0 0 0 0\n"), "done\n");
  const auto whole = between(1, 2).udp(5, 6).build();
  ASSERT_EQ(a.send(whole), Sent::kDone);
  EXPECT_EQ(next(b), whole);
  // Half-open: b hears a, and a does not hear b.
  EXPECT_EQ(cards.ask("faults a out 0 0 0 0 0 0 0 1\n"), "done\n");
  const auto back = between(2, 1).udp(6, 5).build(), late = between(2, 1).udp(7, 5).build();
  ASSERT_EQ(b.send(back), Sent::kDone);
  ASSERT_EQ(a.send(whole), Sent::kDone);
  EXPECT_EQ(next(b), whole);
  EXPECT_EQ(cards.ask("faults a out 0 0 0 0 0 0 0 0\n"), "done\n");
  ASSERT_EQ(b.send(late), Sent::kDone);
  EXPECT_EQ(next(a), late);
  EXPECT_EQ(cards.ask("faults a 1 2 3\n"), "error: '' is no number\n");
  EXPECT_EQ(cards.ask("faults a 1ms 0 0 0 0 0 0 0\n"), "error: '1ms' is no number\n");
  EXPECT_EQ(cards.ask("faults a 0 0 0 0 0 0 0 0 out\n"), "error: 'out': allowed: 8 numbers\n");
  EXPECT_EQ(cards.ask("faults b in 5000000 0 10000 0 0 0 8000 0\n"), "done\n");
  const std::string faults = cards.ask("faults\n");
  EXPECT_NE(faults.find("b in delay=5000000 jitter=0 lost=10000 duplicated=0 reordered=0 corrupted=0 rate=8000 cut=0 "),
            std::string::npos)
      << faults;
  EXPECT_NE(faults.find("b out delay=0 "), std::string::npos) << faults;
  EXPECT_NE(faults.find("frames.duplicated=1 "), std::string::npos) << faults;
  // Three frames of 42 bytes and more from each of them; the group has both, and what its guests had before.
  const std::string counters = cards.ask("counters\n");
  EXPECT_NE(counters.find("port a zone=floor group=floor link=up lost=0 received-frames="), std::string::npos);
  EXPECT_NE(counters.find("group floor zone=floor received-frames=6 received-bytes=252 "), std::string::npos)
      << counters;
  EXPECT_NE(counters.find(" dropped.forged-MAC=0 "), std::string::npos) << counters;
}

TEST(SwitchServer, SaysWhatIsWrongWithItsSetup) {
  const Folder folder;
  const auto loop = EventLoop::create().value();
  const auto complaint = [&](auto&& change) {
    server::Setup setup = setup_in(folder.path);
    change(setup);
    const auto made = Server::create(setup, *loop);
    return made ? std::string() : made.error().message;
  };
  EXPECT_EQ(complaint([](server::Setup&) {}), "");
  EXPECT_EQ(complaint([](server::Setup& setup) { setup.ports[0].group = "roof"; }), "port 'a': no port group 'roof'");
  EXPECT_NE(complaint([](server::Setup& setup) { setup.ports[1].port.mac = mac(1); }).find("belongs to port 'a'"),
            std::string::npos);
  EXPECT_NE(
      complaint([](server::Setup& setup) { setup.directory += std::string(100, 'x'); }).find("at most 107 characters"),
      std::string::npos);
  const auto mirror = [](MirrorSetup wanted) { return [wanted](server::Setup& setup) { setup.mirrors = {wanted}; }; };
  EXPECT_NE(complaint(mirror({.name = "m", .capture = "/nowhere/at/all", .capture_bytes = 1 << 20})), "");
  EXPECT_EQ(complaint(mirror({.name = "m", .ports = {"z"}, .target = "a"})), "mirror 'm': no port 'z'");
  EXPECT_EQ(complaint(mirror({.name = "m", .groups = {"z"}, .target = "a"})), "mirror 'm': no port group 'z'");
}

}  // namespace
}  // namespace bulkhead::net::server
