#include "vmm/translation_log.h"

#include <array>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "support/time/fake_clock.h"

namespace bulkhead::vmm {
namespace {

using engine::TranslatedBlock;
using testing::HasSubstr;

class TranslationLogTest : public testing::Test {
 protected:
  std::string path(const char* name) const { return folder_ + "/" + name; }
  void SetUp() override {
    folder_ = (std::filesystem::temp_directory_path() / "bulkhead-translation-log-XXXXXX").string();
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  const std::array<uint8_t, 4> guest_ = {0x90, 0x0F, 0xA2, 0xC3};
  const std::array<uint8_t, 8> host_{};
  const std::array<TranslatedBlock::Instruction, 3> instructions_ = {{{0, 1, engine::decoder::Mnemonic::kNop, false},
                                                                      {1, 2, engine::decoder::Mnemonic::kCpuid, true},
                                                                      {3, 1, engine::decoder::Mnemonic::kRet, false}}};
  TranslatedBlock block() const {
    return {.vcpu_index = 1,
            .linear = 0x401000,
            .physical = 0x7000,
            .privilege = 3,
            .is_again = false,
            .bytes = guest_,
            .instructions = instructions_,
            .code = host_};
  }
  std::string folder_;
};

TEST_F(TranslationLogTest, MapHasALineABlockAsPerfReadsIt) {
  const auto log = TranslationLog::create(nullptr, path("map")).value();
  log->on_common_code(0, host_);
  log->on_translated(block());
  const auto at = reinterpret_cast<uintptr_t>(host_.data());
  EXPECT_EQ(read_file(path("map"), 1000).value(),
            fmt::format("{:x} 8 bulkhead_common_cpu0\n{:x} 8 guest_0x401000_user\n", at, at));
}

TEST_F(TranslationLogTest, MapIsNeverWrittenThroughAFileThatWasThere) {
  const std::string target = path("target");
  ASSERT_EQ(::symlink(target.c_str(), path("map").c_str()), 0);
  const auto log = TranslationLog::create(nullptr, path("map")).value();
  log->on_translated(block());
  EXPECT_FALSE(std::filesystem::exists(target));
  EXPECT_FALSE(std::filesystem::is_symlink(path("map")));
}

TEST_F(TranslationLogTest, TraceShowsEachBlockOnce) {
  FakeClock clock;
  const auto tracer = Tracer::create(path("trace"), clock).value();
  const auto log = TranslationLog::create(tracer.get(), {}).value();
  log->on_translated(block());
  TranslatedBlock again = block();
  again.is_again = true;
  log->on_translated(again);
  const std::string text = read_file(path("trace"), 10000).value();
  EXPECT_THAT(text,
              HasSubstr("cpu1 block 0x401000 physical 0x7000 cpl 3, 3 instructions in 4 bytes, to 8 bytes at 0x"));
  EXPECT_THAT(text, HasSubstr("\n    0x401001  0f a2"));
  EXPECT_THAT(text, HasSubstr("cpuid  (interpreter)\n"));
  EXPECT_EQ(text.find("block"), text.rfind("block"));
}

}  // namespace
}  // namespace bulkhead::vmm
