#include "block/format/unit/unit_image.h"

#include <algorithm>
#include <chrono>

namespace bulkhead::block {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);

}  // namespace

UnitImage::UnitImage(std::unique_ptr<Store> store, uint64_t size, uint64_t unit_size, Access access)
    : store_(std::move(store)),
      unit_size_(unit_size),
      geometry_{.size = align_up(size, 512), .physical_block_size = 4096, .read_only = access == Access::kReadOnly},
      tables_(*store_) {}

Outcome<> UnitImage::corrupt(std::string_view what, uint64_t at, uint64_t value) {
  if (error_limit_.allow()) log::error("image '{}': {} at {:#x}: {:#x}", store_->name(), what, at, value);
  return std::unexpected(Status::kIoError);
}

// Reading.

Outcome<> UnitImage::read_backing(uint64_t guest, MutableByteSpan bytes) {
  const uint64_t at = guest + backing_offset_, below = backing_ != nullptr ? backing_->geometry().size : 0;
  const uint64_t there = at < below ? std::min<uint64_t>(bytes.size(), below - at) : 0;
  std::ranges::fill(bytes.subspan(there), uint8_t{0});
  if (there == 0) return {};
  return done(backing_->read(at, bytes.first(there)));
}

Outcome<> UnitImage::read_special(const Unit& unit, uint64_t guest, MutableByteSpan) {
  return corrupt("a kind of unit that this format does not have", guest, unit.place);
}

Outcome<> UnitImage::read_unit(const Unit& unit, uint64_t guest, MutableByteSpan bytes) {
  switch (unit.kind) {
    case UnitKind::kAbsent:
      return read_backing(guest, bytes);
    case UnitKind::kZero:
      std::ranges::fill(bytes, uint8_t{0});
      return {};
    case UnitKind::kData:
      return done(store_->read(unit.place + guest % unit_size_, bytes));
    case UnitKind::kPartial:
    case UnitKind::kPacked:
      break;
  }
  return read_special(unit, guest, bytes);
}

// The unit of a guest's byte, and how much from there on is the same kind and lies together.
Outcome<UnitImage::Piece> UnitImage::find(uint64_t guest, uint64_t size) {
  const uint64_t first = guest / unit_size_, within = guest % unit_size_;
  Piece piece{TRY(find_unit(first)), 0};
  const UnitKind kind = piece.unit.kind;
  uint64_t units = std::max<uint64_t>(1, piece.unit.count);
  if (kind == UnitKind::kData || kind == UnitKind::kPartial) {
    if (!may_be_data(piece.unit.place)) TRY(corrupt("unit lies where none may", guest, piece.unit.place));
  }
  const bool grows = kind != UnitKind::kPartial && kind != UnitKind::kPacked;
  while (grows && units * unit_size_ - within < size) {
    const Unit next = TRY(find_unit(first + units));
    if (next.kind != kind) break;
    if (kind == UnitKind::kData && next.place != piece.unit.place + units * unit_size_) break;
    if (kind == UnitKind::kData && !may_be_data(next.place)) break;
    units += std::max<uint64_t>(1, next.count);
  }
  piece.size = std::min(size, units * unit_size_ - within);
  return piece;
}

Outcome<uint64_t> UnitImage::read_some(uint64_t guest, MutableByteSpan bytes) {
  Piece piece;
  {
    const LockGuard lock(mutex_);
    piece = TRY(find(guest, bytes.size()));
  }
  TRY(read_unit(piece.unit, guest, bytes.first(piece.size)));
  return piece.size;
}

Status UnitImage::read(uint64_t offset, MutableByteSpan bytes) {
  while (!bytes.empty()) {
    const Outcome<uint64_t> size = read_some(offset, bytes);
    if (!size) return size.error();
    offset += *size;
    bytes = bytes.subspan(*size);
  }
  return Status::kOk;
}

Result<Extent> UnitImage::map(uint64_t offset) {
  // However long a run is, the lock is given up after so many units, and who asks for each small part of it in turn
  // does not have all of it walked through each time.
  constexpr uint64_t kMostUnits = 1024;
  const LockGuard lock(mutex_);
  const uint64_t first = offset / unit_size_, end = unit_count();
  const auto kind_of = [](const Unit& unit) {
    if (unit.kind == UnitKind::kAbsent) return ExtentKind::kAbsent;
    return unit.kind == UnitKind::kZero ? ExtentKind::kZero : ExtentKind::kData;
  };
  Extent extent;
  uint64_t unit = first;
  while (unit < end && unit - first < kMostUnits) {
    const auto found = find_unit(unit);
    if (!found) return fail("map '{}': the table for byte {} cannot be read", store_->name(), unit * unit_size_);
    if (unit == first) extent.kind = kind_of(*found);
    if (kind_of(*found) != extent.kind) break;
    unit += std::max<uint64_t>(1, found->count);
  }
  extent.size = std::min(unit * unit_size_, geometry_.size) - offset;
  return extent;
}

// Writing.

Outcome<> UnitImage::settle(uint64_t unit) {
  if (geometry_.read_only) return std::unexpected(Status::kReadOnly);
  if (!begun_) {
    TRY(begin_writing());
    begun_ = true;
  }
  if (tables_.crowded()) TRY(commit());
  while (busy_.contains(unit)) {
    if (!busy_ended_.wait_for(mutex_, kPatience)) return std::unexpected(Status::kIoError);
  }
  return {};
}

Outcome<UnitImage::Place> UnitImage::take_place() {
  if (spare_.empty()) return allocate();
  const Place place{.offset = spare_.back()};
  spare_.pop_back();
  return place;
}

Outcome<UnitImage::Plan> UnitImage::plan_fresh(uint64_t guest, uint64_t size, const Unit& old) {
  const uint64_t first = guest / unit_size_, within = guest % unit_size_;
  Plan plan{.size = std::min(size, unit_size_ - within), .fresh = 1, .old = old};
  if (old.kind == UnitKind::kPartial) {
    plan.place = old.place + within;
    busy_.insert(first);
    return plan;
  }
  const Place place = TRY(take_place());
  plan.place = place.offset + within;
  plan.clean = place.clean;
  busy_.insert(first);
  // Whole units that follow are written along when they get places that follow.
  while (within == 0 && spare_.empty() && (plan.fresh + 1) * unit_size_ <= std::min(size, kPieceBytes)) {
    const uint64_t unit = first + plan.fresh;
    const auto next = find_unit(unit);
    if (!next || (next->kind != UnitKind::kAbsent && next->kind != UnitKind::kZero) || busy_.contains(unit)) break;
    const auto more = allocate();
    if (!more) break;
    if (more->offset != place.offset + plan.fresh * unit_size_) {
      spare_.push_back(more->offset);
      break;
    }
    busy_.insert(unit);
    ++plan.fresh;
    plan.size = plan.fresh * unit_size_;
  }
  return plan;
}

Outcome<UnitImage::Plan> UnitImage::plan_write(uint64_t guest, uint64_t size) {
  const Piece piece = TRY(find(guest, size));
  if (piece.unit.kind != UnitKind::kData) return plan_fresh(guest, size, piece.unit);
  return Plan{.place = piece.unit.place + guest % unit_size_, .size = piece.size};
}

// Beside what is written, the old contents go to the new place.
Outcome<> UnitImage::make_whole(uint64_t guest, ByteSpan bytes, const Plan& plan) {
  const uint64_t start = align_down(guest, unit_size_), place = plan.place - (guest - start);
  std::vector<uint8_t> piece(std::min(unit_size_, kPieceBytes));
  for (uint64_t at = 0; at < unit_size_; at += piece.size()) {
    // The last unit may reach beyond the disk.
    const uint64_t left = geometry_.size > start + at ? geometry_.size - start - at : 0;
    const uint64_t used = std::min<uint64_t>(piece.size(), left);
    std::ranges::fill(MutableByteSpan(piece).subspan(used), uint8_t{0});
    if (used != 0) TRY(read_unit(plan.old, start + at, MutableByteSpan(piece).first(used)));
    const uint64_t from = std::max(guest, start + at), to = std::min(guest + bytes.size(), start + at + piece.size());
    if (from < to) std::memcpy(&piece[from - start - at], &bytes[from - guest], to - from);
    TRY(done(store_->write(place + at, piece)));
  }
  return {};
}

Outcome<> UnitImage::write_fresh(uint64_t guest, ByteSpan bytes, const Plan& plan) {
  if (plan.old.kind != UnitKind::kPartial) TRY(prepare(plan.place - guest % unit_size_));
  const bool zero_below =
      plan.old.kind == UnitKind::kZero || (plan.old.kind == UnitKind::kAbsent && backing_ == nullptr);
  if (bytes.size() == plan.fresh * unit_size_ || (plan.clean && zero_below)) {
    return done(store_->write(plan.place, bytes));
  }
  return make_whole(guest, bytes, plan);
}

Outcome<uint64_t> UnitImage::write_some(uint64_t guest, ByteSpan bytes) {
  Plan plan;
  {
    const LockGuard lock(mutex_);
    TRY(settle(guest / unit_size_));
    plan = TRY(plan_write(guest, bytes.size()));
  }
  bytes = bytes.first(plan.size);
  if (plan.fresh == 0) {
    TRY(done(store_->write(plan.place, bytes)));
    return plan.size;
  }
  Outcome<> outcome = write_fresh(guest, bytes, plan);
  const LockGuard lock(mutex_);
  const uint64_t first = guest / unit_size_, place = plan.place - guest % unit_size_;
  for (uint64_t i = 0; i < plan.fresh; ++i) {
    if (outcome) outcome = link(first + i, place + i * unit_size_);
    if (!outcome && plan.old.kind != UnitKind::kPartial) spare_.push_back(place + i * unit_size_);
    busy_.erase(first + i);
  }
  busy_ended_.notify_all();
  if (!outcome) return std::unexpected(outcome.error());
  return plan.size;
}

Status UnitImage::write(uint64_t offset, ByteSpan bytes) {
  while (!bytes.empty()) {
    const Outcome<uint64_t> size = write_some(offset, bytes);
    if (!size) return size.error();
    offset += *size;
    bytes = bytes.subspan(*size);
  }
  return Status::kOk;
}

Outcome<uint64_t> UnitImage::zero_some(uint64_t guest, uint64_t size, Zeroing how) {
  Piece piece;
  {
    const LockGuard lock(mutex_);
    TRY(settle(guest / unit_size_));
    piece = TRY(find(guest, size));
    const bool absent = piece.unit.kind == UnitKind::kAbsent;
    if (piece.unit.kind == UnitKind::kZero) return piece.size;
    if (absent && (backing_ == nullptr || how == Zeroing::kHint)) return piece.size;
    if (piece.unit.kind == UnitKind::kPartial && how == Zeroing::kHint) return piece.size;
    if (piece.unit.kind != UnitKind::kData) piece.size = std::min(piece.size, unit_size_ - guest % unit_size_);
    const bool whole = piece.size == unit_size_ || guest % unit_size_ + piece.size == geometry_.size % unit_size_;
    if (absent && whole && guest % unit_size_ == 0) {
      const Outcome<> linked = link_zero(guest / unit_size_);
      if (linked) return piece.size;
      if (linked.error() != Status::kUnsupported) return std::unexpected(linked.error());
    }
  }
  if (piece.unit.kind == UnitKind::kData && how != Zeroing::kWrite) {
    const Status status = store_->punch(piece.unit.place + guest % unit_size_, piece.size);
    if (status == Status::kOk || how == Zeroing::kHint) return piece.size;
    if (status != Status::kUnsupported) return std::unexpected(status);
  }
  piece.size = std::min<uint64_t>(piece.size, kPieceBytes);
  const std::vector<uint8_t> zeroes(piece.size);
  TRY(done(write(guest, zeroes)));
  return piece.size;
}

Status UnitImage::zero(uint64_t offset, uint64_t size, Zeroing how) {
  while (size != 0) {
    const Outcome<uint64_t> part = zero_some(offset, size, how);
    if (!part) return part.error();
    offset += *part;
    size -= *part;
  }
  return Status::kOk;
}

Status UnitImage::write_zeroes(uint64_t offset, uint64_t size, Unmap unmap) {
  return zero(offset, size, unmap == Unmap::kYes ? Zeroing::kUnmap : Zeroing::kWrite);
}

Status UnitImage::discard(uint64_t offset, uint64_t size) {
  return zero(offset, size, Zeroing::kHint);
}

Result<> UnitImage::check_nothing_below(uint64_t new_size) const {
  const uint64_t below = backing_ != nullptr ? backing_->geometry().size : 0, old_size = geometry_.size;
  if (std::min(below - std::min(below, backing_offset_), new_size) <= old_size) return {};
  return fail(
      "resize '{}': its backing file has {} bytes, the disk {}: what is behind them would show; flatten it first",
      store_->name(), below, old_size);
}

Result<> UnitImage::fill_partial_units() {
  std::vector<uint8_t> sector(geometry_.sector_size);
  for (uint64_t unit = 0; unit < unit_count(); ++unit) {
    const uint64_t at = unit * unit_size_;
    {
      const LockGuard lock(mutex_);
      const auto found = find_unit(unit);
      if (found && found->kind != UnitKind::kPartial) continue;
    }
    // Whatever is written to such a unit makes it whole.
    Status status = read(at, sector);
    if (status == Status::kOk) status = write(at, sector);
    if (status != Status::kOk) return fail("rebase '{}': byte {}: {}", store_->name(), at, to_string(status));
  }
  if (flush() != Status::kOk) return fail("rebase '{}': flush", store_->name());
  return {};
}

// Tables to the disk.

Outcome<> UnitImage::write_tables(const std::vector<TableSectors::Run>& runs) {
  for (const TableSectors::Run& run : runs) TRY(done(store_->write(run.offset, run.bytes)));
  return {};
}

Outcome<> UnitImage::commit() {
  const uint64_t ticket = ++commits_asked_;
  while (committing_) commit_ended_.wait_for(mutex_, kPatience);
  if (commits_done_ >= ticket) return {};
  committing_ = true;
  const uint64_t covered = commits_asked_;
  const std::vector<TableSectors::Run> runs = tables_.take();
  mutex_.unlock();
  const auto write_all = [&]() -> Outcome<> {
    TRY(done(store_->flush()));
    if (runs.empty()) return {};
    TRY(write_tables(runs));
    return done(store_->flush());
  };
  const Outcome<> outcome = write_all();
  mutex_.lock();
  tables_.finish(runs, outcome.has_value());
  if (outcome) commits_done_ = covered;
  committing_ = false;
  commit_ended_.notify_all();
  return outcome;
}

Status UnitImage::flush() {
  if (geometry_.read_only) return Status::kOk;
  const LockGuard lock(mutex_);
  const Outcome<> outcome = commit();
  return outcome ? Status::kOk : outcome.error();
}

void UnitImage::close() {
  // Nobody is left to be told of an error; what was flushed is safe.
  (void)flush();
}

}  // namespace bulkhead::block
