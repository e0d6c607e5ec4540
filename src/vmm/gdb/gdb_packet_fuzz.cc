// Any bytes from a debugger: the framing, then the session over a target that has two vCPUs and a megabyte.
#include <vector>

#include "support/check.h"
#include "vmm/gdb/fake_target.h"
#include "vmm/gdb/packet.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead::vmm::gdb;
  FakeTarget target;
  Session session(target);
  PacketReader reader;
  for (const Input& input : reader.feed({data, size})) {
    if (input.kind == Input::Kind::kInterrupt) session.interrupt();
    if (input.kind != Input::Kind::kPacket) continue;
    const Session::Reply reply = session.handle(input.data);
    if (reply.packet) CHECK(frame(*reply.packet).size() <= 3 * kMaximumPacket, "an answer without bound");
    if (session.running()) session.stopped(0);
  }
  return 0;
}
