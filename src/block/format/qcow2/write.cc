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
  Plan plan{.size = std::min(size, cluster - within), .old = leaf_at(l2->bytes, first)};
  TRY(check_leaf(plan.old, guest));
  const uint64_t units = units_of(guest, plan.size), host = plan.old.host();
  plan.next = plan.old;
  if (owns_host(plan.old) && (plan.old.bits & units) == units) {
    plan.place = host + within;
    for (uint64_t i = 1; i < room && plan.size < size; ++i) {
      const Leaf next = leaf_at(l2->bytes, first + i);
      const uint64_t part = std::min(size - plan.size, cluster), wanted = units_of(0, part);
      if (!owns_host(next) || (next.bits & wanted) != wanted || next.host() != host + i * cluster) break;
      if (fault_of(next) != nullptr || (!header_.external() && !may_be_data(next.host()))) break;
      plan.size += part;
    }
  } else {
    const uint64_t most = std::max<uint64_t>(1, std::min({size >> bits, kRunBytes >> bits, room}));
    uint64_t wanted = 1;
    plan.own = owns_host(plan.old);
    while (!plan.own && plan.size == cluster && wanted < most && !owns_host(leaf_at(l2->bytes, first + wanted)) &&
           !busy_.contains((guest >> bits) + wanted)) {
      ++wanted;
    }
    if (plan.own) {
      plan.fresh = {host >> bits, 1};
    } else {
      plan.fresh = header_.external() ? ClusterRange{guest >> bits, wanted} : TRY(allocate(wanted));
    }
    // What was elsewhere comes along.
    const uint64_t along = plan.old.compressed() ? Leaf::kAllData : plan.old.bits & Leaf::kAllData;
    plan.next.entry = plan.fresh.first << bits | kCopied;
    plan.next.bits = (plan.old.bits & ~(units << 32)) | units | along;
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
    if (outcome) outcome = link(guest, plan);
    if (!outcome && !plan.own && !header_.external()) give_back(plan.fresh);
    for (uint64_t i = 0; i < plan.fresh.count; ++i) busy_.erase((guest >> header_.cluster_bits) + i);
    operation_ended_.notify_all();
  }
  end_operation(plan.epoch);
  if (!outcome) return std::unexpected(outcome.error());
  return plan.size;
}

Outcome<> Qcow2Image::write_fresh(uint64_t guest, ByteSpan bytes, const Plan& plan) {
  const uint64_t cluster = header_.cluster_size(), unit = header_.unit_size(), within = guest & (cluster - 1);
  if (bytes.size() == plan.fresh.count << header_.cluster_bits) {
    return done(data().write(plan.fresh.first << header_.cluster_bits, bytes));
  }
  const uint64_t end = within + bytes.size();
  if (plan.own) {
    // Subclusters that are in use may be written by others just now, so of those the guest's bytes alone.
    const auto in_use = [&](uint64_t at) { return (plan.old.bits >> at / unit & 1) != 0; };
    return write_part(guest, bytes, plan, in_use(within) ? within : align_down(within, unit),
                      in_use(end - 1) ? end : align_up(end, unit));
  }
  for (uint64_t from = 0, to = 0; from < cluster; from = to) {
    const auto data_at = [&](uint64_t at) { return (plan.next.bits >> at / unit & 1) != 0; };
    to = from + unit;
    while (to < cluster && data_at(to) == data_at(from)) to += unit;
    if (data_at(from)) TRY(write_part(guest, bytes, plan, from, to));
  }
  return {};
}

Outcome<> Qcow2Image::write_part(uint64_t guest, ByteSpan bytes, const Plan& plan, uint64_t from, uint64_t to) {
  const uint64_t within = guest & (header_.cluster_size() - 1), start = guest - within;
  std::vector<uint8_t> part(to - from);
  // The guest's last cluster may reach beyond the disk.
  const uint64_t used = std::min(to, geometry_.size - start);
  if (header_.raw_data()) part.resize(used > from ? used - from : 0);
  for (uint64_t at = from, run = 0; at < used; at += run) {
    run = std::min(used - at, run_of(plan.old, start + at));
    TRY(read_leaf(plan.old, start + at, MutableByteSpan(part).subspan(at - from, run)));
  }
  const uint64_t first = std::max(from, within), last = std::min(to, within + bytes.size());
  if (first < last) std::memcpy(&part[first - from], &bytes[first - within], last - first);
  return done(data().write((plan.fresh.first << header_.cluster_bits) + from, part));
}

Outcome<> Qcow2Image::link(uint64_t guest, const Plan& plan) {
  const TableRef l2 = TRY(l2_to_write(guest));
  Leaf next = plan.next;
  for (uint64_t i = 0; i < plan.fresh.count; ++i) {
    const Leaf old = leaf_at(l2->bytes, l2_index(guest) + i);
    next.entry = (plan.fresh.first + i) << header_.cluster_bits | kCopied;
    if (i != 0) next.bits = Leaf::kAllData;
    set_leaf(*l2, l2_index(guest) + i, next);
    if (!plan.own) release(old);
  }
  return {};
}

}  // namespace bulkhead::block::qcow2
