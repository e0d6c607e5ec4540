#include <gtest/gtest.h>

#include "block/format/vmdk/vmdk_image.h"
#include "block/testing/folder_files.h"

namespace bulkhead::block::vmdk {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

class Rebase : public ::testing::Test {
 protected:
  Result<> create(const std::string& name, const std::string& on = "") {
    CreateOptions options{.size = kMiB, .file_name = name};
    if (!on.empty()) {
      options.backing_name = on;
      options.backing_format = "vmdk";
      options.backing_identity = open(on)->info().identity;
    }
    return vmdk::create(*folder_.make("/m/" + name), options);
  }
  std::unique_ptr<Image> open(const std::string& name) {
    return block::testing::open_in(folder_, "/m/" + name, "vmdk", Access::kReadWrite).value();
  }
  // As a program that knows of no CIDs writes it.
  void take_id_away(const std::string& name) {
    const auto store = folder_.open("/m/" + name).value();
    std::string text(512, 0);
    ASSERT_EQ(store->read(kSector, {reinterpret_cast<uint8_t*>(text.data()), text.size()}), Status::kOk);
    text.replace(text.find("CID=") + 4, 8, "ffffffff");
    ASSERT_EQ(store->write(kSector, {reinterpret_cast<const uint8_t*>(text.data()), text.size()}), Status::kOk);
    ASSERT_EQ(open(name)->info().identity, "ffffffff");
  }

  block::testing::Folder folder_;
};

// The child would say that it has no parent, and show zeroes.
TEST_F(Rebase, AFileWhoseIdMeansThatThereIsNoneIsNobodysParent) {
  ASSERT_TRUE(create("base.vmdk"));
  ASSERT_TRUE(create("top.vmdk"));
  ASSERT_EQ(open("base.vmdk")->write(0, std::vector<uint8_t>(kMiB, 9)), Status::kOk);
  take_id_away("base.vmdk");
  {
    const auto top = open("top.vmdk");
    for (const auto& refused : {top->may_set_backing("base.vmdk", "vmdk"), top->set_backing("base.vmdk", "vmdk"),
                                create("child.vmdk", "base.vmdk")}) {
      ASSERT_FALSE(refused);
      EXPECT_NE(refused.error().message.find("'base.vmdk': its CID is ffffffff"), std::string::npos)
          << refused.error().message;
    }
  }
  EXPECT_EQ(open("top.vmdk")->info().backing_name, "");
  // A write gives it one.
  ASSERT_EQ(open("base.vmdk")->write(0, std::vector<uint8_t>(512, 9)), Status::kOk);
  ASSERT_TRUE(open("top.vmdk")->set_backing("base.vmdk", "vmdk"));
  std::vector<uint8_t> found(512);
  ASSERT_EQ(open("top.vmdk")->read(kMiB / 2, found), Status::kOk);
  EXPECT_EQ(found[0], 9);
}

// All of the place is written, whatever a damaged header says of its size.
TEST_F(Rebase, ADescriptorIsNotWrittenOverAGrainDirectory) {
  ASSERT_TRUE(create("base.vmdk"));
  ASSERT_TRUE(create("top.vmdk"));
  ASSERT_EQ(open("top.vmdk")->write(0, std::vector<uint8_t>(512, 5)), Status::kOk);
  const auto store = folder_.open("/m/top.vmdk").value();
  const uint8_t sectors = 40;
  ASSERT_EQ(store->write(36, {&sectors, 1}), Status::kOk);
  for (const auto& refused : {open("top.vmdk")->set_backing("base.vmdk", "vmdk"), open("top.vmdk")->grow(2 * kMiB)}) {
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("40 sectors from sector 1 on, reaches into its grain directory at 2"),
              std::string::npos)
        << refused.error().message;
  }
  std::vector<uint8_t> found(512);
  ASSERT_EQ(open("top.vmdk")->read(0, found), Status::kOk);
  EXPECT_EQ(found[0], 5);
}

}  // namespace
}  // namespace bulkhead::block::vmdk
