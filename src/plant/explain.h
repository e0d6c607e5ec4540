// Which rule of a plant decides about a connection, in words: the same compiled policy that the switch asks, without a
// switch. Changes nothing.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plant/model.h"

namespace bulkhead::plant {

struct ExplainQuestion {
  std::string from;  // a machine, link or zone
  std::string to;
  std::string service;  // "modbus", "tcp/502"
  std::string modbus;   // "read", "write" or a function code; empty: not asked
  uint8_t unit = 1;
  uint16_t first_address = 0;
  uint16_t last_address = 0;
};

struct Explanation {
  // Of all that was asked about: every pair of cards, port and address.
  enum class Passes : uint8_t { kNothing, kSome, kEverything };
  Passes passes = Passes::kNothing;
  // One a pair of cards, ports and rule, then what inspection says. A link and a zone have any address.
  std::vector<std::string> lines;
};

// The error names the end or the word that is unknown.
Result<Explanation> explain(const Plant& plant, const ExplainQuestion& question);

}  // namespace bulkhead::plant
