// What a machine answers about a disk, and its counters for a reader or as JSON.
#pragma once

#include <cstddef>
#include <map>
#include <string>

namespace bulkhead::cli {

using Facts = std::map<std::string, std::string>;

// "file=/a\tformat=raw" as a map.
[[nodiscard]] Facts facts_of(const std::string& line);

// place has "file" and "format", stats the answer to "disk N stats" (src/vmm/disk_jobs.cc); what is not there counts as
// 0. A table with a line for each kind of request that there was.
[[nodiscard]] std::string disk_stats_text(size_t number, const Facts& place, const Facts& stats);
// An object; times in microseconds, the histogram as objects of "below_us" and "count".
[[nodiscard]] std::string disk_stats_json(size_t number, const Facts& place, const Facts& stats);

}  // namespace bulkhead::cli
