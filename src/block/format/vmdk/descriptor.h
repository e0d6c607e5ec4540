// The text that says what a VMDK image consists of, in a file of its own or inside the only extent. Source: VMware's
// Virtual Disk Format 5.0.
#pragma once

#include "block/format/image.h"

namespace bulkhead::block::vmdk {

enum class ExtentAccess : uint8_t { kNone, kReadOnly, kReadWrite };
enum class ExtentType : uint8_t { kFlat, kSparse, kZero };

struct ExtentLine {
  ExtentAccess access = ExtentAccess::kReadWrite;
  uint64_t sectors = 0;
  ExtentType type = ExtentType::kFlat;
  std::string file;
  uint64_t offset = 0;  // of a flat extent in its file, in sectors
};

inline constexpr size_t kMostExtents = 2048;
inline constexpr uint32_t kNoParent = 0xFFFFFFFF;

struct Descriptor {
  uint32_t id = 0, parent_id = kNoParent;
  std::string type;
  std::string parent_name;
  std::string adapter;
  std::vector<ExtentLine> extents;
  // Where the digits of `id` stand in the text, to be written over.
  uint64_t id_at = 0;
  uint32_t id_digits = 8;

  [[nodiscard]] uint64_t sectors() const;
};

// The error names the line.
Result<Descriptor> parse_descriptor(std::string_view text, const std::string& name);
[[nodiscard]] std::string make_descriptor(const Descriptor& descriptor);
// The text with more, or larger, extents than its own first ones; every other line stays as it is, but for the
// geometry.
[[nodiscard]] std::string with_extents(std::string_view text, const std::vector<ExtentLine>& extents);
// The text with another parent; without one, the name is empty.
[[nodiscard]] std::string with_parent(std::string_view text, const std::string& name, uint32_t id);
// The CID that an image on top of another has to remember of that one, from its ImageInfo::identity. An error where
// that is the one that says "no parent": what stands on it would show nothing of it.
Result<uint32_t> parse_parent_id(const std::string& identity, const std::string& backing_name);
// Where the last extent's line ends; what is behind it may be torn without harm.
[[nodiscard]] size_t extents_end(std::string_view text);
// The file of an extent of a split image that comes so many behind the one in this file; empty when that has no number.
[[nodiscard]] std::string extent_behind(const std::string& file, unsigned count);
[[nodiscard]] bool is_descriptor(std::string_view text);
// The file that holds the descriptor, by the name of one of the extents' files: empty when that is no extent's.
[[nodiscard]] std::string descriptor_of_extent(const std::string& file);
// Whether the name is that of an extent which holds a guest's bytes as they are.
[[nodiscard]] bool is_flat_extent(const std::string& file);

}  // namespace bulkhead::block::vmdk
