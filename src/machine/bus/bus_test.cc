#include "machine/bus/bus.h"

#include <atomic>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace bulkhead::machine {
namespace {

struct Access {
  uint64_t offset;
  size_t size;
  uint64_t value;
  friend bool operator==(const Access&, const Access&) = default;
};

// Answers each byte with its offset and remembers the writes.
struct Recorder final : device::PortIo, device::Mmio {
  uint32_t read_port(uint16_t offset, unsigned size) override {
    reads.push_back({offset, size, 0});
    uint32_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= (uint32_t{offset} + i) << (8 * i);
    return value;
  }
  void write_port(uint16_t offset, unsigned size, uint32_t value) override { writes.push_back({offset, size, value}); }
  void read_mmio(uint64_t offset, MutableByteSpan out) override {
    reads.push_back({offset, out.size(), 0});
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<uint8_t>(offset + i);
  }
  void write_mmio(uint64_t offset, ByteSpan in) override { writes.push_back({offset, in.size(), load_little(in)}); }

  std::vector<Access> reads;
  std::vector<Access> writes;
};

TEST(BusPorts, ReachTheirOwnerWithAnOffset) {
  Bus bus;
  Recorder device;
  ASSERT_TRUE(bus.map_ports("uart", 0x3F8, 8, device));
  Bus::Reader reader(bus);
  EXPECT_EQ(reader.read_port(0x3FA, 2), 0x0302u);
  reader.write_port(0x3FC, 4, 0xAABBCCDD);
  EXPECT_EQ(device.writes, (std::vector<Access>{{4, 4, 0xAABBCCDD}}));
}

TEST(BusPorts, UnclaimedBytesReadAsOnesAndAccessesAcrossOwnersAreSplit) {
  Bus bus;
  Recorder left;
  Recorder right;
  ASSERT_TRUE(bus.map_ports("left", 0x60, 1, left));
  ASSERT_TRUE(bus.map_ports("right", 0x62, 1, right));
  Bus::Reader reader(bus);
  EXPECT_EQ(reader.read_port(0x60, 4), 0xFF00FF00u);
  EXPECT_EQ(reader.read_port(0x100, 1), 0xFFu);
  EXPECT_EQ(reader.read_port(0x100, 2), 0xFFFFu);
  EXPECT_EQ(reader.read_port(0xFFFF, 4), 0xFFFFFFFFu);
  reader.write_port(0x60, 4, 0x44332211);
  reader.write_port(0xFFFF, 4, 0);
  EXPECT_EQ(left.writes, (std::vector<Access>{{0, 1, 0x11}}));
  EXPECT_EQ(right.writes, (std::vector<Access>{{0, 1, 0x33}}));
}

TEST(BusMemory, CutsAccessesAtEightBytesAndAtTheEndOfARange) {
  Bus bus;
  Recorder device;
  ASSERT_TRUE(bus.map_mmio("bar", {0x1000}, 0x14, device));
  Bus::Reader reader(bus);
  std::vector<uint8_t> out(32);
  reader.read_memory(0x1000, out);
  EXPECT_EQ(device.reads, (std::vector<Access>{{0, 8, 0}, {8, 8, 0}, {16, 4, 0}}));
  EXPECT_EQ(out[19], 19);
  EXPECT_EQ(out[20], 0xFF);
  std::vector<uint8_t> in(4, 0xAB);
  reader.write_memory(0xFFE, in);
  EXPECT_EQ(device.writes, (std::vector<Access>{{0, 2, 0xABAB}}));
}

TEST(BusMemory, UnclaimedBytesReadAsOnes) {
  Bus bus;
  Bus::Reader reader(bus);
  std::vector<uint8_t> out(64, 0);
  reader.read_memory(0xFFFF'FFFF'FFFF'FFF0, out);
  for (const uint8_t byte : out) EXPECT_EQ(byte, 0xFF);
}

TEST(BusMap, RefusesOverlapsEmptyRangesAndWrapping) {
  Bus bus;
  Recorder device;
  ASSERT_TRUE(bus.map_mmio("a", {0x1000}, 0x1000, device));
  EXPECT_FALSE(bus.map_mmio("b", {0x1FFF}, 1, device));
  EXPECT_FALSE(bus.map_mmio("b", {0xFFF}, 2, device));
  EXPECT_FALSE(bus.map_mmio("b", {0}, 0x10000, device));
  EXPECT_FALSE(bus.map_mmio("b", {0x8000}, 0, device));
  EXPECT_FALSE(bus.map_mmio("b", {UINT64_MAX - 1}, 8, device));
  EXPECT_TRUE(bus.map_mmio("b", {0x2000}, 1, device));
  EXPECT_TRUE(bus.map_mmio("b", {0xFFF}, 1, device));
  ASSERT_TRUE(bus.map_ports("a", 0x20, 2, device));
  EXPECT_FALSE(bus.map_ports("b", 0x21, 4, device));
  EXPECT_FALSE(bus.map_ports("b", 0x1F, 2, device));
  EXPECT_FALSE(bus.map_ports("b", 0xFFFF, 2, device));
  EXPECT_FALSE(bus.map_ports("b", 0x30, 0, device));
  EXPECT_TRUE(bus.map_ports("b", 0x22, 1, device));
}

TEST(BusMap, AReaderSeesAChangeAtItsNextAccess) {
  Bus bus;
  Recorder device;
  Bus::Reader reader(bus);
  std::vector<uint8_t> byte(1);
  reader.read_memory(0x1000, byte);
  EXPECT_EQ(byte[0], 0xFF);
  ASSERT_TRUE(bus.map_mmio("bar", {0x1000}, 16, device));
  reader.read_memory(0x1000, byte);
  EXPECT_EQ(byte[0], 0);
  EXPECT_FALSE(bus.unmap_mmio({0x1001}));
  EXPECT_TRUE(bus.unmap_mmio({0x1000}));
  reader.read_memory(0x1000, byte);
  EXPECT_EQ(byte[0], 0xFF);
  ASSERT_TRUE(bus.map_ports("io", 0x80, 1, device));
  EXPECT_EQ(reader.read_port(0x80, 1), 0u);
  EXPECT_TRUE(bus.unmap_ports(0x80));
  EXPECT_FALSE(bus.unmap_ports(0x80));
  EXPECT_EQ(reader.read_port(0x80, 1), 0xFFu);
}

TEST(BusMap, MovableRangesChangeTogetherAndYieldToFixedAndEarlierOnes) {
  Bus bus;
  Recorder fixed;
  Recorder first;
  Recorder second;
  ASSERT_TRUE(bus.map_mmio("fixed", {0x1000}, 0x1000, fixed));
  bus.replace_movable({{"io", 0xC000, 0x20, &first}},
                      {{"a", 0x3000, 0x1000, &first}, {"b", 0x3800, 0x1000, &second}, {"c", 0x1800, 0x10, &second}});
  ASSERT_EQ(bus.map().mmio->ranges().size(), 2u);
  EXPECT_EQ(bus.map().mmio->ranges()[1].owner, "a");
  EXPECT_EQ(bus.map().ports->ranges().size(), 1u);
  bus.replace_movable({}, {{"b", 0x3800, 0x1000, &second}});
  ASSERT_EQ(bus.map().mmio->ranges().size(), 2u);
  EXPECT_EQ(bus.map().mmio->ranges()[1].owner, "b");
  EXPECT_TRUE(bus.map().ports->ranges().empty());
}

struct Constant final : device::Mmio {
  explicit Constant(uint8_t value) : value(value) {}
  void read_mmio(uint64_t, MutableByteSpan out) override { std::fill(out.begin(), out.end(), value); }
  void write_mmio(uint64_t, ByteSpan) override {}
  uint8_t value;
};

TEST(BusMap, ReadersOnOtherThreadsSeeOneOwnerOrNobodyWhileRangesMove) {
  Bus bus;
  Constant fixed(0x11);
  Constant moving(0x22);
  ASSERT_TRUE(bus.map_mmio("fixed", {0x8000}, 0x1000, fixed));
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      Bus::Reader reader(bus);
      std::vector<uint8_t> out(8);
      while (!done.load(std::memory_order_relaxed)) {
        reader.read_memory(0x8000, out);
        if (out[0] != 0x11 || out[7] != 0x11) ++wrong;
        reader.read_memory(0x4000, out);
        if ((out[0] != 0x22 && out[0] != 0xFF) || out[7] != out[0]) ++wrong;
      }
    });
  }
  for (int i = 0; i < 500; ++i) {
    ASSERT_TRUE(bus.map_mmio("moving", {0x4000}, 0x1000, moving));
    ASSERT_TRUE(bus.unmap_mmio({0x4000}));
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace bulkhead::machine
