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
[[nodiscard]] bool is_descriptor(std::string_view text);
// The file that holds the descriptor, by the name of one of the extents' files: empty when that is no extent's.
[[nodiscard]] std::string descriptor_of_extent(const std::string& file);
// Whether the name is that of an extent which holds a guest's bytes as they are.
[[nodiscard]] bool is_flat_extent(const std::string& file);

}  // namespace bulkhead::block::vmdk
