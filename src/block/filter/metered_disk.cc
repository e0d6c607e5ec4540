#include "block/filter/metered_disk.h"

namespace bulkhead::block {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

size_t index_of(Operation operation) {
  return static_cast<size_t>(operation);
}

}  // namespace

void MeteredDisk::submit(Request request) {
  requests_[index_of(request.operation())].fetch_add(1, kRelaxed);
  const uint64_t began = now_ == nullptr ? 0 : now_();
  request.observe([this, operation = request.operation(), size = request.size(), began](Status status) {
    answered(operation, size, began, status);
  });
  below_->submit(std::move(request));
}

void MeteredDisk::answered(Operation operation, uint64_t size, uint64_t began_ns, Status status) {
  if (status == Status::kOk)
    bytes_[index_of(operation)].fetch_add(size, kRelaxed);
  else
    (status == Status::kRetry ? put_off_ : errors_).fetch_add(1, kRelaxed);
  if (now_ != nullptr && status != Status::kRetry) latency_[index_of(operation)].record(now_() - began_ns);
  answered_.fetch_add(1, kRelaxed);
}

MeteredDisk::Counts MeteredDisk::counts() const {
  Counts counts;
  const uint64_t answered = answered_.load(kRelaxed);
  uint64_t requests = 0;
  for (size_t i = 0; i < kOperations; ++i) {
    counts.requests[i] = requests_[i].load(kRelaxed);
    counts.bytes[i] = bytes_[i].load(kRelaxed);
    counts.latency[i] = latency_[i].summary();
    requests += counts.requests[i];
  }
  counts.errors = errors_.load(kRelaxed);
  counts.put_off = put_off_.load(kRelaxed);
  counts.in_flight = requests > answered ? requests - answered : 0;
  return counts;
}

}  // namespace bulkhead::block
