#include "block/filter/error_policy_disk.h"

#include <fmt/format.h>

namespace bulkhead::block {

void ErrorPolicyDisk::submit(Request request) {
  if (policy_ == OnError::kReport) return below_->submit(std::move(request));
  request.judge([this, what = What{request.operation(), request.offset(), request.size()}](Status status) {
    return judge(what, status);
  });
  below_->submit(std::move(request));
}

Status ErrorPolicyDisk::judge(const What& what, Status status) {
  const bool full = status == Status::kNoSpace;
  const bool failed = status == Status::kIoError || status == Status::kLost;
  if (!full && !(failed && policy_ == OnError::kPause)) return status;
  // A repeated flush cannot succeed: the user hears of it once, and the guest is told the truth.
  if (status == Status::kLost && loss_told_.exchange(true)) return status;
  on_pause_(what.operation == Operation::kFlush
                ? fmt::format("disk '{}': flush: {}", name_, to_string(status))
                : fmt::format("disk '{}': {} of {} bytes at byte {}: {}", name_, to_string(what.operation), what.size,
                              what.offset, to_string(status)));
  return status == Status::kLost ? status : Status::kRetry;
}

}  // namespace bulkhead::block
