#include "device/fw_cfg/fw_cfg.h"

#include <bit>

#include <gtest/gtest.h>

#include "spec/firmware/fw_cfg.h"

namespace bulkhead::device {
namespace {

using namespace spec::fw_cfg;

constexpr uint64_t kAccessAt = 0x1000;
constexpr uint64_t kTarget = 0x2000;

class FwCfgTest : public testing::Test {
 protected:
  FwCfgTest() : memory_(memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value()), device_(*memory_) {
    device_.add_file("etc/e820", {1, 2, 3, 4, 5});
    device_.add_file("bootorder", {9});
  }
  void select(uint16_t key) { device_.write_port(0, 2, key); }
  std::vector<uint8_t> read(size_t count) {
    std::vector<uint8_t> bytes(count);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(device_.read_port(1, 1));
    return bytes;
  }
  // The control word after the transfer.
  uint32_t dma(uint32_t control, uint32_t length, uint64_t address = kTarget, uint64_t access_at = kAccessAt) {
    const DmaAccess access{std::byteswap(control), std::byteswap(length), std::byteswap(address)};
    (void)memory_->write_object({access_at}, access);
    device_.write_port(4, 4, std::byteswap(static_cast<uint32_t>(access_at >> 32)));
    device_.write_port(8, 4, std::byteswap(static_cast<uint32_t>(access_at)));
    return std::byteswap(memory_->read_object<uint32_t>({access_at}).value_or(UINT32_MAX));
  }
  uint8_t ram(uint64_t address) { return memory_->read_object<uint8_t>({address}).value(); }

  std::unique_ptr<memory::GuestMemory> memory_;
  FwCfg device_;
};

TEST_F(FwCfgTest, ShowsItsSignatureAndThatItHasDma) {
  select(kSignature);
  EXPECT_EQ(read(6), (std::vector<uint8_t>{'Q', 'E', 'M', 'U', 0, 0}));
  select(kInterfaceVersion);
  EXPECT_EQ(read(4), (std::vector<uint8_t>{3, 0, 0, 0}));
  EXPECT_EQ(device_.read_port(4, 4), std::byteswap(0x51454D55u));
  EXPECT_EQ(device_.read_port(8, 4), std::byteswap(0x20434647u));
}

TEST_F(FwCfgTest, ListsItsFilesByName) {
  select(kFileDirectory);
  EXPECT_EQ(read(4), (std::vector<uint8_t>{0, 0, 0, 2}));
  const auto first = load<FileEntry>(read(64).data());
  const auto second = load<FileEntry>(read(64).data());
  EXPECT_STREQ(first.name, "bootorder");
  EXPECT_STREQ(second.name, "etc/e820");
  EXPECT_EQ(std::byteswap(uint32_t{second.size}), 5u);
  select(std::byteswap(uint16_t{second.key}));
  EXPECT_EQ(read(6), (std::vector<uint8_t>{1, 2, 3, 4, 5, 0}));
}

TEST_F(FwCfgTest, AnAbsentKeyReadsAsZeros) {
  select(0x7777);
  EXPECT_EQ(read(3), (std::vector<uint8_t>{0, 0, 0}));
}

TEST_F(FwCfgTest, DmaSelectsSkipsAndReads) {
  ASSERT_TRUE(memory_->write_object<uint8_t>({kTarget + 4}, 0xEE));
  EXPECT_EQ(dma((uint32_t{kFirstFile} << 16) | kDmaSelect | kDmaSkip, 2), 0u);
  EXPECT_EQ(dma(kDmaRead, 4), 0u);
  EXPECT_EQ(ram(kTarget), 3);
  EXPECT_EQ(ram(kTarget + 2), 5);
  EXPECT_EQ(ram(kTarget + 3), 0) << "beyond the item it reads zeros";
  EXPECT_EQ(ram(kTarget + 4), 0xEE);
  select(kFirstFile);
  EXPECT_EQ(read(1), std::vector<uint8_t>{1});
  EXPECT_EQ(dma(kDmaRead, 1), 0u);
  EXPECT_EQ(ram(kTarget), 2) << "ports and DMA share a position";
}

TEST_F(FwCfgTest, DmaRefusesWritesMemoryThatIsNotRamAndMoreThanItsBudget) {
  EXPECT_EQ(dma(kDmaWrite, 1), kDmaError);
  EXPECT_EQ(dma(kDmaRead, 16, memory_->size() - 8), kDmaError);
  EXPECT_EQ(dma(kDmaRead, 16, UINT64_MAX - 4), kDmaError);
  EXPECT_EQ(dma(kDmaRead, 16, 0xFED0'0000), kDmaError);
  EXPECT_EQ(dma(kDmaRead, 8 << 20), kDmaError);
  EXPECT_EQ(dma(kDmaRead, 1, kTarget, 0xFED0'0000), UINT32_MAX)
      << "an access structure outside of RAM is not looked at";
}

TEST_F(FwCfgTest, OddWidthsDoNothing) {
  select(kSignature);
  device_.write_port(0, 1, 5);
  device_.write_port(4, 1, 5);
  device_.write_port(8, 2, 5);
  EXPECT_EQ(device_.read_port(0, 4), UINT32_MAX);
  EXPECT_EQ(device_.read_port(1, 2), UINT32_MAX);
  EXPECT_EQ(read(1), std::vector<uint8_t>{'Q'});
}

TEST_F(FwCfgTest, GoesOnWhereItWasSaved) {
  select(kFirstFile);
  read(2);
  device_.write_port(4, 4, std::byteswap(1u));
  StateWriter writer;
  device_.save_state(writer);
  FwCfg other(*memory_);
  other.add_file("etc/e820", {1, 2, 3, 4, 5});
  ASSERT_TRUE(other.restore_state(StateReader::parse(writer.encode(), "fw-cfg").value()));
  EXPECT_EQ(other.read_port(1, 1), 3u);
  StateWriter again;
  device_.save_state(again);
  EXPECT_EQ(again.encode(), writer.encode());
  device_.reset();
  EXPECT_EQ(device_.read_port(1, 1), uint32_t{'Q'});
}

TEST_F(FwCfgTest, RefusesStateOutOfRange) {
  StateWriter writer;
  writer.put("key", 0x10000u).put("offset", 0u).put("dma_address_high", 0u);
  EXPECT_FALSE(device_.restore_state(StateReader::parse(writer.encode(), "fw-cfg").value()));
}

}  // namespace
}  // namespace bulkhead::device
