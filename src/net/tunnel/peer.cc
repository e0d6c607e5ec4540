#include "net/tunnel/peer.h"

#include <utility>

namespace bulkhead::net::tunnel {

Session* Peer::find(uint32_t local_index) {
  for (const auto* session : {&current, &next, &previous}) {
    if (*session && (*session)->local == local_index) return session->get();
  }
  return nullptr;
}

void Peer::confirm() {
  previous = std::move(current);
  current = std::move(next);
}

void Peer::begin(std::unique_ptr<Session> made) {
  ++counters.handshakes;
  if (!made->is_initiator) {
    next = std::move(made);
    return;
  }
  // What the other side began at the same time may be what it uses.
  previous = next ? std::move(next) : std::move(current);
  current = std::move(made);
}

void Peer::note_sent(uint64_t now_ns, bool is_frame) {
  sent_ns = now_ns;
  if (is_frame && !unanswered_ns) unanswered_ns = now_ns;
}

void Peer::note_heard(uint64_t now_ns) {
  heard_ns = now_ns;
  unanswered_ns.reset();
}

bool Peer::wants_handshake(uint64_t now_ns) const {
  if (!endpoint) return false;
  const Session* const session = usable(now_ns);
  if (session == nullptr) {
    // The other side is about to use the one that it began.
    return !next || next->age_ns(now_ns) >= kRekeyTimeout_ns;
  }
  // Who did not begin waits longer, so that not both begin anew.
  const uint64_t old =
      session->is_initiator ? kRekeyAfter_ns : kRejectAfter_ns - kKeepaliveTimeout_ns - kRekeyTimeout_ns;
  return is_lost(now_ns) || session->age_ns(now_ns) >= old || session->next_counter >= kRekeyAfterMessages;
}

}  // namespace bulkhead::net::tunnel
