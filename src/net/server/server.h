// A switch as a process: ports that cards in other processes plug into over vhost-user sockets, one VirtualSwitch with
// its firewall between them, faults on each port, mirrors, captures, and a socket that answers questions. One thread,
// one event loop; a port whose process is gone keeps its place, and a front end that misbehaves loses its connection
// and nothing else.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/capture/pcapng.h"
#include "net/fault/faults.h"
#include "net/policy/firewall.h"
#include "net/server/connection.h"
#include "net/server/control.h"
#include "net/switch/virtual_switch.h"
#include "support/log.h"
#include "support/loop/event_loop.h"

namespace bulkhead::net::server {

struct PortSetup {
  std::string name;  // and of its socket: DIRECTORY/NAME.sock
  switching::PortConfig port;
  std::string group;
  fault::FaultConfig faults;      // of what the port sends
  fault::FaultConfig faults_out;  // of what it gets
  uint64_t fault_seed = 0;
};

struct GroupSetup {
  switching::GroupPolicy policy;
  std::string zone;
};

// Copies of what ports send and get, for a port's card or a file.
struct MirrorSetup {
  std::string name;
  std::vector<std::string> ports;
  std::vector<std::string> groups;  // with cards that come to their sockets later
  std::string target;               // a port; or
  std::string capture;              // a pcapng file,
  uint64_t capture_bytes = 0;       // of which two take turns
};

struct Setup {
  std::string name;
  std::string directory;
  std::vector<GroupSetup> groups;  // each has a socket too, DIRECTORY/group-NAME.sock, for any number of cards
  std::vector<PortSetup> ports;
  policy::Plan plan;
  std::vector<MirrorSetup> mirrors;
};

class Server final : private switching::Output {
 public:
  static constexpr size_t kMaximumGuests = 256;  // connections of groups' sockets

  // Everything is opened here; afterwards the process may give up files.
  static Result<std::unique_ptr<Server>> create(const Setup& setup, EventLoop& loop);
  ~Server() override;

 private:
  // Drops of frames in which a card is not who it may be.
  static constexpr std::array kForged = {switching::Drop::kForgedMac, switching::Drop::kForgedAddress,
                                         switching::Drop::kNetworkService};

  struct Forgeries {
    uint64_t count = 0;  // the counter of this drop when it was last looked at
    uint64_t untold = 0, told_ns = 0;
  };

  // Where frames leave and come: a port of the switch, with or without somebody at its other end.
  struct Port {
    std::string name;
    uint64_t serial = 0;  // of no other port ever
    switching::GroupId group = 0;
    std::optional<switching::PortId> id;  // of a group's guest: none before its first frame
    bool is_guest = false;
    bool is_pretender = false;     // a guest whose first frames came from another's address, and the log says so
    uint64_t looked_since_ns = 0;  // at whether a guest's address is free, so often
    unsigned looks = 0;
    std::unique_ptr<Listener> listener;  // of a guest: none
    std::unique_ptr<Connection> connection;
    std::unique_ptr<fault::Faults> inward, outward;
    uint64_t refused_connections = 0;
    std::array<Forgeries, kForged.size()> forged;
    uint64_t lost = 0;  // nobody there, or no room
    bool is_draining = false;
    EventLoop::TimerId timer = 0;
    uint64_t timer_ns = UINT64_MAX;
  };
  Server(const Setup& setup, EventLoop& loop, policy::CompiledPlan plan, uint64_t secret);
  Result<> open(const Setup& setup);
  Result<> open_groups(const Setup& setup);
  Result<> open_ports(const Setup& setup);
  Result<> open_mirrors(const Setup& setup);

  void accept(Port& port, Fd socket);
  void accept_guest(switching::GroupId group, Fd socket);
  [[nodiscard]] bool attach(Port& port, Fd socket);
  void detach(Port& port);
  // Soon, and not from within a connection's own callback.
  void post_detach(const Port& port);
  [[nodiscard]] Port* find(uint64_t serial) const;
  void drain(Port& port);
  void take(Port& port, MutableByteSpan frame, const frame::Offload& offload, uint64_t now_ns);
  void forward(Port& port, ByteSpan frame, const frame::Offload& offload, uint64_t now_ns);
  void run_inward(Port& port, uint64_t now_ns);
  void arm(Port& port);
  void run_outward(Port& port);
  void probe_for_loops();
  void after_forwarding(uint64_t now_ns);
  void log_refusals();
  void log_forged(const Port& port, size_t kind, Forgeries& forged, ByteSpan frame, uint64_t now_ns);
  void deliver(switching::PortId port, const switching::OutputFrame& frame) override;
  static void send_through(fault::Faults& faults, ByteSpan frame, const frame::Offload& offload, uint64_t now_ns);
  void write_to(Port& port, ByteSpan frame, const frame::Offload& offload);
  void ring_bells();

  // What the control socket answers.
  [[nodiscard]] std::string reply_to(std::string_view line);
  [[nodiscard]] std::string list_ports() const;
  [[nodiscard]] std::string list_counters() const;
  [[nodiscard]] std::string list_faults() const;
  [[nodiscard]] std::string list_addresses() const;
  [[nodiscard]] std::string list_rules() const;
  [[nodiscard]] std::string list_refusals() const;
  [[nodiscard]] std::string set_faults(std::string_view arguments);
  [[nodiscard]] std::string refusal_text(const policy::Refusal& refusal) const;
  [[nodiscard]] std::string name_of(switching::PortId id) const;

  const std::string name_;
  EventLoop& loop_;
  switching::VirtualSwitch switch_;
  policy::Firewall firewall_;
  std::vector<std::string> group_names_;
  std::vector<std::string> group_zones_;
  std::vector<std::unique_ptr<Port>> ports_;
  std::map<switching::PortId, Port*> by_id_;
  std::vector<std::unique_ptr<Listener>> group_listeners_;
  size_t guest_count_ = 0;
  uint64_t next_serial_ = 1;
  std::map<switching::PortId, std::unique_ptr<capture::PcapngRing>> captures_;
  std::vector<Port*> touched_;
  std::vector<uint8_t> outgoing_, incoming_;
  EventLoop::TimerId loop_probe_ = 0;
  std::unique_ptr<Control> control_;
};

}  // namespace bulkhead::net::server
