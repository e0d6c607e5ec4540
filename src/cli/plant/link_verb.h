// "bulkhead link": a plant's link to outside as a process of its own, user-mode NAT or a tap device at a port of a
// switch. It gives up files and nearly all system calls before it reads a frame.
#pragma once

#include <string>

#include "cli/command_line.h"
#include "support/result.h"

namespace bulkhead::cli {

class LinkVerb final : public Verb {
 public:
  [[nodiscard]] std::string name() const override { return "link"; }
  [[nodiscard]] std::string summary() const override { return "Run a plant's link to outside: NAT or a tap device"; }
  void add_options(CLI::App& options) override;
  // 0: ended by a signal; 2: the plant, the link or the folder is wrong.
  int run() override;

 private:
  [[nodiscard]] Result<> serve();

  std::string file_ = "plant.yaml", link_, directory_;
};

}  // namespace bulkhead::cli
