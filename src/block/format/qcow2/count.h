// What check() finds out about an image, and repair() works by. Private to check.cc and repair.cc.
#pragma once

#include <algorithm>

#include "block/format/qcow2/dense_counts.h"
#include "block/format/qcow2/qcow2_image.h"
#include "block/format/qcow2/refcount_field.h"

namespace bulkhead::block::qcow2 {

struct Qcow2Image::Count {
  // A byte and a bit each.
  static constexpr uint64_t kClusterLimit = kMetadataLimit / 9 * 8;
  static constexpr uint64_t kL2Limit = kMetadataLimit / sizeof(uint64_t);

  struct L2Use {
    uint64_t cluster : 63;
    uint64_t active : 1;  // named by the L1 table in use, not only by a snapshot's
    [[nodiscard]] uint64_t order() const { return cluster << 1 | active; }
  };

  DenseCounts uses;                // of each host cluster
  std::vector<bool> counted_once;  // the image states a refcount of 1
  std::vector<L2Use> l2_tables;    // one for each entry of an L1 table
  uint64_t l1_bytes = 0;           // of all L1 tables
  bool refcounts_wrong = false, flags_wrong = false;
  CheckReport report;

  void error(std::string message) {
    ++report.errors;
    report.say(std::move(message));
  }
  void add(uint64_t cluster, uint64_t times, std::string_view what) {
    if (cluster < uses.size()) {
      uses.set(cluster, uses[cluster] + times);
    } else {
      error(fmt::format("{}: cluster {:#x} lies outside the file ({:#x} clusters)", what, cluster, uses.size()));
    }
  }
};

// Calls use(cluster, count) with the refcount that the image states for each of the first clusters; a block that cannot
// be read counts nothing and is told to bad_block.
template <typename Use, typename BadBlock>
void Qcow2Image::each_refcount(uint64_t clusters, Use use, BadBlock bad_block) {
  const uint64_t a_block = header_.refcounts_a_block();
  for (uint64_t start = 0, index = 0; start < clusters; start += a_block, ++index) {
    TableRef block;
    if (index < refcount_table_.size() && refcount_table_[index] != 0) {
      if (auto found = table(refcount_table_[index], TableKind::kRefcounts)) {
        block = std::move(*found);
      } else {
        bad_block(index, refcount_table_[index]);
      }
    }
    for (uint64_t i = 0; i < std::min(a_block, clusters - start); ++i) {
      use(start + i, block ? get_count(block->bytes, i, header_.refcount_order) : 0);
    }
  }
}

}  // namespace bulkhead::block::qcow2
