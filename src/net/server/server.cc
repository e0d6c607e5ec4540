#include "net/server/server.h"

#include <algorithm>
#include <chrono>

#include "support/random.h"

namespace bulkhead::net::server {
namespace {

// Frames of one port in a turn, before others have theirs.
constexpr unsigned kFramesATurn = 256;
// How long a port stays closed after a front end that misbehaved.
constexpr std::chrono::seconds kPenalty{1};
constexpr std::chrono::seconds kLoopProbeInterval{1};
// How long after a start connections go on that a switch before this one let begin: as long as whoever is silent lets
// MQTT and the like wait.
constexpr std::chrono::seconds kPickUp{60};
// Looks at whether a guest's address is free, of which each costs a step for each VLAN of its group.
constexpr uint64_t kLooksPeriod_ns = 100'000'000;
constexpr unsigned kLooks = 64;
constexpr std::string_view kCaptureGroup = "capture";

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}
uint64_t wall_ns() {
  return static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
}

uint64_t secret() {
  HostRandom random;
  return random.next_u64();
}

}  // namespace

Server::Server(const Setup& setup, EventLoop& loop, policy::CompiledPlan plan, uint64_t secret_number)
    : name_(setup.name),
      loop_(loop),
      switch_({}, secret_number),
      firewall_(std::move(plan), {}, secret_number + 1),
      outgoing_(vhost::kNetHeaderSize + frame::kMaximumFrameSize),
      incoming_(frame::kMaximumFrameSize + frame::kVlanTagSize) {}

Result<std::unique_ptr<Server>> Server::create(const Setup& setup, EventLoop& loop) {
  auto plan = TRY(policy::CompiledPlan::compile(setup.plan));
  std::unique_ptr<Server> server(new Server(setup, loop, std::move(plan), secret()));
  TRY(server->open(setup));
  return server;
}

Server::~Server() {
  loop_.cancel(loop_probe_);
  for (const auto& port : ports_) {
    if (port->timer != 0) loop_.cancel(port->timer);
  }
}

Result<> Server::open(const Setup& setup) {
  // Asked first: two switches in one folder would take each other's ports.
  control_ = TRY(Control::create(setup.directory + "/control.sock", loop_,
                                 [this](std::string_view line) { return reply_to(line); }));
  TRY(open_groups(setup));
  TRY(open_ports(setup));
  TRY(open_mirrors(setup));
  switch_.set_filter(&firewall_);
  firewall_.pick_up_until(now_ns() + static_cast<uint64_t>(std::chrono::nanoseconds(kPickUp).count()));
  probe_for_loops();
  return {};
}

Result<> Server::open_groups(const Setup& setup) {
  for (const GroupSetup& group : setup.groups) {
    switching::GroupPolicy policy = group.policy;
    policy.zone = TRY_IN(fmt::format("port group '{}'", policy.name), firewall_.plan().zone(group.zone));
    const auto id = TRY_IN(fmt::format("port group '{}'", group.policy.name), switch_.add_group(std::move(policy)));
    group_names_.push_back(group.policy.name);
    group_zones_.push_back(group.zone);
    group_listeners_.push_back(
        TRY(Listener::create(fmt::format("{}/group-{}.sock", setup.directory, group.policy.name), loop_,
                             [this, id](Fd socket) { accept_guest(id, std::move(socket)); })));
  }
  return {};
}

Result<> Server::open_ports(const Setup& setup) {
  for (const PortSetup& wanted : setup.ports) {
    const auto group = std::ranges::find(group_names_, wanted.group);
    if (group == group_names_.end()) return fail("port '{}': no port group '{}'", wanted.name, wanted.group);
    auto port = std::make_unique<Port>();
    port->name = wanted.name;
    port->serial = next_serial_++;
    port->group = static_cast<switching::GroupId>(group - group_names_.begin());
    switching::PortConfig config = wanted.port;
    config.group = port->group;
    port->id = TRY_IN(fmt::format("port '{}'", wanted.name), switch_.add_port(std::move(config)));
    firewall_.set_zone(*port->id, TRY(firewall_.plan().zone(group_zones_[port->group])));
    by_id_[*port->id] = port.get();
    port->inward = std::make_unique<fault::Faults>(wanted.faults, wanted.fault_seed * 2);
    port->outward = std::make_unique<fault::Faults>(wanted.faults_out, wanted.fault_seed * 2 + 1);
    port->listener = TRY(Listener::create(fmt::format("{}/{}.sock", setup.directory, wanted.name), loop_,
                                          [this, raw = port.get()](Fd socket) { accept(*raw, std::move(socket)); }));
    ports_.push_back(std::move(port));
  }
  return {};
}

Result<> Server::open_mirrors(const Setup& setup) {
  std::optional<switching::GroupId> captures;  // their ports' own
  for (const MirrorSetup& wanted : setup.mirrors) {
    const std::string what = fmt::format("mirror '{}'", wanted.name);
    const auto port_of = [&](const std::string& name) -> Result<switching::PortId> {
      const auto found = std::ranges::find(ports_, name, &Port::name);
      if (found == ports_.end()) return fail("{}: no port '{}'", what, name);
      return *(*found)->id;
    };
    switching::Mirror mirror;
    for (const std::string& name : wanted.ports) mirror.ports.push_back(TRY(port_of(name)));
    for (const std::string& name : wanted.groups) {
      const auto group = std::ranges::find(group_names_, name);
      if (group == group_names_.end()) return fail("{}: no port group '{}'", what, name);
      mirror.groups.push_back(static_cast<switching::GroupId>(group - group_names_.begin()));
    }
    if (wanted.capture.empty()) {
      mirror.target = TRY(port_of(wanted.target));
    } else {
      if (!captures) captures = TRY(switch_.add_group({.name = std::string(kCaptureGroup)}));
      mirror.target = TRY(switch_.add_port({.name = wanted.name, .group = *captures}));
      captures_.emplace(mirror.target, TRY_IN(what, capture::PcapngRing::create(wanted.capture, wanted.capture_bytes)));
    }
    TRY_IN(what, switch_.add_mirror(std::move(mirror)));
  }
  return {};
}

// ---- Front ends come and go ----

void Server::accept(Port& port, Fd socket) {
  // The one that is there stays: whoever came later is told by the end of its stream.
  if (port.connection) {
    ++port.refused_connections;
    return;
  }
  (void)attach(port, std::move(socket));
}

void Server::accept_guest(switching::GroupId group, Fd socket) {
  if (guest_count_ >= kMaximumGuests) return;
  ++guest_count_;
  auto port = std::make_unique<Port>();
  port->serial = next_serial_++;
  port->name = fmt::format("{}#{}", group_names_[group], port->serial);
  port->group = group;
  port->is_guest = true;
  port->inward = std::make_unique<fault::Faults>(fault::FaultConfig{}, 0);
  port->outward = std::make_unique<fault::Faults>(fault::FaultConfig{}, 1);
  if (attach(*ports_.emplace_back(std::move(port)), std::move(socket))) return;
  ports_.pop_back();
  --guest_count_;
}

bool Server::attach(Port& port, Fd socket) {
  Port* const raw = &port;
  auto connection = Connection::create(
      std::move(socket), loop_, [this, raw] { drain(*raw); },
      [this, raw](const std::string& why) {
        if (!why.empty()) {
          log::warning("switch '{}': port '{}': {}", name_, raw->name, why);
          if (raw->listener) raw->listener->rest(kPenalty);
        }
        post_detach(*raw);
      });
  if (!connection) {
    log::warning("switch '{}': port '{}': {}", name_, port.name, connection.error().message);
    return false;
  }
  port.connection = std::move(*connection);
  log::info("switch '{}': port '{}': connected", name_, port.name);
  return true;
}

Server::Port* Server::find(uint64_t serial) const {
  const auto found = std::ranges::find_if(ports_, [serial](const auto& each) { return each->serial == serial; });
  return found == ports_.end() ? nullptr : found->get();
}

void Server::post_detach(const Port& port) {
  // A loop that takes no more work hears of the same end again.
  (void)loop_.post([this, serial = port.serial] {
    if (Port* const found = find(serial)) detach(*found);
  });
}

void Server::detach(Port& port) {
  if (!std::exchange(port.connection, nullptr)) return;
  log::info("switch '{}': port '{}': gone", name_, port.name);
  std::erase(touched_, &port);
  if (!port.is_guest) return;
  if (port.id) {
    by_id_.erase(*port.id);
    firewall_.remove_port(*port.id, port.name);
    switch_.remove_port(*port.id);
  }
  if (port.timer != 0) loop_.cancel(port.timer);
  --guest_count_;
  std::erase_if(ports_, [&port](const auto& each) { return each.get() == &port; });
}

// ---- Frames ----

void Server::drain(Port& port) {
  if (!port.connection || port.is_draining) return;
  const uint64_t now = now_ns();
  port.connection->wake();
  bool is_empty = false;
  for (unsigned count = 0; count < kFramesATurn; ++count) {
    Connection::Taken taken;
    const auto took = port.connection->take(outgoing_, taken);
    if (took == Connection::Took::kNone) {
      is_empty = true;
      break;
    }
    if (took == Connection::Took::kNothingOfUse) continue;
    take(port, taken.frame, taken.offload, now);
  }
  touched_.push_back(&port);
  after_forwarding(now);
  if (!port.connection || (is_empty && !port.connection->rest())) return;
  // The rest has its turn after the others.
  port.is_draining = true;
  const bool posted = loop_.post([this, serial = port.serial] {
    Port* const found = find(serial);
    if (found == nullptr) return;
    found->is_draining = false;
    drain(*found);
  });
  if (!posted) port.is_draining = false;
}

void Server::take(Port& port, MutableByteSpan frame, const frame::Offload& offload, uint64_t now) {
  if (port.is_guest && !port.id) {
    // A card without a name is who it says it is first, and nobody else after.
    const frame::Ethernet ethernet = frame::read_ethernet(frame);
    if (ethernet.fault != frame::Fault::kNone) return;
    if (now - port.looked_since_ns >= kLooksPeriod_ns) port.looks = 0;
    if (port.looks == 0) port.looked_since_ns = now;
    if (++port.looks > kLooks) return;
    if (switch_.is_heard(port.group, ethernet.source, now)) {
      if (!std::exchange(port.is_pretender, true)) {
        log::warning("switch '{}': {} sends as {}, which is heard at another port: refused", name_, port.name,
                     ethernet.source.to_string());
      }
      return;
    }
    const auto id = switch_.add_port({.name = port.name, .group = port.group, .mac = ethernet.source});
    const auto zone = firewall_.plan().zone(group_zones_[port.group]);
    if (!id || !zone) return;
    port.id = *id;
    firewall_.set_zone(*id, *zone);
    by_id_[*id] = &port;
  }
  if (!port.inward->is_clear()) {
    send_through(*port.inward, frame, offload, now);
    return run_inward(port, now);
  }
  // Whoever reads what a connection says reads it as its receiver will: in packets.
  if (!offload.is_segmented() || !firewall_.inspects(*port.id)) {
    return forward(port, frame, offload, now);
  }
  frame::for_each_piece(frame, offload, [&](ByteSpan piece) {
    forward(port, piece, {}, now);
    return true;
  });
}

void Server::forward(Port& port, ByteSpan frame, const frame::Offload& offload, uint64_t now) {
  switch_.forward(*port.id, frame, now, *this, offload);
  const switching::Counters& counters = *switch_.counters(*port.id);
  for (size_t i = 0; i < kForged.size(); ++i) {
    const uint64_t count = counters.dropped(kForged[i]);
    if (std::exchange(port.forged[i].count, count) != count) log_forged(port, i, port.forged[i], frame, now);
  }
}

// A bad line loses and spoils packets, not what they are pieces of.
void Server::send_through(fault::Faults& faults, ByteSpan frame, const frame::Offload& offload, uint64_t now) {
  frame::for_each_piece(frame, offload, [&](ByteSpan piece) {
    faults.send(piece, now);
    return true;
  });
}

// What has arrived by now, into the switch.
void Server::run_inward(Port& port, uint64_t now) {
  while (port.inward->next_ns() <= now) {
    const std::vector<uint8_t> arrived = port.inward->receive(now);
    if (arrived.empty()) break;
    forward(port, arrived, {}, now);
  }
  arm(port);
}

void Server::deliver(switching::PortId id, const switching::OutputFrame& frame) {
  if (frame.size() > incoming_.size()) return;
  const MutableByteSpan bytes = MutableByteSpan(incoming_).first(frame.size());
  frame.copy_to(bytes);
  if (const auto capture = captures_.find(id); capture != captures_.end()) {
    if (!frame.seen) return;  // a probe: a file leads nowhere
    const std::string port = name_of(frame.seen->port);
    return frame::for_each_piece(bytes, frame.offload, [&](ByteSpan piece) {
      capture->second->write({.frame = piece, .time_ns = wall_ns(), .port = port, .is_sent = frame.seen->is_sent});
      return true;
    });
  }
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  Port& port = *found->second;
  if (port.outward->is_clear()) return write_to(port, bytes, frame.offload);
  send_through(*port.outward, bytes, frame.offload, now_ns());
  run_outward(port);
}

void Server::write_to(Port& port, ByteSpan frame, const frame::Offload& offload) {
  if (!port.connection || !port.connection->put(frame, offload)) {
    ++port.lost;
    return;
  }
  if (touched_.empty() || touched_.back() != &port) touched_.push_back(&port);
}

// What has arrived by now, out of the port.
void Server::run_outward(Port& port) {
  const uint64_t now = now_ns();
  while (port.outward->next_ns() <= now) {
    const std::vector<uint8_t> arrived = port.outward->receive(now);
    if (arrived.empty()) break;
    write_to(port, arrived, {});
  }
  arm(port);
}

// Wakes up when the next delayed frame is due.
void Server::arm(Port& port) {
  const uint64_t next = std::min(port.inward->next_ns(), port.outward->next_ns());
  if (next == UINT64_MAX || next >= port.timer_ns) return;
  if (port.timer != 0) loop_.cancel(port.timer);
  port.timer_ns = next;
  const uint64_t now = now_ns();
  port.timer = loop_.call_after(std::chrono::nanoseconds(next > now ? next - now : 0), [this, raw = &port] {
    raw->timer = 0;
    raw->timer_ns = UINT64_MAX;
    const uint64_t at = now_ns();
    if (raw->id) run_inward(*raw, at);
    run_outward(*raw);
    after_forwarding(at);
  });
}

void Server::probe_for_loops() {
  const uint64_t now = now_ns();
  switch_.probe_for_loops(now, *this);
  after_forwarding(now);
  loop_probe_ = loop_.call_after(kLoopProbeInterval, [this] { probe_for_loops(); });
}

void Server::after_forwarding(uint64_t /*now*/) {
  for (const policy::Answer& answer : firewall_.take_answers()) {
    switch_.originate(answer.to, answer.vlan, answer.frame, *this);
  }
  log_refusals();
  ring_bells();
}

void Server::ring_bells() {
  for (Port* const port : std::exchange(touched_, {})) {
    if (!port->connection || port->connection->tell()) continue;
    log::warning("switch '{}': port '{}': a bell that cannot be rung", name_, port->name);
    post_detach(*port);
  }
}

}  // namespace bulkhead::net::server
