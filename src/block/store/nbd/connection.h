// One connection to an NBD server. Whoever calls waits for its answer, and several may at a time; a thread of its own
// moves the bytes. A server that does not answer in time loses the connection, and so does every call that waits.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "block/request.h"
#include "block/store/nbd/libnbd.h"
#include "support/os/fd.h"
#include "support/os/thread.h"

namespace bulkhead::block::nbd {

// What a server says of an export.
struct ServedDisk {
  uint64_t size = 0;
  uint64_t least_bytes = 1, most_bytes = 0;  // of a request; a power of two, a multiple of it
  bool read_only = false, flushes = false, zeroes = false, says_where_data_is = false;
};

class Connection {
 public:
  // uri: nbd://, nbd+unix://, nbds:// and so on. Waits at most 30 seconds for the server.
  static Result<std::unique_ptr<Connection>> open(const std::string& uri);
  ~Connection();

  [[nodiscard]] const ServedDisk& served() const { return served_; }
  [[nodiscard]] bool alive() const { return alive_.load(); }
  // A range that fits the server's limits.
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes);
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes);
  [[nodiscard]] Status flush();
  [[nodiscard]] Status zero(uint64_t offset, uint64_t size);
  struct Extent {
    uint64_t size = 0;  // 0: the server did not say
    bool zero = false;
  };
  [[nodiscard]] Extent extent(uint64_t offset, uint64_t size);

 private:
  Connection(const Libnbd& library, nbd_handle* handle, EventFd wake)
      : library_(library), handle_(handle), wake_(std::move(wake)) {}
  Result<> connect(const std::string& uri);
  Result<> learn(const std::string& uri);
  void move_bytes();
  void give_up();
  [[nodiscard]] Status call(const std::function<int64_t(nbd_completion_callback)>& submit);

  const Libnbd& library_;
  nbd_handle* const handle_;
  ServedDisk served_;
  EventFd wake_;  // of the thread: there is something to be sent, or it is to end
  std::atomic<bool> alive_{true}, ending_{false};
  Thread thread_;
};

}  // namespace bulkhead::block::nbd
