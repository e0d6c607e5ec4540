// A hostile front end: any messages in any order, with memory, rings in it, and any bytes in the rings. Nothing outside
// the memory is touched and every walk ends.
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "net/vhost/back_end.h"
#include "support/check.h"

namespace bulkhead::net::vhost {
namespace {

constexpr size_t kMemorySize = 16384;

Fd shared_memory(ByteSpan contents) {
  Fd file(::memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  CHECK(::ftruncate(file.get(), kMemorySize) == 0, "a memfd of this size");
  (void)!::pwrite(file.get(), contents.data(), std::min(contents.size(), kMemorySize), 0);
  (void)::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK);
  return file;
}

// Plays a switch for some turns: takes what is sent, fills what may be filled.
void turn(BackEnd& back_end) {
  std::array<uint8_t, 2048> frame{};
  for (size_t index = 0; index < kRingCount; ++index) {
    for (unsigned count = 0; count < 16; ++count) {
      DeviceRing* const ring = back_end.ring(index);
      if (ring == nullptr) break;
      const auto popped = ring->pop(back_end);
      if (popped == DeviceRing::Popped::kEmpty) break;
      if (popped == DeviceRing::Popped::kBroken) {
        back_end.stop(index);
        break;
      }
      CHECK(ring->read(frame) <= frame.size(), "no more than there is room");
      ring->write(0, frame);
      ring->push(static_cast<uint32_t>(std::min<size_t>(ring->writable_size(), frame.size())));
      (void)ring->wants_interrupt();
    }
  }
}

void run(ByteSpan input) {
  BackEnd back_end;
  while (input.size() >= 3) {
    const auto request = static_cast<Request>(input[0]);
    const size_t size = std::min<size_t>(input[1], input.size() - 3);
    const unsigned descriptors = input[2] % 4;
    Message message = make_message(request, input.subspan(3, size));
    message.flags |= input[2] & kNeedReplyFlag;
    for (unsigned i = 0; i < descriptors; ++i) message.descriptors.push_back(shared_memory(input.subspan(3)));
    input = input.subspan(3 + size);
    const auto reply = back_end.handle(std::move(message));
    if (!reply) return;
    turn(back_end);
  }
}

}  // namespace
}  // namespace bulkhead::net::vhost

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bulkhead::net::vhost::run({data, size});
  return 0;
}
