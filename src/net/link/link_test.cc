#include "net/link/link.h"

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <semaphore>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "net/frame/big_endian.h"
#include "net/frame/frame_builder.h"
#include "net/link/cable.h"
#include "net/link/fabric.h"
#include "net/link/frame_queue.h"
#include "net/link/nat.h"
#include "net/link/rate_limited.h"
#include "net/link/tap.h"
#include "support/time/fake_clock.h"

namespace bulkhead::net::link {
namespace {

using frame::FrameBuilder;

constexpr std::chrono::seconds kPatience{10};

const frame::MacAddress kMac{{2, 0, 0, 0, 0, 1}};

// Of the tests that need no switch.
struct World {
  FakeClock clock{1'000'000'000};
  SeededRandom random{1};
  Fabrics fabrics{clock, random};
};
Result<std::unique_ptr<Link>> open(const LinkConfig& config) {
  World world;
  return open_link(config, kMac, world.fabrics);
}

// Waits for frames as a card does: by the bell.
class Listener {
 public:
  explicit Listener(Port& port) : port_(port) {
    port.set_listener([this] {
      const std::lock_guard lock(mutex_);
      rung_ = true;
      ready_.notify_all();
    });
  }
  ~Listener() { port_.set_listener({}); }
  std::vector<uint8_t> next() {
    std::vector<uint8_t> frame(65536);
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < end) {
      frame::Offload offload;
      if (const size_t size = port_.receive(frame, offload); size != 0) {
        frame.resize(size);
        return frame;
      }
      std::unique_lock lock(mutex_);
      ready_.wait_for(lock, kPatience, [this] { return rung_; });
      rung_ = false;
    }
    return {};
  }

 private:
  Port& port_;
  std::mutex mutex_;
  std::condition_variable ready_;
  bool rung_ = false;
};

TEST(Forward, IsReadFromItsParts) {
  EXPECT_EQ(parse_forward("tcp:127.0.0.1:8080:80").value(), (Forward{false, "127.0.0.1", 8080, 80}));
  EXPECT_EQ(parse_forward("udp:0.0.0.0:5000:53").value(), (Forward{true, "0.0.0.0", 5000, 53}));
  EXPECT_EQ(parse_forward("tcp:127.0.0.1:8080:10.77.0.10:80").value(),
            (Forward{false, "127.0.0.1", 8080, 80, "10.77.0.10"}));
  for (const char* wrong : {"", "tcp", "tcp:127.0.0.1:8080", "sctp:127.0.0.1:1:2", "tcp:localhost:1:2", "tcp:::1:1:2",
                            "tcp:127.0.0.1:0:80", "tcp:127.0.0.1:8080:65536", "tcp:127.0.0.1:8080:80:1",
                            "tcp:127.0.0.1:8080:fd00::1:80", "tcp:1.1.1.1:1:1.1.1.1:1:1"}) {
    EXPECT_FALSE(parse_forward(wrong)) << wrong;
  }
}

TEST(FrameQueue, IsBoundedInFramesAndBytes) {
  FrameQueue queue;
  const std::vector<uint8_t> small(60), large(65000);
  size_t count = 0;
  while (queue.push(small)) ++count;
  EXPECT_EQ(count, FrameQueue::kMaximumFrames);
  std::vector<uint8_t> out(100);
  frame::Offload offload;
  while (queue.pop(out, offload) != 0) {
  }
  EXPECT_TRUE(queue.empty());
  count = 0;
  while (queue.push(large)) ++count;
  EXPECT_EQ(count, FrameQueue::kMaximumBytes / large.size());
  // What the card has no room for is lost.
  EXPECT_EQ(queue.pop(out, offload), 0u);
}

TEST(NoLink, IsDown) {
  const auto link = open({}).value();
  EXPECT_FALSE(link->link_up());
}

// The lines of /proc/self/task/TASK/status of the thread of this name.
std::string status_of_thread(std::string_view name) {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string line;
    std::getline(std::ifstream(task.path() / "comm"), line);
    if (line != name) continue;
    std::ifstream status(task.path() / "status");
    return {std::istreambuf_iterator<char>(status), {}};
  }
  return {};
}

// The thread that runs libslirp gives up calls and files, and its neighbours do not.
TEST(Nat, IsConfinedAlone) {
  const auto link = open({.kind = LinkConfig::Kind::kNat}).value();
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!status_of_thread("nat").contains("\nSeccomp:\t2\n") && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(status_of_thread("nat").contains("\nSeccomp:\t2\n"));
  EXPECT_TRUE(status_of_thread("nat").contains("\nNoNewPrivs:\t1\n"));
  const Fd still(::open("/proc/self/status", O_RDONLY | O_CLOEXEC));
  EXPECT_TRUE(still.valid());
}

// The host's name servers change while guests run: systemd-resolved and the like replace the file that the link leads
// to.
TEST(Nat, ReadsNameServersThatWereReplaced) {
  std::string folder = "/tmp/nat-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string link = folder + "/etc/resolv.conf", target = folder + "/run/resolv.conf";
  std::filesystem::create_directories(folder + "/etc");
  std::filesystem::create_directories(folder + "/run");
  std::ofstream(target) << "old";
  std::ofstream(folder + "/etc/secret") << "secret";
  std::filesystem::create_symlink("../run/resolv.conf", link);
  EXPECT_EQ(NatLink::readable_for(link), (std::vector<std::string>{link, folder + "/run"}));
  EXPECT_EQ(NatLink::readable_for(target), (std::vector<std::string>{target}));
  EXPECT_EQ(NatLink::readable_for(folder + "/etc/none"), (std::vector<std::string>{folder + "/etc/none"}));
  std::string read;
  bool reads_secret = true, has_landlock = false;
  std::binary_semaphore is_confined(0), is_replaced(0);
  Thread confined("confined", [&] {
    const auto missing = confine({.removable_in = {}, .readable = NatLink::readable_for(link), .calls = {"openat"}});
    has_landlock = missing && missing->empty();
    is_confined.release();
    is_replaced.acquire();
    read = read_file(link, 100).value_or("none");
    reads_secret = read_file(folder + "/etc/secret", 100).has_value();
  });
  is_confined.acquire();
  std::ofstream(target + ".new") << "new";
  std::filesystem::rename(target + ".new", target);
  is_replaced.release();
  confined.join();
  EXPECT_EQ(read, "new");
  EXPECT_EQ(reads_secret, !has_landlock);
  std::filesystem::remove_all(folder);
}

// A DHCP discover gets an offer, without any socket of the host's.
TEST(Nat, OffersAnAddress) {
  const auto link = open({.kind = LinkConfig::Kind::kNat}).value();
  Listener listener(*link);
  std::vector<uint8_t> bootp(300);
  bootp[0] = 1;
  bootp[1] = 1;
  bootp[2] = 6;
  frame::store_big32(bootp.data() + 4, 0x12345678);
  const uint8_t mac[] = {2, 0, 0, 0, 0, 1};
  std::copy(std::begin(mac), std::end(mac), bootp.begin() + 28);
  const uint8_t options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255};
  std::copy(std::begin(options), std::end(options), bootp.begin() + 236);
  const auto discover = FrameBuilder()
                            .ethernet({{2, 0, 0, 0, 0, 1}}, frame::MacAddress::broadcast())
                            .ipv4("0.0.0.0", "255.255.255.255")
                            .udp(68, 67)
                            .payload(bootp)
                            .build();
  ASSERT_EQ(link->send(discover), Sent::kDone);
  const auto answer = listener.next();
  const frame::Headers headers = frame::read_headers(answer);
  ASSERT_TRUE(headers.udp);
  EXPECT_EQ(headers.udp->source_port, 67);
  const ByteSpan offer = ByteSpan(answer).subspan(headers.transport_payload_offset);
  EXPECT_EQ(frame::load_big32(offer.data() + 4), 0x12345678u);
  EXPECT_EQ(frame::IpAddress::v4(offer.subspan(16)).to_string(), "10.0.2.15");
}

TEST(Nat, AnswersForItsGatewayAndSurvivesWhatIsNoFrame) {
  const auto link = open({.kind = LinkConfig::Kind::kNat}).value();
  Listener listener(*link);
  for (size_t size = 14; size < 80; ++size) {
    std::vector<uint8_t> noise(size, 0x45);
    noise[12] = 8;
    noise[13] = static_cast<uint8_t>(size % 2 == 0 ? 0 : 6);
    (void)link->send(noise);
  }
  const auto request = FrameBuilder()
                           .ethernet({{2, 0, 0, 0, 0, 1}}, frame::MacAddress::broadcast())
                           .arp({.operation = frame::kArpRequest,
                                 .sender_mac = {{2, 0, 0, 0, 0, 1}},
                                 .sender = frame::IpAddress::parse("10.0.2.15").value(),
                                 .target_mac = {},
                                 .target = frame::IpAddress::parse("10.0.2.2").value()})
                           .build();
  (void)link->send(request);
  const frame::Headers headers = frame::read_headers(listener.next());
  ASSERT_TRUE(headers.arp);
  EXPECT_EQ(headers.arp->operation, frame::kArpReply);
  EXPECT_EQ(headers.arp->sender.to_string(), "10.0.2.2");
}

// A pair of sockets that keeps frames apart stands for the device.
TEST(Tap, CarriesFramesUntilItsDeviceIsGone) {
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
  Fd far(pair[1]);
  const auto link = TapLink::adopt(Fd(pair[0])).value();
  Listener listener(*link);
  const auto frame = FrameBuilder().vlan(5).payload("hello").build();
  EXPECT_EQ(link->send(frame), Sent::kDone);
  std::vector<uint8_t> got(2000);
  EXPECT_EQ(::read(far.get(), got.data(), got.size()), static_cast<ssize_t>(frame.size()));
  ASSERT_EQ(::write(far.get(), frame.data(), frame.size()), static_cast<ssize_t>(frame.size()));
  EXPECT_EQ(listener.next(), frame);
  EXPECT_TRUE(link->link_up());
  far.reset();
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (link->link_up() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  EXPECT_FALSE(link->link_up());
}

TEST(Tap, SaysWhatTheHostRefuses) {
  EXPECT_FALSE(open({.kind = LinkConfig::Kind::kTap, .tap = "a-name-that-is-too-long"}));
}

TEST(Fabric, JoinsCardsByNameAndVlan) {
  World world;
  const auto card = [&](const char* fabric, uint16_t vlan, uint8_t last) {
    return open_link({.kind = LinkConfig::Kind::kSwitch, .fabric = fabric, .vlan = vlan}, {{2, 0, 0, 0, 0, last}},
                     world.fabrics)
        .value();
  };
  const auto a = card("plant", 10, 1), b = card("plant", 10, 2), apart = card("plant", 20, 3),
             other = card("office", 10, 4);
  EXPECT_FALSE(open_link({.kind = LinkConfig::Kind::kSwitch, .fabric = "plant", .vlan = 10}, kMac, world.fabrics));
  unsigned rung = 0;
  b->set_listener([&rung] { ++rung; });
  const auto frame = FrameBuilder().ethernet(kMac, frame::MacAddress::broadcast()).payload("hello").build();
  EXPECT_EQ(a->send(frame), Sent::kDone);
  EXPECT_EQ(rung, 1u);
  std::vector<uint8_t> out(2000);
  frame::Offload offload;
  ASSERT_EQ(b->receive(out, offload), frame.size());
  EXPECT_TRUE(std::equal(frame.begin(), frame.end(), out.begin()));
  for (Link* link : {a.get(), apart.get(), other.get()}) EXPECT_EQ(link->receive(out, offload), 0u);
  // Only from its own address.
  (void)a->send(FrameBuilder().ethernet({{2, 0, 0, 0, 0, 9}}, frame::MacAddress::broadcast()).payload("x").build());
  EXPECT_EQ(b->receive(out, offload), 0u);
  for (unsigned i = 0; i < FrameQueue::kMaximumFrames + 5; ++i) (void)a->send(frame);
  EXPECT_EQ(b->counters().to_guest_dropped, 5u);
}

TEST(Cable, CarriesNothingWhileItIsOut) {
  World world;
  const LinkConfig config{.kind = LinkConfig::Kind::kSwitch, .fabric = "plant"};
  const auto other = open_link(config, {{2, 0, 0, 0, 0, 8}}, world.fabrics).value();
  Cable cable(open_link(config, kMac, world.fabrics).value());
  const auto there = FrameBuilder().ethernet({{2, 0, 0, 0, 0, 8}}, kMac).payload("there").build();
  const auto back = FrameBuilder().ethernet(kMac, {{2, 0, 0, 0, 0, 8}}).payload("back").build();
  unsigned rung = 0;
  cable.set_listener([&rung] { ++rung; });
  std::vector<uint8_t> out(2000);
  frame::Offload offload;
  EXPECT_TRUE(cable.link_up());
  EXPECT_EQ(cable.send(back), Sent::kDone);
  EXPECT_EQ(other->receive(out, offload), back.size());
  EXPECT_EQ(other->send(there), Sent::kDone);
  EXPECT_EQ(rung, 1u);
  EXPECT_EQ(cable.receive(out, offload), there.size());
  cable.set_plugged(false);
  EXPECT_EQ(rung, 2u);
  EXPECT_FALSE(cable.link_up());
  EXPECT_EQ(cable.send(back), Sent::kDone);
  EXPECT_EQ(other->receive(out, offload), 0u);
  EXPECT_EQ(other->send(there), Sent::kDone);
  EXPECT_EQ(cable.receive(out, offload), 0u);
  EXPECT_EQ(cable.counters().to_guest_dropped, 1u);
  cable.set_plugged(true);
  EXPECT_EQ(rung, 4u);
  EXPECT_TRUE(cable.link_up());
  EXPECT_EQ(cable.receive(out, offload), 0u);
  EXPECT_EQ(other->send(there), Sent::kDone);
  EXPECT_EQ(cable.receive(out, offload), there.size());
}

// A second of frames in both directions at 80 kbit/s: the burst, and then ten times 1000 bytes a second.
TEST(RateLimited, HoldsFramesBackAndRingsWhenTheNextMayPass) {
  World world;
  const LinkConfig config{.kind = LinkConfig::Kind::kSwitch, .fabric = "plant"};
  const frame::MacAddress other_mac{{2, 0, 0, 0, 0, 8}};
  const auto other = open_link(config, other_mac, world.fabrics).value();
  const auto below = open_link(config, kMac, world.fabrics).value();
  RateLimited card(*below, {.bytes_a_second = 10'000, .burst_bytes = 3'000}, world.clock);
  unsigned rung = 0;
  card.set_listener([&rung] { ++rung; });
  EXPECT_TRUE(card.link_up());
  const std::vector<uint8_t> payload(986);
  const auto there = FrameBuilder().ethernet(kMac, other_mac).payload(payload).build();
  const auto back = FrameBuilder().ethernet(other_mac, kMac).payload(payload).build();
  ASSERT_EQ(there.size(), 1000u);
  std::vector<uint8_t> out(2000);
  frame::Offload offload;
  for (unsigned i = 0; i < 20; ++i) ASSERT_EQ(other->send(back), Sent::kDone);
  size_t sent = 0, received = 0;
  const auto carry = [&] {
    while (card.send(there) == Sent::kDone) ++sent;
    while (card.receive(out, offload) != 0) ++received;
  };
  carry();
  EXPECT_EQ(sent, 3u);
  EXPECT_EQ(received, 3u);
  rung = 0;
  for (unsigned step = 0; step < 10; ++step) {
    world.clock.advance(100'000'000);
    EXPECT_GE(rung, step + 1) << "nobody was told that there is room";
    carry();
  }
  EXPECT_EQ(sent, 13u);
  EXPECT_EQ(received, 13u);
  // Neither was lost: the rest comes later.
  world.clock.advance(10'000'000'000);
  carry();
  EXPECT_EQ(received, 16u);
}

TEST(IsolatedLink, IsUpAndNobodyIsThere) {
  World world;
  const auto link = open_link({.kind = LinkConfig::Kind::kIsolated}, kMac, world.fabrics).value();
  std::vector<uint8_t> out(2000);
  frame::Offload offload;
  EXPECT_TRUE(link->link_up());
  EXPECT_EQ(link->send(FrameBuilder().payload("x").build()), Sent::kDone);
  EXPECT_EQ(link->receive(out, offload), 0u);
  EXPECT_FALSE(open_link({}, kMac, world.fabrics).value()->link_up());
}

TEST(Fabric, ForgetsACardThatGoes) {
  World world;
  const LinkConfig config{.kind = LinkConfig::Kind::kSwitch, .fabric = "plant"};
  const auto stays = open_link(config, {{2, 0, 0, 0, 0, 8}}, world.fabrics).value();
  for (unsigned i = 0; i < 1000; ++i) {
    const auto comes = open_link(config, kMac, world.fabrics);
    ASSERT_TRUE(comes);
    (void)(*comes)->send(FrameBuilder().ethernet(kMac, frame::MacAddress::broadcast()).payload("x").build());
  }
  std::vector<uint8_t> out(2000);
  frame::Offload offload;
  EXPECT_NE(stays->receive(out, offload), 0u);
}

}  // namespace
}  // namespace bulkhead::net::link
