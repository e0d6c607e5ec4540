// A network card as its user writes it: "nat,forward=tcp:127.0.0.1:8080:80,host=on", "tap=NAME,mac=52:54:00:12:34:56".
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "machine/board/machine.h"
#include "net/frame/address.h"
#include "net/link/link.h"
#include "net/link/rate_limited.h"
#include "support/result.h"

namespace bulkhead::vmm {

struct NicConfig {
  net::link::LinkConfig link;
  std::optional<net::frame::MacAddress> mac;  // none: made from the VM's identity and the card's place
  uint16_t mtu = 1500;
  uint16_t queue_pairs = 1;
  bool offloads = true;
  net::link::RateConfig rate;
  machine::NicModel model = machine::NicModel::kVirtio;
  std::string text;  // as it was written

  static constexpr uint16_t kLeastMtu = 576;
  static constexpr uint16_t kMostMtu = 9000;
  static constexpr uint16_t kMostQueuePairs = 8;
  static constexpr uint64_t kMostBurst = uint64_t{1} << 30;
};

Result<NicConfig> parse_nic(std::string_view text);

}  // namespace bulkhead::vmm
