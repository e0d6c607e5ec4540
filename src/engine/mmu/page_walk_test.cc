#include "engine/mmu/page_walk.h"

#include <gtest/gtest.h>

#include "engine/mmu/access.h"
#include "engine/soft_vcpu.h"
#include "engine/testing.h"

namespace bulkhead::engine::mmu {
namespace {

using testing::Machine;

constexpr uint64_t kPresent = 1, kWritable = 2, kUser = 4, kAccessed = 32, kDirty = 64, kLarge = 128,
                   kNoExecute = 1ull << 63;
constexpr uint32_t kFaultPresent = 1, kFaultWrite = 2, kFaultUser = 4, kFaultReserved = 8, kFaultFetch = 16;

class PageWalk : public ::testing::Test {
 protected:
  PageWalk() {
    machine_.set(machine_.long_mode());
    cpu_.io = &machine_.board();
  }

  // The error code of the page fault, or nothing.
  std::optional<uint32_t> fault(uint64_t linear, WalkAccess access, Rights rights) {
    try {
      (void)walk(cpu_, linear, access, rights);
      return std::nullopt;
    } catch (const GuestFault& fault) {
      EXPECT_EQ(fault.vector, kPageFault);
      EXPECT_EQ(fault.cr2, linear);
      return fault.error_code;
    }
  }
  void set_pte(uint64_t flags) { machine_.put_object<uint64_t>(Machine::pte_address(kPage), kPage | flags); }
  uint64_t pte() { return machine_.get<uint64_t>(Machine::pte_address(kPage)); }

  static constexpr uint64_t kPage = 0x345000;
  Machine machine_;
  Cpu& cpu_ = static_cast<SoftVcpu&>(*machine_.vcpus[0]).cpu();
};

TEST_F(PageWalk, FindsThePageAndSetsAccessedBits) {
  set_pte(7);
  const PageMapping mapping = walk(cpu_, kPage + 0x678, WalkAccess::kRead, Rights::kUser);
  EXPECT_EQ(mapping.physical, kPage);
  EXPECT_FALSE(mapping.dirty);
  EXPECT_EQ(pte(), kPage | 7 | kAccessed);
  EXPECT_EQ(machine_.get<uint64_t>(testing::kPageTables) & kAccessed, kAccessed);
}

TEST_F(PageWalk, SetsTheDirtyBitForAWriteOnly) {
  set_pte(7);
  (void)walk(cpu_, kPage, WalkAccess::kRead, Rights::kUser);
  EXPECT_EQ(pte() & kDirty, 0u);
  (void)walk(cpu_, kPage, WalkAccess::kWrite, Rights::kUser);
  EXPECT_EQ(pte() & kDirty, kDirty);
}

TEST_F(PageWalk, LeavesNoTraceOfARefusedAccess) {
  set_pte(kPresent | kUser);
  EXPECT_EQ(fault(kPage, WalkAccess::kWrite, Rights::kUser), kFaultPresent | kFaultWrite | kFaultUser);
  EXPECT_EQ(pte(), kPage | kPresent | kUser);
}

TEST_F(PageWalk, ReportsWhatIsNotPresent) {
  set_pte(0);
  EXPECT_EQ(fault(kPage, WalkAccess::kRead, Rights::kSupervisor), 0u);
  EXPECT_EQ(fault(kPage, WalkAccess::kWrite, Rights::kUser), kFaultWrite | kFaultUser);
  EXPECT_EQ(fault(kPage, WalkAccess::kExecute, Rights::kSupervisor), kFaultFetch);
}

TEST_F(PageWalk, KeepsUsersOffSupervisorPages) {
  set_pte(kPresent | kWritable);
  EXPECT_EQ(fault(kPage, WalkAccess::kRead, Rights::kUser), kFaultPresent | kFaultUser);
  EXPECT_EQ(fault(kPage, WalkAccess::kRead, Rights::kSupervisor), std::nullopt);
}

TEST_F(PageWalk, HonoursWriteProtectOfTheSupervisor) {
  set_pte(kPresent | kUser);
  EXPECT_EQ(fault(kPage, WalkAccess::kWrite, Rights::kSupervisor), kFaultPresent | kFaultWrite);
  cpu_.cr0 &= ~uint64_t{kCr0Wp};
  EXPECT_EQ(fault(kPage, WalkAccess::kWrite, Rights::kSupervisor), std::nullopt);
}

TEST_F(PageWalk, HonoursNoExecuteSmepAndSmap) {
  set_pte(7 | kNoExecute);
  EXPECT_EQ(fault(kPage, WalkAccess::kExecute, Rights::kUser), kFaultPresent | kFaultUser | kFaultFetch);
  set_pte(7);
  EXPECT_EQ(fault(kPage, WalkAccess::kExecute, Rights::kSupervisor), std::nullopt);
  cpu_.cr4 |= kCr4Smep;
  EXPECT_EQ(fault(kPage, WalkAccess::kExecute, Rights::kSupervisor), kFaultPresent | kFaultFetch);
  EXPECT_EQ(fault(kPage, WalkAccess::kRead, Rights::kSupervisorNoUserData), kFaultPresent);
}

TEST_F(PageWalk, RefusesReservedBits) {
  set_pte(7 | 1ull << 45);
  EXPECT_EQ(fault(kPage, WalkAccess::kRead, Rights::kSupervisor), kFaultPresent | kFaultReserved);
  set_pte(7 | kNoExecute);
  cpu_.efer &= ~uint64_t{kEferNxe};
  EXPECT_EQ(fault(kPage, WalkAccess::kRead, Rights::kSupervisor), kFaultPresent | kFaultReserved);
}

TEST_F(PageWalk, WalksLargePagesAndChecksTheirAlignment) {
  const uint64_t entry = testing::kPageTables + 0x2000 + 8;  // of the second 2 MiB
  machine_.put_object<uint64_t>(entry, 0x800000 | 7 | kLarge);
  const PageMapping mapping = walk(cpu_, kPage, WalkAccess::kRead, Rights::kUser);
  EXPECT_EQ(mapping.physical, 0x800000 + (kPage & 0x1FFFFF));
  EXPECT_EQ(mapping.page_shift, 21);
  machine_.put_object<uint64_t>(entry, 0x802000 | 7 | kLarge);
  EXPECT_EQ(fault(kPage, WalkAccess::kRead, Rights::kUser), kFaultPresent | kFaultUser | kFaultReserved);
  machine_.put_object<uint64_t>(testing::kPageTables + 0x1000, 7 | kLarge);
  EXPECT_EQ(walk(cpu_, kPage, WalkAccess::kRead, Rights::kUser).page_shift, 30);
}

TEST_F(PageWalk, WalksTwoLevelTablesWithPse36) {
  cpu_.efer = 0;
  cpu_.cr4 = kCr4Pse;
  cpu_.cr3 = 0x100000;
  machine_.put_object<uint32_t>(0x100000 + 4, 0x101000 | 7);
  machine_.put_object<uint32_t>(0x101000 + 8, 0x222000 | 7);
  EXPECT_EQ(walk(cpu_, 0x402345, WalkAccess::kWrite, Rights::kUser).physical, 0x222000u);
  EXPECT_EQ(machine_.get<uint32_t>(0x101008), 0x222000u | 7 | kAccessed | kDirty);
  machine_.put_object<uint32_t>(0x100000 + 8, 0x00C00000 | 1u << 13 | 7 | 128);
  const PageMapping mapping = walk(cpu_, 0x801000, WalkAccess::kRead, Rights::kUser);
  EXPECT_EQ(mapping.physical, 0x1'00C01000u);
  EXPECT_EQ(mapping.page_shift, 22);
}

TEST_F(PageWalk, WalksPaeTablesByItsFourRegisters) {
  cpu_.efer = kEferNxe;
  cpu_.cr3 = 0x100020;
  machine_.put_object<uint64_t>(0x100020 + 8, 0x101000 | kPresent);
  machine_.put_object<uint64_t>(0x101000, 0x600000 | 7 | kLarge);
  ASSERT_TRUE(load_pdptes(cpu_, cpu_.cr3));
  EXPECT_EQ(walk(cpu_, 0x40012345, WalkAccess::kRead, Rights::kUser).physical, 0x612000u);
  machine_.put_object<uint64_t>(0x100020, kPresent | kWritable);
  EXPECT_FALSE(load_pdptes(cpu_, cpu_.cr3));
}

TEST_F(PageWalk, TakesTablesOutsideOfRamForAllOnes) {
  cpu_.cr3 = 0xF0000000;
  EXPECT_EQ(fault(kPage, WalkAccess::kRead, Rights::kSupervisor), kFaultPresent | kFaultReserved);
}

TEST_F(PageWalk, RemembersATranslationUntilItIsInvalidated) {
  const auto read_page = [&] { return read<uint32_t>(cpu_, cpu::kDs, kPage); };
  machine_.put_object<uint32_t>(kPage, 1);
  machine_.put_object<uint32_t>(0x500000, 2);
  EXPECT_EQ(read_page(), 1u);
  machine_.put_object<uint64_t>(Machine::pte_address(kPage), 0x500000 | 7);
  EXPECT_EQ(read_page(), 1u);
  cpu_.tlb.flush_page(kPage);
  EXPECT_EQ(read_page(), 2u);
}

TEST_F(PageWalk, InvalidatesTheWholeOfALargePage) {
  const uint64_t entry = testing::kPageTables + 0x2000 + 8;
  machine_.put_object<uint64_t>(entry, 0x800000 | 7 | kLarge);
  machine_.put_object<uint32_t>(0x800000, 1);
  machine_.put_object<uint32_t>(0xA00000, 2);
  EXPECT_EQ(read<uint32_t>(cpu_, cpu::kDs, 0x200000), 1u);
  machine_.put_object<uint64_t>(entry, 0xA00000 | 7 | kLarge);
  cpu_.tlb.flush_page(0x2FF000);
  EXPECT_EQ(read<uint32_t>(cpu_, cpu::kDs, 0x200000), 2u);
}

TEST_F(PageWalk, KeepsGlobalPagesAndOtherPcids) {
  machine_.put_object<uint64_t>(Machine::pte_address(kPage), kPage | 7 | 256);
  machine_.put_object<uint32_t>(kPage, 1);
  machine_.put_object<uint32_t>(kPage + 0x1000, 3);
  EXPECT_EQ(read<uint32_t>(cpu_, cpu::kDs, kPage), 1u);
  EXPECT_EQ(read<uint32_t>(cpu_, cpu::kDs, kPage + 0x1000), 3u);
  machine_.put_object<uint64_t>(Machine::pte_address(kPage), 0);
  machine_.put_object<uint64_t>(Machine::pte_address(kPage + 0x1000), 0x500000 | 7);
  cpu_.tlb.flush_all_but_global();
  EXPECT_EQ(read<uint32_t>(cpu_, cpu::kDs, kPage), 1u);
  EXPECT_EQ(read<uint32_t>(cpu_, cpu::kDs, kPage + 0x1000), 0u);
  cpu_.tlb.switch_pcid(5);
  EXPECT_THROW((void)read<uint32_t>(cpu_, cpu::kDs, kPage), GuestFault);
  cpu_.tlb.switch_pcid(0);
  EXPECT_EQ(read<uint32_t>(cpu_, cpu::kDs, kPage), 1u);
  cpu_.tlb.flush_all();
  EXPECT_THROW((void)read<uint32_t>(cpu_, cpu::kDs, kPage), GuestFault);
}

TEST_F(PageWalk, ChecksBothPagesOfACrossingWriteFirst) {
  machine_.put_object<uint64_t>(Machine::pte_address(kPage + 0x1000), 0);
  machine_.put_object<uint32_t>(kPage + 0xFFC, 0x11111111);
  try {
    write<uint64_t>(cpu_, cpu::kDs, kPage + 0xFFC, 0x2222222222222222);
    FAIL() << "no fault";
  } catch (const GuestFault& fault) {
    EXPECT_EQ(fault.cr2, kPage + 0x1000);
  }
  EXPECT_EQ(machine_.get<uint32_t>(kPage + 0xFFC), 0x11111111u);
}

TEST_F(PageWalk, RefusesNonCanonicalAddresses) {
  try {
    (void)read<uint8_t>(cpu_, cpu::kSs, 0x8000'0000'0000);
    FAIL() << "no fault";
  } catch (const GuestFault& fault) {
    EXPECT_EQ(fault.vector, kStackFault);
    EXPECT_EQ(fault.error_code, 0u);
  }
  EXPECT_THROW((void)read<uint64_t>(cpu_, cpu::kDs, 0x7FFF'FFFF'FFFC), GuestFault);
}

}  // namespace
}  // namespace bulkhead::engine::mmu
