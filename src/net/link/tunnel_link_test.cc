// Two tunnels on this host's loopback, and keys in files.
#include "net/link/tunnel_link.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/frame/frame_builder.h"
#include "net/tunnel/key_file.h"

namespace bulkhead::net::link {
namespace {

using frame::FrameBuilder;

struct Folder {
  Folder() { EXPECT_NE(::mkdtemp(path.data()), nullptr); }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path = "/tmp/tunnel-XXXXXX";
};

tunnel::Secret secret(uint64_t seed) {
  SeededRandom random(seed);
  return tunnel::make_private_key(random);
}

TunnelLinkConfig config_of(uint64_t own, uint64_t other, const std::optional<tunnel::Endpoint>& known) {
  TunnelLinkConfig config{.tunnel = {.key = secret(own), .peers = {}, .segments = {{0, 7}}}};
  config.tunnel.peers.push_back({.name = "other", .key = tunnel::public_key_of(secret(other)), .endpoint = known});
  config.listen.address = frame::IpAddress::parse("127.0.0.1").value();
  return config;
}

std::vector<uint8_t> next(Link& link) {
  std::vector<uint8_t> frame(frame::kMaximumFrameSize);
  frame::Offload offload;
  for (const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
       std::chrono::steady_clock::now() < end;) {
    const size_t size = link.receive(frame, offload);
    frame.resize(size);
    if (size != 0) return frame;
    frame.resize(frame::kMaximumFrameSize);
    ::usleep(1000);
  }
  return {};
}

TEST(TunnelLink, CarriesFramesBetweenTwoSockets) {
  // The first one waits to be called.
  const auto one = TunnelLink::create(config_of(1, 2, std::nullopt)).value();
  const auto two = TunnelLink::create(config_of(2, 1, one->local())).value();
  one->start();
  two->start();
  const auto frame = FrameBuilder().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload("over").build();
  std::vector<uint8_t> came;
  for (unsigned tries = 0; tries < 6000 && came.empty(); ++tries) {
    EXPECT_EQ(two->send(frame), Sent::kDone);
    std::vector<uint8_t> room(frame::kMaximumFrameSize);
    frame::Offload offload;
    room.resize(one->receive(room, offload));
    came = std::move(room);
    if (came.empty()) ::usleep(10'000);
  }
  EXPECT_EQ(came, frame);
  // What is to be cut is cut before it is wrapped.
  auto large = FrameBuilder().ipv4("10.0.0.2", "10.0.0.1").tcp(1, 2, frame::kTcpAcknowledge);
  auto whole = large.payload(std::string(3000, 'x')).build();
  frame::Offload offload;
  ASSERT_TRUE(frame::make_segmented(whole, 1200, offload));
  EXPECT_EQ(one->send(whole, offload), Sent::kDone);
  size_t bytes = 0;
  for (unsigned i = 0; i < 3; ++i) bytes += next(*two).size();
  EXPECT_EQ(bytes, whole.size() + size_t{2} * 54);
  EXPECT_NE(one->describe().find("up"), std::string::npos);
  EXPECT_TRUE(one->link_up());
}

TEST(TunnelLink, SaysWhatTheHostRefuses) {
  TunnelLinkConfig config = config_of(1, 2, tunnel::Endpoint::parse("[::1]:7").value());
  const auto mixed = TunnelLink::create(config);
  ASSERT_FALSE(mixed);
  EXPECT_EQ(mixed.error().message, "peer 'other': [::1]:7 cannot be reached from 127.0.0.1:0");
  config.tunnel.peers[0].endpoint.reset();
  const auto first = TunnelLink::create(config).value();
  config.listen = first->local();
  const auto second = TunnelLink::create(config);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("Address already in use"), std::string::npos);
}

TEST(TunnelKeyFile, IsMadeOnceAndReadByItsOwnerAlone) {
  const Folder folder;
  HostRandom random;
  const std::string path = folder.path + "/key";
  const auto made = tunnel::make_key_file(path, random);
  ASSERT_TRUE(made);
  EXPECT_EQ(tunnel::read_key_file(path).value().bytes, made->bytes);
  EXPECT_FALSE(tunnel::make_key_file(path, random)) << "a key is never written over";
  EXPECT_EQ(::chmod(path.c_str(), 0640), 0);
  EXPECT_EQ(tunnel::read_key_file(path).error().message,
            fmt::format("'{}': others may read or write it (mode 640); allowed: 600", path));
  EXPECT_EQ(::chmod(path.c_str(), 0600), 0);
  EXPECT_EQ(::truncate(path.c_str(), 20), 0);
  EXPECT_EQ(tunnel::read_key_file(path).error().message,
            fmt::format("'{}': no key; allowed: 44 characters of base64, of 32 bytes", path));
  EXPECT_FALSE(tunnel::read_key_file(folder.path + "/none"));
}

}  // namespace
}  // namespace bulkhead::net::link
