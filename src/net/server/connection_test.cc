#include "net/server/connection.h"

#include <atomic>
#include <cstring>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/frame/frame_builder.h"
#include "support/os/thread.h"

namespace bulkhead::net::server {
namespace {

using namespace std::chrono_literals;
using vhost::make_message, vhost::Message, vhost::Request;

// A front end by hand: a socket, memory with one receive ring of one buffer, and a bell.
struct Peer {
  static constexpr size_t kMemory = 1 << 16, kUsed = 4096, kAvailable = 8192, kBuffer = 16384;
  static constexpr uint64_t kUser = 0x700000;

  Peer() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    near = Fd(ends[0]);
    connection = Connection::create(Fd(ends[1]), *loop, [] {}, [this](const std::string& why) { ended = why; }).value();
    EXPECT_EQ(::ftruncate(file.get(), kMemory), 0);
    EXPECT_EQ(::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
    memory = Mapping(::mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0), kMemory);
  }
  void say(Request request, uint64_t number) { say(make_message(request, number)); }
  void say(const Message& message) { ASSERT_TRUE(vhost::send_message(near.get(), message)); }
  void give(Message message, int descriptor) {
    message.descriptors.emplace_back(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
    say(message);
  }
  void introduce() {
    say(Request::kSetFeatures, vhost::kFeatureVersion1 | vhost::kFeatureProtocol);
    std::array<uint8_t, 8 + sizeof(vhost::MemoryRegion)> table{1};
    const vhost::MemoryRegion region{.guest_address = 0, .size = kMemory, .user_address = kUser, .file_offset = 0};
    std::memcpy(table.data() + 8, &region, sizeof region);
    give(make_message(Request::kSetMemoryTable, table), file.get());
    say(make_message(Request::kSetRingSize, 0, 8));
    say(make_message(Request::kSetRingAddress,
                     as_bytes(vhost::RingAddress{0, 0, kUser, kUser + kUsed, kUser + kAvailable, 0})));
    give(make_message(Request::kSetRingCall, uint64_t{0}), bell.get());
    give(make_message(Request::kSetRingKick, uint64_t{0}), kick.get());
    say(make_message(Request::kSetRingEnable, 0, 1));
  }
  // The loop, until it holds; once.
  template <typename Condition>
  void run_until(Condition condition) {
    std::function<void()> look = [&] { condition() ? loop->stop() : void(loop->call_after(1ms, look)); };
    look();
    loop->run();
  }

  std::unique_ptr<EventLoop> loop = EventLoop::create().value();
  Fd near;
  Fd file{::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
  Fd bell{::eventfd(0, EFD_CLOEXEC)}, kick{::eventfd(0, EFD_CLOEXEC)};
  Mapping memory;
  std::unique_ptr<Connection> connection;
  std::optional<std::string> ended;
};

TEST(ServerConnection, DoesNotWaitForABellThatIsFull) {
  Peer peer;
  peer.introduce();
  peer.run_until([&] { return peer.connection->is_ready(); });
  vhost::DriverRing driver({.descriptors = peer.memory.data(),
                            .available = peer.memory.data() + Peer::kAvailable,
                            .used = peer.memory.data() + Peer::kUsed,
                            .size = 8},
                           Peer::kBuffer, 2048, true);
  driver.add(0, 2048);
  // The descriptor is the front end's too: it makes it one that waits.
  ASSERT_EQ(::fcntl(peer.bell.get(), F_SETFL, 0), 0);
  const uint64_t full = UINT64_MAX - 1;
  ASSERT_EQ(::write(peer.bell.get(), &full, sizeof full), static_cast<ssize_t>(sizeof full));
  const auto frame = frame::FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).build();
  ASSERT_TRUE(peer.connection->put(frame, {}));
  std::atomic<bool> told = false, freed = false;
  Thread rescue("rescue", [&] {
    for (unsigned i = 0; i < 1000 && !told; ++i) ::usleep(10'000);
    uint64_t count = 0;
    if (!told && ::read(peer.bell.get(), &count, sizeof count) > 0) freed = true;
  });
  EXPECT_TRUE(peer.connection->tell());
  told = true;
  rescue.join();
  EXPECT_FALSE(freed) << "it waited until somebody emptied the bell";
}

TEST(ServerConnection, EndsForAKickThatIsClosed) {
  Peer peer;
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  peer.kick = Fd(ends[0]);
  peer.introduce();
  // The transmit ring too, whose kick is the one that is watched.
  peer.say(make_message(Request::kSetRingSize, 1, 8));
  peer.say(make_message(
      Request::kSetRingAddress,
      as_bytes(vhost::RingAddress{1, 0, Peer::kUser, Peer::kUser + Peer::kUsed, Peer::kUser + Peer::kAvailable, 0})));
  peer.give(make_message(Request::kSetRingKick, uint64_t{1}), peer.kick.get());
  peer.say(make_message(Request::kSetRingEnable, 1, 1));
  Fd(ends[1]).reset();
  const auto end = std::chrono::steady_clock::now() + 60s;
  peer.run_until([&] {
    errno = EAGAIN;  // as whatever was done before leaves it
    return peer.ended.has_value() || std::chrono::steady_clock::now() > end;
  });
  EXPECT_EQ(peer.ended.value_or("nothing"), "a kick that is no eventfd");
}

TEST(ServerConnection, EndsForARingThatGivesMoreThanItHas) {
  Peer peer;
  peer.introduce();
  peer.run_until([&] { return peer.connection->is_ready(); });
  const uint16_t too_many = 9;  // of a ring of 8
  std::memcpy(peer.memory.data() + Peer::kAvailable + 2, &too_many, sizeof too_many);
  const auto frame = frame::FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).build();
  EXPECT_FALSE(peer.connection->put(frame, {}));
  EXPECT_EQ(peer.ended.value_or("nothing"), "its receive ring makes no sense");
  EXPECT_FALSE(peer.connection->is_ready());
}

}  // namespace
}  // namespace bulkhead::net::server
