#include "net/link/fabric.h"

#include <algorithm>

namespace bulkhead::net::link {

class FabricLink final : public Link {
 public:
  FabricLink(std::shared_ptr<Fabric> fabric, switching::PortId port, std::shared_ptr<Fabric::Seat> seat)
      : fabric_(std::move(fabric)), port_(port), seat_(std::move(seat)) {}
  ~FabricLink() override { fabric_->detach(port_); }

  Sent send(ByteSpan frame, const frame::Offload& offload) override {
    fabric_->send(port_, frame, offload);
    return Sent::kDone;
  }
  size_t receive(MutableByteSpan out, frame::Offload& offload) override {
    const LockGuard lock(seat_->mutex);
    return seat_->to_guest.pop(out, offload);
  }
  [[nodiscard]] bool link_up() const override { return true; }
  void set_listener(std::function<void()> on_ready) override { seat_->bell.set_listener(std::move(on_ready)); }
  [[nodiscard]] LinkCounters counters() const override {
    const LockGuard lock(seat_->mutex);
    return {.to_guest_dropped = seat_->dropped};
  }

 private:
  const std::shared_ptr<Fabric> fabric_;
  const switching::PortId port_;
  const std::shared_ptr<Fabric::Seat> seat_;
};

// Puts frames into the queues of their ports and remembers whom to tell.
class Fabric::Delivery final : public switching::Output {
 public:
  explicit Delivery(const std::map<switching::PortId, std::shared_ptr<Seat>>& seats) : seats_(seats) {}

  void deliver(switching::PortId port, const switching::OutputFrame& frame) override {
    const auto found = seats_.find(port);
    if (found == seats_.end()) return;
    Seat& seat = *found->second;
    const LockGuard lock(seat.mutex);
    if (!seat.to_guest.push(frame.bytes(), frame.offload)) ++seat.dropped;
    told.push_back(found->second);
  }

  std::vector<std::shared_ptr<Seat>> told;

 private:
  const std::map<switching::PortId, std::shared_ptr<Seat>>& seats_;
};

Result<std::unique_ptr<Link>> Fabric::attach(uint16_t vlan, const frame::MacAddress& mac) {
  const LockGuard lock(mutex_);
  auto group = groups_.find(vlan);
  if (group == groups_.end()) {
    const switching::GroupId id = TRY(switch_.add_group({.name = fmt::format("VLAN {}", vlan),
                                                         .vlan = vlan,
                                                         // The guest is alone here: it may serve itself.
                                                         .network_services = switching::Permission::kAllow}));
    group = groups_.emplace(vlan, id).first;
  }
  const switching::PortId port = TRY(switch_.add_port({.name = mac.to_string(), .group = group->second, .mac = mac}));
  auto seat = std::make_shared<Seat>();
  seats_[port] = seat;
  return std::make_unique<FabricLink>(shared_from_this(), port, std::move(seat));
}

void Fabric::send(switching::PortId from, ByteSpan frame, const frame::Offload& offload) {
  std::vector<std::shared_ptr<Seat>> told;
  {
    const LockGuard lock(mutex_);
    Delivery delivery(seats_);
    switch_.forward(from, frame, clock_.now_ns(), delivery, offload);
    told = std::move(delivery.told);
  }
  for (const auto& seat : told) seat->bell.ring();
}

void Fabric::detach(switching::PortId port) {
  const LockGuard lock(mutex_);
  seats_.erase(port);
  switch_.remove_port(port);
}

switching::Counters Fabric::counters(switching::PortId port) const {
  const LockGuard lock(mutex_);
  const switching::Counters* found = switch_.counters(port);
  return found == nullptr ? switching::Counters{} : *found;
}

std::shared_ptr<Fabric> Fabrics::find_or_make(const std::string& name) {
  std::shared_ptr<Fabric>& fabric = fabrics_[name];
  if (!fabric) fabric = std::make_shared<Fabric>(clock_, random_);
  return fabric;
}

}  // namespace bulkhead::net::link
