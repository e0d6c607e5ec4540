#include <algorithm>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/vhost/back_end.h"
#include "support/os/thread.h"

namespace bulkhead::net::vhost {
namespace {

// Rings in plain memory, both sides in one process.
struct SharedRing final : AddressSpace {
  static constexpr uint16_t kSize = 8;
  static constexpr uint32_t kBuffer = 64;
  [[nodiscard]] MutableByteSpan at(uint64_t address, uint64_t size) const override {
    if (address > memory.size() || size > memory.size() - address) return {};
    return MutableByteSpan(memory).subspan(address, size);
  }
  alignas(16) mutable std::array<uint8_t, 4096> memory{};
  RingMemory parts{memory.data(), memory.data() + 256, memory.data() + 512, kSize};
  DriverRing driver{parts, 1024, kBuffer, false};
  DeviceRing device{parts, 0};
};

TEST(VhostRing, CarriesBuffersThereAndBack) {
  SharedRing shared;
  std::ranges::copy(std::string_view("frame"), shared.memory.begin() + 1024 + 3 * SharedRing::kBuffer);
  EXPECT_EQ(shared.device.pop(shared), DeviceRing::Popped::kEmpty);
  shared.driver.add(3, 5);
  ASSERT_EQ(shared.device.pop(shared), DeviceRing::Popped::kChain);
  std::array<uint8_t, 16> out{};
  EXPECT_EQ(shared.device.read(out), 5u);
  EXPECT_EQ(out[4], 'e');
  EXPECT_EQ(shared.driver.take().kind, DriverRing::Used::Kind::kNone);
  shared.device.push(0);
  const auto used = shared.driver.take();
  EXPECT_EQ(used.kind, DriverRing::Used::Kind::kBuffer);
  EXPECT_EQ(used.buffer, 3);
}

TEST(VhostRing, RefusesWhatAHostileDriverWrites) {
  const auto broken = [](auto&& change) {
    SharedRing shared;
    shared.driver.add(0, 5);
    change(shared);
    return shared.device.pop(shared) == DeviceRing::Popped::kBroken;
  };
  EXPECT_FALSE(broken([](SharedRing&) {}));
  EXPECT_TRUE(broken([](SharedRing& shared) { store<uint64_t>(shared.memory.data(), UINT64_MAX - 2); }));
  EXPECT_TRUE(broken([](SharedRing& shared) { store<uint32_t>(shared.memory.data() + 8, 1 << 20); }));
  EXPECT_TRUE(broken([](SharedRing& shared) { store<uint16_t>(shared.memory.data() + 12, kDescriptorIndirect); }));
  // A chain that leads to itself.
  EXPECT_TRUE(broken([](SharedRing& shared) { store<uint16_t>(shared.memory.data() + 12, kDescriptorNext); }));
  EXPECT_TRUE(broken([](SharedRing& shared) { store<uint16_t>(shared.parts.available + 4, 8); }));
  EXPECT_TRUE(broken([](SharedRing& shared) { store<uint16_t>(shared.parts.available + 2, 100); }));
}

TEST(VhostRing, RefusesWhatAHostileDeviceWrites) {
  SharedRing shared;
  shared.driver.add(0, 5);
  store<uint32_t>(shared.parts.used + 4, 1);  // never given
  store<uint16_t>(shared.parts.used + 2, 1);
  EXPECT_EQ(shared.driver.take().kind, DriverRing::Used::Kind::kBroken);
  store<uint32_t>(shared.parts.used + 4, 0);
  store<uint32_t>(shared.parts.used + 8, SharedRing::kBuffer + 1);
  EXPECT_EQ(shared.driver.take().kind, DriverRing::Used::Kind::kBroken);
}

Fd memory_file(bool sealed) {
  Fd file(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(::ftruncate(file.get(), 65536), 0);
  EXPECT_TRUE(!sealed || ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK) == 0);
  return file;
}

// Of a huge page that nobody has put aside.
Fd huge_file() {
  Fd file(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB));
  if (!file.valid()) return file;
  EXPECT_EQ(::ftruncate(file.get(), 2 << 20), 0);
  EXPECT_EQ(::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  return file;
}

Message memory_table(Fd file, const MemoryRegion& region) {
  std::array<uint8_t, 8 + sizeof(MemoryRegion)> payload{1};
  std::memcpy(payload.data() + 8, &region, sizeof region);
  Message message = make_message(Request::kSetMemoryTable, payload);
  message.descriptors.push_back(std::move(file));
  return message;
}

constexpr MemoryRegion kWhole{.guest_address = 0x1000, .size = 65536, .user_address = 0x700000, .file_offset = 0};

TEST(VhostBackEnd, HasRingsWhenAllOfThemIsSaid) {
  BackEnd back_end;
  ASSERT_TRUE(back_end.handle(make_message(Request::kSetFeatures, kFeatureVersion1 | kFeatureProtocol)));
  ASSERT_TRUE(back_end.handle(memory_table(memory_file(true), kWhole)));
  ASSERT_TRUE(back_end.handle(make_message(Request::kSetRingSize, 1, 256)));
  ASSERT_TRUE(back_end.handle(
      make_message(Request::kSetRingAddress, as_bytes(RingAddress{1, 0, 0x700000, 0x702000, 0x701000, 0}))));
  Message kick = make_message(Request::kSetRingKick, uint64_t{1});
  kick.descriptors.push_back(memory_file(false));
  ASSERT_TRUE(back_end.handle(std::move(kick)));
  EXPECT_EQ(back_end.ring(1), nullptr);
  ASSERT_TRUE(back_end.handle(make_message(Request::kSetRingEnable, 1, 1)));
  ASSERT_NE(back_end.ring(1), nullptr);
  EXPECT_EQ(back_end.ring(0), nullptr);
  EXPECT_EQ(back_end.at(0x1000, 65536).size(), 65536u);
  EXPECT_TRUE(back_end.at(0x1001, 65536).empty());
  EXPECT_TRUE(back_end.at(0xFFF, 1).empty());
  const auto base = back_end.handle(make_message(Request::kGetRingBase, 1, 0));
  ASSERT_TRUE(base && *base);
  EXPECT_EQ((*base)->ring_state(), (std::pair<uint32_t, uint32_t>(1, 0)));
  EXPECT_EQ(back_end.ring(1), nullptr);
}

TEST(VhostBackEnd, RefusesWhatWouldHurt) {
  const auto refused = [](Message message) { return !BackEnd().handle(std::move(message)).has_value(); };
  EXPECT_TRUE(refused(memory_table(memory_file(false), kWhole)));  // it could shrink under our feet
  // A host without huge pages has no such files either.
  if (Fd huge = huge_file(); huge.valid()) {
    EXPECT_TRUE(refused(memory_table(std::move(huge), kWhole)));
  }
  EXPECT_TRUE(refused(memory_table(memory_file(true), {.size = 65537, .user_address = 1})));
  EXPECT_TRUE(refused(memory_table(memory_file(true), {.guest_address = UINT64_MAX, .size = 4096})));
  EXPECT_TRUE(refused(memory_table(memory_file(true), {.size = 4096, .file_offset = UINT64_MAX - 100})));
  EXPECT_TRUE(refused(make_message(Request::kSetMemoryTable, uint64_t{1})));
  EXPECT_TRUE(refused(make_message(Request::kSetRingSize, 0, 3)));
  EXPECT_TRUE(refused(make_message(Request::kSetRingSize, 0, 2048)));
  EXPECT_TRUE(refused(make_message(Request::kSetRingSize, 2, 256)));
  EXPECT_TRUE(refused(make_message(Request::kSetRingKick, uint64_t{0})));
  EXPECT_TRUE(refused(make_message(Request::kSetFeatures, uint64_t{1})));
  EXPECT_TRUE(refused(make_message(static_cast<Request>(77))));
  EXPECT_TRUE(refused(make_message(Request::kSetRingAddress, uint64_t{0})));
}

TEST(VhostMessage, GoesThroughASocketWithItsDescriptors) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  Fd near(ends[0]), far(ends[1]);
  Message sent = make_message(Request::kSetRingKick, uint64_t{1});
  sent.descriptors.push_back(memory_file(false));
  ASSERT_TRUE(send_message(near.get(), sent));
  const auto received = receive_message(far.get());
  ASSERT_TRUE(received && *received);
  EXPECT_EQ((*received)->number(), 1u);
  EXPECT_EQ((*received)->descriptors.size(), 1u);
  const std::array<uint8_t, 12> too_long{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1};
  ASSERT_TRUE(write_all(near.get(), too_long));
  EXPECT_FALSE(receive_message(far.get()));
  near.reset();
  Fd().reset();
  const auto end = receive_message(far.get());
  ASSERT_TRUE(end);
  EXPECT_FALSE(*end);
}

TEST(VhostMessage, IsNotWaitedForWhenItComesInDrops) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  Fd near(ends[0]), far(ends[1]);
  const std::array<uint8_t, 12> header{1, 0, 0, 0, 1, 0, 0, 0, 200, 0, 0, 0};
  ASSERT_TRUE(write_all(near.get(), header));
  Thread drops("drops", [&near] {
    for (unsigned i = 0; i < 200; ++i) {
      ::usleep(20'000);
      if (::send(near.get(), "", 1, MSG_NOSIGNAL) != 1) return;
    }
  });
  EXPECT_FALSE(receive_message(far.get()));
  far.reset();
  drops.join();
}

}  // namespace
}  // namespace bulkhead::net::vhost
