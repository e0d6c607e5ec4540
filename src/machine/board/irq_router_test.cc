#include "machine/board/irq_router.h"

#include <map>

#include <gtest/gtest.h>

namespace bulkhead::machine {
namespace {

struct Controller final : device::IrqLine::Receiver {
  void set_irq(uint32_t input, bool asserted) override {
    level[input] = asserted;
    if (asserted) ++edges[input];
  }
  std::map<uint32_t, bool> level;
  std::map<uint32_t, int> edges;
};

struct IrqRouterTest : testing::Test {
  Controller pic;
  Controller io_apic;
  IrqRouter router{pic, io_apic};
};

TEST_F(IrqRouterTest, IsaInterruptsReachBothControllersAndTheTimersMovesToInputTwo) {
  router.add_isa_source(4).set(true);
  EXPECT_TRUE(pic.level[4]);
  EXPECT_TRUE(io_apic.level[4]);
  const device::IrqLine timer = router.add_isa_source(0);
  timer.pulse();
  timer.pulse();
  EXPECT_EQ(pic.edges[0], 2);
  EXPECT_EQ(io_apic.edges[2], 2);
  EXPECT_EQ(io_apic.edges[0], 0);
}

TEST_F(IrqRouterTest, ASharedInputStaysAssertedUntilItsLastSourceLetsGo) {
  const device::IrqLine first = router.add_isa_source(4);
  const device::IrqLine second = router.add_isa_source(4);
  first.set(true);
  second.set(true);
  first.set(false);
  EXPECT_TRUE(pic.level[4]);
  second.set(false);
  EXPECT_FALSE(pic.level[4]);
  EXPECT_EQ(pic.edges[4], 1);
}

TEST_F(IrqRouterTest, PciLinesHaveTheirOwnInputsAndShareThePics) {
  const device::IrqLine a = router.add_pci_line(0);
  const device::IrqLine c = router.add_pci_line(2);
  a.set(true);
  c.set(true);
  EXPECT_TRUE(io_apic.level[16]);
  EXPECT_TRUE(io_apic.level[18]);
  EXPECT_FALSE(io_apic.level[10]) << "the PIC's input is not the I/O APIC's";
  a.set(false);
  EXPECT_FALSE(io_apic.level[16]);
  EXPECT_TRUE(pic.level[10]);
  c.set(false);
  EXPECT_FALSE(pic.level[10]);
}

TEST_F(IrqRouterTest, SourcesOfTheIoApicAloneDoNotReachThePic) {
  router.add_io_apic_source(20).set(true);
  EXPECT_TRUE(io_apic.level[20]);
  EXPECT_TRUE(pic.level.empty());
}

}  // namespace
}  // namespace bulkhead::machine
