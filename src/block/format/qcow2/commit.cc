// Writing changed tables in the order that survives a power cut, and giving clusters back afterwards.
#include <algorithm>

#include "block/format/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);

}  // namespace

// What one commit writes: copies of the tables as they were at one moment, so that they fit one another.
struct Qcow2Image::Batch {
  std::vector<std::pair<TableRef, std::vector<uint8_t>>> refcounts, l2;
  uint64_t l1_first = 0;
  std::vector<uint8_t> l1;
  std::vector<uint64_t> released;
};

Qcow2Image::Batch Qcow2Image::take_batch() {
  Batch batch;
  for (const TableRef& table : recent_) {
    if (!table->dirty) continue;
    std::vector<uint8_t> bytes = take_buffer();
    std::ranges::copy(table->bytes, bytes.begin());
    (table->kind == TableKind::kL2 ? batch.l2 : batch.refcounts).emplace_back(table, std::move(bytes));
    table->dirty = false;
    table->being_written = true;
  }
  const auto by_offset = [](const auto& entry) { return entry.first->offset; };
  std::ranges::sort(batch.refcounts, {}, by_offset);
  std::ranges::sort(batch.l2, {}, by_offset);
  if (l1_dirty_first_ <= l1_dirty_last_) {
    // Whole sectors, which a power cut leaves old or new.
    const uint64_t first = align_down(l1_dirty_first_, 64), last = std::min(l1_dirty_last_ | 63, l1_.size() - 1);
    batch.l1_first = first;
    batch.l1.resize((last - first + 1) * 8);
    for (uint64_t i = first; i <= last; ++i) store64(&batch.l1[(i - first) * 8], l1_[i]);
    l1_dirty_first_ = UINT64_MAX;
    l1_dirty_last_ = 0;
  }
  batch.released = std::exchange(released_, {});
  return batch;
}

Outcome<> Qcow2Image::write_batch(const Batch& batch) {
  for (const auto& [table, bytes] : batch.refcounts) TRY(done(store_->write(table->offset, bytes)));
  if (data_file_) TRY(done(data_file_->flush()));
  TRY(done(store_->flush()));
  for (const auto& [table, bytes] : batch.l2) TRY(done(store_->write(table->offset, bytes)));
  if (!batch.l1.empty()) {
    TRY(done(store_->flush()));
    TRY(done(store_->write(header_.l1_offset + batch.l1_first * 8, batch.l1)));
  }
  if (!batch.l1.empty() || !batch.l2.empty()) TRY(done(store_->flush()));
  return {};
}

void Qcow2Image::finish_batch(Batch& batch, bool written) {
  for (auto* const tables : {&batch.refcounts, &batch.l2}) {
    for (auto& [table, bytes] : *tables) {
      table->being_written = false;
      // What was not written waits for the next commit.
      if (!written) table->dirty = true;
      keep_buffer(std::move(bytes));
    }
  }
  ++table_changes_;
  std::vector<uint64_t>& to = written ? unnamed_ : released_;
  to.insert(to.end(), batch.released.begin(), batch.released.end());
  if (!written && !batch.l1.empty()) {
    l1_dirty_first_ = std::min(l1_dirty_first_, batch.l1_first);
    l1_dirty_last_ = std::max(l1_dirty_last_, batch.l1_first + batch.l1.size() / 8 - 1);
  }
}

Outcome<> Qcow2Image::commit() {
  const uint64_t ticket = ++commits_asked_;
  while (committing_) commit_ended_.wait_for(mutex_, kPatience);
  if (commits_done_ >= ticket) return {};
  committing_ = true;
  const uint64_t covered = commits_asked_;
  Batch batch = take_batch();
  mutex_.unlock();
  const Outcome<> written = write_batch(batch);
  mutex_.lock();
  finish_batch(batch, written.has_value());
  Outcome<> outcome = written;
  if (written) {
    commits_done_ = covered;
    outcome = free_clusters();
  }
  committing_ = false;
  commit_ended_.notify_all();
  return outcome;
}

void Qcow2Image::begin_operation(unsigned& epoch) {
  epoch = epoch_;
  ++in_flight_[epoch];
}

void Qcow2Image::end_operation(unsigned epoch) {
  if (--in_flight_[epoch] == 0) operation_ended_.notify_all();
}

// Runs within a commit only, so nobody else frees at the same time.
Outcome<> Qcow2Image::free_clusters() {
  Outcome<> outcome;
  while (!waiting_.empty() || !unnamed_.empty()) {
    if (in_flight_[epoch_ ^ 1] != 0) return outcome;
    std::vector<uint64_t> clusters = std::exchange(waiting_, std::exchange(unnamed_, {}));
    epoch_ ^= 1;
    std::ranges::sort(clusters);
    // Nothing names the last use of a cluster any more, so its count cannot change while the hole is made.
    std::vector<ClusterRange> holes;
    for (const uint64_t cluster : clusters) {
      const auto count = refcount(cluster);
      if (!count || *count != 1) continue;
      forget_table(cluster << header_.cluster_bits);
      if (packed_at_ >> header_.cluster_bits == cluster) packed_at_ = 0;
      if (!holes.empty() && holes.back().first + holes.back().count == cluster) {
        ++holes.back().count;
      } else {
        holes.push_back({cluster, 1});
      }
    }
    mutex_.unlock();
    // A hint; the clusters are free with their old bytes too.
    for (const auto& [first, count] : holes) {
      (void)store_->punch(first << header_.cluster_bits, count << header_.cluster_bits);
    }
    mutex_.lock();
    for (const uint64_t cluster : clusters) {
      const auto count = refcount(cluster);
      if (!count || *count == 0) {
        outcome = corrupt("a freed cluster was not counted", cluster << header_.cluster_bits, count.value_or(0));
        continue;
      }
      if (const auto set = set_refcount(cluster, *count - 1); !set) outcome = set;
      if (*count == 1) free_hint_ = std::min(free_hint_, cluster);
    }
  }
  return outcome;
}

Outcome<> Qcow2Image::keep_bounds() {
  const size_t tables = std::max<size_t>(8, kCacheBytes / header_.cluster_size()) / 2;
  const auto dirty = [this]() REQUIRES(mutex_) {
    return std::ranges::count_if(recent_, [](const TableRef& table) { return table->dirty; });
  };
  if (recent_.size() >= tables && static_cast<size_t>(dirty()) >= tables) TRY(commit());
  while (released_.size() + unnamed_.size() + waiting_.size() > kReleaseLimit) {
    TRY(commit());
    if (in_flight_[epoch_ ^ 1] == 0) continue;
    if (!operation_ended_.wait_for(mutex_, kPatience)) return std::unexpected(Status::kIoError);
  }
  return {};
}

}  // namespace bulkhead::block::qcow2
