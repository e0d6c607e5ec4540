// Services as a policy names them: by a word of the trade ("modbus", "opc-ua"), or by protocol and ports ("tcp/502",
// "udp/5000-5010"). Numbers are those that IANA or the protocol's own specification gives.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/result.h"

namespace bulkhead::net::policy {

enum class Transport : uint8_t { kTcp, kUdp, kPing, kEthernet };

struct ServicePorts {
  Transport transport = Transport::kTcp;
  uint16_t first = 0;  // a port; of kEthernet the frame's type; of kPing nothing
  uint16_t last = 0;
  // Of kEthernet: the first two bytes behind the type, in PROFINET the FrameID.
  uint16_t first_id = 0;
  uint16_t last_id = UINT16_MAX;
  friend bool operator==(const ServicePorts&, const ServicePorts&) = default;
};

struct Service {
  std::string name;
  std::vector<ServicePorts> ports;
};

// Every known name, sorted.
[[nodiscard]] std::vector<std::string_view> service_names();
[[nodiscard]] Result<Service> find_service(std::string_view text);

}  // namespace bulkhead::net::policy
