// Writing guest bytes: in place where the cluster is ours alone, else into new clusters that tables name afterwards.
#include <algorithm>

#include "block/format/big_endian.h"
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);

}  // namespace

// Afterwards the L2 table is likely in memory and nobody is giving the cluster a new place.
Outcome<> Qcow2Image::settle(uint64_t guest) {
  TRY(keep_bounds());
  for (;;) {
    TRY(fetch_l2(guest));
    if (!busy_.contains(guest >> header_.cluster_bits)) return {};
    if (!operation_ended_.wait_for(mutex_, kPatience)) return std::unexpected(Status::kIoError);
  }
}

Outcome<Qcow2Image::Plan> Qcow2Image::plan_write(uint64_t guest, uint64_t size) {
  const uint64_t bits = header_.cluster_bits, cluster = header_.cluster_size(), within = guest & (cluster - 1);
  const TableRef l2 = TRY(l2_to_write(guest));
  const uint64_t first = l2_index(guest), room = header_.l2_entries() - first;
  const auto entry_at = [&](uint64_t i) { return load64(&l2->bytes[(first + i) * 8]); };
  Plan plan{.size = std::min(size, cluster - within), .old_entry = entry_at(0)};
  const uint64_t host = plan.old_entry & kOffsetMask;
  if ((plan.old_entry & kCompressed) == 0 && kind_of(plan.old_entry) == ExtentKind::kData) TRY(check_host(host));
  if (in_place(plan.old_entry)) {
    plan.place = host + within;
    for (uint64_t i = 1; i < room && plan.size < size; ++i) {
      const uint64_t next = entry_at(i);
      if (!in_place(next) || (next & kOffsetMask) != host + i * cluster || !may_be_data(host + i * cluster)) break;
      plan.size += std::min(size - plan.size, cluster);
    }
  } else {
    const uint64_t most = std::max<uint64_t>(1, std::min({size >> bits, kRunBytes >> bits, room}));
    uint64_t wanted = 1;
    while (plan.size == cluster && wanted < most && !in_place(entry_at(wanted)) &&
           !busy_.contains((guest >> bits) + wanted)) {
      ++wanted;
    }
    plan.fresh = TRY(allocate(wanted));
    if (plan.fresh.count > 1) plan.size = plan.fresh.count << bits;
    for (uint64_t i = 0; i < plan.fresh.count; ++i) busy_.insert((guest >> bits) + i);
  }
  begin_operation(plan.epoch);
  return plan;
}

Outcome<uint64_t> Qcow2Image::write_some(uint64_t guest, ByteSpan bytes) {
  Plan plan;
  {
    const LockGuard lock(mutex_);
    TRY(settle(guest));
    plan = TRY(plan_write(guest, bytes.size()));
  }
  bytes = bytes.first(plan.size);
  Outcome<> outcome = plan.fresh.count == 0 ? done(data().write(plan.place, bytes)) : write_fresh(guest, bytes, plan);
  const LockGuard lock(mutex_);
  if (plan.fresh.count != 0) {
    if (outcome) outcome = link(guest, plan.fresh);
    if (!outcome) give_back(plan.fresh);
    for (uint64_t i = 0; i < plan.fresh.count; ++i) busy_.erase((guest >> header_.cluster_bits) + i);
    operation_ended_.notify_all();
  }
  end_operation(plan.epoch);
  if (!outcome) return std::unexpected(outcome.error());
  return plan.size;
}

Outcome<> Qcow2Image::write_fresh(uint64_t guest, ByteSpan bytes, const Plan& plan) {
  const uint64_t within = guest & (header_.cluster_size() - 1);
  const uint64_t host = plan.fresh.first << header_.cluster_bits;
  if (bytes.size() == plan.fresh.count << header_.cluster_bits) return done(data().write(host, bytes));
  std::vector<uint8_t> cluster(header_.cluster_size());
  // The guest's last cluster may reach beyond the disk.
  const uint64_t start = guest - within;
  const uint64_t used = std::min<uint64_t>(cluster.size(), geometry_.size - start);
  TRY(read_entry(plan.old_entry, start, MutableByteSpan(cluster).first(used)));
  std::memcpy(cluster.data() + within, bytes.data(), bytes.size());
  return done(data().write(host, cluster));
}

Outcome<> Qcow2Image::link(uint64_t guest, const ClusterRange& clusters) {
  const TableRef l2 = TRY(l2_to_write(guest));
  for (uint64_t i = 0; i < clusters.count; ++i) {
    uint8_t* const slot = &l2->bytes[(l2_index(guest) + i) * 8];
    const uint64_t old = load64(slot);
    store64(slot, ((clusters.first + i) << header_.cluster_bits) | kCopied);
    release(old);
  }
  l2->dirty = true;
  return {};
}

Outcome<> Qcow2Image::zero_piece(uint64_t guest, uint64_t size, bool discard) {
  const uint64_t within = guest & (header_.cluster_size() - 1);
  const bool whole = within == 0 && (size == header_.cluster_size() || guest + size == geometry_.size);
  if (discard && (!whole || (header_.version == 2 && backing_))) return {};
  if (!whole || (header_.version == 2 && backing_)) {
    const std::vector<uint8_t> zeroes(size);
    const Status status = write(guest, zeroes);
    return done(status);
  }
  const LockGuard lock(mutex_);
  TRY(settle(guest));
  const TableRef there = TRY(l2_to_read(guest));
  if (!there && !backing_) return {};
  const uint64_t wanted = header_.version == 3 && backing_ ? kZeroFlag : 0;
  if (there) {
    const uint64_t old = load64(&there->bytes[l2_index(guest) * 8]);
    if (old == wanted || (!backing_ && old == kZeroFlag)) return {};
  }
  const TableRef l2 = TRY(l2_to_write(guest));
  uint8_t* const slot = &l2->bytes[l2_index(guest) * 8];
  const uint64_t old = load64(slot);
  store64(slot, wanted);
  l2->dirty = true;
  release(old);
  return {};
}

}  // namespace bulkhead::block::qcow2
