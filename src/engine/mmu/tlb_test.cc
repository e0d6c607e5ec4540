#include "engine/mmu/tlb.h"

#include <gtest/gtest.h>

namespace bulkhead::engine::mmu {
namespace {

constexpr uint64_t kKernelPage = 0xFFFF'FFFF'8100'0000, kUserPage = 0x40'0000;

class TlbCodeTest : public testing::Test {
 protected:
  void run_code_from(uint64_t page, Rights rights, bool global) {
    tlb_.use(rights, false);
    tlb_.fill(rights, {.linear = page, .host = 0x10000, .read = true, .execute = true, .global = global});
    (void)tlb_.note_code_page(page);
  }
  Tlb tlb_;
};

TEST_F(TlbCodeTest, WhatAProgramGivesUpIsNotTakenForTheKernelsCode) {
  for (uint64_t page = 0; page < 512; ++page) run_code_from(kKernelPage + page * 4096, Rights::kSupervisor, true);
  const uint64_t kernel = tlb_.code_generation(true);
  for (uint64_t page = 0; page < 8192; ++page) tlb_.flush_page(page * 4096);
  EXPECT_EQ(tlb_.code_generation(true), kernel);
  tlb_.flush_page(kKernelPage + 5 * 4096);
  EXPECT_NE(tlb_.code_generation(true), kernel);
}

TEST_F(TlbCodeTest, AProgramsPageOfCodeChangesWhatAllProgramsReach) {
  run_code_from(kUserPage, Rights::kUser, false);
  const uint64_t kernel = tlb_.code_generation(true), user = tlb_.code_generation(false);
  tlb_.flush_page(kUserPage);
  EXPECT_NE(tlb_.code_generation(false), user);
  EXPECT_EQ(tlb_.code_generation(true), kernel);
}

TEST_F(TlbCodeTest, TheKernelMayRunWhatALowPageHas) {
  run_code_from(kUserPage, Rights::kSupervisor, true);
  const uint64_t kernel = tlb_.code_generation(true);
  tlb_.flush_page(kUserPage);
  EXPECT_NE(tlb_.code_generation(true), kernel);
}

TEST_F(TlbCodeTest, KernelCodeThatIsNotGlobalCountsByItsPcid) {
  run_code_from(kUserPage, Rights::kSupervisor, false);
  const uint64_t before = tlb_.code_generation(true);
  tlb_.flush_page(kUserPage);
  EXPECT_NE(tlb_.code_generation(true), before);
  run_code_from(kUserPage, Rights::kSupervisor, false);
  const uint64_t first = tlb_.code_generation(true);
  tlb_.flush_pcid(0);
  EXPECT_NE(tlb_.code_generation(true), first);
}

TEST_F(TlbCodeTest, ALargePageGoesAsAWhole) {
  for (const uint64_t base : {kUserPage, kKernelPage}) {
    tlb_.use(Rights::kSupervisor, false);
    for (uint64_t page = 0; page < 8; ++page) {
      tlb_.fill(Rights::kSupervisor, {.linear = base + page * 4096, .host = 0x10000, .read = true, .page_shift = 21});
    }
    tlb_.flush_page(base + 4096);
    for (uint64_t page = 0; page < 8; ++page) {
      EXPECT_NE(tlb_.entry(base + page * 4096).tag_read, base + page * 4096) << page;
    }
  }
}

}  // namespace
}  // namespace bulkhead::engine::mmu
