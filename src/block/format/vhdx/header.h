// The first MiB of a VHDX file as plain values: which of two headers counts, and where the regions lie. Source:
// Microsoft's [MS-VHDX].
#pragma once

#include "block/format/guid.h"
#include "block/format/image.h"

namespace bulkhead::block::vhdx {

inline constexpr uint64_t kKiB = 1024, kMiB = kKiB * 1024;
inline constexpr uint64_t kHeaderBytes = 4 * kKiB, kRegionTableBytes = 64 * kKiB;
inline constexpr std::array<uint64_t, 2> kHeaderAt{64 * kKiB, 128 * kKiB}, kRegionTableAt{192 * kKiB, 256 * kKiB};
inline constexpr std::string_view kFileMagic = "vhdxfile";
inline constexpr uint64_t kMostLogBytes = 64 * kMiB;

struct Header {
  uint64_t sequence = 0;
  Guid file_write_id{}, data_write_id{}, log_id{};
  uint32_t log_bytes = 0;
  uint64_t log_offset = 0;

  [[nodiscard]] bool has_log() const { return log_id != Guid{}; }
};

struct Region {
  uint64_t offset = 0, size = 0;
};
struct Regions {
  Region table, metadata;
};

struct CurrentHeader {
  Header header;
  size_t slot = 0;  // in kHeaderAt
};
Result<CurrentHeader> read_header(Store& store);
std::vector<uint8_t> make_header(const Header& header);
Result<Regions> read_regions(Store& store);
std::vector<uint8_t> make_region_table(const Regions& regions);
// The first copy of the region table that is whole counts. After a power cut while they were written, they are made
// alike.
Result<> repair_region_tables(Store& store);
// Names other places for these regions, in one copy after the other, which are alike before. Others stay.
Result<> move_regions(Store& store, const Regions& regions);
std::vector<uint8_t> make_file_identifier();

}  // namespace bulkhead::block::vhdx
