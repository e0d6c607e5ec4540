#include "vmm/config/disk_filters.h"

#include <algorithm>

namespace bulkhead::vmm {
namespace {

constexpr DiskFilter kFilters[] = {DiskFilter::kThrottle, DiskFilter::kFault, DiskFilter::kChanges,
                                   DiskFilter::kEncrypt};

std::string joined(const std::vector<DiskFilter>& filters) {
  std::string text;
  for (const DiskFilter filter : filters) text += (text.empty() ? "" : "+") + std::string(to_string(filter));
  return text.empty() ? "none" : text;
}

bool has(const std::vector<DiskFilter>& filters, DiskFilter filter) {
  return std::ranges::find(filters, filter) != filters.end();
}

}  // namespace

std::string_view to_string(DiskFilter filter) {
  switch (filter) {
    case DiskFilter::kThrottle:
      return "throttle";
    case DiskFilter::kFault:
      return "fault";
    case DiskFilter::kChanges:
      return "changes";
    case DiskFilter::kEncrypt:
      return "encrypt";
  }
  return "?";
}

std::vector<DiskFilter> DiskConfig::filters_in_order(bool jobs) const {
  if (!filters.empty()) return filters;
  std::vector<DiskFilter> all;
  if (limits.any() || !group.empty()) all.push_back(DiskFilter::kThrottle);
  if (faults.any()) all.push_back(DiskFilter::kFault);
  if (jobs && !read_only) all.push_back(DiskFilter::kChanges);
  if (!secret.empty()) all.push_back(DiskFilter::kEncrypt);
  return all;
}

Result<std::vector<DiskFilter>> parse_disk_filters(std::string_view text) {
  std::vector<DiskFilter> filters;
  for (bool more = true; more;) {
    const std::string_view word = text.substr(0, text.find('+'));
    more = word.size() != text.size();
    text.remove_prefix(word.size() + (more ? 1 : 0));
    const auto found = std::ranges::find_if(kFilters, [word](DiskFilter filter) { return to_string(filter) == word; });
    if (found == std::end(kFilters))
      return fail("'{}'; allowed: throttle, fault, changes and encrypt, with + between", word);
    if (has(filters, *found)) return fail("{} stands twice", word);
    filters.push_back(*found);
  }
  return filters;
}

Result<> check_disk_filters(const DiskConfig& disk, bool deterministic) {
  if (disk.filters.empty()) return {};
  DiskConfig without = disk;
  without.filters.clear();
  const std::vector<DiskFilter> there = without.filters_in_order(!deterministic);
  const std::string stated = "filters=" + joined(disk.filters);
  for (const DiskFilter filter : kFilters) {
    if (has(there, filter) == has(disk.filters, filter)) continue;
    return fail("{}: {} is {}; the disk has {}", stated, to_string(filter),
                has(there, filter) ? "missing" : "not there", joined(there));
  }
  if (!disk.encrypts_above_storage()) return {};
  // A job between them opens files of a format, with the encryption within.
  const auto changes = std::ranges::find(disk.filters, DiskFilter::kChanges);
  const auto encrypt = std::ranges::find(disk.filters, DiskFilter::kEncrypt);
  const bool is_volume = disk.format.empty() || disk.format == "luks";
  if (changes < encrypt && !is_volume) {
    return fail("{}: changes above encrypt and more below it: with format=luks alone", stated);
  }
  return {};
}

}  // namespace bulkhead::vmm
