// Asks one machine of a running plant whether it is ready, again and again: a card of its own in the machine's zone,
// whose frames a net::probe::TcpProbe makes and reads.
#pragma once

#include <memory>

#include "net/link/link.h"
#include "net/probe/tcp_probe.h"
#include "plant/model.h"

namespace bulkhead::plant {

class Prober {
 public:
  static constexpr uint64_t kAgain_ns = 500'000'000;

  // directory has the switches' folders. For questions with asks_a_card().
  static Result<std::unique_ptr<Prober>> create(const Plant& plant, const MachineConfig& machine,
                                                const std::string& directory, uint64_t seed);

  // Call often; true when the machine has answered well.
  [[nodiscard]] bool poll(uint64_t now_ns);

 private:
  Prober(net::probe::Question question, std::unique_ptr<net::link::Link> link)
      : question_(std::move(question)), link_(std::move(link)), probe_(question_) {}

  net::probe::Question question_;
  std::unique_ptr<net::link::Link> link_;
  net::probe::TcpProbe probe_;
  uint64_t failed_ns_ = 0;
};

}  // namespace bulkhead::plant
