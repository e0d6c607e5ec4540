// The socket by which other programs speak to a running VM: a line with a word, and an answer of one line. "status",
// "pause", "resume", "power-button", "quit", "link CARD up" or "down", and "disk" with more behind it (disk_jobs.h).
// Answers come at once: none of them waits for the guest.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "support/loop/event_loop.h"
#include "support/os/fd.h"
#include "support/result.h"

namespace bulkhead::vmm {

class Vm;

class ControlSocket {
 public:
  static constexpr size_t kMaximumQuestion = 4096, kMaximumClients = 16;

  // Listens at the path, for its owner alone. Before the VM's loop runs.
  static Result<std::unique_ptr<ControlSocket>> create(const std::string& path, Vm& vm);
  // When the loop does not run.
  ~ControlSocket();

 private:
  ControlSocket(std::string path, Fd listener, Vm& vm)
      : path_(std::move(path)), listener_(std::move(listener)), vm_(vm) {}
  void accept();
  void on_client(int fd);
  [[nodiscard]] std::string answer(std::string_view line);
  [[nodiscard]] std::string plug(std::string_view words);

  const std::string path_;
  const Fd listener_;
  Vm& vm_;
  std::map<int, std::pair<Fd, std::string>> clients_;
};

}  // namespace bulkhead::vmm
