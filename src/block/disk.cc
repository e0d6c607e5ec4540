#include "block/disk.h"

namespace bulkhead::block {

Status check_against(const Geometry& geometry, const Request& request) {
  if (request.operation() == Operation::kFlush) return Status::kOk;
  if (geometry.read_only && request.operation() != Operation::kRead) return Status::kReadOnly;
  const bool aligned = ((request.offset() | request.size()) & (geometry.sector_size - 1)) == 0;
  if (!aligned || !range_fits(request.offset(), request.size(), geometry.size)) return Status::kOutOfRange;
  return Status::kOk;
}

}  // namespace bulkhead::block
