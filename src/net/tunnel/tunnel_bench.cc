// What a frame costs that goes from one host to another, without the sockets between them: wrapped and sealed by one
// tunnel, opened and unwrapped by the other. On one thread; processor time counts.
#include <benchmark/benchmark.h>

#include "net/tunnel/testing/hosts.h"

namespace bulkhead::net::tunnel {
namespace {

Frame frame_of(size_t size) {
  Frame frame(size, 7);
  const std::array<uint8_t, 14> header{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xB5};
  std::ranges::copy(header, frame.begin());
  return frame;
}

// Range: bytes of a frame.
void carry(benchmark::State& state) {
  Path path;
  Host one(path, endpoint_of(1), config_of(1, {2}), 11), two(path, endpoint_of(2), config_of(2, {1}), 12);
  path.hosts = {&one, &two};
  path.run(kSecond_ns);
  const Frame frame = frame_of(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    one.send(frame);
    path.seen.clear();
    path.settle();
    if (two.delivered.size() != 1) state.SkipWithError("a frame did not come");
    two.delivered.clear();
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(carry)->Name("tunnel/carry")->Arg(64)->Arg(1352)->Arg(1514)->Arg(9014);

// A handshake, both sides of it.
void shake_hands(benchmark::State& state) {
  for (auto _ : state) {
    state.PauseTiming();
    Path path;
    Host one(path, endpoint_of(1), config_of(1, {2}), 11);
    TunnelConfig waits = config_of(2, {1});
    waits.peers[0].endpoint.reset();
    Host two(path, endpoint_of(2), waits, 12);
    path.hosts = {&one, &two};
    state.ResumeTiming();
    one.tick();
    path.settle();
    if (two.peer().counters.handshakes != 1) state.SkipWithError("they did not meet");
  }
}
BENCHMARK(shake_hands)->Name("tunnel/handshake");

// A datagram of somebody who does not know the public key.
void refuse(benchmark::State& state) {
  Path path;
  Host one(path, endpoint_of(1), config_of(1, {2}), 11);
  InitiationMessage message{};
  message.kind = kInitiation;
  for (auto _ : state) one.tunnel->receive(endpoint_of(9), as_mutable_bytes(message), path.now, one);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(refuse)->Name("tunnel/refuse");

}  // namespace
}  // namespace bulkhead::net::tunnel
