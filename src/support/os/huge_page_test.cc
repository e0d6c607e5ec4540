#include "support/os/huge_page.h"

#include <algorithm>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/os/fd.h"

namespace bulkhead {
namespace {

TEST(HugePage, KeepsWhatIsThereAndWhatOtherMappingsSee) {
  const Fd file(::memfd_create("huge-page-test", MFD_CLOEXEC));
  ASSERT_TRUE(file.valid());
  ASSERT_EQ(::ftruncate(file.get(), kHugePageSize), 0);
  const Mapping window = Mapping::reserve(4 * kHugePageSize).value();
  auto* const first = reinterpret_cast<uint8_t*>(align_up(reinterpret_cast<uintptr_t>(window.data()), kHugePageSize));
  uint8_t* const second = first + kHugePageSize;
  for (uint8_t* const view : {first, second}) {
    ASSERT_NE(::mmap(view, kHugePageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file.get(), 0), MAP_FAILED);
  }
  first[5] = 1;
  first[kHugePageSize - 1] = 2;
  make_huge_page(second);
  EXPECT_EQ(second[5], 1);
  EXPECT_EQ(first[kHugePageSize - 1], 2);
  second[4096] = 3;
  EXPECT_EQ(first[4096], 3);
  EXPECT_EQ(std::count(first, first + kHugePageSize, 0), kHugePageSize - 3);
}

TEST(HugePage, LeavesAloneWhatCannotBecomeOne) {
  const Mapping memory = Mapping::anonymous(2 * kHugePageSize).value();
  memory.data()[0] = 1;
  make_huge_page(memory.data() + 1);  // not aligned
  EXPECT_EQ(memory.data()[0], 1);
}

}  // namespace
}  // namespace bulkhead
