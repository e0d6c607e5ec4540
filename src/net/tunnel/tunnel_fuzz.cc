// A hostile path and a hostile peer: datagrams of any bytes, right ones that are spoiled, lost, repeated, delayed and
// led astray, handshakes with right macs, and packets of any bytes that are sealed with a session's own key; frames of
// any bytes from the switch; time that jumps. Whatever came before, two hosts that are left alone find each other
// again.
#include <cstdint>

#include "net/frame/headers.h"
#include "net/tunnel/testing/hosts.h"
#include "support/check.h"

namespace bulkhead::net::tunnel {
namespace {

class World {
 public:
  explicit World(ByteSpan input) : input_(input) { path_.hosts = {&one_, &two_}; }

  void run() {
    path_.run(kSecond_ns);
    for (unsigned steps = 0; !input_.empty() && steps < 512; ++steps) step();
    // Left alone, and after what a flood has used up came back.
    path_.waiting.clear();
    path_.advance(2 * kSecond_ns);
    constexpr uint64_t kLongEnough_ns = kRejectAfter_ns + kDeadAfter_ns + 4 * kRekeyTimeout_ns;
    path_.run(kLongEnough_ns, 3 * kSecond_ns);
    const std::vector<uint8_t> frame = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xB5, 1, 2, 3, 4};
    one_.delivered.clear();
    two_.delivered.clear();
    one_.send(frame);
    two_.send(frame);
    path_.settle();
    CHECK(two_.delivered.size() == 1 && two_.delivered[0] == frame, "the way there is open again");
    CHECK(one_.delivered.size() == 1 && one_.delivered[0] == frame, "the way back is open again");
    CHECK(!one_.tunnel->describe(path_.now).empty(), "a description");
  }

 private:
  uint64_t take(size_t size) {
    const size_t count = std::min(size, input_.size());
    const uint64_t value = load_little(input_.first(count));
    input_ = input_.subspan(count);
    return value;
  }
  Frame take_bytes() {
    const uint64_t wanted = take(1);
    const size_t count = std::min<size_t>(wanted, input_.size());
    Frame bytes(input_.begin(), input_.begin() + static_cast<ptrdiff_t>(count));
    input_ = input_.subspan(count);
    return bytes;
  }
  std::optional<Datagram> next() {
    if (path_.waiting.empty()) return std::nullopt;
    Datagram first = std::move(path_.waiting.front());
    path_.waiting.pop_front();
    return first;
  }
  // As host one, which has the keys.
  void say(Frame packet) {
    const auto& session = one_.tunnel->peers()[0]->current;
    if (!session) return;
    packet.resize(align_up(packet.size(), kPadding));
    Frame bytes(sizeof(DataHeader) + packet.size() + kTagSize);
    const uint64_t counter = session->next_counter++;
    store(bytes.data(), DataHeader{.kind = kData, .receiver = session->remote, .counter = counter});
    session->sealing.seal(counter, packet, {}, MutableByteSpan(bytes).subspan(sizeof(DataHeader)));
    path_.carry({.from = one_.endpoint, .to = two_.endpoint, .bytes = bytes});
  }
  void step() {
    const uint64_t operation = take(1);
    Host& host = (operation & 0x80) != 0 ? one_ : two_;
    const Endpoint stranger = endpoint_of(static_cast<uint8_t>(operation >> 4));
    switch (operation % 12) {
      case 0:
        path_.carry({.from = stranger, .to = host.endpoint, .bytes = take_bytes()});
        break;
      case 1: {
        Frame frame = take_bytes();
        if ((operation & 0x40) != 0 && !frame.empty()) frame.resize(take(2), 7);
        host.send(std::move(frame));
        break;
      }
      case 2:
      case 3:
        if (auto datagram = next()) {
          if (operation % 12 == 3 && !datagram->bytes.empty()) {
            datagram->bytes[take(2) % datagram->bytes.size()] ^= static_cast<uint8_t>(take(1));
          }
          path_.carry(*datagram);
        }
        break;
      case 4:
        (void)next();
        break;
      case 5:
        if (!path_.seen.empty()) path_.carry(Datagram(path_.seen[take(2) % path_.seen.size()]));
        break;
      case 6:
        path_.advance(take(1) << (operation >> 3));
        host.tick();
        break;
      case 7:
        say(take_bytes());
        break;
      case 8: {
        const Frame frame = take_bytes();
        Frame packet(kEnvelopeSize);
        packet.insert(packet.end(), frame.begin(), frame.end());
        put_envelope(packet, one_.tunnel->peers()[0] ? address_of_key(one_.tunnel->public_key()) : frame::IpAddress{},
                     address_of_key(two_.tunnel->public_key()), take(1) % 2 == 0 ? 100 : 5010);
        packet[take(1) % kEnvelopeSize] ^= static_cast<uint8_t>(take(1));
        say(std::move(packet));
        break;
      }
      case 9: {
        InitiationMessage message{};
        const Frame bytes = take_bytes();
        std::ranges::copy(ByteSpan(bytes).first(std::min(bytes.size(), sizeof message)),
                          as_mutable_bytes(message).begin());
        message.kind = kInitiation;
        put_macs(as_mutable_bytes(message), MacKeys(host.tunnel->public_key()), std::nullopt);
        const ByteSpan whole = as_bytes(message);
        path_.carry({.from = stranger, .to = host.endpoint, .bytes = Frame(whole.begin(), whole.end())});
        break;
      }
      case 10:
        if (auto datagram = next()) {
          datagram->from = stranger;
          path_.carry(*datagram);
        }
        break;
      default:
        path_.settle();
        break;
    }
    for (Host* const each : {&one_, &two_}) {
      for (const Frame& frame : each->take()) {
        CHECK(frame.size() >= frame::kEthernetHeaderSize, "a frame has its header");
      }
    }
    constexpr size_t kEnough = 256;
    if (path_.seen.size() > kEnough) path_.seen.clear();
    if (path_.waiting.size() > kEnough) path_.waiting.clear();
  }

  ByteSpan input_;
  Path path_;
  Host one_{path_, endpoint_of(1), config_of(1, {2}), 11};
  Host two_{path_, endpoint_of(2), config_of(2, {1}), 12};
};

}  // namespace
}  // namespace bulkhead::net::tunnel

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bulkhead::net::tunnel::World({data, size}).run();
  return 0;
}
