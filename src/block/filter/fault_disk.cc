#include "block/filter/fault_disk.h"

#include <algorithm>

#include "support/bytes.h"

namespace bulkhead::block {
namespace {

// Neighbouring numbers give unrelated sequences (the multiplier of a linear congruential generator).
uint64_t seed_of(uint64_t seed, uint64_t number) {
  return seed ^ ((number + 1) * 0xD1342543DE82EF95);
}

bool touches(const std::vector<DiskFaults::Range>& ranges, const Request& request) {
  return std::ranges::any_of(ranges, [&](const DiskFaults::Range& range) {
    return request.offset() < range.offset + range.size && range.offset < request.offset() + request.size();
  });
}

// The first so many bytes of them.
std::vector<MutableByteSpan> first_of(const std::vector<MutableByteSpan>& buffers, uint64_t size) {
  std::vector<MutableByteSpan> first;
  for (const MutableByteSpan& buffer : buffers) {
    if (size == 0) break;
    first.push_back(buffer.first(std::min<uint64_t>(size, buffer.size())));
    size -= first.back().size();
  }
  return first;
}

}  // namespace

Result<> check_faults(const DiskFaults& faults) {
  if (faults.delay_ns > DiskFaults::kMostDelay_ns || faults.jitter_ns > DiskFaults::kMostDelay_ns) {
    return fail("delay and jitter: at most {} s", DiskFaults::kMostDelay_ns / 1'000'000'000);
  }
  const uint64_t of_writes =
      uint64_t{faults.write_error} + faults.no_space + faults.torn + faults.torn_silent + faults.misdirected;
  if (of_writes > DiskFaults::kAlways) {
    return fail("write-error, no-space, torn, torn-silent and misdirected together: more than 100% of the writes");
  }
  if (faults.read_error > DiskFaults::kAlways) return fail("read-error: more than 100%");
  if (faults.flush_error > DiskFaults::kAlways) return fail("flush-error: more than 100%");
  for (const auto* ranges : {&faults.bad, &faults.full}) {
    if (ranges->size() > DiskFaults::kMostRanges) return fail("more than {} ranges of a kind", DiskFaults::kMostRanges);
    for (const DiskFaults::Range& range : *ranges) {
      if (range.size == 0 || range.offset + range.size < range.offset) {
        return fail("no range: {}+{}", range.offset, range.size);
      }
    }
  }
  return {};
}

FaultDisk::FaultDisk(std::unique_ptr<Disk> below, std::string name, DiskFaults faults, Clock* clock, Count count)
    : name_(std::move(name)),
      faults_(std::move(faults)),
      clock_(clock),
      count_(std::move(count)),
      below_(std::move(below)) {
  if (faults_.takes_time()) {
    CHECK(clock_ != nullptr, "a delay needs a clock");
    timer_ = clock_->make_timer("disk faults", [this] { on_timer(); });
  }
}

FaultDisk::~FaultDisk() {
  timer_.reset();
  let_go();
}

void FaultDisk::hurry() {
  {
    const LockGuard lock(mutex_);
    hurried_ = true;
  }
  let_go();
  block::hurry(*below_);
}

void FaultDisk::let_go() {
  std::multimap<uint64_t, Waiting> waiting;
  {
    const LockGuard lock(mutex_);
    waiting.swap(waiting_);
  }
  for (auto& [when, one] : waiting) carry_out(std::move(one.request), one.fault, one.random);
}

void FaultDisk::submit(Request request) {
  SeededRandom random(seed_of(faults_.seed, count_->fetch_add(1, std::memory_order_relaxed)));
  const Fault fault = choose(request, random);
  if (!faults_.takes_time()) return carry_out(std::move(request), fault, random);
  const uint64_t jitter = faults_.jitter_ns == 0 ? 0 : random.below(faults_.jitter_ns + 1);
  const uint64_t when = clock_->now_ns() + faults_.delay_ns + jitter;
  {
    const LockGuard lock(mutex_);
    if (!hurried_) {
      if (waiting_.empty() || when < waiting_.begin()->first) timer_->arm(when);
      waiting_.emplace(when, Waiting{std::move(request), fault, random});
      return;
    }
  }
  carry_out(std::move(request), fault, random);
}

void FaultDisk::on_timer() {
  mutex_.lock();
  while (!waiting_.empty()) {
    const uint64_t when = waiting_.begin()->first;
    if (when > clock_->now_ns()) {
      timer_->arm(when);
      break;
    }
    auto node = waiting_.extract(waiting_.begin());
    mutex_.unlock();
    carry_out(std::move(node.mapped().request), node.mapped().fault, node.mapped().random);
    mutex_.lock();
  }
  mutex_.unlock();
}

FaultDisk::Fault FaultDisk::choose(const Request& request, SeededRandom& random) {
  // Drawn for every request, so that what happens to one depends on no setting that is not of its kind.
  uint64_t drawn = random.below(DiskFaults::kAlways);
  const auto happens = [&drawn](uint32_t share) {
    const bool it_does = drawn < share;
    drawn -= it_does ? 0 : share;
    return it_does;
  };
  // What the disk refuses anyway, it refuses.
  if (check_against(geometry(), request) != Status::kOk) return Fault::kNone;
  switch (request.operation()) {
    case Operation::kFlush:
      if (is_lost_.load(std::memory_order_relaxed) || happens(faults_.flush_error)) return Fault::kLost;
      return Fault::kNone;
    case Operation::kRead:
      return touches(faults_.bad, request) || happens(faults_.read_error) ? Fault::kError : Fault::kNone;
    case Operation::kDiscard:
      return touches(faults_.bad, request) || happens(faults_.write_error) ? Fault::kError : Fault::kNone;
    case Operation::kWrite:
    case Operation::kWriteZeroes:
      break;
  }
  if (touches(faults_.bad, request) || happens(faults_.write_error)) return Fault::kError;
  if (touches(faults_.full, request) || happens(faults_.no_space)) return Fault::kNoSpace;
  if (request.operation() != Operation::kWrite) return Fault::kNone;
  if (happens(faults_.torn)) return Fault::kTorn;
  if (happens(faults_.torn_silent)) return Fault::kTornSilent;
  if (happens(faults_.misdirected)) return Fault::kMisdirected;
  return Fault::kNone;
}

void FaultDisk::carry_out(Request request, Fault fault, SeededRandom random) {
  switch (fault) {
    case Fault::kNone:
      return below_->submit(std::move(request));
    case Fault::kError:
      say(request, "fails");
      return request.complete(Status::kIoError);
    case Fault::kNoSpace:
      say(request, "finds no space");
      return request.complete(Status::kNoSpace);
    case Fault::kLost:
      is_lost_.store(true, std::memory_order_relaxed);
      say(request, "fails");
      return request.complete(Status::kLost);
    case Fault::kTorn:
    case Fault::kTornSilent:
      return tear(std::move(request), fault, random);
    case Fault::kMisdirected:
      return misdirect(std::move(request), random);
  }
}

void FaultDisk::tear(Request request, Fault fault, SeededRandom& random) {
  const uint64_t sector = geometry().sector_size;
  const uint64_t kept = random.below(std::max<uint64_t>(request.size() / sector, 1)) * sector;
  say(request, fmt::format("is torn after {} bytes{}", kept, fault == Fault::kTornSilent ? ", silently" : ""));
  const Status answer = fault == Fault::kTornSilent ? Status::kOk : Status::kIoError;
  if (kept == 0) return request.complete(answer);
  const uint64_t offset = request.offset();
  std::vector<MutableByteSpan> buffers = first_of(request.buffers(), kept);
  below_->submit(
      Request::write(offset, std::move(buffers), [request = std::move(request), answer](Status status) mutable {
        request.complete(status == Status::kOk ? answer : status);
      }));
}

void FaultDisk::misdirect(Request request, SeededRandom& random) {
  const Geometry geometry = this->geometry();
  // It has become smaller while the request waited: the disk refuses it.
  if (check_against(geometry, request) != Status::kOk) return below_->submit(std::move(request));
  const uint64_t sector = geometry.sector_size;
  // Where it may begin; it is never the place that was meant, unless the disk has no other.
  const uint64_t places = (geometry.size - request.size()) / sector + 1;
  const uint64_t meant = request.offset() / sector;
  uint64_t place = places == 1 ? 0 : random.below(places - 1);
  if (places != 1 && place >= meant) ++place;
  say(request, fmt::format("lands at byte {}, silently", place * sector));
  std::vector<MutableByteSpan> buffers = request.buffers();
  below_->submit(Request::write(place * sector, std::move(buffers),
                                [request = std::move(request)](Status status) mutable { request.complete(status); }));
}

void FaultDisk::say(const Request& request, std::string_view what) {
  if (!log_limit_.allow()) return;
  if (request.operation() == Operation::kFlush) {
    log::warning("disk '{}': fault on purpose {}: flush {}", name_, log_limit_.count(), what);
  } else {
    log::warning("disk '{}': fault on purpose {}: {} of {} bytes at byte {} {}", name_, log_limit_.count(),
                 to_string(request.operation()), request.size(), request.offset(), what);
  }
}

}  // namespace bulkhead::block
