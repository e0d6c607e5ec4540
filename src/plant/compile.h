// What a plant means for a network: the policy that its conduits are, and the ports of each switch. A function of the
// plant, so that the switch, its explanation and its picture say the same.
#pragma once

#include <string>
#include <vector>

#include "net/link/link.h"
#include "plant/model.h"

namespace bulkhead::plant {

// A port that a switch has for a card, a link to outside, or the readiness probe of a zone.
struct PortPlan {
  std::string name;                 // "plc1.0", "internet"; its socket's name
  std::string owner;                // the machine or link
  net::switching::PortConfig port;  // without its group's id
  std::string group;
  std::string zone;
  net::fault::FaultConfig faults, faults_out;
  uint64_t fault_seed = 0;
};

// A mirror of a switch by the names of its ports and port groups.
struct MirrorPlan {
  std::string name;
  std::vector<std::string> ports, groups;
  std::string target;   // a port, or
  std::string capture;  // a file's path
  uint64_t capture_bytes = 0;
};

[[nodiscard]] net::policy::Plan policy_of(const Plant& plant);
// Of one switch, in the order of the file.
[[nodiscard]] std::vector<PortPlan> ports_of(const Plant& plant, std::string_view switch_name);
// What a name in a mirror means: ports, and groups with whoever comes to them, of all that have the name.
void add_mirrored(const Plant& plant, const std::vector<PortPlan>& ports, std::string_view name, MirrorPlan& made);
// A path of the plant's file as this process opens it.
[[nodiscard]] std::string path_from(const Plant& plant, const std::string& path);
// Of one switch; its capture is one too.
[[nodiscard]] std::vector<MirrorPlan> mirrors_of(const Plant& plant, std::string_view switch_name);
// What the process of a link to a NAT or a tap opens.
[[nodiscard]] Result<net::link::LinkConfig> link_config_of(const Plant& plant, const LinkToOutside& link);
// Where a tunnel that is plugged into the switch of this folder tells its state.
[[nodiscard]] std::string tunnel_socket(std::string_view switch_directory, const LinkToOutside& link);
// What that process says when frames pass.
inline constexpr std::string_view kLinkIsUp = "frames pass";
// The port group in which a card can be asked for readiness, without tags: that of its zone, or its own; nullptr: in
// neither.
[[nodiscard]] const GroupConfig* probe_group_of(const Plant& plant, const CardConfig& card);
// The name of a machine's card.
[[nodiscard]] std::string port_name(const MachineConfig& machine, size_t card);
// What stands in the file, or one made from the names of plant and port.
[[nodiscard]] net::frame::MacAddress mac_of(const Plant& plant, const CardConfig& card, std::string_view port);

}  // namespace bulkhead::plant
