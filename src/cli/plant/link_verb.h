// "bulkhead link": a plant's link to outside as a process of its own, user-mode NAT, a tap device or a tunnel to other
// hosts at a port of a switch. It gives up files and nearly all system calls before it reads a frame.
#pragma once

#include <string>

#include "cli/command_line.h"
#include "net/link/link.h"
#include "plant/model.h"
#include "support/result.h"

namespace bulkhead::cli {

class LinkVerb final : public Verb {
 public:
  [[nodiscard]] std::string name() const override { return "link"; }
  [[nodiscard]] std::string summary() const override {
    return "Run a plant's link to outside: NAT, a tap device or a tunnel";
  }
  void add_options(CLI::App& options) override;
  // 0: ended by a signal; 2: the plant, the link or the folder is wrong.
  int run() override;

 private:
  [[nodiscard]] Result<> serve();
  [[nodiscard]] Result<std::unique_ptr<net::link::Link>> open_confined(const plant::Plant& plant,
                                                                       const plant::LinkToOutside& link) const;

  std::string file_ = "plant.yaml", link_, directory_;
};

}  // namespace bulkhead::cli
