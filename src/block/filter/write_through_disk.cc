#include "block/filter/write_through_disk.h"

namespace bulkhead::block {

void WriteThroughDisk::submit(Request request) {
  const Operation operation = request.operation();
  if (operation == Operation::kRead || operation == Operation::kFlush) return below_->submit(std::move(request));
  const uint64_t offset = request.offset(), size = request.size();
  const Unmap unmap = request.unmap();
  std::vector<MutableByteSpan> buffers = request.buffers();
  auto then_flush = [this, held = std::move(request)](Status status) mutable {
    if (status != Status::kOk) return held.complete(status);
    below_->submit(Request::flush([held = std::move(held)](Status flushed) mutable { held.complete(flushed); }));
  };
  switch (operation) {
    case Operation::kWrite:
      return below_->submit(Request::write(offset, std::move(buffers), std::move(then_flush)));
    case Operation::kDiscard:
      return below_->submit(Request::discard(offset, size, std::move(then_flush)));
    default:
      return below_->submit(Request::write_zeroes(offset, size, unmap, std::move(then_flush)));
  }
}

}  // namespace bulkhead::block
