// Lets a debugger reach a VM: listens at HOST:PORT or on a Unix socket, one debugger at a time, on a thread of its own.
// The VM is held from the beginning until the first debugger lets it run; when one leaves, the VM runs on.
#pragma once

#include <memory>
#include <string>

#include "support/result.h"
#include "vmm/outcome.h"

namespace bulkhead::vmm {
class Vm;
}

namespace bulkhead::vmm::gdb {

class Server {
 public:
  static Result<std::unique_ptr<Server>> create(const std::string& address, Vm& vm);
  ~Server();
  // The VM has ended: says so to the debugger and leaves.
  void finish(const Outcome& outcome);

 private:
  class Connection;
  class Listener;
  explicit Server(std::unique_ptr<Listener> listener);
  std::unique_ptr<Listener> listener_;
};

}  // namespace bulkhead::vmm::gdb
