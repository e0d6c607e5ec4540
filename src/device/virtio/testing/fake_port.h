// A network of one card: what it sends is kept, what it is to receive is put there by the test.
#pragma once

#include <algorithm>
#include <deque>
#include <vector>

#include "net/port.h"

namespace bulkhead::device::virtio {

class FakePort final : public net::Port {
 public:
  net::Sent send(ByteSpan frame, const net::frame::Offload& offload) override {
    if (room == 0) return net::Sent::kNoRoom;
    --room;
    sent_offloads.push_back(offload);
    sent.emplace_back(frame.begin(), frame.end());
    return net::Sent::kDone;
  }
  size_t receive(MutableByteSpan out, net::frame::Offload& offload) override {
    while (!waiting.empty()) {
      const std::vector<uint8_t> frame = std::move(waiting.front());
      waiting.pop_front();
      if (frame.size() > out.size()) continue;
      std::ranges::copy(frame, out.begin());
      offload = waiting_offload;
      return frame.size();
    }
    return 0;
  }
  [[nodiscard]] bool link_up() const override { return up; }
  void set_listener(std::function<void()> on_ready) override { listener = std::move(on_ready); }

  std::vector<std::vector<uint8_t>> sent;
  std::vector<net::frame::Offload> sent_offloads;  // of each of them
  net::frame::Offload waiting_offload;             // of all that wait
  std::deque<std::vector<uint8_t>> waiting;
  size_t room = SIZE_MAX;
  bool up = true;
  std::function<void()> listener;
};

}  // namespace bulkhead::device::virtio
