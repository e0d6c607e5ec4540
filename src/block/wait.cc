#include "block/wait.h"

#include <future>
#include <memory>

namespace bulkhead::block {
namespace {

template <typename Make>
Status answer_to(Disk& disk, Make make) {
  // Shared: who answers may still be at it when the answer is here.
  const auto answer = std::make_shared<std::promise<Status>>();
  disk.submit(make([answer](Status status) { answer->set_value(status); }));
  return answer->get_future().get();
}

}  // namespace

Status read_now(Disk& disk, uint64_t offset, MutableByteSpan bytes) {
  return answer_to(disk, [&](auto done) { return Request::read(offset, {bytes}, std::move(done)); });
}

Status write_now(Disk& disk, uint64_t offset, ByteSpan bytes) {
  // A write only reads its buffers.
  const MutableByteSpan buffer(const_cast<uint8_t*>(bytes.data()), bytes.size());
  return answer_to(disk, [&](auto done) { return Request::write(offset, {buffer}, std::move(done)); });
}

Status flush_now(Disk& disk) {
  return answer_to(disk, [](auto done) { return Request::flush(std::move(done)); });
}

}  // namespace bulkhead::block
