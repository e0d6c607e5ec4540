#include "engine/jit/access_groups.h"

#include <gtest/gtest.h>

#include "engine/jit/testing.h"

namespace bulkhead::engine::jit {
namespace {

using testing::Bytes, testing::Code;

class Groups {
 public:
  explicit Groups(std::initializer_list<Bytes> code, uint64_t excluded = 0)
      : code_(code), groups_(code_.ops(), excluded) {}
  const AccessGroups* operator->() const { return &groups_; }

 private:
  Code code_;
  AccessGroups groups_;
};

void expect_span(const std::optional<AccessGroups::Span>& span, int32_t begin, uint32_t size, bool writes) {
  ASSERT_TRUE(span);
  EXPECT_EQ(span->begin, begin);
  EXPECT_EQ(span->size, size);
  EXPECT_EQ(span->writes, writes);
}

TEST(AccessGroups, OneLookCoversTheFieldsOfAStructure) {
  // mov eax, [rdi + 16]; mov [rdi], rcx; mov dl, [rdi + 40]
  const Groups groups({{0x8B, 0x47, 0x10}, {0x48, 0x89, 0x0F}, {0x8A, 0x57, 0x28}});
  expect_span(groups->span(0), -16, 41, true);
  expect_span(groups->span(1), 0, 41, true);
  EXPECT_FALSE(groups->span(2));  // the last has nobody to look for
  EXPECT_TRUE(groups->has_group(2));
  EXPECT_EQ(groups->group(0), groups->group(2));
}

TEST(AccessGroups, LeaveOutWhatIsNextToTheEndOfADisplacement) {
  // mov rax, [3ff12345]; mov rax, [800000002ff00000]: their distance does not fit into 64 bits
  const Groups absolute(
      {{0x48, 0x8B, 0x04, 0x25, 0x45, 0x23, 0xF1, 0x3F}, {0x48, 0xA1, 0x00, 0x00, 0xF0, 0x2F, 0x00, 0x00, 0x00, 0x80}});
  EXPECT_FALSE(absolute->has_group(0));
  // mov rax, [rbx - 7fffffff]; mov rax, [rbx - 7ffffff7]
  const Groups smallest({{0x48, 0x8B, 0x83, 0x01, 0x00, 0x00, 0x80}, {0x48, 0x8B, 0x83, 0x09, 0x00, 0x00, 0x80}});
  EXPECT_FALSE(smallest->has_group(0));
  // mov rax, [rbx + 7ffffef8]; mov rax, [rbx + 7ffffef0]
  const Groups largest({{0x48, 0x8B, 0x83, 0xF8, 0xFE, 0xFF, 0x7F}, {0x48, 0x8B, 0x83, 0xF0, 0xFE, 0xFF, 0x7F}});
  expect_span(largest->span(0), -8, 16, false);
}

TEST(AccessGroups, FollowARegisterThatIsMovedAndCopied) {
  // push rbx; push rbp; mov rax, rsp; sub rsp, 32; mov [rax + 8], rcx; pop rdx
  const Groups groups({{0x53}, {0x55}, {0x48, 0x89, 0xE0}, {0x48, 0x83, 0xEC, 0x20}, {0x48, 0x89, 0x48, 0x08}, {0x5A}});
  // From the first word pushed, at -8: the second at -16, [rax + 8] at -8, the pop at -48.
  expect_span(groups->span(0), -40, 48, true);
}

TEST(AccessGroups, EndWhereTheRegisterIsAnother) {
  // mov rdi, [rdi]; mov rax, [rdi + 8]
  const Groups loaded({{0x48, 0x8B, 0x3F}, {0x48, 0x8B, 0x47, 0x08}});
  EXPECT_FALSE(loaded->has_group(0));
  EXPECT_FALSE(loaded->has_group(1));
  // mov rax, [rdi]; add edi, 8, which clears the upper half; mov rcx, [rdi]
  const Groups halved({{0x48, 0x8B, 0x07}, {0x83, 0xC7, 0x08}, {0x48, 0x8B, 0x0F}});
  EXPECT_FALSE(halved->has_group(0));
  // mov rax, [rdi]; mov rcx, fs:[rdi]: another segment
  const Groups segments({{0x48, 0x8B, 0x07}, {0x64, 0x48, 0x8B, 0x0F}});
  EXPECT_FALSE(segments->has_group(0));
}

TEST(AccessGroups, AreNotWiderThanTheirSpan) {
  // mov rax, [rdi]; mov rcx, [rdi + 120]; mov rdx, [rdi + 128]
  const Groups groups({{0x48, 0x8B, 0x07}, {0x48, 0x8B, 0x4F, 0x78}, {0x48, 0x8B, 0x97, 0x80, 0, 0, 0}});
  expect_span(groups->span(0), 0, 128, false);
  EXPECT_FALSE(groups->has_group(2));
}

TEST(AccessGroups, DoNotCountWhatIsExcludedOrGoesAnywhere) {
  // mov rax, [rdi]; mov rcx, [rdi + 8], which is excluded
  const Groups excluded({{0x48, 0x8B, 0x07}, {0x48, 0x8B, 0x4F, 0x08}}, 2);
  EXPECT_FALSE(excluded->has_group(0));
  // mov rax, [rdi]; bt [rdi], rcx; rep stosb; lea rcx, [rdi + 8]
  const Groups anywhere({{0x48, 0x8B, 0x07}, {0x48, 0x0F, 0xA3, 0x0F}, {0xF3, 0xAA}, {0x48, 0x8D, 0x4F, 0x08}});
  for (size_t i = 0; i < 4; ++i) EXPECT_FALSE(anywhere->has_group(i)) << i;
}

TEST(AccessGroups, TellRipAndIndexedAddressesByTheirDistance) {
  // mov eax, [rip + 0x100] (6 bytes); mov ecx, [rip + 0xFE] (6 bytes): 4 apart
  const Groups relative({{0x8B, 0x05, 0, 0x01, 0, 0}, {0x8B, 0x0D, 0xFE, 0, 0, 0}});
  expect_span(relative->span(0), 0, 8, false);
  // mov rax, [rdi + rcx * 8]; add rcx, 2; mov rdx, [rdi + rcx * 8]
  const Groups indexed({{0x48, 0x8B, 0x04, 0xCF}, {0x48, 0x83, 0xC1, 0x02}, {0x48, 0x8B, 0x14, 0xCF}});
  expect_span(indexed->span(0), 0, 24, false);
}

}  // namespace
}  // namespace bulkhead::engine::jit
