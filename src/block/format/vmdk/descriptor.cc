#include "block/format/vmdk/descriptor.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "block/format/vmdk/sparse_header.h"

namespace bulkhead::block::vmdk {
namespace {

constexpr std::string_view kFirstLine = "# Disk DescriptorFile", kEnding = ".vmdk";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(std::string_view(" \t\r\0", 4));
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(std::string_view(" \t\r\0", 4)) - begin + 1);
}

std::string unquoted(std::string_view text) {
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') text = text.substr(1, text.size() - 2);
  return std::string(text);
}

template <typename T>
std::optional<T> number(std::string_view text, int base) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The next word of a line, which is taken off it; in quotes it may hold blanks.
std::string next_word(std::string_view& line) {
  line = trimmed(line);
  if (line.starts_with('"')) {
    const size_t end = line.find('"', 1);
    const std::string word(line.substr(1, end == std::string_view::npos ? end : end - 1));
    line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
    return word;
  }
  const size_t end = std::min(line.find_first_of(" \t"), line.size());
  const std::string word(line.substr(0, end));
  line.remove_prefix(end);
  return word;
}

std::optional<ExtentAccess> access_of(std::string_view word) {
  if (word == "RW") return ExtentAccess::kReadWrite;
  if (word == "RDONLY") return ExtentAccess::kReadOnly;
  if (word == "NOACCESS") return ExtentAccess::kNone;
  return std::nullopt;
}

Result<ExtentLine> parse_extent(std::string_view line, ExtentAccess access) {
  ExtentLine extent{.access = access};
  next_word(line);
  const auto sectors = number<uint64_t>(next_word(line), 10);
  if (!sectors || *sectors > kLargestDiskSectors) return fail("size of the extent");
  extent.sectors = *sectors;
  const std::string type = next_word(line);
  if (type == "ZERO") {
    extent.type = ExtentType::kZero;
    return extent;
  }
  if (type == "SPARSE" || type == "VMFSSPARSE") {
    extent.type = ExtentType::kSparse;
  } else if (type != "FLAT" && type != "VMFS") {
    return fail("extents of type {} are not supported", type);
  }
  extent.file = next_word(line);
  if (extent.file.empty()) return fail("no file is named");
  const std::string offset = next_word(line);
  if (offset.empty()) return extent;
  const auto value = number<uint64_t>(offset, 10);
  if (!value || *value > kLargestDiskSectors) return fail("offset '{}'", offset);
  extent.offset = *value;
  return extent;
}

Result<> set_value(Descriptor& descriptor, std::string_view key, std::string_view value) {
  if (key == "CID" || key == "parentCID") {
    const auto id = number<uint32_t>(value, 16);
    if (!id) return fail("{} '{}' is no hexadecimal number of 32 bits", key, value);
    (key == "CID" ? descriptor.id : descriptor.parent_id) = *id;
  } else if (key == "createType") {
    descriptor.type = unquoted(value);
  } else if (key == "parentFileNameHint") {
    descriptor.parent_name = unquoted(value);
  } else if (key == "ddb.adapterType") {
    descriptor.adapter = unquoted(value);
  } else if (key == "version") {
    const auto version = number<uint32_t>(value, 10);
    if (!version || *version < 1 || *version > 3) return fail("version {}", value);
  } else if (key == "encoding" && unquoted(value) != "UTF-8" && unquoted(value) != "windows-1252") {
    return fail("encoding {}", value);
  }
  return {};
}

// "flat", "f001", "s001", "delta" of "disk-flat.vmdk" and so on; empty when the file is not named like an extent.
std::string_view extent_ending(std::string_view file) {
  if (!file.ends_with(kEnding)) return {};
  file.remove_suffix(kEnding.size());
  const size_t dash = file.rfind('-');
  if (dash == std::string_view::npos || dash == 0) return {};
  const std::string_view last = file.substr(dash + 1);
  const bool numbered = last.size() >= 4 && (last[0] == 's' || last[0] == 'f') &&
                        std::ranges::all_of(last.substr(1), [](char c) { return c >= '0' && c <= '9'; });
  return last == "flat" || last == "delta" || numbered ? last : std::string_view();
}

std::string line_of(const ExtentLine& extent) {
  const bool flat = extent.type == ExtentType::kFlat;
  return fmt::format("RW {} {} \"{}\"{}\n", extent.sectors, flat ? "FLAT" : "SPARSE", extent.file,
                     flat ? fmt::format(" {}", extent.offset) : "");
}

// Calls each(line) for the lines of a descriptor.
template <typename Each>
void each_line(std::string_view text, Each each) {
  for (size_t at = 0, end = 0; at < text.size(); at = end + 1) {
    end = std::min(text.find('\n', at), text.size());
    each(text.substr(at, end - at));
  }
}

bool is_extent(std::string_view line) {
  return access_of(next_word(line)).has_value();
}

// "KEY = "VALUE"", a number; 0 when the text does not have it.
uint64_t number_of(std::string_view text, std::string_view key) {
  uint64_t value = 0;
  each_line(text, [&](std::string_view line) {
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos || trimmed(line.substr(0, equals)) != key) return;
    value = number<uint64_t>(unquoted(trimmed(line.substr(equals + 1))), 10).value_or(0);
  });
  return value;
}

}  // namespace

uint64_t Descriptor::sectors() const {
  uint64_t sum = 0;
  for (const ExtentLine& extent : extents) sum += extent.sectors;
  return sum;
}

bool is_descriptor(std::string_view text) {
  return text.starts_with(kFirstLine);
}

Result<Descriptor> parse_descriptor(std::string_view text, const std::string& name) {
  text = text.substr(0, text.find('\0'));
  Descriptor descriptor;
  const auto bad = [&](size_t line, Error error) {
    return std::move(error).in(fmt::format("open '{}': descriptor line {}", name, line));
  };
  bool has_id = false;
  for (size_t at = 0, line_number = 1; at < text.size(); ++line_number) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = trimmed(text.substr(at, end - at));
    at = end + 1;
    if (line.empty() || line.starts_with('#')) continue;
    std::string_view rest = line;
    if (const auto access = access_of(next_word(rest))) {
      auto extent = parse_extent(line, *access);
      if (!extent) return std::unexpected(bad(line_number, std::move(extent).error()));
      if (descriptor.extents.size() == kMostExtents) return fail("open '{}': more than {} extents", name, kMostExtents);
      descriptor.extents.push_back(*std::move(extent));
      continue;
    }
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view key = trimmed(line.substr(0, equals)), value = trimmed(line.substr(equals + 1));
    if (auto set = set_value(descriptor, key, value); !set)
      return std::unexpected(bad(line_number, std::move(set).error()));
    if (key != "CID") continue;
    has_id = true;
    descriptor.id_at = static_cast<uint64_t>(value.data() - text.data());
    descriptor.id_digits = static_cast<uint32_t>(value.size());
  }
  if (!has_id) return fail("open '{}': the descriptor has no CID", name);
  if (descriptor.extents.empty()) return fail("open '{}': the descriptor names no extent", name);
  if (descriptor.sectors() > kLargestDiskSectors) {
    return fail("open '{}': extents of {} sectors together", name, descriptor.sectors());
  }
  return descriptor;
}

std::string make_descriptor(const Descriptor& descriptor) {
  std::string text = fmt::format("{}\nversion=1\nencoding=\"UTF-8\"\nCID={:08x}\nparentCID={:08x}\ncreateType=\"{}\"\n",
                                 kFirstLine, descriptor.id, descriptor.parent_id, descriptor.type);
  if (!descriptor.parent_name.empty()) text += fmt::format("parentFileNameHint=\"{}\"\n", descriptor.parent_name);
  text += "\n# Extent description\n";
  for (const ExtentLine& extent : descriptor.extents) {
    text += line_of(extent);
  }
  const bool ide = descriptor.adapter == "ide";
  const uint64_t heads = ide ? 16 : 255, sectors = 63;
  const uint64_t cylinders = std::min<uint64_t>(descriptor.sectors() / (heads * sectors), ide ? 16383 : 65535);
  text += fmt::format(
      "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"{}\"\n"
      "ddb.geometry.heads = \"{}\"\nddb.geometry.sectors = \"{}\"\nddb.adapterType = \"{}\"\n",
      cylinders, heads, sectors, descriptor.adapter);
  return text;
}

std::string with_extents(std::string_view text, const std::vector<ExtentLine>& extents) {
  text = text.substr(0, text.find('\0'));
  size_t old_count = 0;
  each_line(text, [&](std::string_view line) { old_count += is_extent(line) ? 1 : 0; });
  const uint64_t heads = number_of(text, "ddb.geometry.heads"), a_track = number_of(text, "ddb.geometry.sectors");
  const uint64_t cylinders = number_of(text, "ddb.geometry.cylinders");
  Descriptor grown{.extents = extents};
  std::string result;
  size_t index = 0;
  each_line(text, [&](std::string_view line) {
    if (line.starts_with("ddb.geometry.cylinders") && heads != 0 && a_track != 0) {
      const uint64_t most = heads == 16 ? 16383 : 65535, wanted = grown.sectors() / (heads * a_track);
      result += fmt::format("ddb.geometry.cylinders = \"{}\"\n", std::max(cylinders, std::min(wanted, most)));
      return;
    }
    if (!is_extent(line) || index >= extents.size()) {
      result += std::string(line) + "\n";
      return;
    }
    const std::string access = next_word(line);
    next_word(line);
    result += fmt::format("{} {} {}\n", access, extents[index].sectors, trimmed(line));
    if (++index != old_count) return;
    for (; index < extents.size(); ++index) result += line_of(extents[index]);
  });
  return result;
}

std::string with_parent(std::string_view text, const std::string& name, uint32_t id) {
  text = text.substr(0, text.find('\0'));
  std::string result;
  bool has_id = false;
  const auto key_of = [](std::string_view line) { return trimmed(line.substr(0, line.find('='))); };
  each_line(text, [&](std::string_view line) { has_id = has_id || key_of(line) == "parentCID"; });
  each_line(text, [&](std::string_view line) {
    const std::string_view key = key_of(line);
    const bool is_id = key == "parentCID";
    if (key == "parentFileNameHint") return;
    if (!is_id) result += std::string(line) + "\n";
    if (!is_id && (has_id || key != "CID")) return;
    result += fmt::format("parentCID={:08x}\n", name.empty() ? kNoParent : id);
    if (!name.empty()) result += fmt::format("parentFileNameHint=\"{}\"\n", name);
  });
  return result;
}

Result<uint32_t> parse_parent_id(const std::string& identity, const std::string& backing_name) {
  const auto id = number<uint32_t>(identity, 16);
  if (!id) return fail("backing file '{}': it has no CID", backing_name);
  if (*id != kNoParent) return *id;
  return fail(
      "backing file '{}': its CID is {:08x}, by which an image on top of it would say that it has none; convert it",
      backing_name, *id);
}

size_t extents_end(std::string_view text) {
  size_t end = 0;
  text = text.substr(0, text.find('\0'));
  each_line(text, [&](std::string_view line) {
    if (is_extent(line)) end = static_cast<size_t>(line.data() - text.data()) + line.size();
  });
  return end;
}

std::string extent_behind(const std::string& file, unsigned count) {
  const std::string_view ending = extent_ending(file);
  if (ending.size() < 4 || ending == "flat" || ending == "delta") return "";
  const auto last = number<unsigned>(ending.substr(1), 10);
  if (!last || *last > 1000000) return "";
  return fmt::format("{}-{}{:03}{}", file.substr(0, file.rfind('-')), ending.front(), *last + count, kEnding);
}

std::string descriptor_of_extent(const std::string& file) {
  if (extent_ending(file).empty()) return "";
  return file.substr(0, file.rfind('-')) + std::string(kEnding);
}

bool is_flat_extent(const std::string& file) {
  return extent_ending(file).starts_with('f');
}

}  // namespace bulkhead::block::vmdk
